"""The command line: one sentence and an exit code for what goes wrong, and types of numbers."""

import argparse
import contextlib
import os
import sys
from dataclasses import field, fields


class UserError(Exception):
    """An error that the user can mend: the message is one sentence saying what was wrong and what to do."""


class Unreachable(UserError):
    """A server did not answer, so a file is unavailable for now."""


class Parser(argparse.ArgumentParser):
    """An `argparse` parser that raises UserError where argparse would print its usage and exit."""

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message):
        raise UserError(f"{message} (--help shows all options).")


def number(kind, low, high=float("inf")):
    """Return an `argparse` type: a number of that kind, at least `low` and below `high`."""
    def convert(text):
        value = kind(text)
        if not low <= value < high:
            raise argparse.ArgumentTypeError(f"{text} is not at least {low:g} and below {high:g}")
        return value
    convert.__name__ = kind.__name__
    return convert


def add_data_options(parser):
    """Add the options of the commands that read reviews and run a network."""
    parser.add_argument("--data-dir", help="folder with the IMDB archive, or with it extracted (default: .data, to "
                        "which the archive is downloaded)")
    parser.add_argument("--cache-dir", default=".cache", help="folder for what need not be computed twice (default: "
                        "%(default)s)")
    parser.add_argument("--device", default="auto", choices=["auto", "cpu", "cuda"], help="where the network runs "
                        "(default: %(default)s)")


def setting(default, description, **options):
    """Return a field of a dataclass of settings; with `options` for argparse it can be set on the command line."""
    return field(default=default, metadata={"help": f"{description} (default: {default})", "options": options})


def parse_with_settings(parser, argv, settings):
    """Return the options of a command line, and a dict of those that are fields of a dataclass and were given."""
    for one in fields(settings):
        if one.metadata["options"]:
            parser.add_argument("--" + one.name.replace("_", "-"), default=argparse.SUPPRESS, help=one.metadata["help"],
                                **one.metadata["options"])
    args = parser.parse_args(argv)
    return args, {one.name: getattr(args, one.name) for one in fields(settings) if one.name in args}


def note(message):
    """Print a note to standard error; standard output is for answers."""
    print(f"note: {message}", file=sys.stderr)


def run_command(main):
    """Call `main()` and end the process.

    The exit code is 0 if all went well, 2 after one sentence, 130 after Ctrl-C, and 141, without a word, if the reader
    of the output went away, as `head` does.
    """
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the shell: prints would go astray, and files take its number
            setattr(sys, name, open(os.devnull, "r" if name == "stdin" else "w"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError):  # a notebook's
            stream.reconfigure(errors="replace")  # a terminal that lacks a letter shows "?"
    message, code = None, 2
    try:
        main()
        sys.stdout.flush()
        return
    except UserError as error:
        message = error
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python flushes at its end
        sys.exit(141)
    except OSError as error:  # a full disk, a folder that may not be written
        message = f"{error.filename or 'a file'}: {error.strerror or error}; mend that and run again."
    except KeyboardInterrupt:
        message, code = "stopped by Ctrl-C; nothing was left half-written.", 130
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
