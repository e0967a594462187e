"""Put runs with equal settings into groups. The report shows a group of runs as one result."""

import json
import os
from collections import defaultdict
from dataclasses import asdict, fields
from pathlib import Path

import sentiment_analysis
from report.findings import attention_findings, curve_findings, error_findings, mean_and_sd

BONUS_FIELDS = {  # fields of the bonus's settings, with their names in the report
    "unlabelled": "learns from unlabelled reviews", "short_texts": "trained on short texts too",
    "regions": "region embeddings", "input_dropout": "dropout of word vectors", "one_cycle": "one-cycle learning rate"}


def same_group(metrics):
    """Return a text that is equal for runs of one group."""
    return json.dumps([metrics["data"], metrics["settings"]], sort_keys=True)


def group_runs(runs):
    """Return the groups of runs with equal data and settings, as `make_group` makes them."""
    members = defaultdict(list)
    for run in runs:
        members[same_group(run["metrics"])].append(run)
    return [make_group(of_group) for of_group in members.values()]


def make_group(runs, cpu=None, preset=None):
    """Return what the report shows of runs with equal settings, sorted by seed.

    Args:
        runs: as `read_runs` returns them.
        cpu: the name of the processor, or None if the runs name it.
        preset: the name of the settings, or None to find it.
    """
    runs = sorted(runs, key=lambda run: run["metrics"]["seed"])
    all_metrics = [run["metrics"] for run in runs]
    first = all_metrics[0]
    names = [run["name"] for run in runs]
    preset = preset or find_preset(first)
    group = {"names": names, "preset": preset, "title": preset or common_name(names), "metrics": all_metrics}
    group |= {"data": first["data"], "settings": first["settings"]}
    group |= {"duplicates": first["test"]["duplicates"], "confusion": first["test"]["confusion"]}
    group |= describe_training(all_metrics, cpu)
    group["excerpts"] = mean_excerpts(all_metrics)
    group["analysis"] = add_findings(runs[0].get("analysis"))
    group["test_accuracy"] = mean_and_sd([metrics["test"]["accuracy"] for metrics in all_metrics])
    group["without_duplicates"] = mean_and_sd(
        [metrics["test"]["accuracy_without_duplicates"] for metrics in all_metrics])
    return group


def describe_training(all_metrics, cpu):
    """Return how runs were trained: seeds, machine, dates, mean time in seconds, losses and validation accuracy."""
    epochs = mean_epochs(all_metrics)
    seconds = [metrics["seconds"] for metrics in all_metrics]
    last_accuracies = [metrics["epochs"][-1]["valid_accuracy"] for metrics in all_metrics]
    found = {"seeds": [metrics["seed"] for metrics in all_metrics], "machine": describe_machines(all_metrics, cpu)}
    found["dates"] = sorted({metrics["date"] for metrics in all_metrics if "date" in metrics})
    found |= {"seconds": sum(seconds) / len(seconds), "epochs": epochs, "curves": curve_findings(epochs)}
    return found | {"valid_accuracy": mean_and_sd(last_accuracies)}


def describe_other(run):
    """Return the facts about a run of a network from another file (`--models`)."""
    metrics = run["metrics"]
    test_accuracy, valid_accuracy = metrics["test"]["accuracy"], metrics["epochs"][-1]["valid_accuracy"]
    return {"names": [run["name"]], "network": Path(metrics["models"]).name, "preset": None, "data": metrics["data"],
            "test_accuracy": mean_and_sd([test_accuracy]), "valid_accuracy": mean_and_sd([valid_accuracy])}


def find_preset(metrics):
    """Return the name of the preset of the exercise whose settings a run has, or None.

    The runs of "handout" may have other word vectors. Presets of the bonus are not compared: the report does not need
    `helpers/bonus/`.
    """
    settings = metrics["settings"]
    for name, expected in sentiment_analysis.PRESETS.items():
        expected = asdict(expected)
        if name == "handout":
            expected["glove_dim"] = settings["glove_dim"]
        if settings == expected:
            return name
    return None


def common_name(names):
    """Return the name of a single run, or the common part of several: "bonus" for "bonus-42" and "bonus-43"."""
    if len(names) == 1:
        return names[0]
    return os.path.commonprefix(names).rstrip("-_. 0123456789") or names[0]


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
    """Return an `analysis.json` with what its figures say, or None for None."""
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
    of_groups = [named_settings(group["settings"]) for group in groups]
    rows = []
    for name in of_groups[0]:
        values = [settings[name] for settings in of_groups]
        if any(value != values[0] for value in values):
            rows.append([name, *map(show_setting, values)])
    return rows


def named_settings(settings):
    """Return settings with their names in the report."""
    named = {}
    for field in fields(sentiment_analysis.Settings):
        if field.name != "bonus":
            name = field.metadata["help"].partition(" (default")[0]
            named[name] = settings[field.name]
    bonus = settings["bonus"] or {}
    return named | {name: bonus.get(key) for key, name in BONUS_FIELDS.items()}


def show_setting(value):
    """Return a setting as text of a table."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)
