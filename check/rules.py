"""The rules of hand-in: file name, README, code, PDF, no additional files, seeds and imports."""

import ast
import logging
import re
import sys
from pathlib import Path

from check.extra import check_extra
from check.locate import find_base, is_junk, list_code, list_files
from check.readme import check_readme, join
from helpers.cli import UserError
from helpers.source import read_source

MAX_PAGES = 6
MOST_NAMES = 6  # of files that are listed
ALLOWED = {"numpy", "pandas", "matplotlib", "xgboost", "torch", "torchtext", "spacy", "tqdm", "sklearn"}
FOR_GENERATION = {"mingpt", "transformers", "regex", "requests"}  # minGPT and what it needs
IMPORTERS = re.compile(r"__import__|(importlib\.)?import_module")  # functions that import
OF_COLAB = {"google", "IPython", "ipywidgets"}  # in notebooks; they come with Colab


def check_rules(folder, name, layers):
    """Return {code: {"ok": bool, "detail": text}}.

    Args:
        folder: the copy of the submission.
        name: the name of the zip or folder that was handed in.
        layers: where the two classes are, as `find_layers` returns it.
    """
    base = find_base(folder)
    code = list_code(base)
    sources, broken = {}, []
    for path in code:
        try:
            sources[path] = read_source(path, str(path.relative_to(base)))
        except UserError as error:
            broken.append(str(error).removesuffix("."))
    pdfs = [path for path in list_files(base) if is_pdf(path, base)]
    rules = {"name": check_name(name, base != folder)}
    rules["readme"] = check_readme(base, find_id(name))
    rules["code"] = check_code(base, code, broken)
    rules["pdf"] = check_pdf(base, pdfs)
    rules["extra"] = check_extra(folder, base, [*code, *pdfs])
    rules["seeds"] = check_seeds(sources)
    rules["imports"] = check_imports(base, sources, {Path(path) for path, _ in layers.values()})
    return rules


def answer(problems, fine):
    """Return a rule's result: the problems, or else what is fine."""
    return {"ok": not problems, "detail": "; ".join(problems) if problems else fine}


def find_id(name):
    """Return the ID in the name of a zip or folder, or None."""
    match = re.fullmatch(r"ex5_(\d+)(\.zip)?", name)
    return match and match[1]


def check_name(name, wrapped):
    """Check the name of a zip. A folder around everything is allowed."""
    note = "; one folder is around everything, which is fine" if wrapped else ""
    if find_id(name):
        return answer([], f"{name}{note}")
    if name.lower().endswith(".zip"):
        return answer([f"the zip is called {name}; call it ex5_ID.zip, with your ID"], "")
    return answer([], f"a folder; hand in a zip that is called ex5_ID.zip, with your ID{note}")


def is_pdf(path, base):
    return path.suffix.lower() == ".pdf" and not is_junk(path, base)


def check_code(base, paths, broken):
    """Check that there is code, and that it is Python. `broken` says which files are not."""
    if not paths:
        return answer(["the code is missing; add your .py files or a notebook"], "")
    names = [str(path.relative_to(base)) for path in paths]
    if len(names) > MOST_NAMES:
        names[MOST_NAMES:] = [f"and {len(names) - MOST_NAMES} more"]
    return answer(broken, ", ".join(names))


def check_pdf(base, paths):
    """Check that there is one PDF that opens and is short enough."""
    names = [str(path.relative_to(base)) for path in paths]
    if len(paths) != 1:
        if not paths:
            return answer(["the PDF is missing; add the report as one PDF"], "")
        return answer([f"{len(paths)} PDFs ({', '.join(names)}); keep only the report"], "")
    try:
        import pypdf  # a requirement of the tests and the report only
    except ImportError:
        return answer([], f"{names[0]}, whose pages were not counted: install pypdf")
    try:
        logging.getLogger("pypdf").setLevel(logging.CRITICAL)
        pages = len(pypdf.PdfReader(paths[0]).pages)
    except Exception:  # pypdf raises many kinds
        pages = 0
    if not pages:
        return answer([f"{names[0]} cannot be opened as a PDF; export it again"], "")
    if pages > MAX_PAGES:
        return answer([f"{names[0]} has {pages} pages, and at most {MAX_PAGES} are allowed; shorten it"], "")
    return answer([], f"{names[0]}, {pages} page{'s' if pages > 1 else ''}")


# What the code says


def check_seeds(sources):
    """Check that np.random.seed and torch.manual_seed are called."""
    called = set()
    for source in sources.values():
        called |= find_seeds(source.tree)
    missing = [name for name in ("np.random.seed", "torch.manual_seed") if name not in called]
    if missing:
        calls = join([f"{name}(0)" for name in missing])
        verb = "is" if len(missing) == 1 else "are"
        return answer([f"{join(missing)} {verb} not called; call {calls} before you split, shuffle or train"], "")
    return answer([], "np.random.seed and torch.manual_seed are called")


def find_seeds(tree):
    """Return which of the two functions a module calls. set_seed of minGPT and transformers calls both."""
    names = {}  # local name -> what it stands for
    for module, imported, local in list_imports(tree):
        names[local] = f"{module}.{imported}" if imported else module
    called = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        first, _, rest = ast.unparse(node.func).partition(".")
        full = names.get(first, first) + ("." + rest if rest else "")
        if full == "numpy.random.seed":
            called.add("np.random.seed")
        elif full in ("torch.manual_seed", "torch.random.manual_seed"):
            called.add("torch.manual_seed")
        elif full in ("mingpt.utils.set_seed", "transformers.set_seed"):
            called |= {"np.random.seed", "torch.manual_seed"}
    return called


def list_imports(tree):
    """Yield (module, name in it or None, local name) for each import. A relative module starts with dots."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and IMPORTERS.fullmatch(ast.unparse(node.func)):
            names = [argument.value for argument in node.args[:1] if isinstance(argument, ast.Constant)]
            yield from ((name, None, name) for name in names if isinstance(name, str))
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, None, alias.asname or alias.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield "." * node.level + (node.module or ""), alias.name, alias.asname or alias.name


def check_imports(base, sources, layers):
    """Check that only allowed packages are imported. Files that generate text may also import minGPT."""
    own = {part.removesuffix(".py") for path in sources for part in (base.name, *path.relative_to(base).parts)}
    generation = find_generation(base, sources, layers)
    problems = []
    for path, source in sources.items():
        allowed = ALLOWED | own | set(sys.stdlib_module_names)
        allowed |= FOR_GENERATION if path in generation else set()
        allowed |= OF_COLAB if source.is_notebook else set()
        tops = {module.partition(".")[0] for module, *_ in list_imports(source.tree) if not module.startswith(".")}
        problems += describe_imports(path.relative_to(base), tops - allowed)
    return answer(problems, "only what the exercise allows")


def describe_imports(path, packages):
    """Return sentences on the packages that a file should not import."""
    problems = []
    misplaced, forbidden = sorted(packages & FOR_GENERATION), sorted(packages - FOR_GENERATION)
    if forbidden:
        problems.append(f"{path} imports {join(forbidden)}, which the exercise does not allow and the submission does "
                        "not contain")
    if misplaced:
        problems.append(f"{path} imports {join(misplaced)}, which the exercise allows only for generating text")
    return problems


def find_generation(base, sources, layers):
    """Return the files that generate text: those that import minGPT or are named for it, and what they import.

    A file with the layers, or one that imports them, does not count unless it is a notebook or the only file.
    """
    found = set()
    for path, source in sources.items():
        modules = {module.partition(".")[0] for module, *_ in list_imports(source.tree)}
        uses_layers = path in layers or modules & {layer.stem for layer in layers}
        named = re.search("gpt|generat", path.stem, re.IGNORECASE)
        if ("mingpt" in modules or named) and (not uses_layers or source.is_notebook or len(sources) == 1):
            found.add(path)
    size = -1
    while size < len(found):  # until no file is added
        size = len(found)
        modules = set()
        for path in found:
            for module, name, _ in list_imports(sources[path].tree):
                modules |= {module.strip("."), f"{module}.{name}".strip(".")}
        tops = {module.partition(".")[0] for module in modules}
        for path in sources:
            dotted = ".".join(path.relative_to(base).with_suffix("").parts)  # "helpers.gpt2.weights"
            is_imported = dotted in modules or {path.stem, path.parent.name} & tops
            if is_imported and path not in layers:
                found.add(path)
    return found
