"""The report shows the runs and the notes that it is given, and nothing else."""

import io
import shutil
import urllib.request
from pathlib import Path

import numpy as np
import pypdf
import pytest
import torch

import models
from helpers import UserError
from helpers.files import file_digest
from helpers.imdb import load_reviews, select
from helpers.predictor import Predictor
from report import build
from report.analysis import SENTENCE, errors_by_length, update_analysis
from report.runs import SMALL_GPT, choose_runs
from tests.made_up import BONUS, NOTES, write_run, write_sentences
from tests.toy import ROOT, probabilities, read_json

REFERENCE = ROOT / "report" / "reference"


class Report:
    """A PDF, its text without white space, the text of its first page, and what it lacks if it is a draft, or ""."""

    def __init__(self, pdf):
        _, self.draft, text = build.read_pdf(pdf)
        self.pdf, self.text = pdf, "".join(text.split())
        self.first_page = pypdf.PdfReader(io.BytesIO(pdf)).pages[0].extract_text()

    def lacks(self, *texts):
        """Return those of some texts that the report does not show."""
        return [text for text in texts if "".join(text.split()) not in self.text]


def make_report(runs, *options, notes=""):
    """Build the report of a folder of runs; `notes` is the text of the author's notes."""
    Path("notes.typ").write_text(notes, encoding="utf-8")  # the default of --notes
    args = build.make_parser("").parse_args(["--runs", str(runs), *map(str, options)])
    return Report(build.render(args, *choose_runs(args)))


@pytest.fixture
def runs(tmp_path):
    """A folder with a required run, a bonus run and sentences."""
    write_run(tmp_path / "runs" / "required")
    write_run(tmp_path / "runs" / "bonus", **BONUS)
    write_sentences(tmp_path / "runs")
    return tmp_path / "runs"


@pytest.fixture
def run(toy_run, tmp_path):
    """A copy of a finished run on the toy archive, whose network makes errors."""
    folder = shutil.copytree(toy_run, tmp_path / "runs" / "required")
    predictor = Predictor.load(folder / "model.pt")
    for parameter in predictor.model.parameters():
        torch.nn.init.normal_(parameter)
    predictor.save(folder / "model.pt")
    return folder


def test_errors_are_those_of_one_review_at_a_time(run, toy_imdb, tmp_path):
    update_analysis(run, "IMDB", toy_imdb, tmp_path)
    predictor, reviews = Predictor.load(run / "model.pt"), load_reviews(toy_imdb, tmp_path)
    by_stars, errors = {}, {0: [], 1: []}
    for i in np.flatnonzero(reviews.test):
        label, stars = int(reviews.labels[i]), int(reviews.stars[i])
        logit = predictor.logits(select(reviews, [i])).item()
        is_wrong = (logit > 0) != bool(label)
        by_stars.setdefault(stars, []).append(is_wrong)
        if is_wrong:
            tokens = reviews.tokens[reviews.starts[i]:reviews.starts[i + 1]]
            text = " ".join(reviews.words[token] for token in tokens)
            errors[label].append((abs(logit), text, stars, 1 / (1 + np.exp(-logit))))
    analysis = read_json(run / "analysis.json")
    found = [(row["group"], row["reviews"], row["errors"]) for row in analysis["by_stars"]]
    assert found == [(str(stars), len(rows), pytest.approx(np.mean(rows))) for stars, rows in sorted(by_stars.items())]
    surest = sorted(errors[0], reverse=True)[:2] + sorted(errors[1], reverse=True)[:2]
    assert surest, "the network makes no error"
    found = [(one["text"], one["stars"], one["probability"]) for one in analysis["examples"]]
    assert found == [(text, stars, pytest.approx(p, abs=1e-5)) for _, text, stars, p in surest]
    rows = errors_by_length(np.array([1, 100, 101, 200, 801]), np.array([True, False, True, True, False]))
    assert [tuple(row.values()) for row in rows] == [("1–100", 2, 0.5), ("101–200", 2, 1.0), ("over 800", 1, 0.0)]


@pytest.mark.our_models
def test_attention_is_that_of_the_first_block(run, toy_imdb, tmp_path):
    update_analysis(run, "IMDB", toy_imdb, tmp_path)
    found, predictor = read_json(run / "analysis.json")["attention"], Predictor.load(run / "model.pt")
    ids = torch.tensor([[predictor.vocab.stoi[token] for token in found["tokens"]]])
    weights = predictor.model.blocks[0].attention.weights(predictor.model.embedding(ids))[0]
    assert np.allclose(found["weights"], weights.detach(), atol=1e-6)
    assert found["probability"] == pytest.approx(probabilities(predictor, [SENTENCE]).item(), abs=1e-6)


@pytest.mark.our_models
def test_a_network_without_such_weights_has_no_attention(run, toy_imdb, tmp_path, monkeypatch):
    monkeypatch.setattr(models.MySelfAttention, "weights", lambda self, queries, keys, scale: queries)
    monkeypatch.setattr(models.MySelfAttention, "forward", lambda self, x, mask=None: self.W_v(x))
    report = make_report(run.parent, "--required", run, "--data-dir", toy_imdb, "--cache-dir", tmp_path)
    assert report.lacks("Errors of required on test reviews", "its attention") == ["its attention"]


def test_analysis_is_kept_until_the_network_changes(run, toy_run, toy_imdb, tmp_path):
    update_analysis(run, "IMDB", toy_imdb, tmp_path)
    before = (run / "analysis.json").read_bytes()
    update_analysis(run, "IMDB", tmp_path / "nowhere", tmp_path / "nowhere")  # needs no reviews
    assert (run / "analysis.json").read_bytes() == before
    shutil.copy(toy_run / "model.pt", run)
    update_analysis(run, "IMDB", toy_imdb, tmp_path)
    assert (run / "analysis.json").read_bytes() != before


def test_report_does_not_download(run, monkeypatch, capsys):
    monkeypatch.setattr(urllib.request, "urlopen", lambda *args, **options: pytest.fail("asks the network"))
    assert not make_report(run.parent, "--required", run).lacks("Missing: errors", "report.build --data-dir")
    assert "--data-dir" in capsys.readouterr().out


def test_report_shows_runs_sentences_and_notes(runs, capsys):
    report = make_report(runs, notes=NOTES)
    assert not report.lacks("81.20 %", "0.4322", "0.7123", "0.6124", "83.21 %", "10,101", "2,399", "17,003", "4711",
                            "Abacus 9", "5,022", "6.4 %", "so #good it $hurts .", "0.987", "0.250", "lr 0.001",
                            "124,439,808", "Prefix 9 made sentence 4 for $3.", "We explain the bonus.")
    assert report.draft == ""
    assert report.pdf == make_report(runs, notes=NOTES).pdf, "the same input gives other bytes"
    assert capsys.readouterr().out == ""
    make_report(runs, "--name", "Ada \U0001B170")  # a letter of Nushu
    assert "no font" in capsys.readouterr().out


def figures_of(folder):
    """Return figures of a run as the report writes them."""
    metrics = read_json(folder / "metrics.json")
    figures = [f"{metrics['test']['accuracy']:.2%}", f"{metrics['test']['loss']:.4f}"]
    for epoch in metrics["epochs"]:
        figures += [f"{epoch['train_loss']:.4f}", f"{epoch['valid_loss']:.4f}", f"{epoch['valid_accuracy']:.2%}"]
    return figures


@pytest.mark.our_models
def test_reference_report_has_the_figures_of_its_runs_and_other_reports_do_not(runs):
    args = ["--name", "Reference solution", "--bonus", REFERENCE / "bonus", "--bonus", REFERENCE / "bonus-unsup",
            "--notes", REFERENCE / "notes.typ", "--allow-substitutes"]
    committed, other = Report((REFERENCE.parent / "report.pdf").read_bytes()), make_report(runs, notes=NOTES)
    assert make_report(REFERENCE, *args).text == committed.text, "run make reference"
    assert committed.draft == ""
    assert "small GPT" in committed.first_page
    examples = read_json(REFERENCE / "required" / "analysis.json")["examples"]
    figures = [one["text"] for one in examples]
    for name in ("required", "bonus", "bonus-unsup"):
        figures += figures_of(REFERENCE / name)
    assert not committed.lacks(*figures)
    assert other.lacks(*figures) == figures


def test_choice_of_runs(tmp_path, capsys):
    def chosen(*options):
        args = build.make_parser("").parse_args(["--runs", str(tmp_path), *map(str, options)])
        required, bonus = choose_runs(args)
        return required and required.name, [path.name for path in bonus]

    write_run(tmp_path / "sample", data="SAMPLE", epochs=20, lr=1e-3)
    assert chosen() == ("sample", [])
    write_run(tmp_path / "two", blocks=2, valid_accuracy=0.84)
    assert chosen() == (None, ["two"])
    write_run(tmp_path / "a-new", date="2026-12-02T10:00:00")
    write_run(tmp_path / "old", valid_accuracy=0.9)
    write_run(tmp_path / "bonus", valid_accuracy=0.93, **BONUS)
    assert chosen() == ("a-new", ["bonus"])
    (tmp_path / "bonus" / "checkpoint.pt").touch()
    assert chosen() == ("a-new", ["two"])
    assert "--resume" in capsys.readouterr().out
    assert chosen("--bonus", tmp_path / "old", "--bonus", tmp_path / "two") == ("a-new", ["old", "two"])


def test_substitutes_need_permission_and_stand_on_the_first_page(tmp_path):
    with pytest.raises(UserError, match="no finished run"):
        make_report(tmp_path)
    write_run(tmp_path / "sample", data="SAMPLE")
    for sentences in ({"substitutes": ["a small GPT"]}, {"weights_sha256": file_digest(SMALL_GPT)}):
        write_sentences(tmp_path, **sentences)
        with pytest.raises(UserError, match="small GPT.*SAMPLE.*--allow-substitutes"):
            make_report(tmp_path)
    page = make_report(tmp_path, "--allow-substitutes").first_page
    assert page.index("small GPT") < page.index("SAMPLE") < page.index("Self-attention and")


def test_template_of_the_notes_gives_a_draft(runs):
    template = (ROOT / "report" / "notes_template.typ").read_text(encoding="utf-8")
    report = make_report(runs, notes=template)
    assert report.draft == "Explanation missing: layers, training, bonus, generation"
    assert report.text.count("Explanationmissing:") == 5  # in the title, and in each place
    report = make_report(runs, notes=template.replace("= Bonus", "= Bonus\n_Because_ $x^2$\n== More\n- an item"))
    assert report.draft == "Explanation missing: layers, training, generation"
    assert not report.lacks("Because", "More", "an item")


def test_only_what_has_a_result_needs_an_explanation(tmp_path):
    write_run(tmp_path / "runs" / "bonus", **BONUS)
    notes = "#let n = 3\n#set text(red)\n= Layers\nThere are #n.\n= Bonus\nGood."
    report = make_report(tmp_path / "runs", notes=notes)
    assert report.draft == ""
    assert not report.lacks("There are 3.", "Run python sentiment_analysis.py", "Run python generate_gpt2.py")
    write_sentences(tmp_path / "runs", prefixes=9)
    assert "ten prefixes" in make_report(tmp_path / "runs", notes=NOTES).draft


@pytest.mark.parametrize(("notes", "message"), [
    ("It costs $5 only.", r"line 2: .*backslash"),
    ("#lorem(5000)", r"has \d+ pages, \d more .* without your notes \d")])
def test_refused_notes(runs, notes, message):
    with pytest.raises(UserError, match=message) as error:
        make_report(runs, notes=f"= Layers\n{notes}\n= Training\nText.")
    assert "\n" not in str(error.value)


def test_code_is_that_of_the_two_classes():
    layer = 'class MyLayerNorm:\n    """Doc\n\n    string."""\n    def f(self, y):\n{}        return y * self.g\n'
    code = build.layers_code("import torch\n\n\n" + layer.format("") + "\n\nclass Other:\n    pass\n")
    assert code == "class MyLayerNorm:\n    def f(self, y):\n        return y * self.g"
    assert build.layers_code(layer.format("        y = y + 1\n" * 60)) is None
