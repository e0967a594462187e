"""generate_gpt2.py: minGPT against transformers, ends of sentences, sampling, results, and substitutes.

The tests that need minGPT run if the environment variable MINGPT_DIR names a clone of it.
"""

import io
import json
import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
from tokenizers import ByteLevelBPETokenizer

import generate_gpt2
from generate_gpt2 import OWN_GPT, PREFIXES, find_mingpt, find_weights, first_sentence, load_weights
from helpers import UserError
from helpers.files import file_digest

NOWHERE = "http://127.0.0.1:9"  # nothing listens there
MINGPT = os.environ.get("MINGPT_DIR")
needs_mingpt = pytest.mark.skipif(not MINGPT, reason="MINGPT_DIR does not name a clone of minGPT")
MINGPT = MINGPT and Path(MINGPT).resolve()


@pytest.fixture(autouse=True)
def nothing_from_elsewhere(monkeypatch):
    """Run each test without minGPT and without a network."""
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    monkeypatch.setenv("HF_ENDPOINT", NOWHERE)
    monkeypatch.setattr(generate_gpt2, "MINGPT_URL", f"{NOWHERE}/minGPT")
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "mingpt"]:
        del sys.modules[name]  # so that each test imports its own minGPT


@pytest.fixture
def command(call):
    """A function that runs the command; returns exit code, standard output and standard error."""
    return partial(call, generate_gpt2.main)


@pytest.fixture
def tiny(tmp_path):
    """A folder with a GPT-2 of random weights and its tokenizer."""
    sizes = {"vocab_size": 300, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}
    config = transformers.GPT2Config(**sizes, initializer_range=0.3, eos_token_id=0)
    folder = tmp_path / "tiny"
    transformers.GPT2LMHeadModel(config).save_pretrained(folder, max_shard_size="50KB")
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(PREFIXES, vocab_size=300, min_frequency=1, show_progress=False,
                                  special_tokens=["<|endoftext|>"])
    tokenizer.save_model(str(folder))
    return folder


def read_result(folder):
    return json.loads(Path(folder, "gpt2_sentences.json").read_text(encoding="utf-8"))


# ---- minGPT

@needs_mingpt
def test_mingpt_with_copied_weights_equals_transformers(tiny):
    reference, _ = load_weights(tiny)
    model = generate_gpt2.to_mingpt(reference, find_mingpt(MINGPT))
    ids = torch.randint(300, (3, 64), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(model(ids)[0], reference(ids).logits, rtol=0, atol=1e-4)


@needs_mingpt
def test_both_backends_write_the_same_sentences(command):
    """The small GPT recommends a temperature; tiny differences of the logits do not change what is drawn."""
    for backend in ("mingpt", "transformers"):
        code, _, err = command("--weights", OWN_GPT, "--mingpt-dir", MINGPT, "--prefix", "This film",
                               "--backend", backend, "--out", backend)
        assert code == 0, err
        assert read_result(backend)["backend"] == backend
    assert read_result("mingpt")["sentences"] == read_result("transformers")["sentences"]


@pytest.mark.skipif(not shutil.which("git"), reason="no git")
def test_mingpt_is_cloned_at_the_pinned_commit(monkeypatch, tmp_path):
    def git(*options):
        command = ["git", "-C", "origin", "-c", "user.name=a", "-c", "user.email=b", *options]
        return subprocess.check_output(command, text=True).strip()

    Path("origin", "mingpt").mkdir(parents=True)
    git("init", "--quiet")
    for content in ("GPT = 'pinned'", "GPT = 'newest'"):
        Path("origin", "mingpt", "model.py").write_text(content)
        git("add", ".")
        git("commit", "--quiet", "-m", content)
    assert find_mingpt("nowhere") is None  # the address does not answer
    monkeypatch.setattr(generate_gpt2, "MINGPT_URL", str(tmp_path / "origin"))
    monkeypatch.setattr(generate_gpt2, "MINGPT_COMMIT", git("rev-parse", "HEAD^"))
    monkeypatch.setattr("urllib.request.urlopen", lambda url, timeout: io.BytesIO())
    assert find_mingpt("minGPT") == "pinned"


# ---- The end of a sentence

@pytest.mark.parametrize(("sentence", "rest"), [
    ("He met Dr. Smith and Lt. Col. Ray in St. Louis at 5 p.m. to get a Ph.D. in law.", " Then he"),
    ("He left the U.S. Army with J. K. Rowling and J.R.R. Tolkien.", " They were"),
    ("He paid $3.50, or 3.5 percent, for No. 5 of vol. two, etc. and lost!", " But he"),
    ("He asked, \"Why me?\" and said, “I go. I do.”", " She was"),
    ("He left.", " \"Why?\" she asked"),
    ("He left (so they said.)", " The man"),
    ("He saw... Batman, e.g. vs. Godzilla, then...", " The man"),
    ("He saw the film.", "It was long"),
    ("He said \"no.\"", "\u2028The man"),
    ("He left.", "<|endoftext|>the man"),
])
def test_sentence_ends(sentence, rest):
    assert first_sentence(sentence + rest) == sentence


@pytest.mark.parametrize(("expected", "texts"), [
    (None, ["", "He met Dr. Smith", "He paid 3.", "He left.", "He said, \"I left. I am", "He (it rains. So he"]),
    ("", ["He\nThe man left. It", "He said \"no.\nThe man", "He<|endoftext|>"])], ids=["it may grow", "its line ended"])
def test_text_without_a_complete_sentence(expected, texts):
    assert [first_sentence(text) for text in texts] == [expected] * len(texts)


# ---- Sampling

def test_growing_text_equals_plain_generation(monkeypatch):
    """One text that grows in steps draws the same tokens as one call, and stops when its sentence is complete."""
    model, tokenizer = load_weights(OWN_GPT)
    monkeypatch.setattr(generate_gpt2, "SENTENCES", 1)
    settings = {"top_k": 40, "temperature": 0.7}
    steps = []
    hook = model.register_forward_pre_hook(lambda *_: steps.append(1))
    torch.manual_seed(1)
    sentences = generate_gpt2.write_sentences(model, tokenizer, "This film", settings)
    hook.remove()
    torch.manual_seed(1)
    prompt = torch.tensor([tokenizer.encode("This film")])
    ids = model.generate(prompt, max_new_tokens=len(steps), do_sample=True, **settings)[0]
    assert [first_sentence(tokenizer.decode(ids))] == sentences
    assert first_sentence(tokenizer.decode(ids[:-8])) is None  # one step less is not enough


class Scripted:
    """A network and a tokenizer of bytes. Each call of `generate` returns the next texts, at the greatest length."""

    lm_head = SimpleNamespace(weight=torch.zeros(1))

    def __init__(self, *calls):
        self.calls, self.sizes = iter(calls), []

    def __call__(self, strings, return_tensors):
        return {"input_ids": torch.tensor([list(string.encode()) for string in strings])}

    def batch_decode(self, texts):
        return [bytes(ids).decode(errors="replace") for ids in texts.tolist()]

    def generate(self, texts, **settings):
        self.sizes.append(len(texts))
        return torch.tensor([list(text.ljust(64)) for text in next(self.calls)])


def test_unusable_texts_are_drawn_again():
    scripted = Scripted([b"It is a man. The", b"It is, well", b"It is.\nIt", b"It is. The", b"It is a dog! The"],
                        [b"It is a dog! The", b"It is a cat. The", b"It is new. The"],
                        [b"It is so. The"])
    sentences = generate_gpt2.write_sentences(scripted, scripted, "It is", {})
    assert sentences == ["It is a man.", "It is a dog!", "It is a cat.", "It is new.", "It is so."]
    assert scripted.sizes == [5, 3, 1]
    scripted = Scripted(*[[b"It is so. The"] * 5] * 100)
    with pytest.raises(UserError, match="only 1 sentences for 'It is'"):
        generate_gpt2.write_sentences(scripted, scripted, "It is", {})


def test_top_k_of_one_is_greedy(command, monkeypatch):
    monkeypatch.setattr(generate_gpt2, "SENTENCES", 1)
    command("--weights", OWN_GPT, "--backend", "transformers", "--prefix", "This film", "--top-k", 1, "--out", "a")
    model, tokenizer = load_weights(OWN_GPT)
    prompt = torch.tensor([tokenizer.encode("This film")])
    text = tokenizer.decode(model.generate(prompt, max_new_tokens=60, do_sample=False)[0])
    assert [one["sentence"] for one in read_result("a")["sentences"]] == [first_sentence(text)]


# ---- Results

def test_result_has_all_facts_and_follows_the_seed(command):
    options = ("--weights", OWN_GPT, "--backend", "transformers", "--prefix", "This film")
    for out, *others in (["a"], ["b"], ["c", "--seed", 1, "--temperature", 0.5, "--top-k", 9999]):
        code, printed, _ = command(*options, "--out", out, *others)
        assert code == 0
        assert read_result(out)["sentences"][4]["sentence"] in printed
    first, again, other = [read_result(folder) for folder in "abc"]
    assert first["sentences"] == again["sentences"] != other["sentences"]
    assert (first["model"], first["parameters"], first["backend"]) == ("gpt-reviews", 5240320, "transformers")
    assert first["weights_sha256"] == file_digest(OWN_GPT / "model.safetensors")
    assert first["settings"] == {"top_k": 40, "temperature": 0.7}  # as generation_config.json recommends
    assert other["settings"] == {"top_k": 8000, "temperature": 0.5}  # the vocabulary has 8,000 tokens
    assert {"device", "seed", "substitutes", "versions", "seconds", "date"} < set(first)
    assert [set(one) for one in first["sentences"]] == [{"prefix", "sentence"}] * 5


def test_only_ten_prefixes_are_written_without_out(command, tiny, monkeypatch):
    monkeypatch.setattr(generate_gpt2, "write_sentences", lambda model, tokenizer, prefix, settings: [prefix] * 5)
    options = ("--weights", tiny, "--backend", "transformers")
    _, printed, _ = command(*options, "--prefix", "My name")
    assert "nothing was saved" in printed
    assert not Path("runs").exists()
    command(*options)
    result = read_result("runs/gpt2")
    assert [one["prefix"] for one in result["sentences"][::5]] == PREFIXES
    digests = [file_digest(path) for path in sorted(tiny.glob("*.safetensors"))]
    assert len(digests) > 1  # the weights are sharded
    assert result["weights_sha256"] == ", ".join(digests)
    assert result["settings"]["temperature"] == 1.0  # no other is recommended


# ---- Substitutes and refusals

def test_substitutes_without_a_network(tmp_path):
    """A real start: the cache of the hub's library is empty, and no address answers."""
    environment = os.environ | {"HF_HOME": str(tmp_path), "HF_ENDPOINT": NOWHERE, "https_proxy": NOWHERE}
    script = Path(generate_gpt2.__file__).resolve()
    done = subprocess.run([sys.executable, script, "--prefix", "My name", "--out", "out"], env=environment,
                          capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    result = read_result("out")
    assert (result["model"], result["backend"]) == ("gpt-reviews", "transformers")
    assert len(result["substitutes"]) == 2
    assert done.stdout.splitlines()[-1] == f"SUBSTITUTES were used: {'; '.join(result['substitutes'])}."


def test_gpt2_is_taken_from_the_cache_of_the_hub_without_asking_for_files(monkeypatch):
    """The library's own attempts to reach the hub take half a minute."""
    path = {True: "cache/it"}  # without one for False, for which the hub is asked
    monkeypatch.setattr(generate_gpt2, "cached_file", lambda _, file, local_files_only: path[local_files_only])
    assert find_weights() == ("gpt2", Path("cache"))


@pytest.mark.parametrize("options", [["--prefix", "One"], ["--temperature", "0"], ["--weights", "nowhere"],
                                     ["--weights", "incomplete"]])
def test_unusable_options(command, options):
    shutil.copytree(OWN_GPT, "incomplete", ignore=shutil.ignore_patterns("vocab.json"))
    code, _, err = command("--weights", OWN_GPT, *options)
    assert code == 2
    assert options[-1] in err or options[0] in err or "two words" in err
    assert not Path("runs").exists()
