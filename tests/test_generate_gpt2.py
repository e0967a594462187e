"""The command generate_gpt2: prefixes, drawing, results, refusals, and a network that is away, broken or there."""

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import generate_gpt2
from generate_gpt2 import PREFIXES, ROUNDS, draw_sentences, parse_args
from helpers import gpt2
from helpers.cli import UserError, run_command
from helpers.files import file_digest
from helpers.gpt2 import Writer
from tests.tiny_gpt2 import BACKENDS, MINGPT, SETTINGS, make_tiny, only_tokenizer_json, write

ROOT = Path(__file__).parent.parent
NOWHERE = "http://127.0.0.1:9"  # nobody listens there: refused at once


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """Neither GitHub nor the hub answers, nothing is in the hub's cache, minGPT is not installed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", NOWHERE)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(gpt2, "MINGPT_URL", f"{NOWHERE}/minGPT")
    monkeypatch.setitem(sys.modules, "mingpt", None)


def run(monkeypatch, *options):
    """Run the command as the shell would; return the exit code."""
    monkeypatch.setattr(sys, "argv", ["generate_gpt2.py", *map(str, options)])
    try:
        run_command(generate_gpt2.main)
    except SystemExit as end:
        return end.code
    return 0


def refused(monkeypatch, capsys, *options):
    """Return the one sentence with which the command refuses."""
    assert run(monkeypatch, *options) == 2
    error = capsys.readouterr().err.rpartition("\r")[2]  # what stands there when a progress bar has gone
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


# ---- Prefixes

def test_ten_default_prefixes_of_two_words():
    assert len(set(PREFIXES)) == 10
    assert parse_args(sum((["--prefix", prefix] for prefix in PREFIXES), [])).prefix == PREFIXES
    assert parse_args(["--prefix", "  Don't   go "]).prefix == ["Don't go"]


@pytest.mark.parametrize("prefix", ["", " ", "Name", "My first name", "My !", "<|endoftext|> is", "My na\nme is"])
def test_other_prefixes_are_refused(prefix):
    with pytest.raises(UserError, match="is not two words"):
        parse_args(["--prefix", prefix])


# ---- Drawing: a stub takes the network's place, tokens are bytes, and 0 ends a text

def draw_from(texts, prefixes=("My name", "It is")):
    """draw_sentences with a network that says `texts(number of the draw, row)`; also return how often it was asked."""
    asked = []

    def generate(idx, do_sample, **settings):
        asked.append(len(idx))
        new = [list(texts(len(asked), row).encode("utf-8")) for row in range(len(idx))]
        new = [ids + [0] * (60 - len(ids)) for ids in new]
        return torch.cat((idx, torch.tensor(new)), dim=1)

    tokenizer = SimpleNamespace(encode=lambda text, **options: list(text.encode()),
                                decode=lambda ids, **options: bytes(ids).decode("utf-8", errors="replace"))
    writer = Writer(SimpleNamespace(generate=generate), tokenizer, "cpu", {0}, 100, 1.0, {"model": "stub"})
    return draw_sentences(writer, prefixes, SETTINGS, seed=1), asked


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
    sentences, _ = draw_from(lambda draw, row: f" {draw}{row}\ufffd \x07 a\u2028b. The\0 end", ["My name"])
    text = "".join(one["sentence"] for one in sentences)
    assert text.isprintable()
    assert "\ufffd" not in text
    assert "end" not in text


# ---- The whole command

@pytest.mark.parametrize("backend", BACKENDS)
def test_same_seed_same_sentences(folder, backend):
    first, again, other = (write(folder, backend, seed=seed) for seed in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("backend", BACKENDS)
def test_command_writes_all(monkeypatch, capsys, folder, tmp_path, backend):
    assert run(monkeypatch, "--weights", folder, "--backend", backend, "--mingpt-dir", MINGPT, "--top-k", 1000,
               "--max-new-tokens", 10, "--out", tmp_path / "out") == 0
    result = json.loads((tmp_path / "out" / "gpt2_sentences.json").read_text(encoding="utf-8"))
    assert result["model"] == folder.name
    assert result["backend"] == backend
    assert result["weights_sha256"] == file_digest(folder / "model.safetensors")
    assert (result["seed"], result["settings"]["top_k"], result["settings"]["temperature"]) == (42, 300, 1.0)
    assert {"torch", "transformers", "python"} < set(result["versions"])
    assert [one["prefix"] for one in result["sentences"][::5]] == PREFIXES
    assert len({one["sentence"] for one in result["sentences"]}) == 50
    table = (tmp_path / "out" / "gpt2_sentences.md").read_text(encoding="utf-8")
    assert table.count("\n| ") == 51
    assert folder.name in table
    assert capsys.readouterr().out.count("\n") > 50
    assert len(list((tmp_path / "out").iterdir())) == 2


def test_folder_may_say_what_temperature_suits_it(monkeypatch, capsys, folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    options = "--weights", copy, "--backend", "transformers", "--prefix", "My name", "--out", tmp_path
    for says, given, used in ((0.7, [], 0.7), ("hot", ["--temperature", 2], 2.0), ("hot", [], None), (0, [], None)):
        (copy / "generation_config.json").write_text(json.dumps({"do_sample": True, "temperature": says}))
        if used:
            assert run(monkeypatch, *options, *given) == 0
            assert json.loads((tmp_path / "gpt2_sentences.json").read_text())["settings"]["temperature"] == used
        else:
            assert "--temperature" in refused(monkeypatch, capsys, *options)


def test_markdown_shows_the_text_as_it_is():
    result = {"model": "gpt2", "parameters": 1, "weights": "w", "weights_sha256": "0", "backend": "mingpt", "seed": 1,
              "settings": SETTINGS, "sentences": [{"prefix": "My name", "sentence": "a|b *c* <i>_", "cut": True}]}
    assert r"| a\|b \*c\* \<i\>\_ *(cut)* |" in generate_gpt2.as_markdown(result)


def test_results_are_whole_or_absent(monkeypatch, capsys, folder, tmp_path):
    def fail(result):
        raise OSError(28, "No space left on device", "table")

    monkeypatch.setattr(generate_gpt2, "as_markdown", fail)
    assert "No space" in refused(monkeypatch, capsys, "--weights", folder, "--out", tmp_path, "--prefix", "My name",
                                 "--max-new-tokens", 8, "--backend", "transformers")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("options", [
    ["--prefix", "One"], ["--model", "gpt5"], ["--model", "gpt2", "--weights", "x"], ["--top-k", "0"], ["--bfloat16"],
    ["--temperature", "nan"], ["--seed", "-1"], ["--max-new-tokens", "x"], ["--weights", "nowhere"]])
def test_unusable_option(monkeypatch, capsys, tmp_path, options):
    refused(monkeypatch, capsys, "--out", tmp_path / "out", *options)
    assert not (tmp_path / "out").exists()


def test_options_that_do_not_fit_the_folder(monkeypatch, capsys, folder, tmp_path):
    options = "--weights", folder, "--out", tmp_path
    assert "--max-new-tokens" in refused(monkeypatch, capsys, *options, "--backend", "transformers", "--max-new-tokens",
                                         64)
    assert "not a clone of minGPT" in refused(monkeypatch, capsys, *options, "--mingpt-dir", tmp_path)


# ---- Without a network

def test_own_gpt_takes_the_place_of_gpt2(monkeypatch, capsys, no_network, folder):
    monkeypatch.setattr(gpt2, "OWN_GPT", folder)
    assert run(monkeypatch, "--max-new-tokens", 8, "--prefix", "My name") == 0
    printed = capsys.readouterr().out
    assert printed.count("notice: ") == 2  # one for minGPT, one for gpt2
    assert f"{folder.name}, a small GPT" in printed
    assert "it is not GPT-2" in printed
    result = json.loads(Path("report", "results", "gpt2_sentences.json").read_text(encoding="utf-8"))
    assert (result["model"], result["backend"]) == (folder.name, "transformers")


def test_what_was_asked_for_by_name_is_not_replaced(monkeypatch, capsys, no_network, folder, tmp_path):
    assert "gpt2" in refused(monkeypatch, capsys, "--model", "gpt2", "--backend", "transformers")
    assert "--mingpt-dir" in refused(monkeypatch, capsys, "--weights", folder, "--backend", "mingpt")
    assert not list(tmp_path.glob("*minGPT*"))
    monkeypatch.setattr(gpt2, "OWN_GPT", tmp_path / "absent")
    assert "--weights" in refused(monkeypatch, capsys)


# ---- A hub that is there: this server answers as the Hugging Face hub does

class Hub(BaseHTTPRequestHandler):
    """Answers with the server's `files`, name -> bytes; weights by a redirect, as from the hub's storage."""

    def do_GET(self):
        name = self.path.rpartition("/")[2]
        body, fault = self.server.files.get(name, b""), self.server.fault
        digest = hashlib.sha256(body).hexdigest()
        self.server.asked.append((self.command, name))
        if fault == "login":
            body, headers = b"<html>Log in to this network</html>", {"Content-Type": "text/html"}
        elif name == "model.safetensors" and self.path != "/storage/model.safetensors":
            body, headers = b"", {"Location": "/storage/model.safetensors", "X-Linked-Size": len(body),
                                  "X-Linked-Etag": f'"{digest}"', "X-Repo-Commit": "c" * 40}
        else:
            headers = {"ETag": f'"{digest}"', "X-Repo-Commit": "c" * 40, "Accept-Ranges": "bytes"}
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        code = fault if isinstance(fault, int) else 302 if "Location" in headers else 206 if start else 200
        self.send_response(code)
        for key, value in (headers | {"Content-Length": len(body) - start}).items():
            self.send_header(key, str(value))
        self.end_headers()
        if self.command == "GET":
            half = fault in ("truncated", "stalled") and len(body) > 10_000
            self.wfile.write(body[start:start + (len(body) - start) // 2] if half else body[start:])
            if fault == "stalled" and half:
                self.server.over.wait(60)
        self.close_connection = True

    do_HEAD = do_GET

    def log_message(self, *args):
        pass


@contextlib.contextmanager
def hub_server(folder, fault=None):
    """Serve the files of a folder as those of gpt2, with a fault if there is to be one."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.url = f"http://127.0.0.1:{server.server_port}"
    server.files = {path.name: path.read_bytes() for path in folder.iterdir()}
    server.asked, server.fault, server.over = [], fault, threading.Event()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()


@pytest.fixture
def served(folder, tmp_path):
    """A folder with the tiny network and its tokenizer as the hub has them."""
    served = Path(shutil.copytree(folder, tmp_path / "served"))
    only_tokenizer_json(served)
    return served


def shell(folder, *options, **environment):
    """Run the command in a process and a folder of its own, in which the hub's cache is, too."""
    environment = os.environ | {"HF_HOME": str(folder / "hub"), "HF_HUB_DOWNLOAD_TIMEOUT": "1"} | environment
    return subprocess.run([sys.executable, ROOT / "generate_gpt2.py", "--max-new-tokens", "8", "--prefix", "My name",
                           "--out", "out", *options], cwd=folder, env=environment, capture_output=True, text=True,
                          timeout=250, check=False)


def test_gpt2_from_the_hub_and_then_from_its_cache(served, tmp_path):
    mingpt = ("--mingpt-dir", MINGPT) if (MINGPT / "mingpt").is_dir() else ("--backend", "transformers")
    results = []
    with hub_server(served) as hub:
        for endpoint, backend in ((hub.url, mingpt), (NOWHERE, ("--backend", "transformers"))):
            ended = shell(tmp_path, *backend, HF_ENDPOINT=endpoint, PYTHONWARNINGS="error")
            assert (ended.returncode, "notice" in ended.stdout) == (0, False), ended.stderr
            results.append(json.loads((tmp_path / "out" / "gpt2_sentences.json").read_text(encoding="utf-8")))
        assert ("GET", "model.safetensors") in hub.asked
    assert results[0]["model"] == "gpt2"
    assert results[0]["weights_sha256"] == file_digest(served / "model.safetensors")
    assert results[0]["sentences"] == results[1]["sentences"]


def test_hub_that_answers_with_something_else(served, tmp_path):
    def ask(fault):
        (tmp_path / str(fault)).mkdir()
        with hub_server(served, fault) as hub:
            return shell(tmp_path / str(fault), "--model", "gpt2", HF_ENDPOINT=hub.url)

    with ThreadPoolExecutor() as pool:  # they wait for time-outs
        for ended in pool.map(ask, (404, 500, "login", "truncated", "stalled")):
            assert ended.returncode == 2
            assert ended.stderr.splitlines()[-1].startswith("error: gpt2 is unavailable: ")
            assert "Traceback" not in ended.stderr
    assert not list(tmp_path.rglob("snapshots/*/model.safetensors"))
    assert not list(tmp_path.glob("*/out"))


@pytest.mark.parametrize("endpoint", ["127.0.0.1:9", "", "http://", "no address at all"])
def test_hub_out_of_reach(tmp_path, endpoint):
    ended = shell(tmp_path, "--model", "gpt2", HF_ENDPOINT=endpoint, https_proxy=NOWHERE)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: gpt2 is unavailable: ")
    assert ended.stderr.count("\n") == 1
