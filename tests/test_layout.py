"""The architecture, kept by the import statements, in functions too: scripts -> helpers -> models.py."""

import ast
import graphlib
import pkgutil
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


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


def test_product_is_scripts_over_helpers_over_the_network():
    """Which libraries it may import, test_report.py checks: only such a product can be submitted."""
    scripts = {path.stem: imports(path) for path in ROOT.glob("*.py")}
    helpers = {f"helpers.{path.stem}": imports(path) for path in ROOT.glob("helpers/*.py")}
    assert scripts.keys() == {"models", "sentiment_analysis", "generate_gpt2"}
    graphlib.TopologicalSorter(scripts | helpers).prepare()  # raises CycleError
    assert not set().union(*helpers.values()) & (scripts.keys() - {"models"})
    assert {name.partition(".")[0] for name in scripts["models"]} - sys.stdlib_module_names == {"torch"}


def test_report_and_benchmarks_import_no_test_but_the_loops():
    for path in [*ROOT.glob("report/*.py"), *ROOT.glob("benchmarks/*.py")]:
        tests = {module for module in imports(path) if module.startswith(("tests", "conftest", "test_"))}
        assert tests <= {"tests.loops"}, path


def test_names_that_files_import_of_each_other_exist():
    for path in (path for folder in ("benchmarks", "pretrained", "report") for path in ROOT.glob(f"{folder}/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and Path(ROOT, *node.module.split(".")).with_suffix(".py").exists():
                for alias in node.names:
                    pkgutil.resolve_name(f"{node.module}.{alias.name}")  # raises AttributeError
