"""helpers/gpt2.py beside transformers and the real minGPT: the cache, and the folders that people have."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, GPT2LMHeadModel

from helpers import gpt2
from helpers.cli import Unreachable, UserError
from helpers.gpt2 import choose_gpt, load_writer, read_folder, to_mingpt
from tests.tiny_gpt2 import BACKENDS, MINGPT, make_tiny, needs_mingpt, write


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def writable(folder, tmp_path):
    """A copy of the folder that a test may change."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def change_json(path, **changes):
    content = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps(content | changes), encoding="utf-8")


# ---- The cache

@pytest.fixture(scope="module")
def pair(folder):
    """(minGPT's GPT with our cache, transformers' GPT2LMHeadModel, minGPT's class) of the same weights."""
    GPT, reference = choose_gpt("mingpt", MINGPT), read_folder(folder)[0]
    return to_mingpt(reference, GPT), reference, GPT


def random_ids(*shape, seed=1):
    return torch.randint(300, shape, generator=torch.Generator().manual_seed(seed))


@needs_mingpt
def test_logits_equal_those_of_transformers(pair):
    model, reference, GPT = pair
    ids = random_ids(3, 64)
    with torch.inference_mode():
        expected = reference(ids).logits  # (B, T, V)
        torch.testing.assert_close(model(ids)[0], expected, rtol=0, atol=1e-4)
        model.cache = {}
        for end in [5, *range(6, 65)]:  # a prompt, and then token after token
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
def test_draws_equal_those_of_mingpt_in_any_order_of_calls(pair):
    model, _, GPT = pair
    prompts, longer = random_ids(4, 5), random_ids(4, 12)
    longer[:, :5] = prompts  # what an earlier call has seen, and more
    for ids in (prompts, longer, prompts, prompts[:2], longer[:, :6], longer + 1 - 2 * (longer > 0)):
        torch.manual_seed(3)
        ours = model.generate(ids, max_new_tokens=9, temperature=1.7, do_sample=True, top_k=7)
        torch.manual_seed(3)
        assert torch.equal(ours, GPT.generate(model, ids, 9, 1.7, True, 7))
        model(longer)  # between the calls it is minGPT's own forward
    with pytest.raises(RuntimeError):
        model.generate(prompts, 3, top_k=301)  # more than there are
    assert model(longer, longer)[0].shape == (4, 12, 300)
    assert model(longer, longer)[1] > 0


@needs_mingpt
def test_only_new_positions_are_computed(pair):
    model, _, GPT = pair
    seen = []
    hook = model.transformer.ln_f.register_forward_hook(lambda _, inputs, output: seen.append(tuple(inputs[0].shape)))
    mlp = model.transformer.h[0].ln_2.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0].size(1)))
    model.generate(random_ids(2, 5), 3)
    hook.remove()
    mlp.remove()
    assert seen == [5, (2, 1, 32), 1, (2, 1, 32), 1, (2, 1, 32)]


@needs_mingpt
def test_tokens_are_drawn_as_often_as_they_should(pair):
    model, reference, _ = pair
    prompt, temperature, top_k, count = torch.tensor([[5, 6]]), 1.7, 7, 20_000
    with torch.inference_mode():
        values, tokens = (reference(prompt).logits[0, -1] / temperature).topk(top_k)
    torch.manual_seed(0)
    drawn = model.generate(prompt.expand(count, 2), 1, temperature, do_sample=True, top_k=top_k)[:, 2]
    shares = torch.stack([(drawn == token).float().mean() for token in tokens])
    assert shares.sum() == pytest.approx(1)
    torch.testing.assert_close(shares, values.softmax(0), rtol=0, atol=0.015)


@needs_mingpt
def test_both_backends_write_the_same(folder):
    assert write(folder, "mingpt", ["My name", "This film"]) == write(folder, "transformers", ["My name", "This film"])


# ---- Folders that people have: each writes as its plain twin does

def only_tokenizer_json(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for name in ("vocab.json", "merges.txt"):
        (folder / name).unlink()
    tokenizer.save_pretrained(folder)
    assert not (folder / "vocab.json").exists()


def other_end(folder):
    """The end token has another name, and stands in the generation's settings among others."""
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    vocabulary = {"</s>" if token == "<|endoftext|>" else token: id for token, id in vocabulary.items()}
    (folder / "vocab.json").write_text(json.dumps(vocabulary), encoding="utf-8")
    change_json(folder / "config.json", eos_token_id=None)
    change_json(folder / "generation_config.json", eos_token_id=[0])


def added_token(folder):
    """Tokenizer of one more token than the network has rows, as for padding in a training."""
    change_json(folder / "added_tokens.json", **{"<|pad|>": 300})


def padded(folder):
    model = GPT2LMHeadModel.from_pretrained(folder)
    model.resize_token_embeddings(320)
    with torch.no_grad():
        model.transformer.wte.weight[300:] = 20 * model.transformer.wte.weight[:20]  # would be drawn in every step
    model.save_pretrained(folder)


def sharded(folder):
    model = GPT2LMHeadModel.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="30KB")
    assert len(gpt2.weights_files(folder)) > 2


def old_format(folder):
    torch.save(GPT2LMHeadModel.from_pretrained(folder).state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def carriage_returns(folder):
    (folder / "merges.txt").write_bytes((folder / "merges.txt").read_bytes().replace(b"\n", b"\r\n"))


def wild_settings(folder):
    change_json(folder / "generation_config.json", top_p=0.1, repetition_penalty=3.0, max_length=3, num_beams=2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("change", [only_tokenizer_json, other_end, added_token, padded, sharded, old_format,
                                    carriage_returns, wild_settings])
def test_writes_as_its_plain_twin_does(folder, writable, change, backend):
    change(writable)
    assert write(writable, backend) == write(folder, backend)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_read_into_float32(writable, tmp_path, dtype):
    model = GPT2LMHeadModel.from_pretrained(writable).to(dtype)
    model.save_pretrained(writable)
    twin = Path(shutil.copytree(writable, tmp_path / "twin"))
    model.float().save_pretrained(twin)
    assert load_writer(writable, "tiny", None).model.dtype == torch.float32
    assert write(writable, "transformers") == write(twin, "transformers")


def test_tokenizer_of_as_many_tokens_as_gpt2_that_is_not_gpt2s(tmp_path):
    folder = make_tiny(tmp_path / "large", vocab_size=50257, n_embd=8)
    change_json(folder / "vocab.json", **{f"word{id}": id for id in range(300, 50257)})
    plain = write(folder, "transformers")
    only_tokenizer_json(folder)
    assert write(folder, "transformers") == plain


@pytest.mark.parametrize("backend", BACKENDS)
def test_added_token_that_the_network_has_a_row_for(writable, backend):
    model = GPT2LMHeadModel.from_pretrained(writable)
    model.resize_token_embeddings(301)
    model.save_pretrained(writable)
    added_token(writable)
    plain = write(writable, backend)
    assert load_writer(writable, "tiny", choose_gpt(backend, MINGPT)).model.lm_head.out_features == 301
    only_tokenizer_json(writable)
    (writable / "added_tokens.json").unlink()
    assert write(writable, backend) == plain


@pytest.mark.parametrize("backend", BACKENDS)
def test_end_token_ends_the_text_and_is_not_shown(writable, backend):
    other_end(writable)
    change_json(writable / "generation_config.json", eos_token_id=[0, 7])
    writer = load_writer(writable, "tiny", choose_gpt(backend, MINGPT))
    ids = writer.encode("This film is not")
    for end in (0, 7):
        assert writer.decode([*ids, end, *ids]) == "This film is not\n"
    assert writer.decode([*ids, *ids]) == "This film is notThis film is not"


def test_other_inner_size(tmp_path):
    folder = make_tiny(tmp_path / "inner", n_inner=48)
    assert len(write(folder, "transformers")) == 5


# ---- Folders that are refused in one true sentence

def without(name):
    return lambda folder: (folder / name).unlink()


def spoil(name):
    return lambda folder: (folder / name).write_text("{no", encoding="utf-8")


def configured(**changes):
    return lambda folder: change_json(folder / "config.json", **changes)


def truncate(folder):
    path = gpt2.weights_files(folder)[0]
    path.write_bytes(path.read_bytes()[:-1000])


def truncate_old_format(folder):
    old_format(folder)
    truncate(folder)


def lose_shard(folder):
    sharded(folder)
    gpt2.weights_files(folder)[1].unlink()


def lose_tensor(folder):
    old_format(folder)
    state = torch.load(folder / "pytorch_model.bin")
    del state["transformer.h.1.mlp.c_fc.bias"]
    torch.save(state, folder / "pytorch_model.bin")


def lose_token(folder):
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    kept = {token: id for token, id in vocabulary.items() if id < 299}
    (folder / "vocab.json").write_text(json.dumps(kept), encoding="utf-8")
    merges = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    (folder / "merges.txt").write_text("\n".join(merges[:-1]) + "\n", encoding="utf-8")


def byte_order_mark(folder):
    (folder / "merges.txt").write_bytes(b"\xef\xbb\xbf" + (folder / "merges.txt").read_bytes())


def not_finite(folder):
    model = GPT2LMHeadModel.from_pretrained(folder)
    with torch.no_grad():
        model.transformer.h[1].ln_1.weight[3] = float("nan")
    model.save_pretrained(folder)


@pytest.mark.parametrize(("damage", "words"), [
    (shutil.rmtree, "not a Hugging Face GPT-2 folder"), (without("config.json"), "not a Hugging Face GPT-2 folder"),
    (without("model.safetensors"), "not a Hugging Face GPT-2 folder"), (without("vocab.json"), "has no vocab.json"),
    (without("merges.txt"), "has no merges.txt"), (truncate, "damaged"), (truncate_old_format, "damaged"),
    (lose_shard, "damaged"), (lose_tensor, "another kind of network"), (spoil("config.json"), "damaged"),
    (spoil("vocab.json"), "damaged"), (spoil("merges.txt"), "damaged"), (byte_order_mark, "damaged"),
    (configured(n_embd=48), "damaged"), (configured(vocab_size=400), "damaged"),
    (configured(n_layer=1), "another kind of network"), (configured(n_layer=3), "another kind of network"),
    (lose_token, "299 tokens"), (not_finite, "not finite")])
def test_unusable_folder(writable, damage, words):
    damage(writable)
    with pytest.raises(UserError, match=words):
        load_writer(writable, "tiny", None)


@needs_mingpt
@pytest.mark.parametrize("setting", [{"activation_function": "relu"}, {"n_inner": 48}, {"layer_norm_epsilon": 1e-3},
                                     {"scale_attn_by_inverse_layer_idx": True}, {"scale_attn_weights": False}])
def test_network_that_mingpt_does_not_know(tmp_path, setting):
    folder = make_tiny(tmp_path / "other", **setting)
    with pytest.raises(UserError, match=f"{next(iter(setting))}.*--backend transformers"):
        load_writer(folder, "tiny", choose_gpt("mingpt", MINGPT))
    assert len(write(folder, "transformers")) == 5


# ---- minGPT's clone

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
    monkeypatch.setattr(gpt2, "probe", lambda url: None)
    monkeypatch.setattr(gpt2, "MINGPT_URL", str(tmp_path / "origin"))
    monkeypatch.setattr(gpt2, "MINGPT_COMMIT", "0" * 40)
    with pytest.raises(Unreachable):
        gpt2.clone_mingpt(tmp_path / "minGPT")
    assert [path.name for path in tmp_path.iterdir()] == ["origin"]
    monkeypatch.setattr(gpt2, "MINGPT_COMMIT", commit)
    gpt2.clone_mingpt(tmp_path / "minGPT")
    assert (tmp_path / "minGPT" / "mingpt" / "model.py").is_file()
