"""The report is drawn from the results on disk and fits; the submission holds what the exercise asks for."""

import io
import json
import shutil
import zipfile

import matplotlib.image
import numpy as np
import pypdf
import pytest
import torch
import typst

from helpers.cli import UserError
from report import analysis, build, submission
from report.submission import make_zip
from tests.toy import ROOT, read_json, refused, run_python, train_toy

REPORT = ROOT / "report"
TEMPLATE = REPORT / "report.typ"
AUTHOR = {"name": "Ada Lovelace", "cse": "ada", "id": "123456789"}


def text_of(pdf):
    """Return the text of a PDF without white space, so that line breaks do not matter."""
    return "".join("".join(page.extract_text() for page in pypdf.PdfReader(io.BytesIO(pdf)).pages).split())


def holds(pdf_text, *wanted):
    for text in wanted:
        assert "".join(text.split()) in pdf_text, text


def shown(it):
    return f"{100 * it['mean']:.2f}" + (f" ± {100 * it['sd']:.2f}" if it["sd"] is not None else "")


def set_report(results):
    return build.render(TEMPLATE, json.dumps(results), AUTHOR)


@pytest.fixture(scope="module")
def committed():
    """The committed results, by name."""
    return json.loads(build.read_results(REPORT / "results"))


# The report


def test_committed_report_is_the_one_of_the_committed_results():
    pdf = build.render(TEMPLATE, build.read_results(REPORT / "results"), build.read_author(REPORT / "author.toml"))
    assert (REPORT / "report.pdf").read_bytes() == pdf, "run make report"
    assert build.built_from(io.BytesIO(pdf)) == build.digest(TEMPLATE, build.read_results(REPORT / "results"))
    assert len(pypdf.PdfReader(io.BytesIO(pdf)).pages) <= build.MAX_PAGES


def test_headline_figures_are_those_of_the_results(committed):
    text = text_of((REPORT / "report.pdf").read_bytes())
    for name in ("baseline", "bonus", "bonus_unsup"):
        result = committed[name]
        holds(text, shown(result["test_accuracy"]), shown(result["accuracy_without_duplicates"]))
    epochs = [run["epochs"] for run in committed["baseline"]["runs"]]
    for i in range(len(epochs[0])):
        train, valid, accuracy = (np.mean([run[i][name] for run in epochs])
                                  for name in ("train_loss", "valid_loss", "valid_accuracy"))
        holds(text, f"{train:.4f} {valid:.4f} {100 * accuracy:.2f} %")
    for row in committed["ablation"]["rows"] + committed["tried"]["rows"]:
        holds(text, row["what"], shown(row["valid_accuracy"]))
    for row in committed["peer"]["rows"] + committed["published"]["rows"]:
        holds(text, row["what"], f"{100 * row['test_accuracy']:.2f}")
    lines = {"before": [committed["certainty"]["before"]["parts"]]} | {
        name: [run["test"]["parts"] for run in committed[name]["runs"]] for name in ("bonus", "bonus_unsup")}
    for parts in lines.values():
        errors = [max(part["calibration_error"] for part in of_run.values()) for of_run in parts]
        for values in (*([of_run[length]["accuracy"] for of_run in parts] for length in parts[0]), errors):
            sd = f" ± {100 * np.std(values, ddof=1):.1f}" if len(values) > 1 else ""
            holds(text, f"{100 * np.mean(values):.1f}{sd}")
    for what in ("before", "bonus", "bonus-unsup"):
        rows = [row for row in committed["certainty"]["opinions"] if row["what"] == what]
        holds(text, *(f"{100 * np.mean([row[name] for row in rows]):.1f}" for name in ("right", "sure_and_wrong")))
    found = committed["analysis"]
    holds(text, *(f"{count:,}" for row in found["confusion"] for count in row))
    for row in found["error_by_rating"] + found["error_by_length"]:
        holds(text, f"{row['reviews']:,} {100 * row['error']:.1f} %")
    for example in found["examples"]:
        holds(text, example["text"], f"{example['probability']:.3f}")
    sentences = committed["gpt2_sentences"]
    holds(text, *(one["sentence"] for one in sentences["sentences"]), sentences["model"],
          f"{sentences['parameters']:,}", f"{committed['generation_speed']['rows'][1]['ratio']:.1f} times")


def test_same_results_give_the_same_bytes_and_the_author_is_on_the_cover(committed):
    first, second = set_report(committed), set_report(committed)
    assert first == second
    holds(text_of(first), *AUTHOR.values())
    other = json.dumps(committed | {"peer": {"rows": []}})
    assert build.built_from(io.BytesIO(first)) != build.digest(TEMPLATE, other)


def test_absent_results_are_said_to_be_absent():
    holds(text_of(set_report({})), *(f"{name}.json" for name in build.RESULTS if name != "published"))


@pytest.mark.parametrize(("losses", "says"), [
    ([0.5, 0.4, 0.3, 0.35, 0.4], "the validation loss only until epoch 3"),
    ([0.5, 0.4, 0.3, 0.25, 0.2], "Both losses fall in every epoch")])
def test_what_the_text_says_of_the_curves_follows_them(committed, losses, says):
    baseline = json.loads(json.dumps(committed["baseline"]))
    for run in baseline["runs"]:
        for epoch, loss in zip(run["epochs"], losses, strict=True):
            epoch["valid_loss"] = loss
    holds(text_of(set_report(committed | {"baseline": baseline})), says)


def test_nothing_reaches_into_the_margins(committed):
    inputs = {"results": json.dumps(committed), "author": json.dumps(AUTHOR), "digest": ""}
    pages = typst.compile(str(TEMPLATE), format="png", ppi=50, sys_inputs=inputs, ignore_system_fonts=True)
    for page in pages:
        ink = matplotlib.image.imread(io.BytesIO(page))[..., :3].mean(axis=(0, 2)) < 1  # of each column of pixels
        margin = round(len(ink) * 1.9 / 21)  # cm of an A4 page, 2 less what punctuation may hang over
        assert not ink[:margin].any()
        assert not ink[-margin:].any()
        assert ink.any()


def test_what_the_report_cannot_be_made_of_is_refused(committed, tmp_path):
    sentences = committed["gpt2_sentences"]
    long = sentences | {"sentences": sentences["sentences"] * 6}
    with pytest.raises(UserError, match="pages and may have 6"):
        set_report(committed | {"gpt2_sentences": long})
    with pytest.raises(UserError, match="cannot be set from these results") as caught:
        set_report(committed | {"baseline": {"runs": []}})
    assert "\n" not in str(caught.value)
    (tmp_path / "baseline.json").write_text('{"runs": [', encoding="utf-8")
    with pytest.raises(UserError, match="damaged"):
        build.read_results(tmp_path)
    for content in ("name = ", 'name = "A"'):
        (tmp_path / "author.toml").write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match="must give name, cse, id"):
            build.read_author(tmp_path / "author.toml")


def test_readme_shows_the_results(committed):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in ("baseline", "bonus", "bonus_unsup"):
        assert f"**{shown(committed[name]['test_accuracy'])} %**" in text
        assert f"{100 * committed[name]['test_accuracy']['mean']:.2f} |" in text or name == "baseline"


# The analysis


def test_differences_of_the_layers_are_rounding_errors():
    found = analysis.layer_differences()
    for layer in ("attention", "norm"):
        assert 0 < found[layer]["loops"] < 1e-13
        assert 0 < found[layer]["pytorch"] < 1e-13
        assert 0 < found[layer]["gradient"] < 1e-7


def test_gradients_of_a_wrong_layer_would_be_seen():
    class Detached(torch.nn.Linear):
        def forward(self, x, mask):
            return super().forward(x) + x.detach()

    x = torch.randn(2, 3, 4, dtype=torch.float64)
    pairs = list(analysis.gradients(Detached(4, 4).double(), x, None, torch.ones(2, 3, dtype=torch.bool)))
    assert (pairs[0][0] - pairs[0][1]).abs().max() > 0.1
    assert max((ours - theirs).abs().max() for ours, theirs in pairs[1:]) < 1e-7


def test_error_rates_and_most_confident_errors():
    wrong = np.array([True, False, True, True])
    lengths, ratings, labels = np.array([50, 150, 90, 700]), np.array([1, 1, 10, 10]), np.array([0, 0, 1, 1])
    by_length, by_rating = analysis.error_rates(wrong, lengths, ratings)
    assert [(row["to"], row["reviews"], row["error"]) for row in by_length] == [
        (100, 2, 1), (200, 1, 0), (10**6, 1, 1)]
    assert [(row["stars"], row["reviews"], row["error"]) for row in by_rating] == [(1, 2, 0.5), (10, 2, 1)]
    texts = ["so good<br /><br />it hurts", "", "word " * 90, "too long"]
    examples = analysis.confident_errors(texts, wrong, lengths, ratings, labels, np.array([0.9, 0.2, 0.1, 0.0]))
    assert [(one["label"], one["stars"], one["tokens"]) for one in examples] == [(0, 1, 50), (1, 10, 90)]
    assert [one["text"] for one in examples] == ["so good it hurts", "word " * analysis.EXAMPLE_WORDS + "…"]


def test_analysis_of_a_run(call, data, tmp_path, monkeypatch, committed):
    run = train_toy(data, tmp_path, "it", "--epochs", 1)
    monkeypatch.setattr(analysis, "RESULT", tmp_path / "analysis.json")
    call("--run", run, "--data-dir", data, "--cache-dir", data / "cache", main=analysis.main)
    result = read_json(tmp_path / "analysis.json")
    metrics = read_json(run / "metrics.json")
    assert result.keys() == committed["analysis"].keys()
    assert result["confusion"] == metrics["test"]["confusion"]
    assert result["test_accuracy"] == pytest.approx(metrics["test"]["accuracy"])
    assert sum(result["data"][name] for name in ("train", "valid", "test")) == 120
    for one in result["attention"]:
        np.testing.assert_allclose(np.sum(one["weights"], axis=1), 1, atol=1e-3)


# The submission


@pytest.fixture
def project(tmp_path):
    """A copy of what the submission is made of, with other times."""
    for name in ("report", "helpers"):
        shutil.copytree(ROOT / name, tmp_path / name, copy_function=shutil.copy)
    for path in ROOT.glob("*.py"):
        shutil.copy(path, tmp_path)
    return tmp_path


def test_submission_holds_readme_product_and_report_and_nothing_else(project):
    data = make_zip(project, AUTHOR)
    with zipfile.ZipFile(io.BytesIO(data)) as packed:
        assert packed.testzip() is None
        content = {name: packed.read(name) for name in packed.namelist()}
    product = {str(path.relative_to(ROOT)) for path in [*ROOT.glob("*.py"), *ROOT.glob("helpers/*.*")]}
    assert {"models.py", "sentiment_analysis.py", "generate_gpt2.py", "helpers/cli.py"} <= product
    assert content.keys() == {"README", "report.pdf"} | product
    assert content["README"].decode().splitlines()[:3] == list(AUTHOR.values())
    assert all(content[name] == (ROOT / name).read_bytes() for name in product)
    holds(text_of(content["report.pdf"]), *AUTHOR.values())
    assert make_zip(ROOT, AUTHOR) == data


@pytest.mark.parametrize(("change", "message"), [
    ({"name": ""}, "name not given"), ({"cse": ""}, "cse not given"), ({"name": "", "id": ""}, "name, id not given"),
    ({"id": "12345678a"}, "digits"), ({"id": "١٢٣"}, "digits"), ({"id": "-1"}, "digits")])
def test_submission_without_who_is_refused(change, message):
    with pytest.raises(UserError, match=message):
        make_zip(ROOT, AUTHOR | change)


@pytest.mark.parametrize(("file", "line", "message"), [
    ("models.py", "import scipy.sparse", "models.py, line 1, imports scipy.sparse"),
    ("helpers/batches.py", "def f():\n    from torchvision.io import x", "batches.py, line 2, imports torchvision.io"),
    ("models.py", "from . import other", "imports ., which"),
    ("sentiment_analysis.py", "import transformers", "imports transformers"),
    ("new.py", "import report", "imports report"),
    ("new.py", "if", "not Python")])
def test_submission_with_other_imports_is_refused(file, line, message):
    product = submission.product_files(ROOT)
    submission.check_imports(product)
    with pytest.raises(UserError, match=message):
        submission.check_imports(product | {file: line.encode()})


@pytest.mark.parametrize(("name", "content", "message"), [
    ("report.pdf", None, "run make report"), ("report.pdf", b"", "run make report"),
    ("report.pdf", b"<html>", "run make report"), ("results/analysis.json", b"{}", "older than its results"),
    ("report.typ", b"other", "older than its results")])
def test_submission_without_a_report_of_these_results_is_refused(project, name, content, message):
    (project / "report" / name).unlink()
    if content is not None:
        (project / "report" / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        make_zip(project, AUTHOR)


def test_command_line_of_the_submission(call, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "id not given; name all of --name, --cse and --id (make: NAME=, CSE= and ID=)." in refused(
        *call("--name", "Ada", "--cse", "ada", main=submission.main))
    assert list(tmp_path.iterdir()) == []
    _, out, _ = call("--name", "Ada  Lovelace ", "--cse", "ada", "--id", "123456789", main=submission.main)
    assert "handed in by Ada Lovelace, ada, 123456789" in out
    assert (tmp_path / "ex5_123456789.zip").read_bytes() == make_zip(ROOT, AUTHOR)


def test_unpacked_submission_runs_the_sample(tmp_path):
    """From an empty folder; the reviews of the sample are no part of the submission and are put beside it."""
    with zipfile.ZipFile(io.BytesIO(make_zip(ROOT, AUTHOR))) as packed:
        packed.extractall(tmp_path)
    shutil.copytree(ROOT / "sample_reviews", tmp_path / "sample_reviews")
    code, _, err = run_python("sentiment_analysis.py", "--sample", "--epochs", "2", cwd=tmp_path)
    assert code == 0, err
    assert {path.name for path in (tmp_path / "runs" / "sample").iterdir()} == {"metrics.json", "loss.png", "model.pt"}
