"""Small data in the archive's own layout, small runs, processes, a server, and what all refusals have in common."""

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

import sentiment_analysis
from helpers.archive import content_digest, read_files
from helpers.reviews import LABELLED

ROOT = Path(sentiment_analysis.__file__).parent
GOOD = ["wonderful", "moving", "superb", "charming", "brilliant", "touching"]
BAD = ["dreadful", "boring", "awful", "clumsy", "tedious", "hollow"]
PLAIN = ["the", "film", "was", "a", "story", "of", "two", "friends", "in", "town", ",", "and", "it", "is", "long", "."]
QUICK = ["--lr", "0.01", "--batch-size", "8", "--min-freq", "2", "--max-len", "25"]


def write_archive_folder(folder, films_per_list=6, reviews_per_film=3, seed=0):
    """Write an extracted `aclImdb/`: reviews whose words tell their label and name their film, and the other files."""
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
    """Pack an extracted folder under the names that the official archive has; return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        archive.add(folder, arcname="aclImdb")
    return path


def labelled_digest(source):
    """Return the digest of the labelled reviews of a source, to stand for IMDB's."""
    return content_digest(dict(read_files(source, LABELLED)))


def train_toy(data, runs, name, *options):
    """Train on the toy data of the fixture `data`; return the folder of the run."""
    sentiment_analysis.main(["--data-dir", str(data), "--cache-dir", str(data / "cache"), "--runs-dir", str(runs),
                             "--name", name, *QUICK, *map(str, options)])
    return runs / name


def run_python(*arguments, cwd=ROOT, **environment):
    """Run Python in a process of its own; return its exit code, standard output and standard error."""
    done = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, timeout=250,
                          env=os.environ | environment)
    return done.returncode, done.stdout, done.stderr


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def refused(code, out, err):
    """Check that a command ended in one sentence, and return it."""
    assert code == 2
    assert "Traceback" not in out + err
    (line,) = [line for line in err.splitlines() if line.startswith("error: ")]
    assert err.rstrip("\n").splitlines()[-1] == line
    assert len(line) > 20
    return line


def without_times(metrics):
    """Return metrics without what differs from run to run."""
    epochs = [{name: value for name, value in epoch.items() if name not in ("seconds", "tokens_per_second")}
              for epoch in metrics["epochs"]]
    return metrics | {"epochs": epochs, "seconds": None}


class Server:
    """A server of this machine that answers with `files`, path -> bytes, and 404 for any other path.

    It sends `headers` along, redirects from the paths in `moved` to others, and can go on from where a client asks it
    to. Its `fault` may be "error 500", or that it "breaks off" (or does so "once") or "stalls" half-way.
    """

    def __init__(self):
        self.files, self.asked, self.headers, self.moved, self.fault = {}, [], {}, {}, None
        self.stopped = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.asked.append(self.path)
                fault = server.fault
                if fault == "once" and self.command == "GET" and self.path in server.moved.values():
                    server.fault = None
                body = server.files.get(self.path)
                moved, found = server.moved.get(self.path), 206 if "Range" in self.headers else 200
                status = 404 if body is None else found
                self.send_response(500 if fault == "error 500" else 302 if moved else status)
                if moved:
                    self.send_header("Location", server.url + moved)
                body = b"<html>Not Found</html>" if body is None else body
                etag = f'"{hashlib.sha256(body).hexdigest()}"'
                begin = int(self.headers.get("Range", "bytes=0-")[6:].partition("-")[0])
                body = body[begin:]
                for key, value in {"Content-Length": len(body), "ETag": etag, **server.headers}.items():
                    self.send_header(key, str(value))
                self.end_headers()
                if self.command == "GET":
                    cut = fault and (fault != "once" or server.fault is None)
                    self.wfile.write(body[:len(body) // 2] if cut else body)
                    if fault == "stalls":
                        self.wfile.flush()
                        server.stopped.wait(60)

            do_HEAD = do_GET

            def log_message(self, *args):
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self):
        self.stopped.set()
        self.http.shutdown()
        self.http.server_close()
