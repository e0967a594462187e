"""Check whether solutions of the exercise are right, and whether submissions are complete.

    python -m check path/to/models.py                              one solution in detail, about 5 seconds
    python -m check submissions/ --csv grades.csv                  all submissions in a folder, and a table

A PATH is a Python file, a notebook, a zip or a folder. A folder stands for a set of submissions if it holds a zip, or
if it has no code, README or PDF of its own and at least two folders with code. Any other folder is one submission.

The exit code is 0 if all is right, 1 if something is wrong, and 2 if something cannot be judged.
"""

import argparse
import concurrent.futures
import csv
import json
import os
import sys
import textwrap
from pathlib import Path

if not __package__:  # started as python check/__main__.py
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tqdm import tqdm

from check.locate import CLASSES, list_submissions
from check.process import Options, judge_submission
from helpers import UserError, run
from helpers.files import whole_file

RULES = {"name": "file name", "readme": "README", "code": "code", "pdf": "PDF", "extra": "additional files",
         "seeds": "seeds", "imports": "imports", "loops": "loops"}
WIDTH = 110


def main():
    """Check what the command line names."""
    args = parse_args()
    if args.csv and args.csv.suffix.lower() != ".csv":  # "--csv *.zip" would overwrite the first of them
        raise UserError(f"--csv writes a table; {args.csv} needs a name that ends in .csv.")
    paths = []
    for path in args.paths:
        submissions, left_out = list_submissions(path)
        if not submissions:
            raise UserError(f"{path} holds no submission.")
        paths += submissions
        for file in left_out:
            print(f"note: {file} is neither a zip nor in a folder of its own; it is left out", file=sys.stderr)
    results = judge_all(paths, Options(args.timeout, args.strict, min(args.jobs, len(paths))), args.json)
    if args.csv:
        with whole_file(args.csv) as temporary:
            write_table(temporary, results)
    if len(results) > 1 and not args.json:
        print(count_results(results))
    sys.stdout.flush()
    sys.exit(2 if any(map(list_errors, results)) else 0 if all(result["ok"] for result in results) else 1)


def parse_args():
    """Return the options of the command line."""
    description, _, details = __doc__.partition("\n")
    parser = argparse.ArgumentParser(
        prog="python -m check", description=description, formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog=f"{details}\nChecking runs the code of the solution: run the code of strangers in a container.")
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="a .py file, a notebook, a zip or a folder")
    parser.add_argument("--strict", action="store_true", help="count biases in the attention as a mistake")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each submission")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write a table with one row for each submission")
    parser.add_argument("--jobs", type=positive(int), default=os.cpu_count() or 1, metavar="N",
                        help="submissions that are checked at the same time (default: the number of cores)")
    parser.add_argument("--timeout", type=positive(float), default=60, metavar="SECONDS",
                        help="time limit for a submission; if one layer exceeds it, the other layer gets the same time "
                        "(default: %(default)s)")
    return parser.parse_args()


def positive(kind):
    """Return a function that converts the text of an option to a positive number."""
    def convert(text):
        number = kind(text)
        if not number > 0:
            raise argparse.ArgumentTypeError(f"{text} is not positive")
        return number
    return convert


def judge_all(paths, options, as_json):
    """Return the result of each path, and print each one as soon as those before it are printed."""
    results = []
    is_several = len(paths) > 1
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        futures = [pool.submit(judge_submission, path, options) for path in paths]
        try:
            for future in tqdm(futures, "checking", unit=" submissions", disable=None if is_several else True):
                result = future.result()
                results.append(result)
                if as_json:
                    text = json.dumps(result, ensure_ascii=False)
                else:
                    text = summarise(result) if is_several else "\n".join(describe(result))
                tqdm.write(text, file=sys.stdout)
        except BaseException:  # Ctrl-C, or nobody reads the output
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return results


# Text


def headline(verdict):
    """Return the verdict on a class in one line."""
    if verdict["right"]:
        return f"right: equal to the loops within {verdict['difference']:.0e}, with correct gradients"
    if "error" in verdict:
        return "cannot be judged"
    codes = verdict["mistake"].split("+") if verdict["mistake"] else []
    if any(note.startswith("unknown: ") for note in verdict["notes"]):
        codes.append("unknown mistake")
    return f"wrong: {', '.join(codes)}"


def describe(result):
    """Return the lines on one submission: its layers, then the rules."""
    rows = []  # pairs: what a line begins with, and its text
    for name, verdict in result["layers"].items():
        rows.append((f"{name:<18}", headline(verdict)))
        for note in verdict["notes"]:
            label, text = note.split(": ", 1)
            rows.append((f"  {label:<24}", text))
    for code, rule in result["rules"].items():
        rows.append((f"{'✓' if rule['ok'] else '✗'} {RULES[code]:<18}", rule["detail"]))
    if "error" in result:
        rows.append(("error: ", result["error"]))
    lines = []
    for first, text in rows:
        indent = " " * len(first)
        lines += textwrap.wrap(text, WIDTH, initial_indent=first, subsequent_indent=indent, break_on_hyphens=False)
    return lines


def summarise(result):
    """Return one line on a submission."""
    parts = list_errors(result)
    for name, verdict in result["layers"].items():
        if not verdict["right"] and "error" not in verdict:
            parts.append(f"{name} {headline(verdict)}")
    parts += [f"{RULES[code]}: {rule['detail']}" for code, rule in result["rules"].items() if not rule["ok"]]
    mark = "?" if list_errors(result) else "✓" if result["ok"] else "✗"
    return f"{mark}  {result['submission']}  {'; '.join(parts)}".rstrip()


def count_results(results):
    """Return the last line on several submissions."""
    failed = len([result for result in results if list_errors(result)])
    right = len([result for result in results if result["ok"]])
    wrong = len(results) - failed - right
    return f"{len(results)} submissions: {right} right, {wrong} wrong, {failed} could not be judged"


def list_errors(result):
    """Return why a submission, or a layer of it, could not be judged: sentences."""
    return [item["error"] for item in (result, *result["layers"].values()) if "error" in item]


# Table


def write_table(path, results):
    """Write a table with one row for each submission."""
    with open(path, "w", newline="", encoding="utf-8-sig") as file:  # with this encoding, Excel reads all letters
        table = csv.writer(file)
        table.writerow(["ID", "submission", "all right", *CLASSES, *RULES.values(), "remarks"])
        table.writerows(map(make_row, results))


def make_row(result):
    """Return the cells of a submission. What was not checked has an empty cell."""
    cells = [result["id"] or "", result["submission"], "yes" if result["ok"] else "no"]
    for name in CLASSES:
        verdict = result["layers"].get(name)
        cells.append(headline(verdict).partition(": equal")[0] if verdict else "")
    for code in RULES:
        rule = result["rules"].get(code)
        cells.append("" if rule is None else "ok" if rule["ok"] else "broken")
    cells.append(" ".join(list_remarks(result)))
    return [f"'{cell}" if cell[:1] in ("=", "+", "-", "@") else cell for cell in cells]  # a spreadsheet runs formulas


def list_remarks(result):
    """Return sentences on everything that is wrong with a submission, and on what it is said to be careful with."""
    remarks = [result["error"]] if "error" in result else []
    for name, verdict in result["layers"].items():
        for note in verdict["notes"]:
            label, text = note.split(": ", 1)
            if label not in ("exercise", "example", "nearest", "float32"):
                remarks.append(f"{name}: {text.removesuffix('.')}.")
    for code, rule in result["rules"].items():
        if not rule["ok"]:
            remarks.append(f"{RULES[code]}: {rule['detail'].removesuffix('.')}.")
    return remarks


if __name__ == "__main__":
    run(main)
