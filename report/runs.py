"""Read the runs of a folder."""

import json
from dataclasses import fields
from pathlib import Path

import sentiment_analysis
from helpers.cli import UserError
from report.groups import describe_other, make_group, same_group

METRICS = ["data", "seed", "words", "settings", "device", "threads", "versions", "epochs", "test", "seconds"]
ANALYSIS = ["data", "error_by_stars", "error_by_length", "examples_of_at_most", "examples", "attention"]


def read_json(path, keys):
    """Return the dict in a file. Raises UserError if it is damaged or lacks one of `keys`."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; run the command that writes it again.") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error}); run the command that writes it again.") from error
    if not isinstance(content, dict) or not content.keys() >= set(keys):
        raise UserError(f"{path} is damaged or of another version; run the command that writes it again.")
    return content


def read_runs(folder):
    """Return the finished runs in `folder`: a list of our runs, and a list of runs of other networks (`--models`).

    Both are sorted by name. A run is {"name", "metrics", "analysis"}; the analysis is None for other networks. Raises
    UserError if the folder is missing, or if a run is unfinished or damaged.
    """
    if not folder.is_dir():
        raise UserError(f"cannot find the folder {folder}; train first, or name the folder of the runs with --runs.")
    runs, of_others, seen = [], [], set()
    for path in sorted(folder.iterdir()):
        run = read_run(path)
        if run is None:
            continue
        if run["metrics"].get("models"):
            of_others.append(run)
            continue
        same = same_group(run["metrics"]) + str(run["metrics"]["seed"])
        if same in seen:
            print(f"{path} repeats the settings and the seed of another run; it is left out.")
            continue
        seen.add(same)
        runs.append(run)
    return runs, of_others


def read_run(path):
    """Return the run in a folder, or None if the folder has no `metrics.json`."""
    if (path / "checkpoint.pt").exists():
        raise UserError(f"{path} is an unfinished run; continue it with --resume, or delete {path}.")
    if not (path / "metrics.json").exists():
        return None
    run = {"name": path.name, "metrics": read_json(path / "metrics.json", METRICS), "analysis": None}
    if not run["metrics"].get("models"):
        run["analysis"] = read_json(path / "analysis.json", ANALYSIS)
    check_run(run, path)
    return run


def check_run(run, path):
    """Raise UserError if a run is damaged or of another version of the program."""
    names = {field.name for field in fields(sentiment_analysis.Settings)}
    try:
        is_valid = run["metrics"]["settings"].keys() == names
        if run["metrics"].get("models"):
            describe_other(run)
        else:
            make_group([run])
    except (LookupError, TypeError, ValueError, AttributeError):
        is_valid = False
    if not is_valid:
        raise UserError(f"{path} is damaged or of another version of the program; train again.")
