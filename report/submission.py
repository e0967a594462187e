"""Make the zip to hand in: README, the program and the report.

    python -m report.submission --name "Ada Lovelace" --cse ada --id 123456789      writes ex5_123456789.zip

The report is the one that `python -m report.build` makes, or a PDF of your own (--report). The same input gives the
same bytes.
"""

import ast
import hashlib
import io
import re
import subprocess
import tempfile
import zipfile
from pathlib import Path

from check.locate import find_layers
from check.rules import check_rules
from helpers import UserError, run
from helpers.files import whole_file
from report.analysis import read_json
from report.build import author_of, make_parser, read_pdf, render
from report.runs import choose_runs

ROOT = Path(__file__).parents[1]
README = """\
Name: {name}
CSE username: {cse}
ID: {id}

Install (Python 3.11 or newer):
pip install {packages}

Run:
{commands}

Files:
{files}
"""
COMMANDS = ["python sentiment_analysis.py", "python generate_gpt2.py"]
BONUS_COMMAND = "python sentiment_analysis.py --preset bonus"


def product_files(with_bonus):
    """Return the program: a dict from the name of each file, such as "helpers/text.py", to its bytes."""
    patterns = ["models.py", "sentiment_analysis.py", "generate_gpt2.py", "helpers/*.py"]
    if with_bonus:
        patterns.append("helpers/bonus/*.py")
    paths = [path for pattern in patterns for path in ROOT.glob(pattern)]
    return {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in sorted(paths)}


def make_readme(author, product):
    """Return the README: who hands this in, what to install, how to run it, and one line for each file."""
    requirements = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    packages = [line.partition("#")[0].strip() for line in requirements]
    commands = [*COMMANDS, BONUS_COMMAND] if "helpers/bonus/__init__.py" in product else COMMANDS
    descriptions = {name: describe(source) for name, source in product.items()} | {"report.pdf": "The report."}
    width = max(map(len, descriptions)) + 2
    files = [f"{name:{width}}{text}".rstrip() for name, text in descriptions.items()]
    return README.format(**author, packages=" ".join(f'"{package}"' for package in packages if package),
                         commands="\n".join(commands), files="\n".join(files))


def describe(source):
    """Return the first sentence of a module's docstring."""
    paragraph = (ast.get_docstring(ast.parse(source)) or "").partition("\n\n")[0]
    return re.split(r"(?<=[.!?])\s", " ".join(paragraph.split()))[0]


def make_zip(author, product, pdf):
    """Return the bytes of the zip. All entries have the same date, so that the bytes depend only on the input."""
    readme = make_readme(author, product).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in {"README": readme, **product, "report.pdf": pdf}.items():
            info = zipfile.ZipInfo(name)  # with the date 1 January 1980
            info.create_system, info.external_attr = 3, 0o644 << 16  # as on Unix, on every system
            archive.writestr(info, data)
    return buffer.getvalue()


def check_zip(data, name):
    """Raise UserError if the zip breaks a rule of hand-in, as `python -m check` judges them."""
    with tempfile.TemporaryDirectory() as folder, zipfile.ZipFile(io.BytesIO(data)) as archive:
        archive.extractall(folder)
        rules = check_rules(Path(folder), name, find_layers(Path(folder), name))
    problems = [rule["detail"] for rule in rules.values() if not rule["ok"]]
    if problems:
        raise UserError(f"{name} is not written, because it breaks the rules: {'; '.join(problems)}.")


def unchanged_files(product):
    """Return the names of the files that are as they were cloned. Without git, these are all but `models.py`."""
    command = ["git", "ls-tree", "-r", "--format=%(objectname) %(path)", "origin/HEAD"]
    try:
        listing = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    except (OSError, subprocess.SubprocessError):
        return [name for name in product if name != "models.py"]
    cloned = set(listing.splitlines())
    return [name for name, data in product.items() if f"{git_digest(data)} {name}" in cloned]


def git_digest(data):
    """Return the digest under which git stores the content of a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def main():
    parser = make_parser("Make the zip to hand in: README, the program and the report.")
    parser.add_argument("--report", type=Path, metavar="FILE", help="a PDF of your own in place of the report")
    args = parser.parse_args()
    author = author_of(args)
    if not all(author.values()):
        parser.error("--name, --cse and --id are required")
    required, bonus = choose_runs(args)
    pdf = args.report.read_bytes() if args.report else render(args, required, bonus)
    _, draft, _ = read_pdf(pdf)
    if draft:
        raise UserError(f"the report is a draft ({draft}); write them into notes.typ and run again.")
    product = product_files(any(read_json(path / "metrics.json")["settings"]["bonus"] for path in bonus))
    name = f"ex5_{author['id']}.zip"
    data = make_zip(author, product, pdf)
    check_zip(data, name)
    with whole_file(name) as temporary:
        temporary.write_bytes(data)
    unchanged = unchanged_files(product)
    if unchanged:
        print(f"note: {', '.join(unchanged)} are this project's files, unchanged; the exercise forbids handing in code "
              "that others wrote")
    print(f"{name}: README, {len(product)} files of code and report.pdf, by {', '.join(author.values())}")


if __name__ == "__main__":
    run(main)
