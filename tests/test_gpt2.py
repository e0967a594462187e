"""helpers/gpt2 compared with transformers and the real minGPT: the cache, folders of weights, and the clone."""

import contextlib
import json
import os
import runpy
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from transformers import GPT2LMHeadModel

from helpers.cli import Unreachable, UserError
from helpers.gpt2 import mingpt
from helpers.gpt2.mingpt import choose_gpt, to_mingpt
from helpers.gpt2.weights import load_language_model, read_folder
from tests.tiny_gpt2 import BACKENDS, MINGPT, make_tiny, needs_mingpt, only_tokenizer_json, sample_texts

BPE = Path(os.environ.get("GPT2_DIR") or Path(os.environ.get("IMDB_DIR", "nowhere"), "gpt2")).resolve()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def writable(folder, tmp_path):
    """A copy of the folder that a test may change."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


# ---- The cache

@pytest.fixture(scope="module")
def pair(folder):
    """(minGPT's GPT with our cache, transformers' GPT2LMHeadModel, minGPT's class) with the same weights."""
    GPT, (reference, _) = choose_gpt("mingpt", MINGPT), read_folder(folder)
    return to_mingpt(reference, GPT), reference, GPT


def random_ids(*shape, seed=1):
    return torch.randint(300, shape, generator=torch.Generator().manual_seed(seed))


@needs_mingpt
def test_logits_equal_those_of_transformers(pair):
    model, reference, _ = pair
    ids = random_ids(3, 64)
    with torch.inference_mode():
        expected = reference(ids).logits  # (B, T, V)
        torch.testing.assert_close(model(ids)[0], expected, rtol=0, atol=1e-4)
        model.cache = {}
        for end in [5, *range(6, 65)]:  # a prompt, then one token after the other
            torch.testing.assert_close(model(ids[:, :end])[0][:, 0], expected[:, end - 1], rtol=0, atol=1e-4)
        model.cache = None


@needs_mingpt
@pytest.mark.parametrize(("length", "new"), [(1, 40), (2, 62), (7, 40), (24, 60), (64, 5), (70, 3)])
def test_greedy_ids_equal_those_of_mingpt_and_transformers(pair, length, new):
    model, reference, GPT = pair  # with room for 64 tokens
    prompts = random_ids(4, length, seed=length)
    ids = model.generate(prompts, new)
    assert torch.equal(ids, GPT.generate(model, prompts, new))
    if length + new <= 64:
        assert torch.equal(ids, reference.generate(prompts, max_new_tokens=new, do_sample=False, eos_token_id=None))


@needs_mingpt
def test_samples_equal_those_of_mingpt_in_any_order_of_calls(pair):
    model, _, GPT = pair
    prompts, longer = random_ids(4, 5), random_ids(4, 12)
    longer[:, :5] = prompts  # begins like an earlier call
    calls = [prompts, longer, prompts, prompts[:2], longer[:, :6], longer.flip(0), prompts, prompts]
    for number, ids in enumerate(calls):
        model.train(number == 6)  # with dropout
        torch.manual_seed(3)
        ours = model.generate(ids, max_new_tokens=9, temperature=1.7, do_sample=True, top_k=7)
        torch.manual_seed(3)
        assert torch.equal(ours, GPT.generate(model, ids, 9, 1.7, True, 7))
        model(longer)  # between the calls this is minGPT's own forward
    with pytest.raises(RuntimeError):
        model.generate(prompts, 3, top_k=301)  # more than the vocabulary has
    logits, loss = model(longer, longer)
    assert logits.shape == (4, 12, 300)
    assert loss > 0


@needs_mingpt
def test_only_new_positions_are_computed(pair):
    model, _, _ = pair
    seen = []
    hooks = [module.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0].size(1)))
             for module in (model.transformer.h[0].ln_2, model.lm_head)]
    model.generate(random_ids(2, 5), 3)
    for hook in hooks:
        hook.remove()
    assert seen == [5, 1, 1, 1, 1, 1]


@needs_mingpt
def test_both_backends_give_the_same_texts(folder):
    assert sample_texts(folder, "mingpt") == sample_texts(folder, "transformers")
    assert "mingpt.bpe" not in sys.modules  # Python 3.12 and newer warn about an escape in it


# ---- Other forms of the folder: the texts stay the same

def rewrite(name, change):
    """Return a function that changes the bytes of a file in a folder."""
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def configured(name="config.json", **changes):
    """Return a function that changes a JSON file in a folder."""
    return rewrite(name, lambda content: json.dumps(json.loads(content) | changes).encode())


def other_end(folder):
    """Rename the end token, and name its id only in the generation config."""
    rewrite("vocab.json", lambda content: content.replace(b"<|endoftext|>", b"</s>"))(folder)
    configured(eos_token_id=None)(folder)
    configured("generation_config.json", eos_token_id=[0])(folder)


def added_token(folder):
    (folder / "added_tokens.json").write_text('{"<|pad|>": 300}', encoding="utf-8")


def resaved(change, **options):
    """Return a function that loads a folder's network, calls `change` on it, and saves it again."""
    def resave(folder):
        model = GPT2LMHeadModel.from_pretrained(folder)
        with torch.no_grad():
            change(model)
        (folder / "model.safetensors").unlink()
        model.save_pretrained(folder, **options)
    return resave


def resized(rows):
    """Return a function that adds rows to a network; without a limit they would be sampled in every step."""
    def change(model):
        model.resize_token_embeddings(rows)
        model.transformer.wte.weight[300:] = 20 * model.transformer.wte.weight[:rows - 300]
    return resaved(change)


sharded = resaved(lambda model: None, max_shard_size="30KB")


def old_format(folder, without=None):
    state = GPT2LMHeadModel.from_pretrained(folder).state_dict()
    torch.save({name: tensor for name, tensor in state.items() if name != without}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("change", [
    only_tokenizer_json, other_end, added_token, resized(304), resized(320), sharded, old_format,
    resaved(GPT2LMHeadModel.half), resaved(GPT2LMHeadModel.bfloat16),
    rewrite("merges.txt", lambda content: content.replace(b"\n", b"\r\n")),
    configured("generation_config.json", top_p=0.1, repetition_penalty=3.0, max_length=3, num_beams=2)])
def test_other_form_of_the_folder_gives_the_same_texts(folder, writable, change, backend):
    change(writable)
    assert sample_texts(writable, backend) == sample_texts(folder, backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_added_token_with_a_row_in_the_network(writable, backend):
    resized(301)(writable)
    added_token(writable)
    expected = sample_texts(writable, backend)
    assert load_language_model(writable, "tiny", choose_gpt(backend, MINGPT)).model.lm_head.out_features == 301
    only_tokenizer_json(writable)
    assert sample_texts(writable, backend) == expected


def test_end_token_ends_the_text_and_is_not_shown(writable):
    other_end(writable)
    configured("generation_config.json", eos_token_id=[0, 7])(writable)
    language_model = load_language_model(writable, "tiny", None)
    ids = language_model.encode("This film is not")
    for ended in ([*ids, 0, *ids], [*ids, 7, 0]):
        assert language_model.decode(ended) == "This film is not\n"
    assert language_model.decode([*ids, *ids]) == "This film is notThis film is not"


@needs_mingpt
@pytest.mark.skipif(not BPE.is_dir(), reason="no tokenizer of GPT-2: set GPT2_DIR, or IMDB_DIR with gpt2/ in it")
def test_tokenizer_of_gpt2_equals_that_of_mingpt(tmp_path):
    pytest.importorskip("requests")  # minGPT's tokenizer imports it
    folder = make_tiny(tmp_path / "gpt2", vocab_size=50257, n_embd=8, eos_token_id=50256)
    shutil.copy(BPE / "encoder.json", folder / "vocab.json")
    shutil.copy(BPE / "vocab.bpe", folder / "merges.txt")
    language_model = load_language_model(folder, "gpt2", None)
    merges = (BPE / "vocab.bpe").read_text(encoding="utf-8").split("\n")[1:-1]
    with warnings.catch_warnings(action="ignore"):  # Python 3.12 and newer warn about an escape in it
        Encoder = runpy.run_path(MINGPT / "mingpt" / "bpe.py")["Encoder"]
    encoder = Encoder(json.loads((BPE / "encoder.json").read_text()), [tuple(merge.split()) for merge in merges])
    for text in ("My name", "Hello!! I'm Andrej. It's 2022, we'll see \U0001f917\U0001f468‍\U0001f469‍\U0001f467 :D",
                 "  two  spaces\tand\n\n tabs \u00a0\u3000", "naïve café — “quotes” … Ω≈ç√",
                 "DON'T don't 3.50\r\n\x00"):
        assert language_model.encode(text) == encoder.encode(text)
        assert language_model.decode(language_model.encode(text)) == text


# ---- Folders that are refused in one sentence

not_finite = resaved(lambda model: torch.nn.init.constant_(model.transformer.h[1].ln_1.weight, float("nan")))


def both(*changes):
    return lambda folder: [change(folder) for change in changes]


def without(name):
    return lambda folder: (folder / name).unlink()


def truncated(name):
    return rewrite(name, lambda content: content[:-999])


UNUSABLE = {
    "not a Hugging Face GPT-2 folder": [
        shutil.rmtree, without("config.json"), without("model.safetensors"), without("vocab.json"),
        without("merges.txt")],
    "damaged": [
        truncated("model.safetensors"),
        both(old_format, truncated("pytorch_model.bin")),
        both(sharded, lambda folder: sorted(folder.glob("model-*"))[1].unlink()),
        rewrite("config.json", lambda content: b"{no"),
        rewrite("vocab.json", lambda content: b"{no"),
        rewrite("merges.txt", lambda content: b"{no"),
        rewrite("merges.txt", lambda content: b"\xef\xbb\xbf" + content),
        configured(n_embd=48), configured(vocab_size=400)],
    "do not belong to the network": [
        lambda folder: old_format(folder, without="transformer.h.1.mlp.c_fc.bias"),
        configured(n_layer=1), configured(n_layer=3)],
    "300 tokens": [resized(400)],
    "NaN or infinity": [not_finite],
}


@pytest.mark.parametrize(("words", "damage"), [(words, damage) for words in UNUSABLE for damage in UNUSABLE[words]])
def test_unusable_folder(writable, damage, words):
    damage(writable)
    with pytest.raises(UserError, match=words):
        load_language_model(writable, "tiny", None)


@needs_mingpt
@pytest.mark.parametrize("setting", [{"activation_function": "relu"}, {"n_inner": 48}, {"layer_norm_epsilon": 1e-3},
                                     {"scale_attn_by_inverse_layer_idx": True}, {"scale_attn_weights": False}])
def test_network_that_mingpt_does_not_support(tmp_path, setting):
    folder = make_tiny(tmp_path / "other", **setting)
    with pytest.raises(UserError, match=f"{next(iter(setting))}.*--backend transformers"):
        load_language_model(folder, "tiny", choose_gpt("mingpt", MINGPT))
    assert sample_texts(folder, "transformers")


# ---- The clone of minGPT

@pytest.mark.skipif(not shutil.which("git"), reason="no git")
def test_clone_is_whole_or_absent(monkeypatch, tmp_path):
    def git(*options):
        return subprocess.run(["git", "-C", tmp_path / "origin", "-c", "user.name=a", "-c", "user.email=b", *options],
                              check=True, capture_output=True, text=True).stdout.strip()

    (tmp_path / "origin" / "mingpt").mkdir(parents=True)
    (tmp_path / "origin" / "mingpt" / "model.py").write_text("GPT = None\n")
    git("init", "--quiet")
    git("add", ".")
    git("commit", "--quiet", "-m", "first")
    commit = git("rev-parse", "HEAD")
    git("rm", "--quiet", "-r", "mingpt")
    git("commit", "--quiet", "-m", "second")
    monkeypatch.setattr(mingpt, "open_url", contextlib.nullcontext)
    monkeypatch.setattr(mingpt, "MINGPT_URL", str(tmp_path / "origin"))
    monkeypatch.setattr(mingpt, "MINGPT_COMMIT", "0" * 40)
    with pytest.raises(Unreachable):
        mingpt.clone_mingpt(tmp_path / "minGPT")
    assert [path.name for path in tmp_path.iterdir()] == ["origin"]
    monkeypatch.setattr(mingpt, "MINGPT_COMMIT", commit)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "mingpt", None)
    monkeypatch.setattr(mingpt, "import_gpt", lambda folder: folder)
    (tmp_path / "minGPT").mkdir()  # an empty folder is as good as none
    folder = mingpt.choose_gpt("mingpt", None)
    assert (tmp_path / folder / "mingpt" / "model.py").is_file()
