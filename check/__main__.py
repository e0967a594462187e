"""Check whether solutions of the exercise are right, and whether submissions are complete.

    python -m check path/to/models.py        the two layers, about 5 seconds
    python -m check ex5_123456789.zip        the layers, and the rules of hand-in
    python -m check submissions/*.zip --jobs 4 --csv grades.csv

A PATH is a Python file, a notebook, a folder or a zip. Checking runs the code of the solution: run the code of
strangers in a container.

The exit code is 0 if all is right, 1 if something is wrong, and 2 if something cannot be judged.
"""

import concurrent.futures
import contextlib
import os
import sys

from tqdm import tqdm

from check.output import count_results, describe_submission, list_errors, summarise, to_json, write_table
from check.process import Options, judge_submission
from helpers.cli import Parser, UserError, number, run_command, user_path
from helpers.files import whole_file

SUBMISSIONS = (".py", ".ipynb", ".zip")


def main():
    parser = Parser(prog="python -m check", description=__doc__.partition("\n")[0],
                    epilog="Checking runs the code of the solution: run the code of strangers in a container.")
    parser.add_argument("paths", type=user_path, nargs="+", metavar="PATH",
                        help="a .py file, a notebook, a folder or a zip")
    parser.add_argument("--strict", action="store_true", help="count biases in the attention as a mistake")
    parser.add_argument("--run", action="store_true", help="also train the network for one epoch on the sample")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each submission")
    parser.add_argument("--csv", type=user_path, metavar="FILE",
                        help="also write a table with one row for each submission")
    parser.add_argument("--jobs", type=number(int, 1), default=os.cpu_count() or 1, metavar="N",
                        help="submissions that are checked at the same time (default: the number of cores)")
    parser.add_argument("--timeout", type=number(float, 0.1), default=60,
                        help="time limit for a submission in seconds; if one layer exceeds it, the other layer gets "
                        "the same time (default: %(default)s)")
    args = parser.parse_args()
    jobs = min(args.jobs, len(args.paths))
    if args.csv and os.path.isdir(args.csv):
        raise UserError(f"{args.csv} is a folder; give the path of a file.")
    if args.csv and args.csv.lower().endswith(SUBMISSIONS):  # "--csv *.zip" would overwrite the first of them
        raise UserError(f"--csv writes a table, but {args.csv} is a submission; give a name that ends in .csv.")
    with whole_file(args.csv) if args.csv else contextlib.nullcontext() as table:  # fails early if not writable
        results = judge_all(args.paths, Options(args.timeout, args.strict, args.run, jobs), args.json)
        if table:
            write_table(table, results)
    if len(results) == 1 and not args.json:
        show_one(results[0])
    elif not args.json:
        print(count_results(results))
    sys.stdout.flush()
    if any(map(list_errors, results)):
        sys.exit(2)
    sys.exit(0 if all(result["ok"] for result in results) else 1)


def judge_all(paths, options, as_json):
    """Return the result of each path.

    With several paths, or as JSON, print one line for each, in the order of the paths.
    """
    results = []
    several = len(paths) > 1
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        futures = [pool.submit(judge_submission, path, options) for path in paths]
        try:
            for future in tqdm(futures, "checking", unit=" submissions", disable=None if several else True):
                results.append(future.result())
                if as_json or several:
                    line = to_json(results[-1]) if as_json else summarise(results[-1])
                    tqdm.write(line, file=sys.stdout)
        except BaseException:  # Ctrl-C, or nobody reads the output
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


def show_one(result):
    """Print the result of a single submission. Raises UserError if the submission or a layer cannot be judged."""
    lines = describe_submission(result)
    if lines:
        print("\n".join(lines))
    sys.stdout.flush()
    errors = list_errors(result)
    if errors:
        raise UserError(" ".join(errors))


if __name__ == "__main__":
    run_command(main)
