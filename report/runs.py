"""Which runs and sentences the report shows, and the facts about them that report.typ does not read itself."""

from collections import Counter
from pathlib import Path

from helpers import UserError
from helpers.files import file_digest
from report.analysis import read_json, update_analysis
from sentiment_analysis import PRESETS

EXERCISE = {"blocks": 1, "epochs": 5, "lr": 1e-4, "bonus": None}  # the settings that the exercise requires
SMALL_GPT = Path(__file__).parents[1] / "pretrained" / "gpt-reviews" / "model.safetensors"


def finished_runs(folder):
    """Return the metrics of each finished run in a folder: a dict from its path. Runs on IMDB displace the others."""
    runs = {}
    for path in sorted(folder.glob("*/metrics.json")):
        runs[path.parent] = read_json(path)
    for path in sorted(folder.glob("*/checkpoint.pt")):
        print(f"note: {path.parent} is an interrupted run and is left out; --resume continues it")
        runs.pop(path.parent, None)
    on_imdb = {path: metrics for path, metrics in runs.items() if metrics["data"] == "IMDB"}
    return on_imdb or runs


def is_required(metrics):
    """Return whether a run has the settings that the exercise requires, or on the sample those of the sample."""
    wanted = EXERCISE
    if metrics["data"] == "SAMPLE":
        wanted = EXERCISE | {name: PRESETS["sample"][name] for name in ("epochs", "lr")}
    return all(metrics["settings"][name] == value for name, value in wanted.items())


def choose_runs(args):
    """Return the folder of the required run or None, and a list with the folders of the bonus runs."""
    runs = finished_runs(args.runs)
    required = [path for path in runs if is_required(runs[path])]
    others = [path for path in runs if path not in required]
    newest = max(required, key=lambda path: runs[path]["date"], default=None)
    best = max(others, key=lambda path: runs[path]["epochs"][-1]["valid_accuracy"], default=None)
    return args.required or newest, args.bonus or ([best] if best else [])


def read_results(args, required, bonus):
    """Return which results the report shows, as report.typ reads it, and bring each `analysis.json` up to date.

    Raises:
        UserError: nothing is there to show, or a substitute is not allowed.
    """
    sentences = args.runs / "gpt2"
    has_sentences = (sentences / "gpt2_sentences.json").exists()
    if not (required or bonus or has_sentences):
        raise UserError(f"{args.runs} holds no finished run; train first, or name another folder with --runs.")
    notices, lacks = [], None
    if has_sentences:
        notices, lacks = judge_sentences(read_json(sentences / "gpt2_sentences.json"))
    for path in filter(None, [required, *bonus]):
        data = read_json(path / "metrics.json")["data"]
        if data == "SAMPLE":
            notices.append(f"The run {path.name} is on the invented SAMPLE reviews, not on IMDB.")
        try:
            update_analysis(path, data, args.data_dir, args.cache_dir)
        except FileNotFoundError as error:
            print(f"note: errors, examples and attention of {path.name} are left out, because {error.filename} is not "
                  "there; --data-dir names the reviews")
    if notices and not args.allow_substitutes:
        raise UserError(f"{' '.join(notices)} The exercise asks for something else; to use it anyway, add "
                        "--allow-substitutes.")
    return {"required": required and describe_run(required), "bonus": [describe_run(path) for path in bonus],
            "sentences": typst_path(sentences) if has_sentences else None, "notices": notices, "lacks": lacks}


def judge_sentences(generated):
    """Return substitutes that were used for GPT-2 (a list of sentences), and what the exercise asks for besides."""
    used = generated["substitutes"]
    if not used and generated["weights_sha256"] == file_digest(SMALL_GPT):
        used = ["the small GPT of this project, not with GPT-2"]
    counts = Counter(one["prefix"] for one in generated["sentences"])
    is_complete = len(counts) >= 10 and min(counts.values()) >= 5
    lacks = None if is_complete else "Less than five sentences for each of ten prefixes"
    return [f"The sentences were written with {'; '.join(used)}."] if used else [], lacks


def describe_run(folder):
    """Return what report.typ needs to know of the folder of a run."""
    return {"name": folder.name, "folder": typst_path(folder), "files": [path.name for path in folder.iterdir()]}


def typst_path(path):
    """Return a path as typst reads it, from the root of the file system."""
    return "/" + path.resolve().relative_to(path.resolve().anchor).as_posix()
