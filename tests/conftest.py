"""What several test files need: one thread, a toy data set in the archive's own layout, the command line, a server."""

import os
import random
import sys
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

import imdb
import sentiment_analysis
from files import run_command

# Two threads on a busy machine wait for each other and make these tiny tensors a hundred times slower.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"  # for the processes that tests start
os.environ["MPLBACKEND"] = "Agg"

GOOD = ["wonderful", "moving", "superb", "charming", "brilliant", "touching"]
BAD = ["dreadful", "boring", "awful", "clumsy", "tedious", "hollow"]
PLAIN = ["the", "film", "was", "a", "story", "of", "two", "friends", "in", "town", ",", "and", "it", "is", "long", "."]


def write_archive_folder(folder, films_per_list=6, reviews_per_film=3, seed=0):
    """An extracted `aclImdb/`: reviews whose words tell their label and name their film, and the other files."""
    chance, film = random.Random(seed), 0
    for part, kinds in (("train", ("neg", "pos", "unsup")), ("test", ("neg", "pos"))):
        for kind in kinds:
            (folder / part / kind).mkdir(parents=True)
            urls = []
            for number in range(films_per_list * reviews_per_film):
                film += number % reviews_per_film == 0
                urls.append(f"http://www.imdb.com/title/tt{film:07d}/usercomments\n")
                telling = chance.choices({"neg": BAD, "pos": GOOD}.get(kind, GOOD + BAD), k=4)
                plain = chance.choices(PLAIN, k=chance.randint(4, 30))
                words = [*telling, f"<br /><br />{telling[0].capitalize()}", *plain, f"film{film}"]
                rating = {"neg": chance.randint(1, 4), "pos": chance.randint(7, 10)}.get(kind, 0)
                (folder / part / kind / f"{number}_{rating}.txt").write_text(" ".join(words), encoding="utf-8")
            (folder / part / f"urls_{kind}.txt").write_text("".join(urls), encoding="utf-8")
    (folder / "imdb.vocab").write_text("the\nand\n", encoding="utf-8")
    (folder / "README").write_text("Large Movie Review Dataset v1.0\n", encoding="utf-8")


def write_tar(folder, path):
    """The archive of an extracted folder, under the names that the official one has."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        archive.add(folder, arcname="aclImdb")
    return path


@pytest.fixture
def toy_folder(tmp_path):
    folder = tmp_path / "toy" / "aclImdb"
    write_archive_folder(folder)
    return folder


@pytest.fixture
def toy_archive(toy_folder, tmp_path):
    return write_tar(toy_folder, tmp_path / "toy_packed" / "aclImdb_v1.tar.gz")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A folder with a toy `aclImdb/` that stands for IMDB, verified like it, and a cache for all runs on it."""
    folder = tmp_path_factory.mktemp("data")
    write_archive_folder(folder / "aclImdb", films_per_list=10)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(imdb, "CONTENT_SHA256", imdb.read_reviews(folder / "aclImdb").digest)
        yield folder


QUICK = ["--lr", "0.01", "--batch-size", "8", "--min-freq", "2", "--max-len", "25"]


def train_toy(data, runs, name, *options):
    """Train on the toy data of the fixture `data`; returns the folder of the run."""
    args = sentiment_analysis.parse_args(["--data-dir", str(data), "--cache-dir", str(data / "cache"), "--runs-dir",
                                          str(runs), "--name", name, *QUICK, *options])
    args.command(args)
    return runs / name


@pytest.fixture
def call(monkeypatch, capsys):
    """A function that runs the command line in this process: exit code, standard output, lines of standard error."""
    def call(*options):
        monkeypatch.setattr(sys, "argv", ["sentiment_analysis.py", *map(str, options)])
        capsys.readouterr()
        try:
            run_command(sentiment_analysis.main)
            code = 0
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return code, out, err
    return call


def refused(code, out, err):
    """The one sentence with which a command ended."""
    assert code == 2
    assert "Traceback" not in out + err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert err.rstrip("\n").splitlines()[-1] == line
    assert len(line) > 20
    return line


def without_times(metrics):
    epochs = [{name: value for name, value in epoch.items() if name not in ("seconds", "tokens_per_second")}
              for epoch in metrics["epochs"]]
    return metrics | {"epochs": epochs, "seconds": None}


class Server:
    """A server of this machine that answers with `files`, path -> bytes, and 404 for any other path."""

    def __init__(self):
        self.files, self.asked = {}, []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.asked.append(self.path)
                body = server.files.get(self.path)
                self.send_response(404 if body is None else 200)
                body = b"<html>Not Found</html>" if body is None else body
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self):
        self.http.shutdown()
        self.http.server_close()


@pytest.fixture
def server():
    server = Server()
    yield server
    server.stop()
