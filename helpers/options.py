"""The options of a training run, besides its settings."""

import argparse
from pathlib import Path

from helpers.cli import Parser, UserError, add_data_options, number, user_path
from helpers.solution import check_file


def run_parser(presets, commands):
    """Return the parser of a training run.

    Args:
        presets: names of the settings to choose from, with "required" and "sample".
        commands: names of the other commands, for the help.
    """
    parser = Parser(description="Train and test the transformer.", epilog=f"Other commands: {', '.join(commands)}.")
    add_data_options(parser)
    parser.add_argument("--preset", choices=presets, default="required",
                        help="named settings; single options override them (default: required, whose values are "
                        "shown below)")
    parser.add_argument("--sample", dest="preset", action="store_const", const="sample",
                        help="train on the 312 invented reviews that come with the project")
    parser.add_argument("--models", type=user_path, metavar="FILE", help="train the network of another models.py")
    parser.add_argument("--seed", type=number(int, 0, 2**32), default=42, help="seed of numpy and torch (default: 42)")
    interrupted = parser.add_mutually_exclusive_group()
    interrupted.add_argument("--resume", action="store_true", help="continue an interrupted run")
    interrupted.add_argument("--overwrite", action="store_true", help="start a new run in place of an interrupted one")
    parser.add_argument("--runs-dir", type=user_path, default="runs",
                        help="folder for the results of runs (default: runs)")
    parser.add_argument("--name", type=run_name,
                        help="name of the run, whose results go to RUNS_DIR/NAME (default: the preset)")
    return parser


def run_name(text):
    """Return the name of a run: an `argparse` type.

    A path is refused, because the report would not find the results.
    """
    if text in ("", ".", "..") or Path(text).name != text:
        raise argparse.ArgumentTypeError(f"{text!r} is not the name of a folder; choose its place with --runs-dir")
    return text


def refuse_options(args, settings):
    """Raise UserError if options do not fit together, before anything is downloaded."""
    if args.models and settings.bonus:
        raise UserError("--models trains without the bonus; leave out --preset, or use --preset required.")
    if args.models:
        check_file(args.models)
