"""The size of a hand-in and the direction of imports, checked by import statements."""

import ast
import sys

import pytest

from tests.toy import ROOT

LEVELS = {  # product files import files of a lower level, or of their own package
    "models": 0, "helpers": 0, "helpers.files": 1, "helpers.text": 2, "helpers.imdb": 3, "helpers.batches": 3,
    "helpers.calibration": 4, "helpers.predictor": 5, "helpers.bonus": 6, "sentiment_analysis": 7, "generate_gpt2": 7,
    "predict": 8, "check": 8, "report": 8, "benchmarks": 8}
SCRIPTS = [ROOT / name for name in ("models.py", "sentiment_analysis.py", "generate_gpt2.py")]
HANDED_IN = [*SCRIPTS, *ROOT.glob("helpers/*.py")]
BONUS = [*ROOT.glob("helpers/bonus/*.py")]
PRODUCT = [*HANDED_IN, *BONUS, *ROOT.glob("predict/*.py")]
ALLOWED = {"numpy", "pandas", "matplotlib", "torch", "torchtext", "spacy", "tqdm", "sklearn"} | sys.stdlib_module_names
OF_GENERATION = {"mingpt", "transformers", "safetensors", "regex", "requests", "huggingface_hub"}


def name_of(path):
    """Return the name of a module: "helpers.bonus" for helpers/bonus/__init__.py."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def imports_of(path):
    """Return the names of the modules that a file imports, in functions too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} has a relative import"
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            modules = [name for name in inner if (ROOT / name.replace(".", "/")).with_suffix(".py").exists()]
            found += modules or [node.module]
    return found


def level(module):
    """Return the level of a module, or of the package that it is in."""
    while module not in LEVELS:
        module = module.rpartition(".")[0]
        if not module:
            return None
    return LEVELS[module]


def test_hand_in_is_small():
    for files, most_files, most_lines in ((HANDED_IN, 10, 1450), ([*HANDED_IN, *BONUS], 14, 2450)):
        lines = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)
        assert len(files) <= most_files
        assert lines <= most_lines


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_imports_run_one_way(path):
    module = name_of(path)
    package = "helpers.bonus" if module.startswith("helpers.bonus") else module.partition(".")[0]
    for imported in imports_of(path):
        if level(imported) is None:
            libraries = ALLOWED | (OF_GENERATION if module == "generate_gpt2" else set())
            assert imported.partition(".")[0] in libraries, imported
        elif package == "helpers" and imported == "helpers.bonus":
            assert module == "helpers.predictor", "only `make_pipeline` imports the bonus"
        else:
            in_package = package in ("helpers.bonus", "predict") and imported.startswith(package)
            assert in_package or level(imported) < level(module), imported
        if imported.startswith("models"):
            assert module == "helpers.predictor", "what it calls works with anybody's `models.py`"
