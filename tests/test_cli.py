"""How a command ends, and how it reads its options."""

import errno
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from helpers import cli

SENTENCE = "the archive is damaged; delete it."
STOPPED = "stopped by Ctrl-C; nothing was left half-written."


@pytest.mark.parametrize(("error", "code", "expected"), [
    (None, 0, ""),
    (cli.UserError(SENTENCE), 2, SENTENCE),
    (cli.Unreachable(SENTENCE), 2, SENTENCE),
    (KeyboardInterrupt(), 130, STOPPED),
    (OSError("odd"), 2, "a file: odd; mend that and run again."),
    (OSError(errno.ENOSPC, "No space left"), 2, "a file: No space left; mend that and run again."),
    (OSError(errno.EROFS, "Read-only disk", "model.pt"), 2, "model.pt: Read-only disk; mend that and run again."),
    (PermissionError(errno.EACCES, "Denied", "runs"), 2, "runs: Denied; mend that and run again."),
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
    """Only what the user can mend is put into a sentence."""
    with pytest.raises(ZeroDivisionError):
        cli.run_command(lambda: 1 / 0)


def test_ctrl_c_as_the_shell_sees_it(tmp_path):
    code = ("import time\nfrom helpers.cli import run_command\nfrom helpers.files import whole_file\n"
            "def main():\n    with whole_file('result.txt') as temporary:\n        temporary.write_text('half')\n"
            "        print('writing', flush=True)\n        time.sleep(60)\nrun_command(main)")
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1])},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL))  # it may be ignored
    assert process.stdout.readline() == "writing\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (130, "", f"error: {STOPPED}\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("kind", "text", "expected"), [
    (int, "1", 1), (int, "99", 99), (float, "1e1", 10.0), (int, "0", None), (int, "100", None), (int, "2.5", None),
    (float, "nan", None), (float, "inf", None), (float, "-inf", None), (float, "many", None), (int, "", None)])
def test_number_is_of_its_kind_and_between_its_limits(kind, text, expected):
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
    schedule: str = cli.setting("constant", "of the learning rate")


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
    """An abbreviated one too: it could mean another option in the next version."""
    parser = cli.Parser()
    cli.add_data_options(parser)
    assert vars(parser.parse_args([])) == {"data_dir": None, "cache_dir": ".cache", "device": "auto"}
    with pytest.raises(cli.UserError, match="--help"):
        parser.parse_args(argv)
