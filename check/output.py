"""Results of submissions as text, as JSON and as a table."""

import csv
import json
import textwrap

from check.solution import CLASSES

WIDTH = 110
RULES = {
    "name": "file name", "readme": "README", "code": "code", "pdf": "PDF", "extra": "additional files",
    "seeds": "seeds", "imports": "imports", "loops": "loops", "run": "one epoch",
}


def describe(name, verdict):
    """Return the lines on a class, given its verdict from `judge`."""
    lines = [f"{name:<18}{headline(verdict)}"]
    for note in verdict["notes"]:
        label, text = note.split(": ", 1)
        lines += textwrap.wrap(text, WIDTH, initial_indent=f"  {label:<24}", subsequent_indent=" " * 26,
                               break_on_hyphens=False)
    return lines


def headline(verdict):
    """Return the verdict in one line."""
    if verdict["right"]:
        return f"right: equal to the loops within {verdict['difference']:.0e}, with correct gradients"
    if "error" in verdict:
        return "cannot be judged"
    codes = verdict["mistake"].split("+") if verdict["mistake"] else []
    if any(note.startswith("unknown: ") for note in verdict["notes"]):
        codes.append("unknown mistake")
    return f"wrong: {', '.join(codes)}"


def describe_submission(result):
    """Return the lines on one submission: its layers, then the rules."""
    lines = []
    for name, verdict in result.get("layers", {}).items():
        lines += describe(name, verdict)
    for code, rule in result["rules"].items():
        mark = "✓" if rule["ok"] else "✗"
        lines += textwrap.wrap(rule["detail"], WIDTH, initial_indent=f"{mark} {RULES[code]:<18}",
                               subsequent_indent=" " * 20, break_on_hyphens=False)
    return lines


def summarise(result):
    """Return one line on a submission."""
    if "error" in result:
        return f"?  {result['error']}"
    parts = []
    for name, verdict in result["layers"].items():
        if not verdict["right"]:
            parts.append(verdict.get("error") or f"{name} {headline(verdict)}")
    for code, rule in result["rules"].items():
        if not rule["ok"]:
            parts.append(f"{RULES[code]}: {rule['detail']}")
    mark = "✓" if result["ok"] else "✗"
    if list_errors(result):
        mark = "?"
    return f"{mark}  {result['submission']}  {'; '.join(parts)}".rstrip()


def count_results(results):
    """Return the last line on several submissions."""
    failed = len([result for result in results if list_errors(result)])
    right = len([result for result in results if result["ok"]])
    wrong = len(results) - failed - right
    return f"{len(results)} submissions: {right} right, {wrong} wrong, {failed} could not be judged"


def list_errors(result):
    """Return why a submission, or a layer of it, could not be judged: sentences."""
    return [item["error"] for item in (result, *result.get("layers", {}).values()) if "error" in item]


def to_json(result):
    """Return a submission as one line of JSON."""
    if "error" in result:
        kept = {"submission": result["submission"], "error": result["error"]}
    else:
        kept = {key: result[key] for key in ("submission", "ok", "layers", "rules")}
    return json.dumps(kept, ensure_ascii=False)


def write_table(path, results):
    """Write a table with one row for each submission."""
    with open(path, "w", newline="", encoding="utf-8-sig") as file:  # with this encoding Excel reads ✓ and names
        table = csv.writer(file)
        table.writerow(["submission", "ok", *CLASSES, *RULES.values(), "error"])
        for result in results:
            table.writerow(make_row(result))


def make_row(result):
    """Return the cells of a submission. A rule that is kept, or was not checked, has an empty cell."""
    cells = [result["submission"], "yes" if result["ok"] else "no"]
    for name in CLASSES:
        verdict = result.get("layers", {}).get(name)
        cells.append(headline(verdict).partition(": equal")[0] if verdict else "")
    for code in RULES:
        rule = result["rules"].get(code, {"ok": True})
        cells.append("" if rule["ok"] else rule["detail"])
    return [escape(cell) for cell in [*cells, " ".join(list_errors(result))]]


def escape(cell):
    """Return a cell so that no spreadsheet reads it as a formula."""
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@") else cell
