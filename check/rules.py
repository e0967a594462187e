"""The rules of hand-in: file name, README, code, PDF, no additional files, seeds and imports."""

import ast
import re
import sys
from pathlib import Path

from check.locate import find_base, is_junk, is_mingpt, list_files
from check.readme import check_readme, is_readme
from check.source import read_source
from helpers.cli import UserError

MAX_PAGES = 6
ALLOWED = {"numpy", "pandas", "matplotlib", "xgboost", "torch", "torchtext", "spacy", "tqdm", "sklearn"}
FOR_GENERATION = {"mingpt", "transformers", "regex", "requests"}  # minGPT and what it needs
OF_COLAB = {"google", "IPython", "ipywidgets"}  # in notebooks; they come with Colab


def check_rules(folder, name, layers):
    """Return {code: {"ok": bool, "detail": text}}.

    Args:
        folder: the copy of the submission.
        name: the name of the zip or folder that was handed in.
        layers: where the two classes are, as `find_layers` returns it.
    """
    base = find_base(folder)
    files = list_files(base)
    code, sources = [], {}
    for path in files:
        if path.suffix.lower() in (".py", ".ipynb") and not is_junk(path, base) and not is_mingpt(path, base):
            code.append(path)
    for path in code:
        try:
            sources[path] = read_source(path, path.name)
        except UserError:
            sources[path] = None
    rules = {"name": check_name(name, base != folder)}
    rules["readme"] = check_readme(base, find_id(name))
    rules["code"] = check_code(base, sources)
    rules["pdf"] = check_pdf(base, [path for path in files if is_pdf(path, base)])
    rules["extra"] = check_extra(base, [path for path in list_files(folder) if path not in code])
    trees = {path: source for path, source in sources.items() if source}
    rules["seeds"] = check_seeds(trees)
    rules["imports"] = check_imports(base, trees, {Path(path) for path, _ in layers.values()})
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


def check_code(base, sources):
    """Check that there is code, and that it is Python."""
    if not sources:
        return answer(["the code is missing; add your .py files or a notebook"], "")
    broken = [str(path.relative_to(base)) for path, source in sources.items() if source is None]
    problems = [f"{', '.join(broken)} cannot be read as Python"] if broken else []
    return answer(problems, ", ".join(str(path.relative_to(base)) for path in sources))


def check_pdf(base, paths):
    """Check that there is one PDF that opens and is short enough."""
    names = [str(path.relative_to(base)) for path in paths]
    if len(paths) != 1:
        found = f"there are {len(paths)} PDFs ({', '.join(names)})" if paths else "the PDF is missing"
        return answer([f"{found}; hand in one, the report"], "")
    try:
        import pypdf  # a requirement of the tests and the report only
    except ImportError:
        return answer([], f"{names[0]}, whose pages were not counted: install pypdf")
    try:
        pages = len(pypdf.PdfReader(paths[0]).pages)
    except Exception:  # pypdf raises many kinds
        return answer([f"{names[0]} cannot be opened as a PDF; export it again"], "")
    if not 1 <= pages <= MAX_PAGES:
        return answer([f"{names[0]} has {pages} pages and may have {MAX_PAGES}; shorten it"], "")
    return answer([], f"{names[0]}, {pages} page{'s' if pages > 1 else ''}")


def check_extra(base, paths):
    """Check that nothing is handed in besides the README, the code and PDFs."""
    extra = []
    for path in paths:
        inside = path.is_relative_to(base)
        if not inside or not (is_readme(path) or is_pdf(path, base)):
            extra.append(path)
    groups = {}
    for path in extra:
        groups.setdefault(name_extra(path, base), []).append(path)
    problems = []
    for group, members in groups.items():
        problems.append(group if len(members) == 1 or group.endswith("/") else f"{group} and {len(members) - 1} more")
    return answer([f"remove {', '.join(problems[:8])}"] if problems else [], "no additional files")


def name_extra(path, base):
    """Return what a message calls an additional file; files of one folder share a name."""
    if not path.is_relative_to(base):
        return f"{path.name} (outside the folder)" if "__MACOSX" not in path.parts else "__MACOSX/"
    parts = path.relative_to(base).parts
    if is_mingpt(path, base):
        return f"{parts[0]}/ (minGPT's own code)"
    if len(parts) > 1:
        return f"{parts[0]}/"
    return parts[0]


# What the code says


def check_seeds(sources):
    """Check that np.random.seed and torch.manual_seed are called."""
    called = set()
    for source in sources.values():
        called |= find_seeds(source.tree)
    problems = [f"{name} is not called" for name in ("np.random.seed", "torch.manual_seed") if name not in called]
    return answer(problems, "np.random.seed and torch.manual_seed are called")


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
    """Yield (module, name in it or None, local name) for each import. A relative import has a module with dots."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, None, alias.asname or alias.name.partition(".")[0]
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                yield "." * node.level + (node.module or ""), alias.name, alias.asname or alias.name


def check_imports(base, sources, layers):
    """Check that only allowed packages are imported. The generation, and what it imports, may use minGPT."""
    own = {part.removesuffix(".py") for path in sources for part in (base.name, *path.relative_to(base).parts)}
    generation = find_generation(base, sources, layers)
    problems = []
    for path, source in sources.items():
        allowed = ALLOWED | own | set(sys.stdlib_module_names)
        allowed |= FOR_GENERATION if path in generation else set()
        allowed |= OF_COLAB if source.is_notebook else set()
        tops = {module.partition(".")[0] for module, *_ in list_imports(source.tree) if not module.startswith(".")}
        if tops - allowed:
            problems.append(f"{path.relative_to(base)} imports {', '.join(sorted(tops - allowed))}, which the exercise "
                            "does not allow")
    return answer(problems, "only what the exercise allows")


def find_generation(base, sources, layers):
    """Return the files that generate text: those that import minGPT, and what they import.

    The file with the two layers does not count, unless the whole solution is one file.
    """
    found = set()
    for path, source in sources.items():
        modules = {module.partition(".")[0] for module, *_ in list_imports(source.tree)}
        uses_layers = path in layers or modules & {layer.stem for layer in layers}
        named = re.search("gpt|generat", path.stem, re.IGNORECASE)
        if ("mingpt" in modules or named) and (not uses_layers or source.is_notebook or len(sources) == 1):
            found.add(path)
    size = -1
    while size < len(found):
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
