"""generate_gpt2.py beside transformers, and beside the real minGPT where it is (MINGPT_DIR=DIR, or ./minGPT)."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import ByteLevelBPETokenizer
from tqdm import tqdm
from transformers import GPT2Config, GPT2LMHeadModel

import generate_gpt2
from files import Unreachable, UserError, run_command
from generate_gpt2 import (
    PREFIXES,
    ROUNDS,
    draw_sentences,
    load_reference,
    load_writer,
    next_logits,
    parse_args,
    read_sample,
    sample,
    to_mingpt,
    write_sentences,
)

ROOT = Path(__file__).parent.parent
MINGPT = Path(os.environ.get("MINGPT_DIR", ROOT / "minGPT")).resolve()
BPE = Path(os.environ.get("GPT2_DIR") or Path(os.environ.get("IMDB_DIR", "nowhere"), "gpt2")).resolve()
NOWHERE = "http://127.0.0.1:9"  # nobody listens there: refused at once
SETTINGS = {"max_new_tokens": 12, "temperature": 1.0, "top_k": 40}
needs_mingpt = pytest.mark.skipif(not (MINGPT / "mingpt").is_dir(), reason="no minGPT: set MINGPT_DIR to a clone")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Networks this small are quicker on one thread, above all where the cores have other work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """A Hugging Face folder of a tiny GPT-2 with random weights and a tokenizer of 300 tokens of its own."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=300, n_positions=64, n_embd=32, n_layer=2, n_head=4, initializer_range=0.3)
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator([*PREFIXES, "The name of this film is not what they should have given it."],
                                  vocab_size=300, min_frequency=1, special_tokens=["<|endoftext|>"],
                                  show_progress=False)
    assert tokenizer.get_vocab_size() == 300
    tokenizer.save_model(str(folder))
    return folder


@pytest.fixture
def writable(folder, tmp_path):
    """A copy of the folder that a test may damage."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Neither GitHub nor the hub answers, nothing is in the hub's cache, minGPT is not installed."""
    def not_cached(*args, **options):
        raise OSError("not in the cache")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(generate_gpt2, "HUB", NOWHERE)
    monkeypatch.setattr("transformers.utils.cached_file", not_cached)
    monkeypatch.setattr(generate_gpt2, "MINGPT_URL", f"{NOWHERE}/minGPT")
    monkeypatch.setattr(generate_gpt2, "importable", lambda name: False)


def run(monkeypatch, *options):
    """The command as the shell would run it; returns the exit code."""
    monkeypatch.setattr(sys, "argv", ["generate_gpt2.py", *map(str, options)])
    try:
        run_command(generate_gpt2.main)
    except SystemExit as end:
        return end.code
    return 0


def refused(monkeypatch, capsys, *options):
    """The one sentence with which the command refuses."""
    assert run(monkeypatch, *options) == 2
    error = capsys.readouterr().err.rpartition("\r")[2]  # what stands there when a progress bar has gone
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


# ---- Prefixes and sentences

def test_ten_default_prefixes_of_two_words():
    assert len(set(PREFIXES)) == 10
    assert parse_args(sum((["--prefix", prefix] for prefix in PREFIXES), [])).prefix == PREFIXES


@pytest.mark.parametrize("prefix", ["", " ", "Name", "My first name", "My !", "<|endoftext|> is", "My na\nme is"])
def test_other_prefixes_are_refused(prefix):
    with pytest.raises(UserError, match="is not two words"):
        parse_args(["--prefix", prefix])


def test_spaces_of_a_prefix_do_not_matter():
    assert parse_args(["--prefix", "  Don't   go "]).prefix == ["Don't go"]


@pytest.mark.parametrize(("text", "sentence"), [
    ("He met Dr. Smith and Lt. Col. Ray at 5 p.m. in St. Louis. Then he", "He met Dr. Smith and Lt. Col. Ray at 5 p.m. "
                                                                          "in St. Louis."),
    ("He left the U.S. Army in May. It was", "He left the U.S. Army in May."),
    ("He left the U.S. The army was", "He left the U.S."),
    ("He left with J. K. Rowling and J.R.R. Tolkien. They were", "He left with J. K. Rowling and J.R.R. Tolkien."),
    ("He paid $3.50, or 3.5 percent. That is", "He paid $3.50, or 3.5 percent."),
    ("He was No. 5 of vol. two, etc. and lost! But he", "He was No. 5 of vol. two, etc. and lost!"),
    ("He asked, \"Why me?\" and left. She was", "He asked, \"Why me?\" and left."),
    ("He said, \"I go. I do.\" She was", "He said, \"I go. I do.\""),
    ("He said, “I go. I do.” She was", "He said, “I go. I do.”"),
    ("He left. \"Why?\" she asked", "He left."),
    ("He left (so they said.) The man", "He left (so they said.)"),
    ("He left... and came?! The man", "He left... and came?!"),
    ("He got a Ph.D. in law. The man", "He got a Ph.D. in law."),
    ("He saw the film.It was long", "He saw the film."),
    ("He left.  The man", "He left."),
    ("He left.<|endoftext|>The man", "He left."),
    ("He left in the U.S.<|endoftext|>", "He left in the U.S."),
    ("He said \"no.\"\nThe man", "He said \"no.\""),
])
def test_sentence_ends(nlp, text, sentence):
    assert read_sample(nlp, text, len("He")) == (True, sentence, True)


@pytest.mark.parametrize("text", ["He met Dr. Smith", "He paid 3.", "He has a Ph.D", "He left. ", "He left. The", "He",
                                  "He said, \"I left. I am the man", "He is No. 5 of them", "Yahoo! is big and"])
def test_sentence_may_go_on(nlp, text):
    assert read_sample(nlp, text, len("He"))[0] is False


@pytest.mark.parametrize(("text", "shown"), [
    ("My name<|endoftext|>The", "My name"), ("My name is\nJohn. The man", "My name is"),
    ("My name is Dr.\n", "My name is Dr."), ("My name. The man", "My name."),
    ("My name is \ufffd. The man", "My name is \ufffd."), ("My name is B\x07ob. The man", "My name is B\x07ob.")])
def test_over_without_a_sentence(nlp, text, shown):
    over, text, complete = read_sample(nlp, text, len("My name"))
    assert (over, text, complete) == (True, shown, False)


@pytest.fixture(scope="session")
def nlp():
    return generate_gpt2.make_splitter()


# ---- Drawing: a stub takes the network's place, tokens are bytes

def draw_from(texts, prefixes=("My name", "It is")):
    """draw_sentences with a network that says `texts(number of the draw, row)`; also returns how often it was asked."""
    asked = []

    def draw(prompts, stopped):
        assert len({len(prompt) for prompt in prompts}) == 1
        asked.append(len(prompts))
        drawn = []
        for row in range(len(prompts)):
            ids = list(texts(len(asked), row).encode("utf-8"))
            ends = (end for end in range(1, len(ids)) if stopped(row, ids[:end]))
            drawn.append(ids[:next(ends, len(ids))])
        return drawn

    sentences = draw_sentences(prefixes, lambda text: list(text.encode()), decode_bytes, draw, tqdm(disable=True))
    return sentences, asked


def decode_bytes(ids):
    return bytes(ids).decode("utf-8", errors="replace")


def test_five_sentences_and_no_more_draws_than_needed():
    sentences, asked = draw_from(lambda draw, row: f" is {'ABCDE'[row]}na. This is the next")
    assert asked == [5, 5]  # one batch for each length of the prompts
    assert [one["sentence"] for one in sentences[:5]] == [f"My name is {letter}na." for letter in "ABCDE"]
    assert not any(one["cut"] for one in sentences)


def test_redraws_are_bounded_and_then_marked():
    sentences, asked = draw_from(lambda draw, row: f" and {draw} and {row}", ["My name"])
    assert asked == [5] * ROUNDS
    assert [one["cut"] for one in sentences] == [True] * 5
    assert len({one["sentence"] for one in sentences}) == 5


def test_only_what_found_no_end_is_drawn_again():
    sentences, asked = draw_from(lambda draw, row: f" is {draw} {row}" + ". The end" * (draw > 1 or row < 3),
                                 ["My name"])
    assert asked == [5, 2]
    assert not any(one["cut"] for one in sentences)


def test_the_same_again_is_refused_in_the_end():
    with pytest.raises(UserError, match="only 1 different"):
        draw_from(lambda draw, row: " is Bob. The end")


def test_nothing_unprintable_is_shown():
    sentences, _ = draw_from(lambda draw, row: f" {draw}{row}\ufffd \x07 a\u2028b. The<|endoftext|> end", ["My name"])
    text = "".join(one["sentence"] for one in sentences)
    assert text.isprintable()
    assert "\ufffd" not in text
    assert "<|" not in text


# ---- The network and the sampler beside transformers

def test_cached_logits_equal_those_of_transformers(folder):
    reference = load_reference(folder)
    assert_cached_logits(reference, reference)


def assert_cached_logits(model, reference):
    """`model` through next_logits, a prompt and then token after token, against the whole sequence at once."""
    ids = torch.randint(300, (3, 20), generator=torch.Generator().manual_seed(1))
    cache = [torch.zeros(2, 3, 4, 20, 8) for _ in range(2)]
    with torch.inference_mode():
        expected = reference(ids).logits  # (B, T, V)
        for past, now in [(0, 5)] + [(past, past + 1) for past in range(5, 20)]:
            torch.testing.assert_close(next_logits(model, 4, ids[:, past:now], cache, past), expected[:, now - 1],
                                       rtol=0, atol=1e-4)


def test_greedy_equals_transformers(folder):
    reference = load_reference(folder)
    prompts = torch.tensor([[5, 6, 7], [50, 60, 70]])
    expected = reference.generate(prompts, attention_mask=torch.ones_like(prompts), max_new_tokens=30, do_sample=False,
                                  pad_token_id=0, eos_token_id=None)
    assert sample(reference, 4, prompts, 30, top_k=1) == expected[:, 3:].tolist()


def test_rows_draw_the_same_whenever_the_others_end(folder):
    reference = load_reference(folder)
    prompts = torch.full((12, 2), 5)
    torch.manual_seed(3)
    whole = sample(reference, 4, prompts, 20)
    torch.manual_seed(3)
    lengths = [row + 1 for row in range(12)]
    assert sample(reference, 4, prompts, 20, stopped=lambda row, ids: len(ids) == lengths[row]) == [
        ids[:length] for ids, length in zip(whole, lengths, strict=True)]


def test_tokens_are_drawn_as_often_as_they_should(folder):
    reference = load_reference(folder)
    prompt, temperature, top_k, count = torch.tensor([[5, 6]]), 1.7, 7, 20_000
    with torch.inference_mode():
        values, tokens = (reference(prompt).logits[0, -1] / temperature).topk(top_k)
    torch.manual_seed(0)
    drawn = torch.tensor(sample(reference, 4, prompt.expand(count, 2), 1, temperature, top_k))
    shares = torch.stack([(drawn == token).float().mean() for token in tokens])
    assert shares.sum() == pytest.approx(1)
    torch.testing.assert_close(shares, values.softmax(0), rtol=0, atol=0.015)


# ---- The whole command

def test_same_seed_same_sentences(folder):
    writer = load_writer(folder, "tiny", "transformers")
    first, again, other = (write_sentences(writer, ["My name"], seed, SETTINGS)["sentences"] for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("backend", ["transformers", pytest.param("mingpt", marks=needs_mingpt)])
def test_command_writes_all(monkeypatch, capsys, folder, tmp_path, backend):
    options = ["--mingpt-dir", MINGPT] if backend == "mingpt" else ["--backend", backend]
    assert run(monkeypatch, "--weights", folder, "--out", tmp_path / "out", "--max-new-tokens", 10, *options) == 0
    result = json.loads((tmp_path / "out" / "gpt2_sentences.json").read_text(encoding="utf-8"))
    assert result["model"] == folder.name
    assert result["backend"] == backend
    assert result["weights_sha256"] == generate_gpt2.file_digest(folder / "model.safetensors")
    assert (result["seed"], result["settings"]["top_k"], result["settings"]["temperature"]) == (42, 40, 1.0)
    assert {"torch", "transformers", "python"} < set(result["versions"])
    assert [one["prefix"] for one in result["sentences"][::5]] == PREFIXES
    assert len({one["sentence"] for one in result["sentences"]}) == 50
    table = (tmp_path / "out" / "gpt2_sentences.md").read_text(encoding="utf-8")
    assert table.count("\n| ") == 51
    assert folder.name in table
    assert capsys.readouterr().out.count("\n") > 50
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_folder_may_say_what_temperature_suits_it(monkeypatch, writable, tmp_path):
    assert load_writer(writable, "tiny", "transformers").temperature == 1.0
    (writable / "generation_config.json").write_text('{"do_sample": true, "temperature": 0.7}', encoding="utf-8")
    assert load_writer(writable, "tiny", "transformers").temperature == 0.7
    options = "--weights", writable, "--backend", "transformers", "--prefix", "My name", "--out", tmp_path
    for given, used in (([], 0.7), (["--temperature", "1.3"], 1.3)):
        assert run(monkeypatch, *options, *given) == 0
        assert json.loads((tmp_path / "gpt2_sentences.json").read_text())["settings"]["temperature"] == used


def test_markdown_shows_the_text_as_it_is(folder):
    result = write_sentences(load_writer(folder, "tiny", "transformers"), ["My name"], 1, SETTINGS)
    result["sentences"][0]["sentence"] = "a|b *c* <i>_"
    assert r"a\|b \*c\* \<i\>\_" in generate_gpt2.as_markdown(result)


def test_results_are_whole_or_absent(monkeypatch, capsys, folder, tmp_path):
    def fail(result):
        raise OSError(28, "No space left on device", "table")

    monkeypatch.setattr(generate_gpt2, "as_markdown", fail)
    assert "No space" in refused(monkeypatch, capsys, "--weights", folder, "--out", tmp_path, "--prefix", "My name",
                                 "--max-new-tokens", 8, "--backend", "transformers")
    assert not list(tmp_path.iterdir())


# ---- Refusals

def without(name):
    return lambda folder: (folder / name).unlink()


def truncate(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def truncate_bin(folder):
    torch.save(load_reference(folder).state_dict(), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin"
    path.write_bytes(path.read_bytes()[:-1000])


def lose_tensor(folder):
    state = load_reference(folder).state_dict()
    del state["transformer.h.1.mlp.c_fc.bias"]
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def change_config(**changes):
    def change(folder):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return change


def lose_token(folder):
    path = folder / "vocab.json"
    vocabulary = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({token: id for token, id in vocabulary.items() if id < 299}), encoding="utf-8")


def spoil(name):
    return lambda folder: (folder / name).write_text("{no", encoding="utf-8")


@pytest.mark.parametrize(("damage", "words"), [
    (shutil.rmtree, "no Hugging Face GPT-2 folder"), (without("config.json"), "no Hugging Face GPT-2 folder"),
    (without("model.safetensors"), "no Hugging Face GPT-2 folder"), (without("vocab.json"), "has no vocab.json"),
    (without("merges.txt"), "has no merges.txt"), (truncate, "damaged"), (truncate_bin, "damaged"),
    (lose_tensor, "another kind of network"), (change_config(n_embd=48), "damaged"), (spoil("config.json"), "damaged"),
    (change_config(vocab_size=400), "damaged"), (change_config(activation_function="relu"), "another kind of network"),
    (lose_token, "299 tokens"), (spoil("vocab.json"), "damaged"), (spoil("merges.txt"), "damaged")])
def test_unusable_folder(monkeypatch, capsys, writable, tmp_path, damage, words):
    damage(writable)
    assert words in refused(monkeypatch, capsys, "--weights", writable, "--backend", "transformers", "--out",
                            tmp_path / "out")


@pytest.mark.parametrize("options", [
    ["--prefix", "One"], ["--model", "gpt5"], ["--model", "gpt2", "--weights", "x"], ["--top-k", "0"],
    ["--temperature", "nan"], ["--seed", "-1"], ["--max-new-tokens", "x"], ["--mingpt-dir", "nowhere"]])
def test_unusable_option(monkeypatch, capsys, tmp_path, options):
    refused(monkeypatch, capsys, "--out", tmp_path, *options)


def test_more_tokens_than_the_network_has_room_for(monkeypatch, capsys, folder, tmp_path):
    error = refused(monkeypatch, capsys, "--weights", folder, "--backend", "transformers", "--max-new-tokens", 64,
                    "--out", tmp_path)
    assert "--max-new-tokens" in error


# ---- Without a network

def test_gpt2_by_name_stops(monkeypatch, capsys, no_network):
    assert "gpt2" in refused(monkeypatch, capsys, "--model", "gpt2", "--backend", "transformers")


def test_own_gpt_takes_the_place_of_gpt2(monkeypatch, capsys, no_network, folder):
    monkeypatch.setattr(generate_gpt2, "OWN_GPT", folder)
    assert run(monkeypatch, "--max-new-tokens", 8, "--prefix", "My name") == 0
    printed = capsys.readouterr().out
    assert printed.count("notice: ") == 2  # one for minGPT, one for gpt2
    assert f"{folder.name}, a small GPT" in printed
    assert "it is not GPT-2" in printed
    result = json.loads(Path("report", "results", "gpt2_sentences.json").read_text(encoding="utf-8"))
    assert (result["model"], result["backend"]) == (folder.name, "transformers")


def test_neither_gpt2_nor_own_gpt(monkeypatch, capsys, no_network, tmp_path):
    monkeypatch.setattr(generate_gpt2, "OWN_GPT", tmp_path / "absent")
    assert "--weights" in refused(monkeypatch, capsys)


def test_mingpt_by_name_stops(monkeypatch, capsys, no_network, folder):
    assert "--mingpt-dir" in refused(monkeypatch, capsys, "--weights", folder, "--backend", "mingpt")
    assert not list(Path().glob("*minGPT*"))


def test_tokenizer_of_gpt2_out_of_reach(no_network, folder):
    with pytest.raises(Unreachable):
        generate_gpt2.tokenizer_files(folder, 50257, from_hub=True)  # what lies there is not GPT-2's
    assert not list(Path(".cache").glob("*/*"))


def test_real_command_without_network(tmp_path):
    environment = os.environ | {"HF_ENDPOINT": NOWHERE, "HF_HOME": str(tmp_path), "https_proxy": NOWHERE}
    ended = subprocess.run([sys.executable, ROOT / "generate_gpt2.py", "--model", "gpt2", "--backend", "transformers"],
                           cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert ended.stderr.startswith("error: ")
    assert ended.stderr.count("\n") == 1


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
    monkeypatch.setattr(generate_gpt2, "probe", lambda url: None)
    monkeypatch.setattr(generate_gpt2, "MINGPT_URL", str(tmp_path / "origin"))
    monkeypatch.setattr(generate_gpt2, "MINGPT_COMMIT", "0" * 40)
    with pytest.raises(Unreachable):
        generate_gpt2.clone_mingpt(tmp_path / "minGPT")
    assert [path.name for path in tmp_path.iterdir()] == ["origin"]
    monkeypatch.setattr(generate_gpt2, "MINGPT_COMMIT", commit)
    generate_gpt2.clone_mingpt(tmp_path / "minGPT")
    assert (tmp_path / "minGPT" / "mingpt" / "model.py").is_file()


# ---- Beside the real minGPT

@pytest.fixture(params=["model.safetensors", "pytorch_model.bin"])
def pair(request, writable):
    """(minGPT's GPT by our loader, transformers' GPT2LMHeadModel) of the same folder."""
    generate_gpt2.find_mingpt(MINGPT)
    if request.param == "pytorch_model.bin":
        torch.save(load_reference(writable).state_dict(), writable / request.param)
        (writable / "model.safetensors").unlink()
    assert generate_gpt2.weights_file(writable).name == request.param
    reference = load_reference(writable)
    return to_mingpt(reference), reference


@needs_mingpt
def test_loader_gives_the_logits_of_transformers(pair):
    model, reference = pair
    ids = torch.randint(300, (3, 64), generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        torch.testing.assert_close(model(ids)[0], reference(ids).logits, rtol=0, atol=1e-4)
    assert_cached_logits(model, reference)


@needs_mingpt
@pytest.mark.parametrize("length", [1, 2, 7, 24])
def test_cached_greedy_equals_generate(pair, length):
    model, _ = pair
    prompts = torch.randint(300, (4, length), generator=torch.Generator().manual_seed(length))
    assert sample(model, 4, prompts, 40, top_k=1) == model.generate(prompts, 40)[:, length:].tolist()


@needs_mingpt
@pytest.mark.skipif(not BPE.is_dir(), reason="no tokenizer of GPT-2: set GPT2_DIR, or IMDB_DIR with gpt2/ in it")
@pytest.mark.parametrize("text", [
    "My name", "Hello!! I'm Andrej. It's 2022, we'll see \U0001f917\U0001f468‍\U0001f469‍\U0001f467 :D",
    "  two  spaces\tand\n\n tabs \u00a0\u3000", "naïve café — “quotes” … Ω≈ç√", "DON'T don't 3.50 x2\r\n", "\x00\x7f"])
def test_tokenizer_of_gpt2(text):
    generate_gpt2.find_mingpt(MINGPT)
    from mingpt.bpe import Encoder
    paths = generate_gpt2.tokenizer_files(BPE, 50257, from_hub=True)
    encoder = Encoder(*generate_gpt2.read_tokenizer(paths, 50257))
    theirs = ByteLevelBPETokenizer(*map(str, paths))
    assert encoder.encode(text) == theirs.encode(text).ids
    assert encoder.decode(encoder.encode(text)) == text


@needs_mingpt
def test_both_backends_write_the_same(folder):
    generate_gpt2.find_mingpt(MINGPT)
    results = [write_sentences(load_writer(folder, "tiny", backend), PREFIXES[:2], 42, SETTINGS)["sentences"]
               for backend in ("mingpt", "transformers")]
    assert results[0] == results[1]
