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
    """An `argparse` parser that raises UserError instead of printing its usage and exiting.

    It refuses an option that is given twice, because `argparse` would ignore the first value without a word. Options
    that collect their values, such as those with `action="append"`, can be repeated.
    """

    def __init__(self, **options):
        super().__init__(allow_abbrev=False, **options)
        self.given = {}  # from the attribute of the result to the option that has set it
        for name in (None, "store", "store_const", "store_true", "store_false"):
            self.register("action", name, once(self._registry_get("action", name)))

    def parse_known_args(self, args=None, namespace=None):
        self.given.clear()
        return super().parse_known_args(args, namespace)

    def error(self, message):
        raise UserError(f"{message} (--help shows all options).")


def once(action):
    """Return a subclass of an `argparse` action that refuses a second option for the same attribute."""
    class Once(action):
        def __call__(self, parser, namespace, values, option=None):
            if option:  # an argument without a name cannot be repeated
                refuse_second(parser, self.dest, option)
            super().__call__(parser, namespace, values, option)
    return Once


def refuse_second(parser, attribute, option):
    """Report an error if an earlier option has set the attribute; otherwise record that `option` sets it."""
    first = parser.given.get(attribute)
    if first == option:
        parser.error(f"{option} is given twice; give it once")
    if first:
        parser.error(f"{first} and {option} cannot be combined; give one of them")
    parser.given[attribute] = option


def number(kind, low, high=float("inf")):
    """Return an `argparse` type for numbers of a kind, int or float, that are at least `low` and below `high`."""
    def convert(text):
        value = kind(text)
        if not low <= value < high:
            raise argparse.ArgumentTypeError(f"{text} is not at least {low:g} and below {high:g}")
        return value
    convert.__name__ = kind.__name__
    return convert


def user_path(text):
    """Return a path of the command line with `~` replaced by the home folder: an `argparse` type, str -> str.

    The shell does this in `--file ~/x`, but not in `--file=~/x`.
    """
    path = os.path.expanduser(text)
    if not path:
        raise argparse.ArgumentTypeError("the path is empty")
    if path.startswith("~"):  # `expanduser` knows no home folder
        user = path.replace(os.sep, "/").partition("/")[0]
        raise argparse.ArgumentTypeError(f"{user} is not the home folder of a user; write ./{path} if the file has "
                                         "that name")
    return path


def add_data_options(parser):
    """Add the options of the commands that read reviews and run a network."""
    parser.add_argument("--data-dir", type=user_path, help="path to the IMDB archive, to its folder, or to the "
                        "extracted data (default: .data, where the archive is downloaded)")
    parser.add_argument("--cache-dir", type=user_path, default=".cache",
                        help="folder for cached results (default: %(default)s)")
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
    except FileExistsError as error:  # a file has the name of a folder that is to be created
        stop(f"{error.filename} is a file, not a folder; choose another name.", 2)
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
            # A terminal that lacks a letter shows "?". A line is written at once, even to a file, so that a run that is
            # killed leaves its output.
            stream.reconfigure(errors="replace", line_buffering=True)


def stop(message, code):
    """Print an error to standard error and end the process."""
    print(f"error: {message}", file=sys.stderr)
    sys.exit(code)
