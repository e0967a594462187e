"""Read the runs of a folder and put those with equal settings into groups.

A group of runs is what the report shows as one result.
"""

import json
from collections import defaultdict
from dataclasses import asdict, fields
from pathlib import Path

import sentiment_analysis
from helpers.cli import UserError
from report.findings import attention_findings, curve_findings, error_findings, mean_and_sd

METRICS = ["data", "seed", "words", "settings", "device", "threads", "versions", "epochs", "test", "seconds"]
ANALYSIS = ["data", "error_by_stars", "error_by_length", "examples_of_at_most", "examples", "attention"]
BONUS_FIELDS = {  # fields of the bonus's settings, with their names in the report
    "unlabelled": "learns from unlabelled reviews", "short_texts": "trained on short texts too",
    "regions": "region embeddings", "input_dropout": "dropout of word vectors", "one_cycle": "one-cycle learning rate"}


def read_json(path, keys):
    """Return the dict in a file. Raises UserError if it is damaged or lacks one of `keys`."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        missing = [key for key in keys if key not in content]
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; run the command that writes it again.") from error
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); run the command that writes it again.") from error
    if not isinstance(content, dict) or missing:
        raise UserError(f"{path} is damaged or of another version; run the command that writes it again.")
    return content


def read_runs(folder):
    """Return the finished runs in `folder`, a list of {"name", "metrics", "analysis"}, sorted by name.

    Raises UserError if the folder is missing, or if a run is unfinished or damaged.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}; train first, or name the folder of the runs with --runs.")
    runs, seen = [], set()
    for path in sorted(folder.iterdir()):
        if (path / "checkpoint.pt").exists():
            raise UserError(f"{path} is an unfinished run; continue it with --resume, or delete {path}.")
        if not (path / "metrics.json").exists():
            continue
        metrics = read_json(path / "metrics.json", METRICS)
        if metrics.get("models"):
            print(f"{path} trained the network in {metrics['models']}; it is left out.")
            continue
        same = json.dumps([metrics["data"], metrics["settings"], metrics["seed"]], sort_keys=True)
        if same in seen:
            print(f"{path} repeats the settings and the seed of another run; it is left out.")
            continue
        seen.add(same)
        run = {"name": path.name, "metrics": metrics, "analysis": read_json(path / "analysis.json", ANALYSIS)}
        check_run(run, path)
        runs.append(run)
    return runs


def check_run(run, path):
    """Raise UserError if a run is damaged or of another version of the program."""
    names = {field.name for field in fields(sentiment_analysis.Settings)}
    try:
        is_valid = run["metrics"]["settings"].keys() == names
        make_group([run])
    except (LookupError, TypeError, ValueError, AttributeError):
        is_valid = False
    if not is_valid:
        raise UserError(f"{path} is damaged or of another version of the program; train again.")


def group_runs(runs):
    """Return the groups of runs with equal data and settings, as `make_group` makes them."""
    members = defaultdict(list)
    for run in runs:
        members[json.dumps([run["metrics"]["data"], run["metrics"]["settings"]], sort_keys=True)].append(run)
    return [make_group(of_group) for of_group in members.values()]


def make_group(runs, cpu=None):
    """Return what the report shows of runs with equal settings, sorted by seed; `cpu` is the name of the processor."""
    runs = sorted(runs, key=lambda run: run["metrics"]["seed"])
    all_metrics = [run["metrics"] for run in runs]
    first, test = all_metrics[0], all_metrics[0]["test"]
    epochs = mean_epochs(all_metrics)
    return {
        "names": [run["name"] for run in runs], "preset": find_preset(first), "data": first["data"],
        "settings": first["settings"], "seeds": [metrics["seed"] for metrics in all_metrics],
        "machine": describe_machines(all_metrics, cpu),
        "dates": sorted({metrics["date"] for metrics in all_metrics if "date" in metrics}),
        "seconds": float(sum(metrics["seconds"] for metrics in all_metrics) / len(runs)),
        "epochs": epochs, "curves": curve_findings(epochs),
        "test_accuracy": mean_and_sd([metrics["test"]["accuracy"] for metrics in all_metrics]),
        "without_duplicates": mean_and_sd([metrics["test"]["accuracy_without_duplicates"] for metrics in all_metrics]),
        "valid_accuracy": mean_and_sd([metrics["epochs"][-1]["valid_accuracy"] for metrics in all_metrics]),
        "duplicates": test["duplicates"], "confusion": test["confusion"],
        "excerpts": mean_excerpts(all_metrics), "analysis": add_findings(runs[0].get("analysis")),
        "metrics": all_metrics}


def find_preset(metrics):
    """Return the name of the preset whose settings a run has, "handout" also with other word vectors, or None."""
    settings = metrics["settings"]
    for name in [*sentiment_analysis.PRESETS, *sentiment_analysis.BONUS_PRESETS]:
        expected = json.loads(json.dumps(asdict(sentiment_analysis.preset(name))))
        if name == "handout":
            expected["glove_dim"] = settings["glove_dim"]
        if settings == expected:
            return name
    return None


def mean_epochs(all_metrics):
    """Return the losses and the validation accuracy of each epoch, means over runs."""
    means = []
    for epochs in zip(*(metrics["epochs"] for metrics in all_metrics), strict=True):
        mean = {}
        for key in ("train_loss", "valid_loss", "valid_accuracy"):
            mean[key] = sum(epoch[key] for epoch in epochs) / len(epochs)
        means.append(mean)
    return means


def mean_excerpts(all_metrics):
    """Return accuracy and calibration error on excerpts, a dict from length to {"mean", "sd"} of each."""
    excerpts = {}
    for length in all_metrics[0]["test"]["excerpts"]:
        of_runs = [metrics["test"]["excerpts"][length] for metrics in all_metrics]
        excerpts[length] = {}
        for key in of_runs[0]:
            excerpts[length][key] = mean_and_sd([one[key] for one in of_runs])
    return excerpts


def add_findings(analysis):
    """Return an `analysis.json` with what its figures say; None if there is none."""
    if analysis is None:
        return None
    attention = [one | {"findings": attention_findings(one)} for one in analysis["attention"]]
    return analysis | {"findings": error_findings(analysis), "attention": attention}


def describe_machines(all_metrics, cpu):
    """Return devices, threads and versions of runs, as words of a sentence."""
    machines = []
    for metrics in all_metrics:
        device, versions = metrics["device"], metrics["versions"]
        if cpu and device == "CPU":
            device = cpu
        threads = "one thread" if metrics["threads"] == 1 else f"{metrics['threads']} threads"
        machines.append(f"{device}, {threads}, PyTorch {versions['torch']}, Python {versions['python']}")
    return " and ".join(dict.fromkeys(machines))


def compare_settings(groups):
    """Return the settings in which groups differ: a list of [name, value of each group]."""
    names = {}
    for field in fields(sentiment_analysis.Settings):
        names[field.name] = field.metadata["help"].partition(" (default")[0]
    flat = []
    for group in groups:
        bonus = group["settings"]["bonus"] or {}
        values = {names[key]: value for key, value in group["settings"].items() if key != "bonus"}
        values |= {label: bonus.get(key) for key, label in BONUS_FIELDS.items()}
        flat.append(values)
    rows = []
    for name in flat[0]:
        values = [one.get(name) for one in flat]
        if any(value != values[0] for value in values):
            rows.append([name, *map(show_setting, values)])
    return rows


def show_setting(value):
    """Return a setting as text of a table."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
