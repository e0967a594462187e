"""Check whether solutions of the exercise are right, and whether submissions are complete.

    python -m check path/to/models.py                one solution in detail, about 5 seconds
    python -m check submissions/ --csv grades.csv    all submissions in a folder, and a table

A PATH is a Python file, a notebook, a zip or a folder. A folder is a set of submissions if it holds a zip, or if it has
no code, README or PDF of its own and at least two folders with code: its zips and folders are the submissions, and
its files of code are left out. Any other folder is one submission.

The exit code is 0 if all is right, 1 if something is wrong, and 2 if something cannot be judged.
Checking runs the code of the solution: run the code of strangers in a container.
"""

import argparse
import concurrent.futures
import csv
import json
import os
import sys
import textwrap
from pathlib import Path

from tqdm import tqdm

from check.locate import CLASSES, list_submissions
from check.process import judge_submission
from helpers import UserError, run
from helpers.files import whole_file

RULES = {"name": "file name", "readme": "README", "code": "code", "pdf": "PDF", "extra": "additional files",
         "seeds": "seeds", "imports": "imports", "loops": "loops"}


def main():
    """Check what the command line names."""
    description, _, details = __doc__.partition("\n")
    parser = argparse.ArgumentParser(prog="python -m check", description=description, epilog=details,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", type=Path, nargs="+", metavar="PATH", help="a .py file, a notebook, a zip or a folder")
    parser.add_argument("--strict", action="store_true", help="count biases in the attention as a mistake")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each submission")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write a table with one row for each submission")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N",
                        help="submissions that are checked at the same time (default: the number of cores)")
    parser.add_argument("--timeout", type=float, default=60, metavar="SECONDS",
                        help="time limit for a submission; if one layer exceeds it, the other layer gets the same time "
                        "(default: %(default)s)")
    args = parser.parse_args()
    sys.stdout.reconfigure(errors="replace")  # for a console without ✓, and for strange names of files
    if args.jobs < 1 or not args.timeout > 0:
        parser.error("--jobs and --timeout must be positive")
    if args.csv and args.csv.suffix.lower() != ".csv":  # "--csv *.zip" would overwrite the first of them
        raise UserError(f"--csv writes a table; {args.csv} needs a name that ends in .csv.")
    paths = [submission for path in args.paths for submission in list_submissions(path)]
    results = judge_all(paths, args)
    if args.csv:
        with whole_file(args.csv) as temporary:
            write_table(temporary, results)
    sys.exit(2 if any(map(list_errors, results)) else 0 if all(result["ok"] for result in results) else 1)


def judge_all(paths, args):
    """Return the result of each path, and print it."""
    results, is_several = [], len(paths) > 1
    with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
        futures = [pool.submit(judge_submission, path, args.timeout, args.strict) for path in paths]
        try:
            for future in tqdm(futures, "checking", unit=" submissions", disable=None if is_several else True):
                results.append(future.result())
                text = summarise(results[-1]) if is_several else describe(results[-1])
                tqdm.write(json.dumps(results[-1], ensure_ascii=False) if args.json else text, file=sys.stdout)
        except BaseException:  # Ctrl-C, or nobody reads the output
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if is_several and not args.json:
        failed = len([result for result in results if list_errors(result)])
        right = len([result for result in results if result["ok"]])
        wrong = len(results) - failed - right
        print(f"{len(results)} submissions: {right} right, {wrong} wrong, {failed} could not be judged")
    sys.stdout.flush()
    return results


def list_errors(result):
    """Return why a submission, or a layer of it, could not be judged: sentences."""
    return [item["error"] for item in (result, *result["layers"].values()) if "error" in item]


def headline(verdict):
    """Return the verdict on a class in one line."""
    if verdict["right"]:
        return f"right: equal to the loops within {verdict['difference']:.0e}, with correct gradients"
    if "error" in verdict:
        return "cannot be judged"
    return f"wrong: {(verdict['mistake'] or 'unknown mistake').replace('+', ', ')}"


def describe(result):
    """Return the lines on one submission, a text: its layers, then the rules."""
    rows = []  # pairs: what a line begins with, and its text
    for name, verdict in result["layers"].items():
        rows.append((f"{name:<18}", headline(verdict)))
        rows += [("  ", note) for note in verdict["notes"]]
    for code, rule in result["rules"].items():
        rows.append((f"{'✓' if rule['ok'] else '✗'} {RULES[code]:<18}", rule["detail"]))
    if "error" in result:
        rows.append(("error: ", result["error"]))
    wrap = textwrap.TextWrapper(110, break_on_hyphens=False)
    lines = []
    for wrap.initial_indent, text in rows:
        wrap.subsequent_indent = " " * max(4, len(wrap.initial_indent))
        lines += wrap.wrap(text)
    return "\n".join(lines)


def summarise(result):
    """Return one line on a submission."""
    parts = list_errors(result)
    for name, verdict in result["layers"].items():
        if not verdict["right"] and "error" not in verdict:
            parts.append(f"{name} {headline(verdict)}")
    parts += [f"{RULES[code]}: {rule['detail']}" for code, rule in result["rules"].items() if not rule["ok"]]
    mark = "?" if list_errors(result) else "✓" if result["ok"] else "✗"
    return f"{mark}  {result['submission']}  {'; '.join(parts)}".rstrip()


def write_table(path, results):
    """Write a table with one row for each submission. What was not checked has an empty cell."""
    with open(path, "w", newline="", encoding="utf-8-sig", errors="replace") as file:  # as Excel reads it
        table = csv.writer(file)
        table.writerow(["ID", "submission", "all right", *CLASSES, *RULES.values(), "remarks"])
        for result in results:
            cells = [result["id"] or "", result["submission"], "yes" if result["ok"] else "no"]
            for name in CLASSES:
                verdict = result["layers"].get(name)
                cells.append(headline(verdict).partition(": equal")[0] if verdict else "")
            for code in RULES:
                rule = result["rules"].get(code)
                cells.append("" if rule is None else "ok" if rule["ok"] else "broken")
            cells.append(" ".join(list_remarks(result)))
            table.writerow([f"'{cell}" if cell[:1] in ("=", "+", "-", "@") else cell for cell in cells])  # no formulas


def list_remarks(result):
    """Return sentences on what is wrong with a submission, and notes on its layers."""
    remarks = [result["error"]] if "error" in result else []
    for name, verdict in result["layers"].items():
        notes = [note for note in verdict["notes"] if not note.startswith(("exercise:", "example:", "near", "float"))]
        remarks += [f"{name}: {note.partition(': ')[2]}" for note in notes]
    remarks += [f"{RULES[code]}: {rule['detail']}" for code, rule in result["rules"].items() if not rule["ok"]]
    path = Path(result["submission"])
    return [f"{remark.removesuffix('.')}.".replace(str(path), path.name) for remark in remarks]


if __name__ == "__main__":
    run(main)
