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
from pathlib import Path

import pypdf
import typst

from check.rules import MAX_PAGES
from helpers import UserError, run
from helpers.files import reading, whole_file
from helpers.imdb import DATA_DIR
from helpers.predictor import models_text
from report.runs import choose_runs, read_results, typst_path

FOLDER = Path(__file__).parent
TEMPLATE = FOLDER / "report.typ"
DEFAULT_NOTES = Path("notes.typ")
MAX_CODE = 60  # lines of the two classes; the report leaves out longer ones


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
