"""What the report shows: a dict, from a folder of runs or from the reference results in `report/results/`."""

from collections import Counter
from pathlib import Path

from helpers.cli import UserError
from helpers.figures import draw_attention, draw_losses, draw_reliability
from helpers.gpt2.identity import describe_weights, is_gpt2, is_own_gpt
from report.analysis import layer_differences
from report.findings import reading
from report.groups import compare_settings, describe_other, group_runs, make_group
from report.runs import ANALYSIS, read_json, read_runs

RESULTS = Path(__file__).parent / "results"
RUN = {"required": "python sentiment_analysis.py", "bonus": "python sentiment_analysis.py --preset bonus",
       "sentences": "python generate_gpt2.py"}
MEASURE = {
    "required": "python -m benchmarks.seeds --preset required", "analysis": "python -m report.analysis",
    "bonus": "python -m benchmarks.seeds --preset bonus", "sentences": "python generate_gpt2.py --out report/results",
    "ablation": "python -m benchmarks.ablation", "calibration": "python -m benchmarks.calibration",
    "generation_speed": "python -m benchmarks.generation"}
EXTRAS = ["ablation", "tried", "calibration", "short_sentences", "published", "generation_speed"]
FILES = {"short_sentences": "sentences"}  # names of results that differ from the name of their file
PREFIXES, SENTENCES = 10, 5  # how many a generation must have to be handed in
SENTENCES_KEYS = ["model", "parameters", "weights_sha256", "backend", "device", "seed", "settings", "versions",
                  "sentences"]


def runs_content(folder, allow_substitutes=False):
    """Return the content of the report of the runs in a folder.

    Raises UserError if the folder has no finished run, or if a run is of substitutes that are not allowed.
    """
    runs, of_others = read_runs(folder)
    groups = group_runs(runs)
    sentences = read_sentences(folder / "gpt2" / "gpt2_sentences.json")
    if not groups and sentences is None:
        raise UserError(f"{folder} holds no finished run; train first ({RUN['required']}), or give the folder that "
                        "holds your runs with --runs.")
    of_imdb = [group for group in groups if group["data"] == "IMDB"]
    required, bonus = choose_imdb(of_imdb) if of_imdb else choose_sample(groups)
    content = make_content(required, [bonus] if bonus else [], sentences)
    shown = [group for group in (required, bonus) if group]
    others = [group for group in groups if group not in shown] + [describe_other(run) for run in of_others]
    content["mentions"] = [mention(group, folder) for group in others]
    if content["notices"] and not allow_substitutes:
        raise UserError(f"{' '.join(content['notices'])} That is not what the exercise asks for; to use it anyway, add "
                        "--allow-substitutes.")
    content |= {"kind": "runs", "layers": layer_differences(), "extras": {}}
    present = {"required": required, "bonus": bonus, "sentences": sentences}
    content["missing"] = {name: RUN[name] for name, found in present.items() if not found}
    return content


def choose_imdb(groups):
    """Return the group with the required settings, and of the others the one with the best validation accuracy.

    Groups with the hand-out's data are left out: their validation reviews are of films that they were trained on.
    """
    required = [group for group in groups if group["preset"] == "required"]
    others = [group for group in groups if group["preset"] != "required" and not group["settings"]["handout_data"]]
    best = max(others, key=lambda group: group["valid_accuracy"]["mean"], default=None)
    return (required[0] if required else None), best


def choose_sample(groups):
    """Return a group of runs on the sample for each of the two parts: one without the bonus, and one with it."""
    plain = [group for group in groups if not group["settings"]["bonus"]]
    bonus = [group for group in groups if group["settings"]["bonus"]]
    return (plain[0] if plain else None), (bonus[0] if bonus else None)


def mention(group, folder):
    """Return the facts about a group that the report mentions in one line."""
    return {"names": [f"{folder.name}/{name}" for name in group["names"]], "preset": group["preset"],
            "network": group.get("network"), "data": group["data"], "test_accuracy": group["test_accuracy"],
            "valid_accuracy": group["valid_accuracy"]}


def read_sentences(path):
    """Return the content of a `gpt2_sentences.json` and figures about its sentences, or None if the file is missing.

    Raises UserError unless it has ten prefixes and five sentences for each.
    """
    if not path.exists():
        return None
    found = read_json(path, SENTENCES_KEYS)
    try:
        counts = Counter(one["prefix"] for one in found["sentences"])
        figures = reading(found["sentences"]) if counts else None
    except (LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{path} is damaged; run {RUN['sentences']} again.") from error
    if len(counts) != PREFIXES or set(counts.values()) != {SENTENCES}:
        raise UserError(f"{path} does not hold {PREFIXES} prefixes with {SENTENCES} sentences each; run "
                        f"{RUN['sentences']} again.")
    identity = describe_weights(found["model"], found["parameters"], found["weights_sha256"])
    return found | {"identity": identity, "is_gpt2": is_gpt2(found["weights_sha256"]),
                    "is_own_gpt": is_own_gpt(found["weights_sha256"]), "reading": figures}


def make_content(required, bonus, sentences):
    """Return what both kinds of report share; `bonus` is a list of groups."""
    groups = [*([required] if required else []), *bonus]
    with_analysis = [group["analysis"] for group in groups if group["analysis"]]
    notices = []
    if any(group["data"] == "SAMPLE" for group in groups):
        notices.append("The networks were trained and tested on the invented SAMPLE reviews, not on IMDB.")
    if sentences and sentences["is_own_gpt"]:
        notices.append(f"The sentences were written by {sentences['identity']}.")
    return {"required": required, "bonus": bonus, "sentences": sentences, "notices": notices, "mentions": [],
            "data": with_analysis[0]["data"] if with_analysis else None,
            "differences": compare_settings(groups) if len(groups) > 1 else []}


def reference_content(folder=RESULTS):
    """Return the content of the reference report."""
    extras = {}
    for name in EXTRAS:
        path = Path(folder, FILES.get(name, name) + ".json")
        if path.exists():
            extras[name] = read_json(path, [])
    tracks = {name: reference_group(folder, name) for name in ("baseline", "bonus", "bonus_unsup")}
    required, bonus = tracks.pop("baseline"), [group for group in tracks.values() if group]
    sentences = read_sentences(Path(folder, "gpt2_sentences.json"))
    content = make_content(required, bonus, sentences)
    analysis = required and required["analysis"]
    present = extras | {"required": required, "analysis": analysis, "bonus": bonus, "sentences": sentences}
    missing = {name: command for name, command in MEASURE.items() if not present.get(name)}
    ranking = rank(extras.get("published", {"rows": []})["rows"], [group for group in (required, *bonus) if group])
    layers = analysis and analysis["layers"]
    return content | {"kind": "reference", "ranking": ranking, "layers": layers, "extras": extras, "missing": missing}


def rank(published, groups):
    """Return published and own test accuracies, the lowest first."""
    rows = [row | {"ours": False} for row in published]
    for group in groups:
        bonus = group["settings"]["bonus"]
        rows.append({"what": f"ours, {group['preset']}", "test_accuracy": group["test_accuracy"]["mean"],
                     "unlabelled": bool(bonus and bonus["unlabelled"]), "ours": True})
    return sorted(rows, key=lambda row: row["test_accuracy"])


def reference_group(folder, name):
    """Return the group of a result of `benchmarks.seeds`, or None if it is missing."""
    path = Path(folder, f"{name}.json")
    if not path.exists():
        return None
    result = read_json(path, ["runs"])
    runs = [{"name": f"{name}-{metrics['seed']}", "metrics": metrics} for metrics in result["runs"]]
    analysis = Path(folder, "analysis.json")
    try:
        if name == "baseline" and analysis.exists():
            runs[0]["analysis"] = read_json(analysis, ["seed", "layers", *ANALYSIS])
            if runs[0]["analysis"]["seed"] != runs[0]["metrics"]["seed"]:
                raise UserError(f"{analysis} is of another seed than the first run of {path}; run report.analysis on "
                                "that run.")
        cpu = result.get("machine", {}).get("cpu")
        return make_group(runs, cpu, None if name == "baseline" else name.replace("_", "-"))
    except (LookupError, TypeError) as error:
        raise UserError(f"{path} is damaged or of another version; run the command that writes it again.") from error


def draw_figures(content):
    """Return the figures of the report as SVG, a dict from name to text."""
    figures = {}
    for name, group in (("loss", content["required"]), ("loss_bonus", (content["bonus"] or [None])[0])):
        if group:
            figures[name] = draw_losses(group["metrics"])
    main = content["required"] or (content["bonus"] or [None])[0]
    if main and main["analysis"]:
        for i, one in enumerate(main["analysis"]["attention"]):
            figures[f"attention_{i}"] = draw_attention(one["words"], one["weights"])
    if "calibration" in content["extras"]:
        calibration = content["extras"]["calibration"]
        diagrams = {"before": calibration["before"]["diagram"], "after": calibration["after"]["diagram"]}
        figures["reliability"] = draw_reliability(diagrams)
    return {name: data.decode() for name, data in figures.items()}
