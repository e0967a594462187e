"""The command generate_gpt2: prefixes, sampling, results, refusals, and weights from the hub or from here."""

import json
import re
import shutil
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import generate_gpt2
from generate_gpt2 import PREFIXES, ROUNDS, draw_sentences, parse_args
from helpers.cli import UserError
from helpers.files import file_digest
from helpers.gpt2 import mingpt, results, weights
from helpers.gpt2.weights import LanguageModel
from tests.tiny_gpt2 import BACKENDS, MINGPT, SETTINGS, make_tiny, only_tokenizer_json
from tests.toy import ROOT, read_json, refused, run_python

NOWHERE = "http://127.0.0.1:9"  # nothing listens there: refused at once
ONE_PREFIX = ("--prefix", "My name")
TRANSFORMERS = ("--backend", "transformers")
CONFIG_URL = "/openai-community/gpt2/resolve/main/config.json"
WEIGHTS_URL = "/openai-community/gpt2/resolve/main/model.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def run(call):
    """A function that runs the command: exit code, standard output, standard error."""
    return partial(call, main=generate_gpt2.main)


@pytest.fixture
def hub(monkeypatch, tmp_path):
    """A function that sets the hub's address; its cache is empty, and GitHub and minGPT are unavailable."""
    def hub(url):
        monkeypatch.setenv("HF_ENDPOINT", url)
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", url)
        template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
        monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(mingpt, "MINGPT_URL", f"{NOWHERE}/minGPT")
    monkeypatch.setitem(sys.modules, "mingpt", None)
    monkeypatch.setattr("time.sleep", lambda seconds: None)  # the hub's library waits between its attempts
    hub(NOWHERE)
    return hub


# ---- Prefixes

def test_ten_default_prefixes_of_two_words():
    options = [option for prefix in PREFIXES for option in ("--prefix", prefix)]
    assert len(set(PREFIXES)) == 10
    assert parse_args(options).prefix == PREFIXES
    assert parse_args(["--prefix", "  Don't   go "]).prefix == ["Don't go"]
    assert parse_args(["--prefix", "cafe\u0301 x\u0302"]).prefix == ["caf\u00e9 x\u0302"]
    assert parse_args(["--prefix", "हिन्दी फ़िल्म"]).prefix == ["हिन्दी फ़िल्म"]


@pytest.mark.parametrize("prefix", ["", " ", "Name", "My first name", "My !", "<|endoftext|> is", "My na\nme is",
                                    "\u0301 is"])
def test_other_prefixes_are_refused(prefix):
    with pytest.raises(UserError, match="is not two words"):
        parse_args(["--prefix", prefix])


# ---- Sampling: with a stub instead of a network, whose tokens are bytes and whose end token is 0

def draw_from(text_of):
    """Call draw_sentences with a stub that writes `text_of(call, row)`; also return the batch size of each call."""
    sizes = []

    def generate(idx, do_sample, **settings):
        sizes.append(len(idx))
        new = [list(text_of(len(sizes), row).encode("utf-8")) for row in range(len(idx))]
        new = [ids + [0] * (60 - len(ids)) for ids in new]
        return torch.cat((idx, torch.tensor(new)), dim=1)

    tokenizer = SimpleNamespace(encode=lambda text, **options: list(text.encode()),
                                decode=lambda ids, **options: bytes(ids).decode("utf-8", errors="replace"))
    language_model = LanguageModel(SimpleNamespace(generate=generate), tokenizer, "cpu", {0}, 100, 1.0, {"model": "x"})
    return draw_sentences(language_model, ["My name", "It is"], SETTINGS, seed=1), sizes


def complete(call, row):
    return f" is {'ABCDE'[row]}na. This is the next"


def partly_complete(call, row):
    """Only three rows of the first call end; what follows the end token does not count."""
    return f" is {call} {row}" + ".\0The end" * (call > 1 or row < 3)


def never_complete(call, row):
    """No sentence ends. Some characters cannot be printed, and row 0 contains no word."""
    return f" and\x07 {call} and\ufffd {row}" if row > 0 else " ..."


@pytest.mark.parametrize(("text_of", "sizes", "cut", "first"), [
    (complete, [5, 5], False, "My name is Ana."),
    (partly_complete, [5, 5, 2], False, "My name is 2 0."),
    (never_complete, [5, 5] * ROUNDS, True, "My name and 2 and 1")])
def test_incomplete_sentences_are_sampled_again_up_to_a_limit_and_then_marked(text_of, sizes, cut, first):
    """There is one batch for each length of the prompts: "It is" is sampled first."""
    sentences, called = draw_from(text_of)
    assert called == sizes
    assert [(one["prefix"], one["cut"]) for one in sentences] == [("My name", cut)] * 5 + [("It is", cut)] * 5
    assert len({one["sentence"] for one in sentences}) == 10
    assert sentences[0]["sentence"] == first


def test_equal_sentences_are_refused_in_the_end():
    with pytest.raises(UserError, match="only 1 different"):
        draw_from(lambda call, row: " is Bob. The end")


# ---- The whole command

@pytest.mark.parametrize("backend", BACKENDS)
def test_command_writes_all(run, folder, tmp_path, backend):
    code, out, _ = run("--weights", folder, "--backend", backend, "--mingpt-dir", MINGPT, "--top-k", 1000,
                       "--max-new-tokens", 10, "--out", tmp_path / "out")
    assert code == 0
    assert out.count("\n") > 50
    result = read_json(tmp_path / "out" / "gpt2_sentences.json")
    assert result["model"] == folder.name
    assert result["backend"] == backend
    assert result["weights_sha256"] == file_digest(folder / "model.safetensors")
    assert result["seed"] == 42
    assert (result["settings"]["top_k"], result["settings"]["temperature"]) == (300, 1.0)
    assert {"torch", "transformers", "python"} < set(result["versions"])
    assert [one["prefix"] for one in result["sentences"][::5]] == PREFIXES
    assert len({one["sentence"] for one in result["sentences"]}) == 50
    table = (tmp_path / "out" / "gpt2_sentences.md").read_text(encoding="utf-8")
    assert table.count("\n| ") == 51
    assert folder.name in table
    assert len(list((tmp_path / "out").iterdir())) == 2


@pytest.fixture
def set_temperature(folder, tmp_path):
    """A function that returns a copy of the folder whose generation config recommends a temperature."""
    def set_temperature(temperature):
        copy = shutil.copytree(folder, tmp_path / "copy")
        (copy / "generation_config.json").write_text(json.dumps({"do_sample": True, "temperature": temperature}))
        return copy
    return set_temperature


@pytest.mark.parametrize(("recommended", "given", "used"), [
    (0.7, [], 0.7), (0.7, ["--temperature", 2], 2.0), (0, [], 1.0)])
def test_folder_may_recommend_a_temperature(run, set_temperature, tmp_path, recommended, given, used):
    run("--weights", set_temperature(recommended), *TRANSFORMERS, *ONE_PREFIX, "--out", tmp_path, *given)
    assert read_json(tmp_path / "gpt2_sentences.json")["settings"]["temperature"] == used


@pytest.mark.parametrize("recommended", ["hot", -1, float("nan"), float("inf"), [1], {"a": 1}, 1e-9])
def test_folder_with_an_unusable_temperature_is_refused(run, set_temperature, tmp_path, recommended):
    error = refused(*run("--weights", set_temperature(recommended), *TRANSFORMERS, "--out", tmp_path / "out"))
    assert "generation_config.json" in error
    assert not list((tmp_path / "out").iterdir())


def test_sentences_follow_the_seed(run, folder, tmp_path):
    def sentences(seed):
        run("--weights", folder, *TRANSFORMERS, *ONE_PREFIX, "--out", tmp_path, "--seed", seed)
        return read_json(tmp_path / "gpt2_sentences.json")["sentences"]

    assert sentences(1) == sentences(1) != sentences(2)


def test_markdown_shows_the_text_as_it_is():
    result = {"model": "gpt2", "parameters": 1, "weights": "w", "weights_sha256": "0", "backend": "mingpt", "seed": 1,
              "settings": SETTINGS, "sentences": [{"prefix": "My name", "sentence": "a|b *c* <i>_", "cut": True}]}
    assert r"| a\|b \*c\* \<i\>\_ *(cut)* |" in results.as_markdown(result)


def test_results_are_whole_or_absent(monkeypatch, run, folder, tmp_path):
    def fail(result):
        raise OSError(28, "No space left on device", "table")

    monkeypatch.setattr(results, "as_markdown", fail)
    error = refused(*run("--weights", folder, "--out", tmp_path, *ONE_PREFIX, *TRANSFORMERS, "--max-new-tokens", 8))
    assert "No space" in error
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [
    ["--prefix", "One"], ["--model", "gpt5"], ["--model", "gpt2", "--weights", "x"], ["--top-k", "0"], ["--bfloat16"],
    ["--temperature", "nan"], ["--seed", "-1"], ["--max-new-tokens", "x"], ["--weights", "nowhere"]])
def test_unusable_option(run, tmp_path, options):
    refused(*run("--out", tmp_path / "out", *options))
    assert not (tmp_path / "out").exists()


def test_options_that_do_not_fit_the_folder(run, folder, tmp_path):
    options = "--weights", folder, "--out", tmp_path
    assert "room for 62 new tokens" in refused(*run(*options, *TRANSFORMERS, "--max-new-tokens", 64, *ONE_PREFIX))
    error = refused(*run(*options, *TRANSFORMERS, "--prefix", f"My {'xq' * 1500}"))
    assert "too long: it has 3,0" in error
    assert len(error) < 250
    assert "mingpt/model.py is missing" in refused(*run(*options, "--mingpt-dir", tmp_path))


@pytest.mark.parametrize("content", ["import no_such_package", "class GPT(", "GTP = None", "class GPT: pass",
                                     "def GPT(**options): 1 / 0"])
def test_clone_of_mingpt_that_cannot_be_imported(monkeypatch, tmp_path, content):
    (tmp_path / "mingpt").mkdir()
    (tmp_path / "mingpt" / "__init__.py").touch()
    (tmp_path / "mingpt" / "model.py").write_text(content, encoding="utf-8")
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in [name for name in sys.modules if name.partition(".")[0] == "mingpt"]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(UserError, match=f"is not the minGPT .* at commit {mingpt.MINGPT_COMMIT}"):
        mingpt.choose_gpt(None, tmp_path)
    for name in [name for name in sys.modules if name.partition(".")[0] == "mingpt"]:
        del sys.modules[name]


# ---- Without a network, and with a server that answers as the Hugging Face hub does

def test_own_gpt_replaces_gpt2(monkeypatch, run, hub, folder):
    monkeypatch.setattr(weights, "OWN_GPT", folder)
    code, out, _ = run("--max-new-tokens", 8, *ONE_PREFIX, "--out", "sentences")
    assert code == 0
    assert out.count("notice: ") == 2  # one for minGPT, one for gpt2
    assert f"Using {folder.name} instead, a small GPT" in out
    assert "it is not GPT-2" in out
    result = read_json(Path("sentences", "gpt2_sentences.json"))
    assert (result["model"], result["backend"]) == (folder.name, "transformers")
    assert len(result["substitutes"]) == 2
    assert out.splitlines()[-1] == f"SUBSTITUTES were used: {'; '.join(result['substitutes'])}."


def test_only_ten_prefixes_are_written_without_out(run, folder, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # a clone in which somebody has trained has a folder runs/
    code, out, _ = run("--weights", folder / "config.json", *TRANSFORMERS, "--max-new-tokens", 8, *ONE_PREFIX)
    assert code == 0
    assert "nothing was saved" in out.splitlines()[-1]
    assert not Path("runs").exists()


def test_what_was_asked_for_by_name_is_not_replaced(monkeypatch, run, hub, folder, tmp_path):
    assert "--mingpt-dir" in refused(*run("--weights", folder, "--backend", "mingpt"))
    for url in (NOWHERE, "127.0.0.1:9", "no address at all"):
        hub(url)
        assert "gpt2 is unavailable: " in refused(*run("--model", "gpt2", *TRANSFORMERS))
    monkeypatch.setattr(weights, "OWN_GPT", tmp_path / "absent")
    assert "--weights" in refused(*run())
    assert not list(tmp_path.iterdir())


@pytest.fixture
def served(folder, tmp_path, server):
    """A server with the tiny network and its tokenizer, as on the hub."""
    served = Path(shutil.copytree(folder, tmp_path / "served"))
    only_tokenizer_json(served)
    server.files = {f"/openai-community/gpt2/resolve/main/{path.name}": path.read_bytes() for path in served.iterdir()}
    server.headers = {"X-Repo-Commit": "c" * 40}
    server.files["/elsewhere"] = server.files.pop(WEIGHTS_URL)
    server.moved = {WEIGHTS_URL: "/elsewhere"}
    return server


def test_gpt2_from_the_hub_and_then_from_its_cache(served, tmp_path):
    """Each in its own process, in which warnings are errors."""
    results = []
    backend = ("--mingpt-dir", MINGPT) if (MINGPT / "mingpt").is_dir() else TRANSFORMERS
    for endpoint, options in ((served.url, backend), (NOWHERE, TRANSFORMERS)):
        code, out, err = run_python(
            "-W", "error", ROOT / "generate_gpt2.py", "--max-new-tokens", 8, *ONE_PREFIX, "--out", "out", *options,
            cwd=tmp_path, HF_HOME=str(tmp_path / "hub"), HF_ENDPOINT=endpoint)
        assert code == 0, err
        assert "notice" not in out
        results.append(read_json(tmp_path / "out" / "gpt2_sentences.json"))
    assert results[0]["model"] == "gpt2"
    assert results[0]["weights_sha256"] == file_digest(tmp_path / "served" / "model.safetensors")
    assert results[0]["sentences"] == results[1]["sentences"]


@pytest.mark.parametrize(("variable", "words"), [
    ("HF_HUB_OFFLINE", "unset that variable"),
    ("HF_TOKEN", r"\(status 401\); unset the token in HF_TOKEN")])
def test_variables_of_the_hub(served, tmp_path, variable, words):
    served.fault = "error 401"
    code, out, err = run_python(ROOT / "generate_gpt2.py", "--model", "gpt2", *TRANSFORMERS, cwd=tmp_path,
                                HF_HOME=str(tmp_path / "hub"), HF_ENDPOINT=f"{served.url}/", **{variable: "1"})
    assert re.search(words, refused(code, out, err))
    assert (CONFIG_URL in served.asked) == (variable == "HF_TOKEN")
    assert served.asked == [] or variable == "HF_TOKEN"


def test_interrupted_download_continues(run, hub, served, tmp_path):
    hub(served.url)
    served.fault = "once"
    code, *_ = run("--model", "gpt2", "--max-new-tokens", 8, *ONE_PREFIX, *TRANSFORMERS, "--out", "out")
    assert (code, served.fault) == (0, None)
    assert served.asked.count("/elsewhere") == 3  # its size, the first half, the rest
    result = read_json(Path("out", "gpt2_sentences.json"))
    assert result["weights_sha256"] == file_digest(tmp_path / "served" / "model.safetensors")


@pytest.mark.parametrize("fault", ["missing", "login", "breaks off", "stalls", "error 500"])
def test_hub_that_does_not_deliver_the_files(run, hub, served, monkeypatch, tmp_path, fault):
    hub(served.url)
    for name in ("HF_HUB_DOWNLOAD_TIMEOUT", "HF_HUB_ETAG_TIMEOUT"):
        monkeypatch.setattr(f"huggingface_hub.constants.{name}", 0.2)
    served.fault = fault
    if fault in ("missing", "login"):
        served.fault, served.headers, served.moved = None, {}, {}
        served.files = dict.fromkeys(served.files if fault == "login" else [], b"<html>Log in to this network</html>")
    assert "error: gpt2 is unavailable: " in refused(*run("--model", "gpt2", "--out", "out"))
    requests = served.asked.count(CONFIG_URL)
    assert requests > (2 if fault in ("breaks off", "stalls") else 0)  # the library tries again
    assert not list(tmp_path.rglob("snapshots/*/model.safetensors"))
    assert not (tmp_path / "out").exists()
