"""The rules of hand-in: file name, README, code, PDF, no additional files, seeds and imports. No code is run."""

import ast
import re
import sys

from check.locate import README, find_base, is_mingpt, list_code, list_files
from check.source import find_imported, list_imports, read_source
from helpers import UserError

MAX_PAGES = 6
MOST_NAMES = 8  # of files that are listed
ALLOWED = {"numpy", "pandas", "matplotlib", "xgboost", "torch", "torchtext", "spacy", "tqdm", "sklearn"}
FOR_GENERATION = {"mingpt", "transformers", "regex", "requests"}  # minGPT and what it needs
OF_COLAB = {"google", "IPython", "ipywidgets"}  # in notebooks; they come with Colab
LABELS = re.compile(r"(?i)\b(full|name|cse|user(name)?|login|id|e-?mail|is|my)\b")
SEEDS = {"np.random.seed": r"(np|numpy)\.random\.seed|seed|(.*\.)?set_seed",  # patterns of calls; set_seed of minGPT
         "torch.manual_seed": r"(torch\.(random\.)?)?manual_seed|(.*\.)?set_seed"}  # and transformers sets both


def check_rules(folder, name, layers):
    """Return {code: {"ok": bool, "detail": text}} for an unpacked submission, given what `find_layers` returns."""
    base = find_base(folder)
    code, readmes = list_code(base), read_readmes(base)
    pdfs = [path for path in list_files(base) if path.suffix.lower() == ".pdf"]
    sources, broken = {}, [] if code else ["the code is missing; add your .py files or a notebook"]
    for path in code:
        try:
            sources[path] = read_source(path, path.relative_to(base))
            broken += sources[path].problems
        except UserError as error:
            broken.append(str(error).removesuffix("."))
    rules, ids = {}, id_in_name(name)

    def add(rule, problems, fine):
        rules[rule] = {"ok": not problems, "detail": "; ".join(problems) or fine}

    misnamed = [f"the zip is called {name}; call it ex5_ID.zip, with your ID"]
    add("name", misnamed if name.lower().endswith(".zip") and not ids else [], f"{name}: ID {ids[0]}" if ids else name)
    add("readme", check_readme(readmes, base, name), ", ".join(ids_in(" ; ".join(readmes.values()))[:3]))
    add("code", broken, list_names(code, base))
    add("pdf", check_pdf(pdfs), list_names(pdfs, base))
    add("extra", check_extra(folder, base, [*code, *pdfs, *readmes]), "none")
    add("seeds", check_seeds(sources), "called")
    add("imports", check_imports(base, code, sources, {path for path, _ in layers.values()}), "only allowed packages")
    return rules


def list_names(paths, base):
    """Return the names of some paths, or the first ones of many, as one text."""
    names = list(dict.fromkeys(str(path.relative_to(base)) for path in paths))
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more


def find_id(folder, name):
    """Return the ID in the name of a submission, or else in its README, or None."""
    texts = read_readmes(find_base(folder)).values()
    return next(iter([*id_in_name(name), *ids_in(" ; ".join(texts))]), None)


def id_in_name(name):
    """Return a list with the digits after "ex5_". A learning platform may add text before and after them."""
    return re.findall(r"(?i)ex5_(\d+)", name)[:1]


def ids_in(text):
    """Return the numbers in a text that may be an ID. The number of the course has five digits."""
    return re.findall(r"(?<!\d)\d{6,10}(?!\d)", re.sub(r"(?<=\d)[ -](?=\d)", "", text))


def read_readmes(base):
    """Return {path: text} of the READMEs at the top of a submission, or else of those in its folders."""
    paths = [path for path in list_files(base) if README.fullmatch(path.name) and not is_mingpt(path, base)]
    texts = {}
    for path in [path for path in paths if path.parent == base] or paths:
        data = path.read_bytes()[:100_000]
        encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
        texts[path] = data.decode(encoding, errors="replace")
    return texts


def check_readme(readmes, base, name):
    """Return the problems with the README. It needs an ID, and at least three more words: a name and a username."""
    if len(readmes) != 1:
        advice = f"({list_names(readmes, base)}); keep one" if readmes else "; add one with name, CSE username and ID"
        return [f"{len(readmes)} READMEs {advice}".replace(" ;", ";")]
    (path, text), = readmes.items()
    ids, expected, problems = ids_in(text), id_in_name(name), []
    if not ids:
        problems.append(f"{path.name} lacks an ID; add a line \"ID: ...\"")
    elif expected and expected[0] not in ids:
        problems.append(f"{path.name} has the ID {ids[0]}, but the file name has {expected[0]}; correct one of them")
    if len(re.findall(r"[^\W\d_][\w.'-]*", LABELS.sub(" ", text))) < 3:
        problems.append(f"{path.name} lacks a name or a CSE username; add \"Name: ...\" and \"CSE username: ...\"")
    return problems


def check_pdf(pdfs):
    """Return the problems with the PDF."""
    if len(pdfs) != 1:
        return [f"{len(pdfs)} PDFs; hand in the report as one PDF"]
    try:
        import pypdf  # a requirement of the tests and the report only
        pages = len(pypdf.PdfReader(pdfs[0]).pages)
    except ImportError:
        return []
    except Exception:  # pypdf raises many kinds
        return [f"{pdfs[0].name} cannot be opened as a PDF; export it again"]
    wrong = f"{pdfs[0].name} has {pages} pages, and 1 to {MAX_PAGES} are allowed"
    return [] if 1 <= pages <= MAX_PAGES else [wrong]


def check_extra(folder, base, wanted):
    """Return a list with the files that should not be handed in. Of a folder without a wanted file, it has the name."""
    parents = {parent for path in wanted for parent in path.parents}
    extra = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path not in wanted):
        places = [place for place in (path, *path.parents) if place not in parents and folder in place.parents]
        extra.append(places[-1])
    note = " (minGPT's own code)" if any(is_mingpt(path / "model.py", folder) for path in extra) else ""
    return [f"remove {list_names(extra, folder)}{note}"] if extra else []


def check_seeds(sources):
    """Return a list with the seeds that are not set."""
    nodes = [node for source in sources.values() for node in ast.walk(source.tree)]
    calls = {ast.unparse(node.func) for node in nodes if isinstance(node, ast.Call)}
    missing = [name for name, pattern in SEEDS.items() if not any(map(re.compile(pattern).fullmatch, calls))]
    return [f"{' and '.join(missing)}: not called; call it before you split, shuffle or train"] if missing else []


def check_imports(base, code, sources, with_layers):
    """Return the problems with imports. What generates text may also import minGPT and what it needs."""
    own = {part.removesuffix(".py") for path in code for part in (base.name, *path.relative_to(base).parts)}
    generation = find_generation(sources, with_layers)
    problems = []
    for path, source in sources.items():
        allowed = ALLOWED | own | {*sys.stdlib_module_names} | (OF_COLAB if source.is_notebook else set())
        modules = {module.partition(".")[0] for module, *_ in list_imports(source.tree) if not module.startswith(".")}
        forbidden = modules - allowed - (FOR_GENERATION if path in generation else set())
        if forbidden:
            why = "only text generation may import" if forbidden <= FOR_GENERATION else "the exercise does not allow"
            problems.append(f"{path.relative_to(base)} imports {', '.join(sorted(forbidden))}, which {why}")
    return problems


def find_generation(sources, with_layers):
    """Return the files that generate text, and those that only they import.

    A file generates text if it imports minGPT or is named for it. A file with the layers, or one that imports them,
    does not count unless it is a notebook or the only file.
    """
    imported = {path: find_imported(path, source.tree, sources) for path, source in sources.items()}
    starts = set()
    for path, source in sources.items():
        modules = {module.partition(".")[0] for module, *_ in list_imports(source.tree)}
        is_apart = not with_layers & {path, *imported[path]} or source.is_notebook or len(sources) == 1
        if is_apart and ("mingpt" in modules or re.search("gpt|generat", path.stem, re.IGNORECASE)):
            starts.add(path)

    def reach(paths, without=()):
        reached, waiting = set(), [*paths]
        while waiting:
            path = waiting.pop()
            if path not in reached and path not in without:
                reached.add(path)
                waiting += imported[path]
        return reached

    reached = reach(starts)
    return starts | (reached - reach({*sources} - reached, without=starts) - with_layers)
