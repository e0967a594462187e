"""Build the report: report/report.typ and report/results/*.json -> report/report.pdf, at most 6 pages.

    python -m report.build

The same results give the same bytes. The PDF's keywords hold a digest of the template and the results, which tells
whether it is up to date: file times do not survive a clone.
"""

import hashlib
import io
import json
import tomllib
from pathlib import Path

import pypdf
import typst

from helpers.cli import UserError, run_command
from helpers.files import whole_file

RESULTS = ["baseline", "analysis", "bonus", "bonus_unsup", "ablation", "tried", "certainty", "peer", "published",
           "gpt2_sentences", "generation_speed"]
AUTHOR = ["name", "cse", "id"]
MAX_PAGES = 6


def read_results(folder):
    """Return what the report is drawn from: those of RESULTS that are in `folder`, as one JSON text."""
    results = {}
    for name in RESULTS:
        path = Path(folder, f"{name}.json")
        if path.exists():
            try:
                results[name] = json.loads(path.read_text(encoding="utf-8"))
            except ValueError as error:
                raise UserError(f"{path} is damaged ({error}); make it again.") from error
    return json.dumps(results)


def read_author(path):
    """Return name, cse username and ID for the cover line."""
    try:
        author = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        return {key: author[key] for key in AUTHOR}
    except (ValueError, KeyError) as error:
        raise UserError(f"{path} must give {', '.join(AUTHOR)}, each as key = \"text\" ({error}).") from error


def digest(template, results):
    """Return the SHA-256 of all that determines the report but the author."""
    return hashlib.sha256(Path(template).read_bytes() + results.encode()).hexdigest()


def render(template, results, author):
    """Return the report as the bytes of a PDF; refuse (UserError) one of more than MAX_PAGES."""
    inputs = {"results": results, "author": json.dumps(author), "digest": digest(template, results)}
    try:
        pdf = typst.compile(str(template), sys_inputs=inputs, ignore_system_fonts=True)
    except typst.TypstError as error:
        raise UserError(f"{template} cannot be set from these results ({str(error).splitlines()[0]}); is one of them "
                        "of an older version of the program?") from error
    pages = len(pypdf.PdfReader(io.BytesIO(pdf)).pages)
    if pages > MAX_PAGES:
        raise UserError(f"the report has {pages} pages and may have {MAX_PAGES}; shorten {template}.")
    return pdf


def built_from(pdf):
    """Return the `digest` that a PDF of this program was built from; None for any other file."""
    try:
        return (pypdf.PdfReader(pdf).metadata or {}).get("/Keywords")
    except (OSError, pypdf.errors.PyPdfError):
        return None


def main():
    folder = Path(__file__).parent
    pdf = render(folder / "report.typ", read_results(folder / "results"), read_author(folder / "author.toml"))
    with whole_file(folder / "report.pdf") as temporary:
        temporary.write_bytes(pdf)
    print(f"report/report.pdf: {len(pypdf.PdfReader(io.BytesIO(pdf)).pages)} pages")


if __name__ == "__main__":
    run_command(main)
