"""The architecture, kept by the import statements, in functions too: scripts -> helpers -> models.py."""

import ast
import graphlib
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIBRARIES = {"numpy", "pandas", "matplotlib", "xgboost", "torch", "torchtext", "spacy", "tqdm", "sklearn"}
ALLOWED = {"models": {"torch"}, **dict.fromkeys(
    ["generate_gpt2", "helpers.gpt2"], LIBRARIES | {"mingpt", "transformers", "regex", "requests"})}


def imports(path):
    """Return the names of the modules that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            modules = {name for name in names if Path(ROOT, *name.split(".")).with_suffix(".py").exists()}
            found |= modules or {node.module}
    return found


def test_product_is_scripts_over_helpers_over_the_network_and_the_allowed_libraries():
    scripts = {path.stem: imports(path) for path in ROOT.glob("*.py")}
    helpers = {f"helpers.{path.stem}": imports(path) for path in ROOT.glob("helpers/*.py")}
    assert scripts.keys() == {"models", "sentiment_analysis", "generate_gpt2"}
    graphlib.TopologicalSorter(scripts | helpers).prepare()  # raises CycleError
    for name, found in (scripts | helpers).items():
        below = set() if name == "models" else {"models"} | helpers.keys()
        others = {module.partition(".")[0] for module in found - below}
        assert others <= ALLOWED.get(name, LIBRARIES) | sys.stdlib_module_names, name


def test_report_and_benchmarks_import_no_test_but_the_loops():
    for path in [*ROOT.glob("report/*.py"), *ROOT.glob("benchmarks/*.py")]:
        tests = {module for module in imports(path) if module.startswith(("tests", "conftest", "test_"))}
        assert tests <= {"tests.loops"}, path
