"""Make the zip that is handed in: README, the product's .py files and the report, and nothing else.

    python -m report.submission --name "Ada Lovelace" --cse ada --id 123456789      writes ex5_123456789.zip
    make submission NAME="Ada Lovelace" CSE=ada ID=123456789                        the same

The report in it is report/report.pdf with the given name on its cover. It must be up to date: run `make report` after
any change of the results, and read it. The same input gives the same bytes.
"""

import ast
import io
import sys
import zipfile
from pathlib import Path

from helpers.cli import Parser, UserError, run_command
from helpers.files import whole_file
from report import build

ROOT = Path(__file__).parents[1]
ALLOWED = {"numpy", "pandas", "matplotlib", "xgboost", "torch", "torchtext", "spacy", "tqdm", "sklearn"}
FOR_GPT2 = {"mingpt", "transformers", "regex", "requests"}  # minGPT and what it needs
ALSO_ALLOWED = {"generate_gpt2.py": FOR_GPT2, "helpers/gpt2.py": FOR_GPT2}


def product_files(root):
    """Return the product: a dict from the name of each file, "helpers/cli.py" say, to its bytes."""
    paths = [*root.glob("*.py"), *root.glob("helpers/*.py"), *root.glob("helpers/*.html")]
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in sorted(paths)}


def check_imports(product):
    """Refuse a file that imports anything but the standard library, the product itself and what the exercise allows."""
    allowed = ALLOWED | set(sys.stdlib_module_names) | {name.split("/")[0].removesuffix(".py") for name in product}
    for name, source in product.items():
        if not name.endswith(".py"):
            continue
        try:
            tree = ast.parse(source, name)
        except (SyntaxError, ValueError) as error:
            raise UserError(f"{name} is not Python ({error}); mend it.") from error
        for node in ast.walk(tree):
            modules = []
            if isinstance(node, ast.Import):
                modules = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                modules = ["." * node.level + (node.module or "")]
            for module in modules:
                if module.partition(".")[0] not in allowed | ALSO_ALLOWED.get(name, set()):
                    raise UserError(f"{name}, line {node.lineno}, imports {module}, which the exercise does not "
                                    "allow; do without it.")


def make_report(root, author):
    """Return the report with this author on its cover; refuse unless report/report.pdf shows the results of now."""
    folder = root / "report"
    template, results, pdf = folder / "report.typ", build.read_results(folder / "results"), folder / "report.pdf"
    if not pdf.exists():
        raise UserError(f"{pdf} is not there; run make report, and read it.")
    if build.built_from(pdf) != build.digest(template, results):
        raise UserError(f"{pdf} is older than its results or its text; run make report, and read it.")
    return build.render(template, results, author)


def make_readme(author, product):
    """Return who hands this in, and what each file is for: the first line of its docstring."""
    lines = [author["name"], author["cse"], author["id"], ""]
    width = 2 + max(map(len, product))
    for name, source in product.items():
        about = (ast.get_docstring(ast.parse(source)) or "") if name.endswith(".py") else "The page of an explanation."
        first = about.partition("\n")[0]
        lines.append(f"{name:<{width}}{first}".rstrip())
    lines += [f"{'report.pdf':<{width}}The report.", "",
              "python sentiment_analysis.py    trains and tests the transformer on IMDB",
              "python generate_gpt2.py         writes sentences with GPT-2"]
    return "\n".join(lines) + "\n"


def make_zip(root, author):
    """Return the bytes of the zip; entries carry no times, so that they depend on nothing but the input."""
    missing = [key for key, value in author.items() if not value]
    if missing:
        raise UserError(f"{', '.join(missing)} not given; name all of --name, --cse and --id "
                        "(make: NAME=, CSE= and ID=).")
    if not author["id"].isdecimal() or not author["id"].isascii():
        raise UserError(f"the ID is made of digits, and '{author['id']}' is not; give the right one with --id.")
    product = product_files(root)
    check_imports(product)
    content = {"README": make_readme(author, product).encode(), **product, "report.pdf": make_report(root, author)}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in content.items():
            info = zipfile.ZipInfo(name)  # of 1 January 1980
            info.create_system, info.external_attr = 3, 0o644 << 16  # as on Unix, wherever it is made
            archive.writestr(info, data)
    return buffer.getvalue()


def main():
    parser = Parser(description=__doc__.partition("\n")[0])
    parser.add_argument("--name", default="", help="your name")
    parser.add_argument("--cse", default="", help="your cse username")
    parser.add_argument("--id", default="", help="your ID, digits only")
    author = {key: " ".join(value.split()) for key, value in vars(parser.parse_args()).items()}
    data = make_zip(ROOT, author)
    path = Path(f"ex5_{author['id']}.zip")
    with whole_file(path) as temporary:
        temporary.write_bytes(data)
    print(f"{path} holds {', '.join(zipfile.ZipFile(io.BytesIO(data)).namelist())}\n"
          f"handed in by {author['name']}, {author['cse']}, {author['id']}")


if __name__ == "__main__":
    run_command(main)
