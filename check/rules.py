"""The rules of hand-in: file name, README, code, PDF, no additional files, seeds and imports.

    from check.locate import find_layers
    from check.rules import check_rules

    name = "ex5_123456789.zip"  # unpacked in `folder`, a Path
    rules = check_rules(folder, name, find_layers(folder, name))  # {"readme": {"ok": True, "detail": "..."}, ...}

Nothing of the submission is run. `find_layers` raises UserError if two files define a layer, or code is not Python.
"""

import ast
import logging
import re
import sys

from check.locate import find_base, is_mingpt, is_readme, list_clean, list_code, list_files
from check.source import find_imported, list_imports, read_source
from helpers import UserError

MAX_PAGES = 6
MOST_NAMES = 8  # of files that are listed
ALLOWED = {"numpy", "pandas", "matplotlib", "xgboost", "torch", "torchtext", "spacy", "tqdm", "sklearn"}
FOR_GENERATION = {"mingpt", "transformers", "regex", "requests"}  # minGPT and what it needs
OF_COLAB = {"google", "IPython", "ipywidgets"}  # in notebooks; they come with Colab
LABELS = re.compile(r"(?i)\b(full|name|cse|user(name)?|login|id|e-?mail|is|my)\b")
SEEDS = {
    "numpy.random.seed": {"np.random.seed"},
    "torch.manual_seed": {"torch.manual_seed"},
    "mingpt.utils.set_seed": {"np.random.seed", "torch.manual_seed"},
    "transformers.set_seed": {"np.random.seed", "torch.manual_seed"},
}


def check_rules(folder, name, layers):
    """Return {code: {"ok": bool, "detail": text}} for an unpacked submission.

    Args:
        folder: the path of its copy. Folders around the code make no difference.
        name: the name of the zip or folder that was handed in.
        layers: where the two classes are, as `find_layers` returns it.
    """
    base = find_base(folder)
    code = list_code(base)
    pdfs = [path for path in list_clean(base) if path.suffix.lower() == ".pdf"]
    readmes = list_readmes(base)
    sources, broken = {}, []
    for path in code:
        try:
            sources[path] = read_source(path, str(path.relative_to(base)))
            broken += filter(None, [sources[path].broken])
        except UserError as error:
            broken.append(str(error).removesuffix("."))
    if not code:
        broken.append("the code is missing; add your .py files or a notebook")
    problems = {
        "name": check_name(name),
        "readme": check_readme(readmes, base, name),
        "code": broken,
        "pdf": check_pdf(pdfs, base),
        "extra": check_extra(folder, base, [*code, *pdfs, *readmes]),
        "seeds": check_seeds(sources),
        "imports": check_imports(base, sources, {path for path, _ in layers.values()}),
    }
    fine = {"name": name, "readme": describe_readme(readmes), "code": list_names(code, base),
            "pdf": list_names(pdfs, base), "extra": "none", "seeds": "called", "imports": "only what the exercise allows"}
    return {key: {"ok": not found, "detail": "; ".join(found) or fine[key]} for key, found in problems.items()}


def list_names(paths, base):
    """Return the names of some files as one text."""
    names = list(dict.fromkeys(str(path.relative_to(base)) for path in paths))
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


# Name and README


def find_id(folder, name):
    """Return the ID in the name of a submission or in its README, or None."""
    in_name = id_in_name(name)
    readmes = list_readmes(find_base(folder))
    in_readme = ids_in(read_text(readmes[0])) if readmes else []
    return in_name or (in_readme[0] if in_readme else None)


def id_in_name(name):
    """Return the digits after "ex5_" in a name, or None. A learning platform may add text before and after them."""
    match = re.search(r"ex5_(\d+)", name, re.IGNORECASE)
    return match and match[1]


def ids_in(text):
    """Return the numbers in a text that may be an ID. The number of the course has five digits."""
    joined = re.sub(r"(?<=\d)[ -](?=\d)", "", text)
    return re.findall(r"(?<!\d)\d{6,10}(?!\d)", joined)


def check_name(name):
    """Return the problems with the name of a zip. The name of a folder is free."""
    if name.lower().endswith(".zip") and not id_in_name(name):
        return [f"the zip is called {name}; call it ex5_ID.zip, with your ID"]
    return []


def list_readmes(base):
    """Return the READMEs at the top of a submission, or else those in its folders."""
    readmes = [path for path in list_clean(base) if is_readme(path) and not is_mingpt(path, base)]
    return [path for path in readmes if path.parent == base] or readmes


def read_text(path):
    """Return the text of a README in UTF-8, UTF-16 or the Hebrew code page of Windows."""
    data = path.read_bytes()[:100_000]
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1255", errors="replace")


def check_readme(readmes, base, name):
    """Return the problems with the README. It needs an ID, and at least three more words: a name and a username."""
    if not readmes:
        return ["the README is missing; add README, README.md or README.txt with your name, CSE username and ID"]
    if len(readmes) > 1:
        return [f"{len(readmes)} READMEs ({list_names(readmes, base)}); keep one"]
    shown, text = readmes[0].name, read_text(readmes[0])
    ids, number = ids_in(text), id_in_name(name)
    words = re.findall(r"[^\W\d_][\w.'-]*", LABELS.sub(" ", text))
    problems = []
    if not ids:
        problems.append(f"{shown} lacks an ID; add a line \"ID: ...\"")
    elif number and number not in ids:
        problems.append(f"{shown} has the ID {', '.join(ids[:3])}, but the file name has {number}; correct one of them")
    if len(words) < 3:
        problems.append(f"{shown} lacks a name or a CSE username; add lines \"Name: ...\" and \"CSE username: ...\"")
    return problems


def describe_readme(readmes):
    """Return what is fine about a README."""
    return f"{readmes[0].name}: {', '.join(ids_in(read_text(readmes[0]))[:3])}" if readmes else ""


# PDF and other files


def check_pdf(pdfs, base):
    """Return the problems with the PDF."""
    if not pdfs:
        return ["the PDF is missing; add the report as one PDF"]
    if len(pdfs) > 1:
        return [f"{len(pdfs)} PDFs ({list_names(pdfs, base)}); keep only the report"]
    try:
        import pypdf  # a requirement of the tests and the report only
    except ImportError:
        return []
    logging.getLogger("pypdf").setLevel(logging.CRITICAL)
    try:
        pages = len(pypdf.PdfReader(pdfs[0]).pages)
    except Exception:  # pypdf raises many kinds
        pages = 0
    if not pages:
        return [f"{pdfs[0].name} cannot be opened as a PDF; export it again"]
    if pages > MAX_PAGES:
        return [f"{pdfs[0].name} has {pages} pages, and at most {MAX_PAGES} are allowed; shorten it"]
    return []


def check_extra(folder, base, wanted):
    """Return a list with the files that should not be handed in, or an empty list."""
    names = []
    for path in list_files(folder):
        if path not in wanted:
            names.append(name_extra(path, base if path.is_relative_to(base) else folder, wanted))
    names = list(dict.fromkeys(names))
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return [f"remove {', '.join(names[:MOST_NAMES])}{more}"] if names else []


def name_extra(path, base, wanted):
    """Return the name of an additional file: the outermost folder in which nothing is wanted, or the file."""
    name = str(path.relative_to(base))
    for parent in reversed(path.relative_to(base).parents[:-1]):
        if not any(other.is_relative_to(base / parent) for other in wanted):
            name = f"{parent}/"
            break
    return f"{name} (minGPT's own code)" if is_mingpt(path, base) else name


# What the code says


def check_seeds(sources):
    """Return a list with the seeds that are not set, or an empty list. set_seed of minGPT sets both."""
    missing = {"np.random.seed", "torch.manual_seed"}
    for source in sources.values():
        names = {"np": "numpy"}  # from local name to what it stands for; np may come with an import of *
        for module, imported, local in list_imports(source.tree):
            names[local] = f"{module}.{imported}" if imported else module
        for node in ast.walk(source.tree):
            if isinstance(node, ast.Call):
                first, _, rest = ast.unparse(node.func).partition(".")
                full = names.get(first, first) + ("." + rest if rest else "")
                missing -= SEEDS.get(full.replace("torch.random.", "torch."), set())
    if not missing:
        return []
    return [f"{' and '.join(sorted(missing))}: not called; call each before you split, shuffle or train"]


def check_imports(base, sources, with_layers):
    """Return the problems with imports. What generates text may also import minGPT and what it needs."""
    own = {part.removesuffix(".py") for path in sources for part in (base.name, *path.relative_to(base).parts)}
    generation = find_generation(sources, with_layers)
    problems = []
    for path, source in sources.items():
        allowed = ALLOWED | own | {*sys.stdlib_module_names} | (OF_COLAB if source.is_notebook else set())
        modules = {module for module, *_ in list_imports(source.tree) if not module.startswith(".")}
        packages = {module.partition(".")[0] for module in modules} - allowed
        forbidden, misplaced = sorted(packages - FOR_GENERATION), sorted(packages & FOR_GENERATION)
        shown = path.relative_to(base)
        if forbidden:
            problems.append(f"{shown} imports {', '.join(forbidden)}, which the exercise does not allow")
        if misplaced and path not in generation:
            problems.append(f"{shown} imports {', '.join(misplaced)}, which is allowed only for generating text")
    return problems


def find_generation(sources, with_layers):
    """Return the files that generate text, and those that only they import.

    A file generates text if it imports minGPT or is named for it. A file with the layers, or one that imports them,
    does not count unless it is a notebook or the only file.
    """
    imported = {path: find_imported(path, source.tree, sources) for path, source in sources.items()}
    starts = set()
    for path, source in sources.items():
        is_named = re.search("gpt|generat", path.stem, re.IGNORECASE)
        imports_mingpt = any(module.partition(".")[0] == "mingpt" for module, *_ in list_imports(source.tree))
        is_apart = path not in with_layers and not with_layers & {*imported[path]}
        if (is_named or imports_mingpt) and (is_apart or source.is_notebook or len(sources) == 1):
            starts.add(path)
    reached = reach(starts, imported)
    by_others = reach({*sources} - reached, {path: files for path, files in imported.items() if path not in starts})
    return starts | (reached - by_others - with_layers)


def reach(starts, imported):
    """Return some files and all that they import, directly or not."""
    reached, waiting = set(), [*starts]
    while waiting:
        path = waiting.pop()
        if path not in reached:
            reached.add(path)
            waiting += imported.get(path, [])
    return reached
