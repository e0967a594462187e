"""Make the zip to hand in: README, the program's .py files and the report.

    make submission NAME="Ada Lovelace" CSE=ada ID=123456789                        writes ex5_123456789.zip
    python -m report.submission --name "Ada Lovelace" --cse ada --id 123456789      the same

The report is that of the runs in runs/, as `python -m report.build` builds it, or a PDF of your own (--report).
The same input gives the same bytes.
"""

import ast
import importlib.util
import io
import re
import sys
import zipfile
from pathlib import Path

from check.rules import ALLOWED, FOR_GENERATION
from helpers.cli import Parser, UserError, run_command, user_path
from helpers.files import whole_file
from report.build import MAX_PAGES, add_report_options, count_pages, read_author, runs_report

ROOT = Path(__file__).parents[1]
SCRIPTS = ["generate_gpt2.py", "models.py", "sentiment_analysis.py"]
PACKAGES = ALLOWED | FOR_GENERATION | set(sys.stdlib_module_names)  # what the program may import, besides itself
README = """\
Name: {name}
CSE username: {cse}
ID: {id}

Install (Python 3.11 or newer):
pip install {packages}

Run:
python sentiment_analysis.py                          download IMDB, train, and print the test accuracy
python sentiment_analysis.py predict "A fine film."   classify a text with the newest run
python generate_gpt2.py                               write sentences with GPT-2

Files:
{files}
"""


def product_files(root):
    """Return the program: a dict from the name of each file, such as "helpers/cli.py", to its bytes.

    These are the three scripts and what they import, directly or not. Other files stay out. Raises UserError if a
    script is missing, or if one of the files is not Python.
    """
    product, waiting = {}, list(SCRIPTS)
    while waiting:
        name = waiting.pop()
        if name in product:
            continue
        try:
            product[name] = (root / name).read_bytes()
        except FileNotFoundError as error:
            raise UserError(f"{root / name} is missing; copy it from the repository.") from error
        for _, module in find_imports(name, product[name]):
            waiting += find_files(root, module)
    return dict(sorted(product.items()))


def find_files(root, module):
    """Return the files of this project that importing a module runs: "helpers.cli" needs helpers/__init__.py too."""
    parts = module.split(".")
    if parts[0] in PACKAGES:  # also if its files were copied into the project
        return []
    names = []
    for end in range(1, len(parts) + 1):
        path = "/".join(parts[:end])
        for name in (f"{path}/__init__.py", f"{path}.py"):
            if (root / name).is_file():
                names.append(name)
    return names


def check_imports(product):
    """Raise UserError if a file imports anything but the standard library, the program and what the exercise allows."""
    own = {name.split("/")[0].removesuffix(".py") for name in product}
    for name, source in product.items():
        allowed = PACKAGES - FOR_GENERATION | own
        if name == "generate_gpt2.py" or name.startswith("helpers/gpt2/"):
            allowed |= FOR_GENERATION
        for line, module in find_imports(name, source):
            if module.partition(".")[0] not in allowed:
                raise UserError(f"{name}, line {line}, imports {module}, which the exercise does not allow; remove the "
                                "import.")
            if is_missing(module, product):
                raise UserError(f"{name}, line {line}, imports {module}, whose file is missing; copy it from the "
                                "repository, or remove the import.")


def is_missing(module, product):
    """Return whether a module of a package of the program has no file: "helpers.cli" or "helpers.cli.Parser"."""
    package, _, rest = module.partition(".")
    if f"{package}/__init__.py" not in product or "." not in rest:  # "helpers.cli" may be a name in helpers/__init__.py
        return False
    parent = module.rpartition(".")[0]
    paths = (path.replace(".", "/") + end for path in (module, parent) for end in (".py", "/__init__.py"))
    return product.keys().isdisjoint(paths)


def find_imports(name, source):
    """Yield the line and the module of each import. Raises UserError if a file is not Python."""
    try:
        tree = ast.parse(source, name)
    except (SyntaxError, ValueError) as error:
        raise UserError(f"{name} is not valid Python ({error}); correct it.") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            module = absolute_name("." * node.level + (node.module or ""), name)
            for alias in node.names:  # each may be a module
                yield node.lineno, f"{module}.{alias.name}"


def absolute_name(module, name):
    """Return the full name of a module that the file `name` imports: ".cli" in helpers/files.py is "helpers.cli"."""
    package = name.rpartition("/")[0].replace("/", ".")
    try:
        return importlib.util.resolve_name(module, package)
    except ImportError:  # a script has no package
        return module


def make_readme(author, product, requirements):
    """Return the README: who hands this in, what to install, how to run, and one line for each file."""
    width = 2 + max(map(len, product))
    lines = [f"{name:<{width}}{describe(source)}".rstrip() for name, source in product.items()]
    lines.append(f"{'report.pdf':<{width}}The report.")
    return README.format(**author, packages=read_packages(requirements), files="\n".join(lines))


def describe(source):
    """Return the first sentence of a module's docstring."""
    paragraph = (ast.get_docstring(ast.parse(source)) or "").split("\n\n")[0]
    return re.split(r"(?<=[.!?])\s", " ".join(paragraph.split()))[0]


def read_packages(requirements):
    """Return the packages in the text of a requirements file as arguments of pip, quoted for the shell."""
    packages = []
    for line in requirements.splitlines():
        package = "".join(line.partition("#")[0].split())
        if package:
            packages.append(f'"{package}"' if re.search("[<>]", package) else package)
    return " ".join(packages)


def check_author(author):
    """Raise UserError if something is missing, or if the ID is not made of digits."""
    missing = [key for key, value in author.items() if not value]
    if missing:
        raise UserError(f"{', '.join(missing)} not given; give --name, --cse and --id (make: NAME=, CSE= and ID=).")
    if not author["id"].isdecimal() or not author["id"].isascii():
        raise UserError(f"the ID must consist of digits, but '{author['id']}' does not; correct --id.")


def read_pdf(path):
    """Return a PDF of the student's own. Raises UserError if it is missing, damaged or too long."""
    if not path.is_file():
        raise UserError(f"cannot find {path}; give the path of a PDF with --report.")
    pdf = path.read_bytes()
    pages = count_pages(pdf)
    if pages > MAX_PAGES:
        raise UserError(f"{path} has {pages} pages and may have {MAX_PAGES}; shorten it.")
    return pdf


def make_zip(root, author, pdf):
    """Return the bytes of the zip. All entries have the same date, so that the bytes depend only on the input."""
    product = product_files(root)
    check_imports(product)
    readme = make_readme(author, product, (root / "requirements.txt").read_text(encoding="utf-8"))
    content = {"README": readme.encode(), **product, "report.pdf": pdf}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in content.items():
            info = zipfile.ZipInfo(name)  # with the date 1 January 1980
            info.create_system, info.external_attr = 3, 0o644 << 16  # as on Unix, on every system
            archive.writestr(info, data)
    return buffer.getvalue()


def main():
    parser = Parser(description="Make the zip to hand in: README, the program's .py files and the report.")
    add_report_options(parser)
    parser.add_argument("--runs", type=user_path, default="runs", metavar="DIR", help="folder with your runs "
                        "(default: %(default)s)")
    parser.add_argument("--report", type=user_path, metavar="FILE", help="a PDF of your own")
    args = parser.parse_args()
    author = read_author(args)
    check_author(author)
    pdf = read_pdf(Path(args.report)) if args.report else runs_report(args, author)
    data = make_zip(ROOT, author, pdf)
    path = Path(f"ex5_{author['id']}.zip")
    with whole_file(path) as temporary:
        temporary.write_bytes(data)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        number = sum(name.endswith(".py") for name in archive.namelist())
    print(f"{path}: README, {number} .py files and report.pdf ({count_pages(pdf)} pages), "
          f"handed in by {author['name']}, {author['cse']}, {author['id']}")


if __name__ == "__main__":
    run_command(main)
