"""Exit codes, error messages, and the parsing of options."""

import errno
import os
import re
import subprocess
import sys
from dataclasses import dataclass

import pytest

from helpers import cli
from tests.toy import ROOT

PATH_OPTION = re.compile(r'"--([a-z]+-dir|runs?|out|file|models|notes|report|csv|explain|weights|pos|neg)"')
OTHER_KIND = re.compile("action=|type=int")
SENTENCE = "the archive is damaged; delete it."


@pytest.mark.parametrize(("error", "code", "expected"), [
    (None, 0, ""),
    (cli.UserError(SENTENCE), 2, SENTENCE),
    (cli.Unreachable(SENTENCE), 2, SENTENCE),
    (KeyboardInterrupt(), 130, "stopped by Ctrl-C; no file was left half-written."),
    (OSError("odd"), 2, "cannot read or write a file: odd."),
    (OSError(errno.ENOSPC, "No space left"), 2, "cannot read or write a file: No space left."),
    (OSError(errno.EROFS, "Read-only disk", "model.pt"), 2, "cannot open model.pt: Read-only disk."),
    (PermissionError(errno.EACCES, "Denied", "runs"), 2, "cannot open runs: Denied."),
    (FileExistsError(errno.EEXIST, "File exists", "a.csv"), 2, "a.csv is a file, not a folder; choose another name."),
], ids=repr)
def test_command_ends_with_one_sentence_and_a_code(capsys, error, code, expected):
    def main():
        print("at work")
        if error:
            raise error
    try:
        cli.run_command(main)
        found = 0
    except SystemExit as stop:
        found = stop.code
    assert (found, *capsys.readouterr()) == (code, "at work\n", f"error: {expected}\n" if expected else "")


def test_bug_keeps_its_traceback():
    """Only an error that the user can fix becomes a sentence."""
    with pytest.raises(ZeroDivisionError):
        cli.run_command(lambda: 1 / 0)


@pytest.mark.parametrize(("kind", "text", "expected"), [
    (int, "1", 1), (int, "99", 99), (float, "1e1", 10.0), (int, "0", None), (int, "100", None), (int, "2.5", None),
    (float, "nan", None), (float, "inf", None), (float, "-inf", None), (float, "many", None), (int, "", None)])
def test_number_has_a_kind_and_limits(kind, text, expected):
    parser = cli.Parser()
    parser.add_argument("--size", type=cli.number(kind, 1, 100))
    if expected is None:
        with pytest.raises(cli.UserError, match=f"--size: .*{text}.*--help"):
            parser.parse_args([f"--size={text}"])
    else:
        assert parser.parse_args([f"--size={text}"]).size == expected


@dataclass
class Settings:
    epochs: int = cli.setting(5, "passes over the reviews", type=cli.number(int, 1))
    max_len: int = cli.setting(500, "tokens of a review", type=int, choices=[400, 500])
    schedule: str = cli.setting("constant", "schedule of the learning rate")


def test_settings_are_options_with_their_defaults_in_the_help():
    parser = cli.Parser()
    args, given = cli.parse_with_settings(parser, ["--max-len", "400"], Settings)
    assert given == vars(args) == {"max_len": 400}
    assert (Settings().epochs, Settings().schedule) == (5, "constant")
    text = " ".join(parser.format_help().split())
    assert "passes over the reviews (default: 5)" in text
    assert "--schedule" not in text


@pytest.mark.parametrize("argv", [["--device", "tpu"], ["--data", "x"], ["--data-dir"], ["more"]])
def test_wrong_options_are_user_errors(argv):
    """An abbreviation too, because it could mean another option in the next version."""
    parser = cli.Parser()
    cli.add_data_options(parser)
    assert vars(parser.parse_args([])) == {"data_dir": None, "cache_dir": ".cache", "device": "auto"}
    with pytest.raises(cli.UserError, match="--help"):
        parser.parse_args(argv)


def parser_with_every_kind():
    """Return a parser with an option of each kind, where -n and --zero share an attribute."""
    parser = cli.Parser()
    parser.add_argument("-n", "--number", type=int)
    parser.add_argument("--zero", dest="number", action="store_const", const=0)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--sizes", type=int, nargs="+")
    parser.add_argument("--prefix", action="append")
    parser.add_argument("texts", nargs="*")
    one_of = parser.add_argument_group("g").add_mutually_exclusive_group()
    one_of.add_argument("--model")
    one_of.add_argument("--weights")
    return parser


@pytest.mark.parametrize(("argv", "words"), [
    ("-n 1 -n 2", "-n is given twice"), ("--number=1 --number 1", "--number is given twice"),
    ("-n1 --number 2", "-n and --number cannot be combined"), ("--fast --fast", "--fast is given twice"),
    ("--zero --fast -n 3", "--zero and -n cannot be combined"), ("--sizes 1 2 --sizes 3", "--sizes is given twice"),
    ("a --model b --model=", "--model is given twice"), ("--model a --weights b", "not allowed with")])
def test_option_given_twice_is_refused(argv, words):
    parser = parser_with_every_kind()
    with pytest.raises(cli.UserError, match=words):
        parser.parse_args(argv.split())


@pytest.mark.parametrize("argv", ["", "--prefix a --prefix b --sizes 1 2 -n 3", "--fast -- a --fast --fast a"])
def test_options_that_collect_and_texts_can_be_repeated(argv):
    parser = parser_with_every_kind()
    first = vars(parser.parse_args(argv.split()))
    assert vars(parser.parse_args(argv.split())) == first, "the second call starts from nothing"
    assert first["prefix"] == (["a", "b"] if "--prefix" in argv else None)
    assert first["texts"] == (["a", "--fast", "--fast", "a"] if "--" in argv.split() else [])


@pytest.mark.parametrize(("text", "expected"), [
    ("~", "/home/me"), ("~/a b/~c", "/home/me/a b/~c"), ("a/~/b", "a/~/b"), ("./~x", "./~x"), ("-", "-"), ("/a", "/a")])
def test_home_folder_in_a_path(monkeypatch, text, expected):
    monkeypatch.setenv("HOME", "/home/me")
    parser = cli.Parser()
    cli.add_data_options(parser)
    args = parser.parse_args([f"--data-dir={text}", f"--cache-dir={text}"])
    assert (args.data_dir, args.cache_dir) == (expected, expected)


def test_every_option_with_a_path_knows_the_home_folder():
    folders = ("benchmarks", "check", "helpers", "pretrained", "report")
    files = [*ROOT.glob("*.py"), *(file for name in folders for file in ROOT.glob(f"{name}/**/*.py"))]
    sources = "".join(file.read_text(encoding="utf-8") for file in files)
    starts = re.findall(r'add_argument\(("--[^"]+",[^"]*)', sources)
    with_path = [start for start in starts if PATH_OPTION.match(start) and not OTHER_KIND.search(start)]
    assert len(with_path) > 20
    assert [start for start in with_path if "type=user_path" not in start] == []


@pytest.mark.parametrize(("text", "words"), [
    ("~nobody-of-this-name/x", "~nobody-of-this-name is not"), ("~no-such", "write ./~no-such"), ("", "is empty")])
def test_path_without_meaning_is_refused(text, words):
    parser = cli.Parser()
    parser.add_argument("--out", type=cli.user_path)
    with pytest.raises(cli.UserError, match=f"--out: .*{words}"):
        parser.parse_args([f"--out={text}"])


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_line_is_written_before_the_process_is_killed(tmp_path, stream):
    program = ("import os, signal, sys; from helpers.cli import run_command; run_command(lambda: ("
               f"print('epoch', file=sys.{stream}), os.kill(os.getpid(), signal.SIGKILL)))")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with open(tmp_path / "log", "w") as log:
        subprocess.run([sys.executable, "-c", program], cwd=ROOT, timeout=60, env=environment, **{stream: log})
    assert (tmp_path / "log").read_text() == "epoch\n"
