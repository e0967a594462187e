"""Exit codes, error messages, and the parsing of options."""

import errno
from dataclasses import dataclass

import pytest

from helpers import cli

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
