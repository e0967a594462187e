"""GPT-2 from a clone of minGPT, or from transformers: where network, weights and tokenizer come from."""

import contextlib
import importlib.util
import io
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.cli import Unreachable, UserError
from helpers.files import file_digest, open_url

# torch, transformers and minGPT are imported where they are used, so that --help and refusals are quick.

MODELS = ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"]
HUB_FILES = ["config.json", "model.safetensors", "tokenizer.json"]
COOLEST = 0.01  # the lowest temperature; sampling divides by it
TOKENIZERS = [{"tokenizer.json"}, {"vocab.json", "merges.txt"}]  # in files of newer and older folders
OWN_GPT = Path(__file__).parent.parent / "pretrained" / "gpt-reviews"
MINGPT_URL = "https://github.com/karpathy/minGPT"
MINGPT_COMMIT = "37baab71b9abea1b76ab957409a1cc2fbfba8a26"
# transformers keeps these as the transposed matrices of its Conv1D.
TRANSPOSED = ("attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight")


def cached_gpt(GPT):
    """Return a subclass of minGPT's `GPT` whose `generate` keeps keys and values, and computes new positions alone."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    class CachedGPT(GPT):
        cache = None  # while it generates: layer -> keys and values so far (2, B, heads, positions, C / heads)

        def generate(self, *args, **options):
            self.cache = {}
            try:
                return super().generate(*args, **options)
            finally:
                self.cache = None

        def forward(self, idx, targets=None):
            """Return (logits, loss) like minGPT; while it generates, of the last position alone: (B, 1, V) and None."""
            if self.cache is None or self.training:  # the cached way has no dropout
                return super().forward(idx, targets)
            (B, T), net = idx.shape, self.transformer
            held = self.cache[0].size(3) if self.cache else 0
            if held == T:  # at block_size, generate drops the first token, and each position is another one's
                held = 0
            x = net.wte(idx[:, held:]) + net.wpe(torch.arange(held, T, device=idx.device))  # (B, T - held, C)
            for layer, block in enumerate(net.h):
                qkv = block.attn.c_attn(block.ln_1(x)).view(B, T - held, 3, block.attn.n_head, -1)
                q, kv = qkv.permute(2, 0, 3, 1, 4).split([1, 2])  # (1 or 2, B, heads, T - held, C / heads)
                self.cache[layer] = torch.cat((self.cache[layer], kv), dim=3) if held else kv
                y = scaled_dot_product_attention(q[0], *self.cache[layer], is_causal=held == 0)
                x = x + block.attn.c_proj(y.transpose(1, 2).reshape(B, T - held, -1))
                x = x + block.mlpf(block.ln_2(x))
            return self.lm_head(net.ln_f(x[:, -1:])), None

    return CachedGPT


def to_mingpt(reference, GPT):
    """Return minGPT's `GPT`, with a cache, that has the weights of transformers' GPT2LMHeadModel.

    Raises UserError if the reference is built in a way that minGPT does not know.
    """
    import torch

    theirs, config = reference.config, GPT.get_default_config()
    for key, built_in in dict(activation_function="gelu_new", layer_norm_epsilon=1e-5, n_inner=4 * theirs.n_embd,
                              scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False).items():
        if getattr(theirs, key) not in (built_in, None):  # None: the default
            raise UserError(f"minGPT's {key} is {built_in}, and these weights need {getattr(theirs, key)}; run again "
                            "with --backend transformers.")
    config.merge_from_dict(dict(model_type=None, n_layer=theirs.n_layer, n_head=theirs.n_head, n_embd=theirs.n_embd,
                                vocab_size=theirs.vocab_size, block_size=theirs.n_positions))
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its number of parameters
        model = cached_gpt(GPT)(config)
    state = reference.state_dict()
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if not key.endswith(".attn.bias"):  # the causal mask, which is no weight
                tensor.copy_(state[key].t() if key.endswith(TRANSPOSED) else state[key])  # Conv1D -> Linear
    return model.eval()


def choose_gpt(backend, folder):
    """Return minGPT's class `GPT`; None if transformers was asked for, or has to take its place.

    It is that of `folder`, the installed package, ./minGPT, or a clone made there. Raises UserError if it is none.
    """
    if backend == "transformers":
        return None
    if not folder and importlib.util.find_spec("mingpt") is None:
        folder = "minGPT"
        try:
            if not Path(folder).exists():
                clone_mingpt(Path(folder))
        except Unreachable as error:
            if backend:
                raise UserError(f"minGPT is unavailable: {error}; name a clone of it with --mingpt-dir.") from error
            print(f"notice: minGPT is unavailable: {error}. GPT2LMHeadModel of transformers takes its place.")
            return None
    if folder:
        if not Path(folder, "mingpt", "model.py").is_file():
            raise UserError(f"{folder} is not a clone of minGPT: it has no mingpt/model.py.")
        sys.path.insert(0, str(Path(folder).resolve()))
    try:
        from mingpt.model import GPT
    except (ImportError, SyntaxError) as error:
        raise UserError(f"minGPT cannot be imported ({error}); name a clone of it with --mingpt-dir.") from error
    return GPT


def clone_mingpt(folder):
    """Clone minGPT to `folder`, whole or not at all, at the commit that this program was written for."""
    print(f"minGPT is not here: cloning {MINGPT_URL} at {MINGPT_COMMIT[:7]} into {folder}/", flush=True)
    with open_url(MINGPT_URL):
        pass  # git would try for minutes
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".minGPT-") as temporary:
        try:
            for command in (["clone", "--quiet", "--no-checkout", MINGPT_URL, "clone"],
                            ["-C", "clone", "checkout", "--quiet", MINGPT_COMMIT]):
                subprocess.run(["git", *command], cwd=temporary, check=True, capture_output=True, timeout=300)
            Path(temporary, "clone").rename(folder)
        except (OSError, subprocess.SubprocessError) as error:
            raise Unreachable(f"git cannot clone {MINGPT_URL} ({type(error).__name__})") from error


def hub_folder(name):
    """Return the folder of `name` (one of MODELS) in the hub's cache, downloaded if need be; raises Unreachable."""
    os.environ["HF_ENDPOINT"] = address = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # both are read when the library is imported
    from transformers.utils import cached_file  # it puts a file into the cache when it is whole

    def fetch(**options):
        return [Path(cached_file(f"openai-community/{name}", file, **options)).parent for file in HUB_FILES][0]

    with contextlib.suppress(OSError, ValueError):  # not in the cache
        return fetch(local_files_only=True)
    with open_url(f"{address}/openai-community/{name}/resolve/main/config.json"):
        pass  # the hub's library would try for minutes
    try:
        return fetch()
    except Exception as error:  # its kinds differ from version to version
        raise Unreachable(f"{address} answers, but does not give it ({type(error).__name__})") from error


def choose_folder(model, weights):
    """Return the folder with the weights, and their name: those asked for, or those available."""
    if weights is not None:
        return Path(weights), Path(weights).resolve().name
    name = model or MODELS[0]
    try:
        return hub_folder(name), name
    except Unreachable as error:
        if model or not OWN_GPT.is_dir():
            raise UserError(f"{name} is unavailable: {error}; run again with a network, or name a local folder with "
                            "--weights.") from error
        print(f"notice: {name} is unavailable: {error}. The sentences are by {OWN_GPT.name}, a small GPT of this "
              "project's own that was trained on film reviews; it is not GPT-2.")
        return OWN_GPT, OWN_GPT.name


def weights_files(folder):
    """Return the paths of the weights, several if they are sharded; raises UserError if a file is missing."""
    paths = sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    found = {path.name for path in folder.glob("*")}
    if not paths or "config.json" not in found or not any(map(found.issuperset, TOKENIZERS)):
        raise UserError(f"{folder} is not a Hugging Face GPT-2 folder: it needs config.json, model.safetensors or "
                        "pytorch_model.bin, and tokenizer.json or vocab.json and merges.txt.")
    return paths


def read_folder(folder):
    """Return the GPT2LMHeadModel of a Hugging Face folder, in float32, and its tokenizer, both by transformers.

    Raises UserError if a file is damaged, or if they are not a GPT-2 and its tokenizer.
    """
    import transformers

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        model, report = transformers.GPT2LMHeadModel.from_pretrained(
            str(folder), output_loading_info=True, local_files_only=True)
        tokenizer = transformers.AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # a damaged file can fail in many ways, and none of them is of use to the reader
        raise UserError(f"{folder}: its weights or the files beside them are damaged, or do not fit each other; get "
                        "all of them again.") from error
    if report["missing_keys"] or any(".mlp." in key for key in report["unexpected_keys"]):
        raise UserError(f"{folder} holds another kind of network than its config.json says; name a GPT-2 folder with "
                        "--weights.")
    if not all(weights.isfinite().all() for weights in model.parameters()):
        raise UserError(f"{folder}: its weights are not finite numbers; get them again.")
    rows, added = model.config.vocab_size, tokenizer.get_added_vocab()
    ids = sorted(id for token, id in tokenizer.get_vocab().items() if id < rows or token not in added)
    # The network may have more rows than there are tokens: padding up to a number that GPUs like.
    if ids != list(range(len(ids))) or all(rows != -(-len(ids) // step) * step for step in (1, 8, 64, 128)):
        raise UserError(f"{folder} has a tokenizer of {len(ids):,} tokens for a network of {rows:,}; put the network's "
                        "own there.")
    model.resize_token_embeddings(len(ids))  # or padding could be drawn
    return model.float().eval(), tokenizer


@dataclass
class Writer:
    """A network with its tokenizer, and what there is to say of them."""
    model: Any  # minGPT's GPT, or transformers' GPT2LMHeadModel: either has a method `generate`
    tokenizer: Any
    device: str  # where the network is
    ends: set  # the ids that end a text
    positions: int  # the most that the network has room for
    temperature: float  # that suits it
    facts: dict

    def encode(self, text):
        """Return the ids of `text`."""
        return self.tokenizer.encode(text, add_special_tokens=False)

    def decode(self, ids):
        """Return the text of `ids` up to the end of a text, for which a line break stands."""
        end = next((i for i, id in enumerate(ids) if id in self.ends), None)
        text = self.tokenizer.decode(ids[:end], clean_up_tokenization_spaces=False)
        return text if end is None else text + "\n"


def load_writer(folder, name, GPT):
    """Return the Writer of a folder: with minGPT's class `GPT`, or with transformers' network if that is None."""
    import torch
    from transformers import GenerationConfig

    paths, (reference, tokenizer) = weights_files(folder), read_folder(folder)
    generation, reference.generation_config = reference.generation_config, GenerationConfig()  # the options decide
    ends = {id for id, token in tokenizer.added_tokens_decoder.items() if token.special}
    for end in (generation.eos_token_id, reference.config.eos_token_id):
        ends.update(end if isinstance(end, list) else [end])
    temperature = generation.temperature or 1.0
    if not isinstance(temperature, int | float) or not COOLEST <= temperature < float("inf"):
        raise UserError(f"{folder}: the temperature in its generation_config.json, {temperature!r}, is not a number of "
                        f"at least {COOLEST}; mend it, or delete that file.")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = (to_mingpt(reference, GPT) if GPT else reference).to(device)
    facts = {"model": name, "parameters": reference.num_parameters(), "weights": ", ".join(path.name for path in paths),
             "weights_sha256": ", ".join(map(file_digest, paths)), "backend": "mingpt" if GPT else "transformers",
             "device": torch.cuda.get_device_name() if device == "cuda" else "CPU"}
    return Writer(model, tokenizer, device, ends, reference.config.n_positions, temperature, facts)
