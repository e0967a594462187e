"""The report is drawn from the results on disk and fits; the submission holds what the exercise asks for."""

import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import matplotlib.image
import numpy as np
import pypdf
import pytest
import torch
import typst
from conftest import write_archive_folder

import imdb
import make_submission
import sentiment_analysis
from files import UserError, run_command
from make_submission import make_zip
from report import analysis, build

ROOT = Path(make_submission.__file__).parent
REPORT = ROOT / "report"
TEMPLATE = REPORT / "report.typ"
AUTHOR = {"name": "Ada Lovelace", "cse": "ada", "id": "123456789"}


def text_of(pdf):
    """The text of a PDF without white space, so that line breaks do not matter."""
    return "".join("".join(page.extract_text() for page in pypdf.PdfReader(io.BytesIO(pdf)).pages).split())


def holds(pdf_text, *wanted):
    for text in wanted:
        assert "".join(text.split()) in pdf_text, text


def spread(it):
    return f"{100 * it['mean']:.2f} ± {100 * it['sd']:.2f}"


@pytest.fixture(scope="module")
def committed():
    """The committed results, by name."""
    return json.loads(build.read_results(REPORT / "results"))


@pytest.fixture(scope="module")
def complete(committed):
    """Every result that the report knows: invented ones in place of all that trainings write."""
    def runs(settings, accuracy):
        epochs = [{"train_loss": 0.6 / i, "valid_loss": 0.5 / i + 0.05 * i, "valid_accuracy": 0.8 + i / 100}
                  for i in range(1, 1 + settings["epochs"])]
        return {"runs": [{"seed": seed, "settings": settings, "epochs": epochs,
                          "test": {"duplicates": 123}} for seed in (42, 43, 44)],
                "test_accuracy": {"mean": accuracy, "sd": 0.00123}, "seconds": {"mean": 250.0, "sd": 3.0},
                "accuracy_without_duplicates": {"mean": accuracy - 0.001, "sd": 0.00127},
                "machine": {"cpu": "CPU", "threads": 2, "python": "3", "torch": "2"}}

    one = {"mean": 0.91, "sd": 0.001}
    required = {name: value for name, value in sentiment_analysis.REQUIRED.items() if name != "name"} | {"channels": 0}
    return committed | {
        "baseline": runs(required, 0.85432), "bonus": runs(required | {"ngrams": "labels", "channels": 6}, 0.93123),
        "bonus_unsup": runs(required | {"ngrams": "unsup", "channels": 9}, 0.94234),
        "ablation": {"seeds": [42, 43], "rows": [
            {"what": what, "valid_accuracy": one | {"mean": mean}, "valid_loss": one}
            for what, mean in (("everything", 0.92), ("without trigrams", 0.91))]},
        "peer": {"rows": [{"what": "naive Bayes", "test_accuracy": 0.91641, "seconds": 31.0}]}}


# The report


def test_committed_report_is_the_one_of_the_committed_results():
    pdf = build.render(TEMPLATE, build.read_results(REPORT / "results"), build.read_author(REPORT / "author.toml"))
    assert (REPORT / "report.pdf").read_bytes() == pdf, "run make report"
    assert len(pypdf.PdfReader(io.BytesIO(pdf)).pages) <= build.MAX_PAGES


def test_headline_figures_are_those_of_the_results(committed):
    text = text_of((REPORT / "report.pdf").read_bytes())
    for name in ("baseline", "bonus", "bonus_unsup"):
        if name in committed:
            holds(text, spread(committed[name]["test_accuracy"]), spread(committed[name]["accuracy_without_duplicates"]))
        else:
            holds(text, f"{name}.json")
    for row in committed.get("ablation", {"rows": []})["rows"]:
        holds(text, row["what"], spread(row["valid_accuracy"]))
    for row in committed.get("peer", {"rows": []})["rows"] + committed["published"]["rows"]:
        holds(text, row["what"], f"{100 * row['test_accuracy']:.2f}")
    for (right, wrong) in committed["analysis"]["confusion"]:
        holds(text, f"{right:,}", f"{wrong:,}")
    for row in committed["analysis"]["error_by_rating"] + committed["analysis"]["error_by_length"]:
        holds(text, f"{row['reviews']:,} {100 * row['error']:.1f} %")
    for example in committed["analysis"]["examples"]:
        holds(text, example["text"], f"{example['probability']:.3f}")
    sentences = committed["gpt2_sentences"]
    holds(text, sentences["model"], f"{sentences['parameters']:,}")
    holds(text, *(one["sentence"] for one in sentences["sentences"]))
    holds(text, f"{committed['generation_speed']['rows'][1]['ratio']:.1f} times")


def test_same_results_give_the_same_bytes_and_the_author_is_on_the_cover(complete):
    results = json.dumps(complete)
    first, second = (build.render(TEMPLATE, results, AUTHOR) for _ in range(2))
    assert first == second
    holds(text_of(first), *AUTHOR.values())
    assert build.built_from(io.BytesIO(first)) == build.digest(TEMPLATE, results)
    assert build.digest(TEMPLATE, results) != build.digest(TEMPLATE, json.dumps(complete | {"peer": {"rows": []}}))


def test_complete_results_are_all_shown(complete):
    text = text_of(build.render(TEMPLATE, json.dumps(complete), AUTHOR))
    assert "Notmeasuredyet" not in text
    for name in ("baseline", "bonus", "bonus_unsup"):
        holds(text, spread(complete[name]["test_accuracy"]), spread(complete[name]["accuracy_without_duplicates"]))
    holds(text, "without trigrams", "91.00 ± 0.10", "1.00 points", "naive Bayes (run here)", "91.64")
    epochs = complete["baseline"]["runs"][0]["epochs"]
    holds(text, *(f"{epoch['train_loss']:.4f} {epoch['valid_loss']:.4f} {100 * epoch['valid_accuracy']:.2f} %"
                  for epoch in epochs))


def test_absent_results_are_said_to_be_absent():
    text = text_of(build.render(TEMPLATE, "{}", AUTHOR))
    for name in build.RESULTS:
        if name != "published":
            holds(text, f"{name}.json")


def test_what_the_text_says_of_the_curves_follows_them(complete):
    holds(text_of(build.render(TEMPLATE, json.dumps(complete), AUTHOR)), "the validation loss only until epoch 3")
    falling = json.loads(json.dumps(complete))
    for run in falling["baseline"]["runs"]:
        for epoch in run["epochs"]:
            epoch["valid_loss"] = epoch["train_loss"] + 0.01
    holds(text_of(build.render(TEMPLATE, json.dumps(falling), AUTHOR)), "Both losses fall in every epoch")


def test_nothing_reaches_into_the_margins(complete):
    inputs = {"results": json.dumps(complete), "author": json.dumps(AUTHOR), "digest": ""}
    pages = typst.compile(str(TEMPLATE), format="png", ppi=50, sys_inputs=inputs, ignore_system_fonts=True)
    for page in pages:
        ink = matplotlib.image.imread(io.BytesIO(page))[..., :3].mean(axis=(0, 2)) < 1  # of each column of pixels
        margin = round(len(ink) * 1.9 / 21)  # cm of an A4 page, 2 less what punctuation may hang over
        assert not ink[:margin].any()
        assert not ink[-margin:].any()
        assert ink.any()


def test_too_many_pages_are_refused(complete):
    sentences = complete["gpt2_sentences"]
    long = sentences | {"sentences": sentences["sentences"] * 6}
    with pytest.raises(UserError, match="pages and may have 6"):
        build.render(TEMPLATE, json.dumps(complete | {"gpt2_sentences": long}), AUTHOR)


def test_results_of_another_form_are_refused(complete):
    with pytest.raises(UserError, match="cannot be set from these results") as caught:
        build.render(TEMPLATE, json.dumps(complete | {"baseline": {"runs": []}}), AUTHOR)
    assert "\n" not in str(caught.value)


def test_damaged_results_and_author_are_refused(tmp_path):
    (tmp_path / "baseline.json").write_text('{"runs": [', encoding="utf-8")
    with pytest.raises(UserError, match="damaged"):
        build.read_results(tmp_path)
    for content in ("name = ", 'name = "A"'):
        (tmp_path / "author.toml").write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match="must give name, cse, id"):
            build.read_author(tmp_path / "author.toml")


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
    assert examples[0]["text"] == "so good it hurts"
    assert examples[1]["text"] == "word " * analysis.EXAMPLE_WORDS + "…"


def test_analysis_of_a_run(tmp_path, monkeypatch, committed):
    write_archive_folder(tmp_path / "aclImdb")
    monkeypatch.setattr(imdb, "CONTENT_SHA256", imdb.read_reviews(tmp_path / "aclImdb").digest)
    folders = ["--data-dir", str(tmp_path), "--cache-dir", str(tmp_path / "cache")]
    args = sentiment_analysis.parse_args([*folders, "--runs-dir", str(tmp_path), "--name", "it", "--epochs", "1",
                                          "--min-freq", "2"])
    args.command(args)
    monkeypatch.setattr(analysis, "RESULT", tmp_path / "analysis.json")
    monkeypatch.setattr(sys, "argv", ["analysis.py", "--run", str(tmp_path / "it"), *folders])
    analysis.main()
    result = json.loads((tmp_path / "analysis.json").read_text(encoding="utf-8"))
    metrics = json.loads((tmp_path / "it" / "metrics.json").read_text(encoding="utf-8"))
    assert result.keys() == committed["analysis"].keys()
    assert result["confusion"] == metrics["test"]["confusion"]
    assert result["test_accuracy"] == pytest.approx(metrics["test"]["accuracy"])
    assert {name: result["data"][name] for name in ("train", "valid", "test")} == {"train": 30, "valid": 6, "test": 36}
    for one in result["attention"]:
        np.testing.assert_allclose(np.sum(one["weights"], axis=1), 1, atol=1e-3)


# The submission


@pytest.fixture
def project(tmp_path):
    """A copy of what the submission is made of."""
    folder = tmp_path / "project"
    shutil.copytree(REPORT, folder / "report", ignore=shutil.ignore_patterns("__pycache__"))
    for path in ROOT.glob("*.py"):
        shutil.copy(path, folder)
    return folder


def test_submission_holds_readme_product_and_report_and_nothing_else(project):
    data = make_zip(project, AUTHOR)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.testzip() is None
        content = {name: archive.read(name) for name in archive.namelist()}
    product = {path.name for path in ROOT.glob("*.py")} - {"make_submission.py"}
    assert {"models.py", "sentiment_analysis.py", "generate_gpt2.py"} <= product
    assert content.keys() == {"README", "report.pdf"} | product
    assert content["README"].decode().splitlines()[:3] == list(AUTHOR.values())
    assert all(content[name] == (ROOT / name).read_bytes() for name in product)
    holds(text_of(content["report.pdf"]), *AUTHOR.values())


def test_submission_is_reproducible(project):
    first = make_zip(project, AUTHOR)
    for path in project.rglob("*"):
        os.utime(path, (0, 10**9))
    assert make_zip(project, AUTHOR) == first


@pytest.mark.parametrize(("change", "message"), [
    ({"name": ""}, "name not given"), ({"cse": ""}, "cse not given"), ({"name": "", "id": ""}, "name, id not given"),
    ({"id": "12345678a"}, "digits"), ({"id": "١٢٣"}, "digits"), ({"id": "-1"}, "digits")])
def test_submission_without_who_is_refused(project, change, message):
    with pytest.raises(UserError, match=message):
        make_zip(project, AUTHOR | change)


@pytest.mark.parametrize(("file", "line", "message"), [
    ("models.py", "import scipy.sparse", "models.py, line 1, imports scipy.sparse"),
    ("imdb.py", "def f():\n    from torchvision.io import x", "imdb.py, line 2, imports torchvision.io"),
    ("models.py", "from . import other", "imports ., which"),
    ("sentiment_analysis.py", "import transformers", "imports transformers"),
    ("new.py", "import make_submission", "imports make_submission"),
    ("new.py", "if", "not Python")])
def test_submission_with_other_imports_is_refused(project, file, line, message):
    (project / file).write_text(line + "\n", encoding="utf-8")
    with pytest.raises(UserError, match=message):
        make_zip(project, AUTHOR)


def test_submission_may_use_mingpt_where_it_generates(project):
    (project / "generate_gpt2.py").write_text("import mingpt, transformers, requests, regex, os, torch, files\n",
                                              encoding="utf-8")
    make_zip(project, AUTHOR)


def test_submission_with_an_old_report_is_refused(project):
    results = project / "report" / "results"
    found = json.loads((results / "analysis.json").read_text(encoding="utf-8"))
    (results / "analysis.json").write_text(json.dumps(found | {"seed": 1}), encoding="utf-8")
    with pytest.raises(UserError, match="older than its results"):
        make_zip(project, AUTHOR)


@pytest.mark.parametrize("content", [None, b"", b"%PDF-1.7\n", b"<html>"])
def test_submission_without_a_report_is_refused(project, content):
    path = project / "report" / "report.pdf"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match="run make report"):
        make_zip(project, AUTHOR)


def test_submission_with_a_long_report_is_refused(project):
    template, folder = project / "report" / "report.typ", project / "report"
    template.write_text(template.read_text(encoding="utf-8") + "\n" + "#pagebreak()\n" * 6, encoding="utf-8")
    inputs = {"results": build.read_results(folder / "results"), "author": json.dumps(AUTHOR)}
    inputs["digest"] = build.digest(template, inputs["results"])
    typst.compile(str(template), output=str(folder / "report.pdf"), sys_inputs=inputs, ignore_system_fonts=True)
    with pytest.raises(UserError, match="pages and may have 6"):
        make_zip(project, AUTHOR)


def test_command_line_of_the_submission(tmp_path, monkeypatch, capsys):
    def call(*options):
        monkeypatch.setattr(sys, "argv", ["make_submission.py", *options])
        run_command(make_submission.main)

    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        call("--name", "Ada", "--cse", "ada")
    assert stop.value.code == 2
    assert capsys.readouterr().err == ("error: id not given; name all of --name, --cse and --id "
                                       "(make: NAME=, CSE= and ID=).\n")
    assert list(tmp_path.iterdir()) == []
    call("--name", "Ada  Lovelace ", "--cse", "ada", "--id", "123456789")
    assert "handed in by Ada Lovelace, ada, 123456789" in capsys.readouterr().out
    assert (tmp_path / "ex5_123456789.zip").read_bytes() == make_zip(ROOT, AUTHOR)


def test_unpacked_submission_runs_the_sample(tmp_path):
    """From an empty folder; the reviews of the sample are no part of the submission and are put beside it."""
    with zipfile.ZipFile(io.BytesIO(make_zip(ROOT, AUTHOR))) as archive:
        archive.extractall(tmp_path)
    shutil.copytree(ROOT / "sample_reviews", tmp_path / "sample_reviews")
    done = subprocess.run([sys.executable, "sentiment_analysis.py", "--sample", "--epochs", "2"], cwd=tmp_path,
                          text=True, capture_output=True, env=os.environ | {"TQDM_DISABLE": "1"})
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (tmp_path / "runs" / "sample").iterdir()} == {"metrics.json", "loss.png", "model.pt"}


@pytest.mark.parametrize("options", [[], ["--sample"]])
def test_submission_without_the_sample_says_what_is_missing(tmp_path, monkeypatch, options):
    monkeypatch.setattr(sentiment_analysis, "SAMPLE_DIR", tmp_path / "sample_reviews")
    monkeypatch.setattr(imdb, "ARCHIVE_URL", "http://127.0.0.1:9/it")
    monkeypatch.chdir(tmp_path)
    args = sentiment_analysis.parse_args(options)
    with pytest.raises(UserError, match="sample_reviews/ is not beside" if options else "cannot be reached"):
        args.command(args)
    assert not (tmp_path / "runs").exists()


def test_readme_shows_the_results(committed):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for name in ("baseline", "bonus", "bonus_unsup"):
        assert f"**{spread(committed[name]['test_accuracy'])} %**" in text
    for row in committed["ablation"]["rows"]:
        assert f"{spread(row['valid_accuracy'])} | {row['valid_loss']['mean']:.3f} |" in text
