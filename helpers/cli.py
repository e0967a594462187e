"""The command line: options, exit codes, and one sentence for each error."""

import argparse
import contextlib
import os
import sys
from dataclasses import field, fields


class UserError(Exception):
    """An error that the user can fix. The message is one sentence: what is wrong and what to do."""


class Unreachable(UserError):
    """A server did not answer, so a file is not available now."""


class Parser(argparse.ArgumentParser):
    """An `argparse` parser that raises UserError instead of printing its usage and exiting."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message):
        raise UserError(f"{message} (--help shows all options).")


def number(kind, low, high=float("inf")):
    """Return an `argparse` type for numbers of a kind, int or float, that are at least `low` and below `high`."""
    def convert(text):
        value = kind(text)
        if not low <= value < high:
            raise argparse.ArgumentTypeError(f"{text} is not at least {low:g} and below {high:g}")
        return value
    convert.__name__ = kind.__name__
    return convert


def add_data_options(parser):
    """Add the options of the commands that read reviews and run a network."""
    parser.add_argument("--data-dir", help="path to the IMDB archive, to its folder, or to the extracted data "
                        "(default: .data, where the archive is downloaded)")
    parser.add_argument("--cache-dir", default=".cache", help="folder for cached results (default: %(default)s)")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"],
                        help="device of the network (default: %(default)s)")


def setting(default, description, **options):
    """Return a field of a settings dataclass.

    Args:
        default: the default value.
        description: the text for `--help`.
        options: arguments of `add_argument`. Without any, the field cannot be set on the command line.
    """
    help = f"{description} (default: {default})"
    return field(default=default, metadata={"help": help, "options": options})


def parse_with_settings(parser, argv, settings):
    """Add the fields of a settings dataclass to a parser, and parse a command line.

    Returns:
        all options (a namespace), and the settings that were given (a dict from field to value).
    """
    for one in fields(settings):
        if one.metadata["options"]:
            parser.add_argument("--" + one.name.replace("_", "-"), default=argparse.SUPPRESS, help=one.metadata["help"],
                                **one.metadata["options"])
    args = parser.parse_args(argv)
    given = {one.name: getattr(args, one.name) for one in fields(settings) if one.name in args}
    return args, given


def note(message):
    """Print a note to standard error. Standard output is for results."""
    print(f"note: {message}", file=sys.stderr)


def run_command(main):
    """Call `main()` and end the process if it fails.

    The exit code is 0 after success, 2 after an error, and 130 after Ctrl-C. It is 141, without a message, if the
    reader of the output stops early, as `head` does.
    """
    prepare_streams()
    try:
        main()
        sys.stdout.flush()
    except UserError as error:
        stop(error, 2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more when it exits
        sys.exit(141)
    except OSError as error:  # for example a full disk, or a folder without write permission
        action = f"open {error.filename}" if error.filename else "read or write a file"
        stop(f"cannot {action}: {error.strerror or error}.", 2)
    except KeyboardInterrupt:
        stop("stopped by Ctrl-C; no file was left half-written.", 130)


def prepare_streams():
    """Make the standard streams safe to use, whatever the shell did to them."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell; the next file to be opened would get its number
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # a notebook's streams have no `reconfigure`
            stream.reconfigure(errors="replace")  # a terminal that lacks a letter shows "?"


def stop(message, code):
    """Print an error to standard error and end the process."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
