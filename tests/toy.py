"""Toy data in the layout of the archive, small runs, processes, a server, and checks that many tests share."""

import functools
import hashlib
import json
import os
import random
import subprocess
import sys
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

import sentiment_analysis
from helpers.data.archive import content_digest, read_files
from helpers.data.reviews import LABELLED
from helpers.data.text import plain_text

ROOT = Path(sentiment_analysis.__file__).parent
GOOD = ["wonderful", "moving", "superb", "charming", "brilliant", "touching"]
BAD = ["dreadful", "boring", "awful", "clumsy", "tedious", "hollow"]
PLAIN = ["the", "film", "was", "a", "story", "of", "two", "friends", "in", "town", ",", "and", "it", "is", "long", "."]
RESULTS = ["analysis.json", "loss.png", "metrics.json", "model.pt"]  # files of a finished run
QUICK = ["--lr", "0.01", "--batch-size", "8", "--min-freq", "2", "--max-len", "25"]


def write_archive_folder(folder, films_per_list=6, reviews_per_film=3, seed=0):
    """Write an extracted `aclImdb/`. The words of a review tell its label, and the last one names its film."""
    chance, film = random.Random(seed), 0
    for part, kind in (("train", "neg"), ("train", "pos"), ("train", "unsup"), ("test", "neg"), ("test", "pos")):
        (folder / part / kind).mkdir(parents=True)
        urls = []
        for number in range(films_per_list * reviews_per_film):
            if number % reviews_per_film == 0:
                film += 1
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
    """Pack an extracted folder as in the official archive; return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        archive.add(folder, arcname="aclImdb")
    return path


def words_of(reviews):
    """Return the words of each review, a list of lists."""
    texts = np.split(reviews.tokens, reviews.starts[1:-1])[:len(reviews.labels)]
    return [[reviews.words[token] for token in text] for text in texts]


@functools.cache
def spacy_tokenizer():
    import spacy  # here, because it takes a second, and few test files need it

    return spacy.blank("en").tokenizer


def spacy_words(text):
    """Return the tokens that spaCy finds in the plain form of a text, without white space."""
    return [token.text.lower() for token in spacy_tokenizer()(plain_text(text)) if not token.is_space]


def labelled_digest(source):
    """Return the digest of the labelled reviews of a source. Tests use it in place of the digest of IMDB."""
    return content_digest(dict(read_files(source, LABELLED)))


def train_toy(data, runs, name, *options):
    """Train on the toy data of the fixture `data`; return the folder of the run. `options` come first."""
    usual = {"--data-dir": data, "--cache-dir": data / "cache", "--runs-dir": runs, "--name": name}
    usual |= dict(zip(QUICK[::2], QUICK[1::2], strict=True))
    arguments = list(options)
    for option, value in usual.items():
        if option not in options:
            arguments += [option, value]
    sentiment_analysis.main([str(argument) for argument in arguments])
    return runs / name


def run_python(*arguments, cwd=ROOT, **environment):
    """Run Python in a new process; return its exit code, standard output and standard error."""
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, timeout=250,
                          env=os.environ | environment)
    return done.returncode, done.stdout, done.stderr


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def refused(code, out, err):
    """Check that a command was refused with one sentence and exit code 2; return the sentence."""
    assert code == 2
    assert "Traceback" not in out + err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert err.rstrip("\n").splitlines()[-1] == line
    assert len(line) > 20
    return line


def without_times(metrics):
    """Return metrics without times and date, which differ from run to run."""
    epochs = [epoch | {"seconds": None, "tokens_per_second": None} for epoch in metrics["epochs"]]
    return metrics | {"epochs": epochs, "seconds": None, "date": None}


class Server:
    """A server on this machine. It answers with `files`, a dict from path to bytes, and 404 for any other path.

    Attributes:
        asked: the paths of all requests so far.
        headers: further headers of every answer.
        moved: redirects, a dict from path to path.
        fault: None, "error 500" (or another status), "breaks off" or "stalls" (after half of the body), or "once"
            (only the first answer from a path in `moved` breaks off).
    """

    def __init__(self):
        self.files, self.asked, self.headers, self.moved, self.fault = {}, [], {}, {}, None
        self.stopped = threading.Event()
        handler = type("Handler", (ServerHandler,), {"server_data": self})
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self):
        self.stopped.set()
        self.http.shutdown()
        self.http.server_close()


class ServerHandler(BaseHTTPRequestHandler):
    """Answers one request to `server_data`, a `Server`. A client may ask for the rest of a file."""

    def do_GET(self):
        server = self.server_data
        server.asked.append(self.path)
        breaks_off = self.is_cut()
        body = server.files.get(self.path, b"<html>Not Found</html>")
        begin = int(self.headers.get("Range", "bytes=0-")[6:].partition("-")[0])
        headers = {"Content-Length": len(body) - begin, "ETag": f'"{hashlib.sha256(body).hexdigest()}"'}
        if self.path in server.moved:
            headers["Location"] = server.url + server.moved[self.path]
        self.send_response(self.status())
        for key, value in (headers | server.headers).items():
            self.send_header(key, str(value))
        self.end_headers()
        if self.command == "GET":
            end = (begin + len(body)) // 2 if breaks_off else len(body)
            self.wfile.write(body[begin:end])
            if server.fault == "stalls":
                self.wfile.flush()
                server.stopped.wait(60)

    do_HEAD = do_GET

    def is_cut(self):
        """Return whether this answer breaks off. The fault "once" ends here."""
        server = self.server_data
        if server.fault == "once" and self.command == "GET" and self.path in server.moved.values():
            server.fault = None
            return True
        return server.fault in ("breaks off", "stalls")

    def status(self):
        fault = self.server_data.fault or ""
        if fault.startswith("error "):
            return int(fault.removeprefix("error "))
        if self.path in self.server_data.moved:
            return 302
        if self.path not in self.server_data.files:
            return 404
        return 206 if "Range" in self.headers else 200

    def log_message(self, *args):
        pass
