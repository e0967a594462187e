"""The layout of the project, checked by its import statements, and the exercise in a copy without the bonus."""

import ast
import graphlib
import re
import shutil
import symtable
import sys

import pytest

from helpers.data.archive import SAMPLE_DIR
from tests.toy import ROOT, read_json, refused, run_python

LEVELS = {  # a file imports files of its own or of a lower level
    "models": 0,
    "helpers": 1,
    "sentiment_analysis": 2, "generate_gpt2": 2,
    "check": 3, "report": 3, "benchmarks": 3, "pretrained": 3,
    "tests": 4,
}


def name_of(path):
    """Return the name of a module: "helpers.data" for helpers/data/__init__.py."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = [*ROOT.glob("*.py")]
FILES += [path for folder in LEVELS for path in ROOT.glob(f"{folder}/**/*.py")]
TREES = {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def imports(module):
    """Yield what a module imports, in functions too: (name of the module, name in it or None, local name)."""
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, None, alias.asname or alias.name
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import"
            for alias in node.names:
                local, inner = alias.asname or alias.name, f"{node.module}.{alias.name}"
                yield (inner, None, local) if inner in TREES else (node.module, alias.name, local)


def imported_modules(module):
    """Return the names of the modules of this project that a module imports."""
    return {name for name, _, _ in imports(module) if name in TREES}


def level(module):
    return LEVELS[module.partition(".")[0]]


# The exercise without the bonus


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """A copy of the exercise without the bonus."""
    copy = tmp_path_factory.mktemp("copy")
    for name in ("models.py", "sentiment_analysis.py"):
        shutil.copy(ROOT / name, copy)
    shutil.copytree(ROOT / "helpers", copy / "helpers", ignore=shutil.ignore_patterns("bonus", "__pycache__"))
    if SAMPLE_DIR.exists():
        (copy / SAMPLE_DIR.name).symlink_to(SAMPLE_DIR)
    return copy


RUN_ALL = """
import sys
import sentiment_analysis
for line in sys.argv[1:]:
    sentiment_analysis.main(line.split("|"))
    print("-----")
"""


@pytest.mark.skipif(not SAMPLE_DIR.exists(), reason="no sample_reviews/")
def test_sample_is_trained_evaluated_and_predicted_without_the_bonus(copy):
    """By three commands in one process."""
    commands = ("--sample|--epochs|1", "evaluate|--run|runs/sample",
                "predict|--model|runs/sample/model.pt|A wonderful film.")
    code, out, err = run_python("-c", RUN_ALL, *commands, cwd=copy, TQDM_DISABLE="1")
    assert (code, [line for line in err.splitlines() if not line.startswith("note: ")]) == (0, [])
    trained, evaluated, predicted, _ = out.split("-----\n")
    metrics = read_json(copy / "runs" / "sample" / "metrics.json")
    assert metrics["data"] == "SAMPLE"
    accuracy = f"SAMPLE test accuracy {metrics['test']['accuracy']:.2%}\n"
    assert accuracy in trained
    assert accuracy in evaluated
    assert re.fullmatch(r"(positive|negative) +\d+\.\d% .*A wonderful film\.\n", predicted)


def test_preset_of_the_bonus_is_refused_without_it(copy):
    line = refused(*run_python("sentiment_analysis.py", "--preset", "bonus", cwd=copy))
    assert "helpers/bonus/" in line
    assert not (copy / "runs" / "bonus").exists()


def test_exercise_reaches_the_bonus_by_one_import_in_one_function():
    places = []
    for module in TREES:
        if level(module) <= 2 and not module.startswith("helpers.bonus"):
            places += [module for name, _, _ in imports(module) if name.startswith("helpers.bonus")]
    assert places == ["helpers.door"]
    top_level = [node for node in TREES["helpers.door"].body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert "bonus" not in "\n".join(map(ast.unparse, top_level))


# Imports


def test_network_of_the_exercise_knows_nothing_of_the_bonus():
    words = re.compile("bonus|n-?gram|channel|region|negation|unsup|unlabel|one.?cycle|fold", re.IGNORECASE)
    assert not words.findall((ROOT / "models.py").read_text(encoding="utf-8"))


def test_network_of_the_exercise_imports_only_torch():
    packages = {name.partition(".")[0] for name, _, _ in imports("models")}
    assert packages - sys.stdlib_module_names == {"torch"}


def test_imports_run_one_way():
    assert {module.partition(".")[0] for module in TREES} == set(LEVELS)
    for module in TREES:
        too_high = {name for name in imported_modules(module) if level(name) > level(module)}
        assert not too_high, f"{module} imports {too_high}"


def test_imports_have_no_circles():
    graph = {module: imported_modules(module) for module in TREES}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError


def defined_names(module):
    """Return the names that a module defines."""
    path = ROOT.joinpath(*module.split("."))
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    table = symtable.symtable(path.read_text(encoding="utf-8"), str(path), "exec")
    return {symbol.get_name() for symbol in table.get_symbols() if symbol.is_assigned() or symbol.is_imported()}


def used_attributes(module):
    """Yield (name of the module, name in it) for what a module uses as `module.name`."""
    local_names = {local: name for name, inner, local in imports(module) if inner is None and name in TREES}
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in local_names:
            yield local_names[node.value.id], node.attr


@pytest.mark.parametrize("module", [module for module in TREES if level(module) < 4])
def test_names_that_a_file_uses_of_others_exist(module):
    """No other test runs the benchmarks."""
    used = {(name, inner) for name, inner, _ in imports(module) if inner and name in TREES} | {*used_attributes(module)}
    missing = {(name, inner) for name, inner in used if inner not in defined_names(name)}
    assert not missing
