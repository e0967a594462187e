"""Build the report about your runs, a PDF of at most 6 pages.

    python -m report.build --notes-template > notes.typ          a file for your explanations, which you fill in
    python -m report.build --name "Ada Lovelace" --cse ada --id 123456789

The same runs and notes give the same bytes.
"""

import argparse
import ast
import io
import json
import logging
import re
from collections import Counter
from pathlib import Path

import pypdf
import typst

from check.rules import MAX_PAGES
from helpers import UserError, run
from helpers.files import reading, whole_file
from helpers.imdb import DATA_DIR
from helpers.predictor import models_text
from report.analysis import update_analysis
from sentiment_analysis import PRESETS

FOLDER = Path(__file__).parent
TEMPLATE = FOLDER / "report.typ"
DEFAULT_NOTES = Path("notes.typ")
MAX_CODE = 60  # lines of the two classes; the report leaves out longer ones
EXERCISE = {"blocks": 1, "epochs": 5, "lr": 1e-4, "bonus": None}  # the settings that the exercise requires


def make_parser(description):
    """Return a parser with the options of the report."""
    parser = argparse.ArgumentParser(description=description)
    add = parser.add_argument
    for option, what in (("--name", "your name"), ("--cse", "your cse username"), ("--id", "your ID, digits only")):
        add(option, default="", help=what)
    add("--runs", type=Path, default="runs", help="folder with your runs (default: %(default)s)")
    add("--required", type=Path, metavar="RUN",
        help="folder of the run with the required settings (default: the newest)")
    add("--bonus", type=Path, metavar="RUN", action="append", default=[],
        help="folder of a bonus run, can be given twice (default: the one with the best validation accuracy)")
    add("--notes", type=Path, help="your explanations (default: notes.typ, if it is there)")
    add("--data-dir", type=Path, default=DATA_DIR,
        help="the IMDB archive, its folder, or the extracted data (default: %(default)s)")
    add("--cache-dir", default=".cache", help="folder for cached results (default: %(default)s)")
    add("--allow-substitutes", action="store_true", help="accept results on the sample and sentences of the small GPT")
    return parser


def author_of(args):
    """Return name, username and ID as a dict, without superfluous spaces."""
    return {key: " ".join(getattr(args, key).split()) for key in ("name", "cse", "id")}


def read_json(path):
    """Return what a JSON file of a run holds."""
    with reading(path, "run the command that writes it again."):
        return json.loads(path.read_text(encoding="utf-8"))


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
    if args.required or args.bonus:
        return args.required, args.bonus
    runs = finished_runs(args.runs)
    required = [path for path in runs if is_required(runs[path])]
    others = [path for path in runs if path not in required]
    newest = max(required, key=lambda path: runs[path]["date"], default=None)
    best = max(others, key=lambda path: runs[path]["epochs"][-1]["valid_accuracy"], default=None)
    return newest, [best] if best else []


def read_results(args, required, bonus):
    """Return which results the report shows, as report.typ reads it, and bring each `analysis.json` up to date.

    Raises:
        UserError: there is no result, or a substitute is not allowed.
    """
    sentences = args.runs / "gpt2"
    has_sentences = (sentences / "gpt2_sentences.json").exists()
    if not (required or bonus or has_sentences):
        raise UserError(f"{args.runs} holds no finished run; train first, or name another folder with --runs.")
    notices, lacks = [], None
    if has_sentences:
        generated = read_json(sentences / "gpt2_sentences.json")
        if generated["substitutes"]:
            notices.append(f"The sentences were written with {'; '.join(generated['substitutes'])}.")
        counts = Counter(one["prefix"] for one in generated["sentences"])
        if len(counts) < 10 or min(counts.values()) < 5:
            lacks = "Less than five sentences for each of ten prefixes"
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


def describe_run(folder):
    """Return what report.typ needs to know of the folder of a run."""
    return {"name": folder.name, "folder": typst_path(folder), "files": [path.name for path in folder.iterdir()]}


def typst_path(path):
    """Return a path as typst reads it, from the root of the file system."""
    return "/" + path.resolve().relative_to(TEMPLATE.anchor).as_posix()


def layers_code(text):
    """Return the code of the two layers in the text of `models.py`, without docstrings, or None if it is too long."""
    tree, lines = ast.parse(text), text.splitlines()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node) is not None:
            docstring = node.body[0]
            for i in range(docstring.lineno - 1, docstring.end_lineno):
                lines[i] = ""
    code = []
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name in ("MySelfAttention", "MyLayerNorm"):
            code += [*filter(str.strip, lines[node.lineno - 1:node.end_lineno]), ""]
    return "\n".join(code).strip() if 0 < len(code) <= MAX_CODE else None


def compile_report(content, notes):
    """Return the report as the bytes of a PDF: content for report.typ, the path of the notes or None."""
    content = content | {"notes": notes and typst_path(notes)}
    try:
        return typst.compile(str(TEMPLATE), root=TEMPLATE.anchor, sys_inputs={"report": json.dumps(content)})
    except typst.TypstError as error:
        mistakes = find_mistakes(error.diagnostic, notes)
        if mistakes:
            raise UserError(f"{notes} has a mistake ({mistakes}); write a backslash before # $ * _ @ < to show the "
                            "sign itself.") from error
        raise UserError(f"the report cannot be built ({error.message}); the runs may be of another version of the "
                        "program: train again.") from error


def find_mistakes(diagnostic, notes):
    """Return the lines of the notes that a message of typst names, and what is wrong there, as one text."""
    found = re.findall(r"error: (.*)\n.*┌─ (.*):(\d+):", diagnostic)
    return "; ".join(f"line {line}: {what}" for what, path, line in found if notes and Path(path).name == notes.name)


def render(args, required, bonus):
    """Return the report about a required run and bonus runs as the bytes of a PDF. Print notes about what it lacks.

    Raises:
        UserError: the runs or the notes cannot be read, or the report has too many pages.
    """
    notes = args.notes or (DEFAULT_NOTES if DEFAULT_NOTES.exists() else None)
    if notes:
        with reading(notes, "save it as UTF-8."):
            notes.read_text(encoding="utf-8")
    content = read_results(args, required, bonus) | {"author": author_of(args), "code": layers_code(models_text())}
    pdf = compile_report(content, notes)
    pages, draft, text = read_pdf(pdf)
    if pages > MAX_PAGES:
        pages_without, *_ = read_pdf(compile_report(content, None))
        raise UserError(f"the report has {pages} pages, {pages - MAX_PAGES} more than allowed, and without your notes "
                        f"{pages_without}; shorten the notes, or show fewer runs.")
    if draft:
        print(f"note: the report is a draft ({draft})")
    if "\0" in text:
        print("note: no font of this machine has some letters of the report; install a font that has them")
    return pdf


def read_pdf(pdf):
    """Return the number of pages of a PDF, what it lacks if it is a draft, or "", and its text."""
    logging.getLogger("pypdf").setLevel(logging.ERROR)
    with reading("the report", "export it again as a PDF."):
        reader = pypdf.PdfReader(io.BytesIO(pdf))
        keywords = (reader.metadata or {}).get("/Keywords", "")
        text = "".join(page.extract_text() for page in reader.pages)
    return len(reader.pages), keywords.partition("Draft. ")[2], text


def main():
    parser = make_parser("Build the report about your runs.")
    parser.add_argument("--out", type=Path, help="PDF to write (default: report.pdf in the folder of the runs)")
    parser.add_argument("--notes-template", action="store_true", help="print a file for your explanations, and stop")
    args = parser.parse_args()
    if args.notes_template:
        print((FOLDER / "notes_template.typ").read_text(encoding="utf-8"), end="")
        return
    pdf = render(args, *choose_runs(args))
    out = args.out or args.runs / "report.pdf"
    with whole_file(out) as temporary:
        temporary.write_bytes(pdf)
    pages, *_ = read_pdf(pdf)
    print(f"{out}: {pages} pages")


if __name__ == "__main__":
    run(main)
