"""minGPT: find or clone it, give it a key/value cache, and copy GPT-2's weights into it."""

import contextlib
import importlib.util
import io
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

from helpers.cli import Unreachable, UserError
from helpers.downloads import open_url

# torch and minGPT are imported inside the functions, so that --help and refusals are quick.

MINGPT_URL = "https://github.com/karpathy/minGPT"
MINGPT_COMMIT = "37baab71b9abea1b76ab957409a1cc2fbfba8a26"
TEMPORARY = ".minGPT-"  # the name of a clone that is not complete starts with this
# transformers stores these weights in Conv1D layers, as the transpose of minGPT's nn.Linear weights.
TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")


def choose_gpt(backend, folder):
    """Return minGPT's class `GPT`, or None if transformers' GPT2LMHeadModel is to be used instead.

    minGPT is imported from `folder`. Without `folder` it is the installed package, else ./minGPT, cloned if it is
    missing or empty. Raises UserError if minGPT is of another version, or if it cannot be cloned and `backend` asks
    for it.
    """
    if backend == "transformers":
        return None
    if not folder and not is_installed():
        folder = Path("minGPT")
        try:
            if is_missing_or_empty(folder):
                clone_mingpt(folder)
        except Unreachable as error:
            if backend:
                raise UserError(f"minGPT is unavailable: {error}; give the path of a clone with "
                                "--mingpt-dir.") from error
            print(f"notice: minGPT is unavailable: {error}. Using GPT2LMHeadModel from transformers instead.")
            return None
    return import_gpt(folder)


def is_installed():
    """Return whether Python finds minGPT. A folder called mingpt without code is only a namespace, with no origin."""
    spec = importlib.util.find_spec("mingpt")
    return spec is not None and spec.origin is not None


def is_missing_or_empty(folder):
    """Return whether minGPT can be cloned into `folder`."""
    return not folder.exists() or (folder.is_dir() and not any(folder.iterdir()))


def import_gpt(folder):
    """Return the class `GPT` of the clone in `folder`, or of the installed package if `folder` is None.

    Raises UserError if the import fails, or if `GPT` does not work as at MINGPT_COMMIT.
    """
    try:
        if folder:
            if not Path(folder, "mingpt", "model.py").is_file():
                raise UserError("mingpt/model.py is missing")
            sys.path.insert(0, str(Path(folder).resolve()))
        from mingpt.model import GPT

        check_gpt(GPT)
    except Exception as error:  # the code of another version can fail in any way
        place = folder or "the installed package mingpt"
        reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        raise UserError(f"{place} is not the minGPT that this program needs ({textwrap.shorten(reason, 150)}); give "
                        f"the path of a clone of {MINGPT_URL} at commit {MINGPT_COMMIT} with --mingpt-dir.") from error
    return GPT


def check_gpt(GPT):
    """Raise an error unless minGPT's class `GPT` computes and generates the same as transformers.

    The networks are tiny and have random weights. This uses every name of minGPT that `to_mingpt` and the cache need.
    """
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    sizes = {"vocab_size": 8, "n_positions": 8, "n_embd": 8, "n_layer": 2, "n_head": 2}
    reference = GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).eval()
    model = to_mingpt(reference, GPT)
    ids = torch.tensor([[1, 2, 3], [7, 5, 6]])
    with torch.inference_mode():
        if not torch.allclose(model(ids)[0], reference(ids).logits, atol=1e-4):
            raise UserError("its logits differ from those of transformers")
        options = {"max_new_tokens": 7, "temperature": 1.0, "do_sample": True, "top_k": 1}
        if not torch.equal(model.generate(ids, **options), GPT.generate(model, ids, **options)):
            raise UserError("its method generate differs")


def clone_mingpt(folder):
    """Clone minGPT into `folder`, at the commit that this program was written for.

    Raises Unreachable if that fails; then `folder` is unchanged.
    """
    print(f"cloning minGPT from {MINGPT_URL} at commit {MINGPT_COMMIT[:7]} into {folder}/", flush=True)
    with open_url(MINGPT_URL):
        pass  # fails at once without a network; git would try for minutes
    folder = folder.resolve()  # if it is a link, its target is replaced
    clone = ["git", "clone", "--quiet", "--no-checkout", MINGPT_URL, "clone"]
    checkout = ["git", "-C", "clone", "checkout", "--quiet", MINGPT_COMMIT]
    for leftover in folder.parent.glob(f"{TEMPORARY}*"):  # of killed processes
        if time.time() - leftover.stat().st_mtime > 3600:  # seconds; a clone takes less
            shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=TEMPORARY) as temporary:
        try:
            for command in (clone, checkout):
                subprocess.run(command, cwd=temporary, check=True, capture_output=True, timeout=300)
            Path(temporary, "clone").rename(folder)
        except (OSError, subprocess.SubprocessError) as error:
            raise Unreachable(f"git cannot clone {MINGPT_URL} ({type(error).__name__})") from error


def cached_gpt(GPT):
    """Return a subclass of minGPT's `GPT` that caches keys and values during `generate`.

    Each step then computes only the new position. minGPT itself computes all positions again in each step.
    """
    import torch

    class CachedGPT(GPT):
        cache = None  # during generate: layer -> (keys, values) so far, each (B, heads, positions, C / heads)

        def generate(self, *args, **options):
            self.cache = {}
            try:
                return super().generate(*args, **options)
            finally:
                self.cache = None

        def forward(self, idx, targets=None):
            """Return (logits, loss) as minGPT does; during `generate`, only logits of the last position: (B, 1, V)."""
            if self.cache is None or self.training:  # the code below has no dropout
                return super().forward(idx, targets)
            T = idx.size(1)
            cached = self.cache[0][0].size(2) if self.cache else 0
            if cached == T:  # block_size is reached: generate drops the first token, and all positions shift
                self.cache, cached = {}, 0
            positions = torch.arange(cached, T, device=idx.device)
            x = self.transformer.wte(idx[:, cached:]) + self.transformer.wpe(positions)  # (B, T - cached, C)
            for layer, block in enumerate(self.transformer.h):
                y, self.cache[layer] = attend(block.attn, block.ln_1(x), self.cache.get(layer))
                x = x + y
                x = x + block.mlpf(block.ln_2(x))
            return self.lm_head(self.transformer.ln_f(x[:, -1:])), None

    return CachedGPT


def attend(attention, x, past):
    """Return minGPT's self-attention for new positions x (B, T, C), and the keys and values of all positions.

    `past` is the pair of keys and values of the earlier positions, each (B, heads, positions, C / heads), or None.
    """
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    B, T, C = x.shape
    qkv = attention.c_attn(x).view(B, T, 3, attention.n_head, C // attention.n_head)
    q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each (B, heads, T, C / heads)
    if past is not None:
        past_k, past_v = past
        k, v = torch.cat((past_k, k), dim=2), torch.cat((past_v, v), dim=2)
    # With a past there is one new position, and it may attend to all positions: no mask.
    y = scaled_dot_product_attention(q, k, v, is_causal=past is None)
    return attention.c_proj(y.transpose(1, 2).reshape(B, T, C)), (k, v)


def to_mingpt(reference, GPT):
    """Return minGPT's `GPT`, with a cache, with the weights of `reference`, a GPT2LMHeadModel of transformers.

    Raises UserError if the reference has a setting that minGPT does not support.
    """
    source = reference.config
    check_supported(source)
    config = GPT.get_default_config()
    config.merge_from_dict({"model_type": None, "n_layer": source.n_layer, "n_head": source.n_head,
                            "n_embd": source.n_embd, "vocab_size": source.vocab_size, "block_size": source.n_positions})
    with contextlib.redirect_stdout(io.StringIO()):  # minGPT prints its number of parameters
        model = cached_gpt(GPT)(config)
    # minGPT's own GPT.from_pretrained is not used, because it fails with transformers 4.30 and newer. It asserts that
    # both state dicts have the same number of keys: len(keys) == len(sd). But the state dict of minGPT contains the
    # causal mask of each layer (attn.bias), and the one of transformers no longer does.
    copy_weights(reference.state_dict(), model)
    return model.eval()


def check_supported(config):
    """Raise UserError if a GPT2Config of transformers differs from a setting that is fixed in minGPT."""
    fixed = {"activation_function": "gelu_new", "layer_norm_epsilon": 1e-5, "n_inner": 4 * config.n_embd,
             "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False}
    for name, supported in fixed.items():
        value = getattr(config, name)
        if value not in (supported, None):  # None is the default, which equals minGPT's value
            raise UserError(f"these weights need {name}={value}, but minGPT only supports {supported}; run again with "
                            "--backend transformers.")


def copy_weights(state, model):
    """Copy the state dict of a GPT2LMHeadModel into minGPT's network."""
    import torch

    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            if name.endswith(".attn.bias"):  # the causal mask: not a weight
                continue
            source = state[name]
            tensor.copy_(source.t() if name.endswith(TRANSPOSED) else source)
