"""Code shared by the benchmarks: options, results as JSON, and the tables of README.md.

    python -m benchmarks.common        seconds; fills the tables of benchmarks/README.md from benchmarks/results/
"""

import argparse
import json
import platform
import re
import statistics
from pathlib import Path

import torch

from helpers import run
from helpers.files import write_text

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parent / "README.md"
MARKER = re.compile(r"^(<!-- table: (.+) -->\n)(?:\|.*\n)*", re.MULTILINE)  # names of results, and the table below


def data_parser(doc):
    """Return a parser with `--data-dir` and `--cache-dir`; `doc` is the docstring of a script."""
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0],
                                     formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data-dir", default=".data", help="the IMDB archive, its folder, or the extracted data")
    parser.add_argument("--cache-dir", default=".cache", help="folder for cached results")
    return parser


def read_json(path):
    """Return the content of a JSON file."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def write_result(name, result):
    """Write `benchmarks/results/NAME.json` and print its table: the list of dicts `result["rows"]`."""
    write_text(RESULTS / f"{name}.json", json.dumps(result, indent=1) + "\n")
    print(table(result["rows"]))


def machine():
    """Return what a measured time depends on: a dict."""
    return {"cpu": cpu_name(), "threads": torch.get_num_threads(), "python": platform.python_version(),
            "torch": torch.__version__}


def cpu_name():
    """Return the name of the processor, or "CPU" if the system does not know it."""
    info = Path("/proc/cpuinfo")
    found = re.search("model name.*: (.*)", info.read_text()) if info.exists() else None
    return found[1] if found else platform.processor() or "CPU"


def mean_row(rows):
    """Return the mean and the standard deviation (of a sample) of each column over rows, a list of dicts: a dict."""
    result = {}
    for name in rows[0]:
        values = [row[name] for row in rows]
        sd = statistics.stdev(values) if len(values) > 1 else None
        result[name] = {"mean": statistics.fmean(values), "sd": sd}
    return result


def cell(value):
    """Return the text of a value of a row. A number below 1 has 4 decimals, others have 2, and integers none."""
    mean, sd = (value["mean"], value["sd"]) if isinstance(value, dict) else (value, None)
    if not isinstance(mean, float):
        return str(mean)
    decimals = 4 if mean < 1 else 2
    text = f"{mean:.{decimals}f}"
    return text if sd is None else f"{text} ± {sd:.{decimals}f}"


def table(rows):
    """Return rows (dicts with the same keys) as a table in Markdown."""
    lines = [list(rows[0]), ["---"] * len(rows[0])]
    for row in rows:
        lines.append([cell(value) for value in row.values()])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def fill(marker):
    """Return a match of MARKER with the table of those results that there are."""
    rows = []
    for path in [RESULTS / f"{name}.json" for name in marker[2].split()]:
        rows += read_json(path)["rows"] if path.exists() else []
    return marker[1] + (table(rows) if rows else "")


def main():
    write_text(README, MARKER.sub(fill, README.read_text(encoding="utf-8")))


if __name__ == "__main__":
    run(main)
