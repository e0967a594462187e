"""Build the report, a PDF of at most 6 pages.

    python -m report.build --runs runs --name "Ada Lovelace" --cse ada --id 123456789     runs/report.pdf
    python -m report.build --notes-template > notes.md          a file for your own explanations: --notes notes.md
    python -m report.build                                      report/report.pdf, the reference solution

The same runs and notes give the same bytes. The PDF's keywords hold a digest of everything that it shows.
"""

import hashlib
import io
import json
import logging
from pathlib import Path

import pypdf
import typst

from check.rules import MAX_PAGES
from helpers.cli import Parser, UserError, run_command, user_path
from helpers.files import whole_file
from report.content import draw_figures, reference_content, runs_content
from report.fonts import break_words, make_printable, map_texts, needs_system_fonts
from report.notes import make_template, plain, read_notes

TEMPLATE = Path(__file__).with_name("report.typ")
AUTHOR = {"name": "your name", "cse": "your cse username", "id": "your ID, digits only"}


def digest(content):
    """Return the SHA-256 of the templates and the content, without the figures, which are drawn from the content.

    The templates are read as text, because git may store them with other line ends.
    """
    templates = [path.read_text(encoding="utf-8") for path in sorted(TEMPLATE.parent.glob("*.typ"))]
    return hashlib.sha256("".join([*templates, json.dumps(content, sort_keys=True)]).encode()).hexdigest()


def render(content, author=None, notes=None):
    """Return the report as the bytes of a PDF.

    Raises UserError if it has more than MAX_PAGES pages, or if a font is missing.

    Args:
        content: as `runs_content` or `reference_content` return it.
        author: a dict with the keys of AUTHOR, or None for the reference solution.
        notes: as `read_notes` returns them, or None.
    """
    notes = notes or {}
    own_texts = {"the name": "".join((author or {}).values()), "the notes": plain(notes)}
    system_fonts = [needs_system_fonts(text, what) for what, text in own_texts.items()]
    printable, needs_more = make_printable(content)
    printable |= {"author": map_texts(break_words, author), "notes": notes}
    inputs = {"report": json.dumps(printable), "figures": json.dumps(draw_figures(content)),
              "digest": digest(content | {"author": author, "notes": notes})}
    try:
        pdf = typst.compile(str(TEMPLATE), sys_inputs=inputs,
                            ignore_system_fonts=not (needs_more or any(system_fonts)))
    except typst.TypstError as error:
        raise UserError(f"the report cannot be built from these results ({str(error).splitlines()[0]}); they may be of "
                        "another version of the program.") from error
    pages = count_pages(pdf)
    if pages > MAX_PAGES:
        raise UserError(f"the report has {pages} pages and may have {MAX_PAGES}; shorten the notes, or write shorter "
                        "sentences with --max-new-tokens.")
    return pdf


def count_pages(pdf):
    """Return how many pages a PDF has. Raises UserError if it is not a PDF."""
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)  # it logs what is damaged; our sentence follows
    try:
        return len(pypdf.PdfReader(io.BytesIO(pdf)).pages)
    except Exception as error:  # pypdf's errors for damaged files are many
        raise UserError("the report is not a PDF that can be read; export it again.") from error


def add_report_options(parser):
    """Add the options that say what is in the report and who wrote it."""
    for name, description in AUTHOR.items():
        parser.add_argument(f"--{name}", default="", help=description)
    parser.add_argument("--notes", type=user_path, metavar="FILE", help="Markdown file with your own explanations")
    parser.add_argument("--allow-substitutes", action="store_true",
                        help="accept results on the sample, and sentences of the project's own small GPT")


def read_author(args):
    """Return the author that the options name, without superfluous spaces."""
    return {key: " ".join(getattr(args, key).split()) for key in AUTHOR}


def runs_report(args, author):
    """Return the report of the runs that the options name, as the bytes of a PDF."""
    notes = read_notes(Path(args.notes)) if args.notes else None
    return render(runs_content(Path(args.runs), args.allow_substitutes), author, notes)


def main():
    parser = Parser(description="Build the report.")
    parser.add_argument("--runs", type=user_path, metavar="DIR", help="folder with your runs (default: build the "
                        "reference report from report/results/)")
    add_report_options(parser)
    parser.add_argument("--notes-template", action="store_true", help="print an empty notes file to fill in")
    parser.add_argument("--out", type=user_path, metavar="FILE", help="PDF to write (default: report.pdf in the "
                        "folder of the runs)")
    args = parser.parse_args()
    if args.notes_template:
        print(make_template())
        return
    if not args.runs and (args.name or args.cse or args.id or args.notes or args.allow_substitutes):
        raise UserError("the reference report takes no name and no notes; give the folder of your runs with --runs.")
    if args.out and not args.out.lower().endswith(".pdf"):
        raise UserError(f"the report is a PDF; {args.out} needs a name that ends in .pdf.")
    if args.runs:
        pdf, path = runs_report(args, read_author(args)), args.out or Path(args.runs, "report.pdf")
    else:
        pdf, path = render(reference_content()), args.out or TEMPLATE.with_suffix(".pdf")
    with whole_file(path) as temporary:
        temporary.write_bytes(pdf)
    print(f"{path}: {count_pages(pdf)} pages")


if __name__ == "__main__":
    run_command(main)
