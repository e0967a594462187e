"""The report shows the runs and the notes that it is given, and nothing else."""

import functools
import io
import shutil
import urllib.request

import numpy as np
import pypdf
import pytest
import torch

import models
from helpers import UserError, files
from helpers.imdb import find_source, load_reviews, select
from helpers.predictor import Predictor, models_text
from report import build
from report.analysis import SENTENCE, errors_by_length, update_analysis
from tests.made_up import BONUS, NOTES, write_run, write_sentences
from tests.toy import ROOT, read_json

REFERENCE = ROOT / "report" / "reference"


def make_report(runs, *options, notes=NOTES):
    """Return the report of a folder of runs as the bytes of a PDF."""
    (runs / "notes.typ").write_text(notes, encoding="utf-8")
    options = ["--runs", runs, "--notes", runs / "notes.typ", "--name", "Ada Lovelace", *options]
    args = build.make_parser("").parse_args([str(option) for option in options])
    return build.render(args, *build.choose_runs(args))


@functools.cache
def text_of(pdf):
    """Return the text of a PDF without white space, so that line breaks do not matter."""
    return "".join(build.read_pdf(pdf)[2].split())


def absent(pdf, *texts):
    """Return those of some texts that a PDF does not show."""
    return [text for text in texts if "".join(text.split()) not in text_of(pdf)]


@pytest.fixture
def runs(tmp_path):
    write_run(tmp_path / "required")
    write_run(tmp_path / "bonus", **BONUS)
    write_sentences(tmp_path)
    return tmp_path


# ---- The analysis of a run


def spoil(model_pt):
    """Change the last layer of a trained network, so that it makes errors."""
    predictor = Predictor.load(model_pt)
    torch.nn.init.normal_(predictor.model.fc.weight)
    predictor.save(model_pt)


@pytest.fixture
def run(toy_run, tmp_path):
    """A copy of a finished run on the toy archive, whose network makes errors."""
    folder = shutil.copytree(toy_run, tmp_path / "runs" / "required")
    spoil(folder / "model.pt")
    return folder


def test_errors_are_those_of_one_review_at_a_time(run, toy_imdb, tmp_path):
    update_analysis(run, "IMDB", toy_imdb, tmp_path / "cache")
    predictor = Predictor.load(run / "model.pt")
    reviews = load_reviews(find_source(toy_imdb), tmp_path / "cache")
    by_stars, wrong = {}, {0: [], 1: []}
    for i in np.flatnonzero(reviews.test):
        label, stars = int(reviews.labels[i]), int(reviews.stars[i])
        logit = predictor.logits(select(reviews, [i])).item()
        is_wrong = (logit > 0) != bool(label)
        by_stars.setdefault(stars, []).append(is_wrong)
        if is_wrong:
            tokens = reviews.tokens[reviews.starts[i]:reviews.starts[i + 1]]
            text = " ".join(reviews.words[token] for token in tokens)
            wrong[label].append((abs(logit), text, stars, 1 / (1 + np.exp(-logit))))
    analysis = read_json(run / "analysis.json")
    assert analysis["by_stars"] == [
        {"group": str(stars), "reviews": len(by_stars[stars]), "errors": pytest.approx(np.mean(by_stars[stars]))}
        for stars in sorted(by_stars)]
    assert analysis["by_length"] == [
        {"group": "1–100", "reviews": 60, "errors": pytest.approx(sum(map(len, wrong.values())) / 60)}]
    expected = sorted(wrong[0], reverse=True)[:2] + sorted(wrong[1], reverse=True)[:2]
    assert expected, "the toy network makes no error"
    assert analysis["examples"] == [
        {"text": text, "stars": stars, "probability": pytest.approx(p, abs=1e-5)} for _, text, stars, p in expected]


def test_groups_of_lengths():
    rows = errors_by_length(np.array([1, 100, 101, 200, 801]), np.array([True, False, True, True, False]))
    assert [(row["group"], row["reviews"], row["errors"]) for row in rows] == [
        ("1–100", 2, 0.5), ("101–200", 2, 1.0), ("over 800", 1, 0.0)]


def test_attention_is_that_of_the_first_block(run, toy_imdb, tmp_path):
    update_analysis(run, "IMDB", toy_imdb, tmp_path / "cache")
    found, predictor = read_json(run / "analysis.json")["attention"], Predictor.load(run / "model.pt")
    ids = torch.tensor([[predictor.vocab.stoi[token] for token in found["tokens"]]])
    weights = predictor.model.blocks[0].attention.weights(predictor.model.embedding(ids))[0]
    assert np.allclose(found["weights"], weights.detach(), atol=1e-6)
    assert found["probability"] == pytest.approx(predictor.probabilities([SENTENCE]).item(), abs=1e-6)


@pytest.mark.parametrize("weights", [None, lambda self, queries, keys, scale: queries])
def test_a_network_without_such_weights_has_no_attention(run, toy_imdb, tmp_path, monkeypatch, weights):
    monkeypatch.setattr(models.MySelfAttention, "weights", weights)
    monkeypatch.setattr(models.MySelfAttention, "forward", lambda self, x, mask=None: self.W_v(x))
    pdf = make_report(tmp_path / "runs", "--required", run, "--data-dir", toy_imdb, "--cache-dir", tmp_path / "cache")
    assert read_json(run / "analysis.json")["attention"] is None
    assert absent(pdf, "Errors of required on test reviews", "its attention") == ["its attention"]


def test_analysis_is_kept_until_the_network_changes(run, toy_imdb, tmp_path):
    update_analysis(run, "IMDB", toy_imdb, tmp_path / "cache")
    before = (run / "analysis.json").read_bytes()
    update_analysis(run, "IMDB", tmp_path / "nowhere", tmp_path / "nowhere")  # needs no reviews
    assert (run / "analysis.json").read_bytes() == before
    spoil(run / "model.pt")
    update_analysis(run, "IMDB", toy_imdb, tmp_path / "cache")
    assert read_json(run / "analysis.json")["model_sha256"] == files.file_digest(run / "model.pt")
    assert (run / "analysis.json").read_bytes() != before


def test_report_does_not_download(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(urllib.request, "urlopen", lambda *args, **options: pytest.fail("asks the network"))
    (tmp_path / ".data").mkdir()
    pdf = make_report(tmp_path / "runs", "--required", run)
    assert not absent(pdf, "Missing: errors", "python -m report.build --data-dir")
    assert "--data-dir" in capsys.readouterr().out


# ---- What the report shows


def test_report_shows_runs_sentences_and_notes(runs):
    pdf = make_report(runs)
    assert not absent(pdf, "Ada Lovelace", "81.20 %", "0.4322", "0.6124", "83.21 %", "10,101", "2,399", "17,003", "4711",
                      "Abacus 9", "5,022", "6.4 %", "so #good it $hurts .", "0.987", "0.250", "lr 0.001", "124,439,808",
                      "Prefix 9 made sentence 4 for $3.", "We explain the bonus here.", "self.W_q(x)")
    assert build.read_pdf(pdf)[1] == ""
    assert pdf == make_report(runs), "the same input gives other bytes"


def figures_of(folder):
    """Return figures of a run as the report writes them."""
    metrics = read_json(folder / "metrics.json")
    figures = [f"{100 * metrics['test']['accuracy']:.2f} %", f"{metrics['test']['loss']:.4f}"]
    for epoch in metrics["epochs"]:
        figures += [f"{epoch['train_loss']:.4f}", f"{epoch['valid_loss']:.4f}", f"{100 * epoch['valid_accuracy']:.2f} %"]
    for row in metrics["test"]["confusion"]:
        figures += [f"{count:,}" for count in row]
    analysis = read_json(folder / "analysis.json")
    return figures + [one["text"] for one in analysis["examples"]]


def test_no_figure_of_the_reference_is_in_other_reports(runs):
    pdf, reference = make_report(runs), (REFERENCE.parent / "report.pdf").read_bytes()
    for name in ("required", "bonus", "bonus-unsup"):
        figures = figures_of(REFERENCE / name)
        assert absent(pdf, *figures) == figures
        figures = figures if name == "required" else figures[:-4]  # examples are shown of one run
        assert not absent(reference, *figures)


def test_reference_report_is_built_from_its_folder(tmp_path):
    runs = [option for name in ("bonus", "bonus-unsup") for option in ("--bonus", str(REFERENCE / name))]
    args = build.make_parser("").parse_args([
        "--name", "Reference solution", "--runs", str(REFERENCE), "--required", str(REFERENCE / "required"), *runs,
        "--notes", str(REFERENCE / "notes.typ"), "--allow-substitutes"])
    pdf = build.render(args, *build.choose_runs(args))
    committed = (REFERENCE.parent / "report.pdf").read_bytes()
    assert text_of(pdf) == text_of(committed), "run make reference"
    assert "small GPT" in pypdf.PdfReader(io.BytesIO(committed)).pages[0].extract_text()


# ---- Which runs


def chosen(runs, *options):
    args = build.make_parser("").parse_args(["--runs", str(runs), *map(str, options)])
    required, bonus = build.choose_runs(args)
    return required and required.name, [path.name for path in bonus]


def test_choice_of_runs(tmp_path, capsys):
    write_run(tmp_path / "sample", data="SAMPLE", epochs=20, lr=1e-3, date="2027")
    assert chosen(tmp_path) == ("sample", [])
    write_run(tmp_path / "two", blocks=2, valid_accuracy=0.84)
    assert chosen(tmp_path) == (None, ["two"])
    write_run(tmp_path / "a-new", date="2026-12-02T10:00:00")
    write_run(tmp_path / "old", valid_accuracy=0.9)
    write_run(tmp_path / "bonus", valid_accuracy=0.93, **BONUS)
    assert chosen(tmp_path) == ("a-new", ["bonus"])
    (tmp_path / "bonus" / "checkpoint.pt").touch()
    assert chosen(tmp_path) == ("a-new", ["two"])
    assert "--resume" in capsys.readouterr().out
    assert chosen(tmp_path, "--bonus", tmp_path / "old", "--bonus", tmp_path / "two") == (None, ["old", "two"])


def test_substitutes_need_permission_and_stand_on_the_first_page(tmp_path):
    with pytest.raises(UserError, match="no finished run"):
        make_report(tmp_path)
    write_run(tmp_path / "sample", data="SAMPLE")
    write_sentences(tmp_path, substitutes=["a small GPT, not GPT-2"])
    with pytest.raises(UserError, match="a small GPT, not GPT-2.*SAMPLE.*--allow-substitutes"):
        make_report(tmp_path)
    page = pypdf.PdfReader(io.BytesIO(make_report(tmp_path, "--allow-substitutes"))).pages[0].extract_text()
    assert "small GPT" in page
    assert "SAMPLE" in page


# ---- Notes and drafts


def test_template_of_the_notes_gives_a_draft(runs):
    template = (ROOT / "report" / "notes_template.typ").read_text(encoding="utf-8")
    pdf = make_report(runs, notes=template)
    assert build.read_pdf(pdf)[1] == "Explanation missing: layers, training, bonus, generation"
    assert text_of(pdf).count("Explanationmissing:") == 5  # in the title, and in each place
    pdf = make_report(runs, notes=template.replace("= Bonus", "= Bonus\n_Because_ $x^2$\n== More\n- an item"))
    assert build.read_pdf(pdf)[1] == "Explanation missing: layers, training, generation"
    assert not absent(pdf, "Because", "More", "an item")


def test_only_what_has_a_result_needs_an_explanation(tmp_path):
    write_run(tmp_path / "bonus", **BONUS)
    pdf = make_report(tmp_path, notes="#let n = 3\n#set text(red)\n= Layers\nThere are #n.\n= Bonus\nGood.")
    assert build.read_pdf(pdf)[1] == ""
    assert not absent(pdf, "There are 3.", "Run python sentiment_analysis.py", "Run python generate_gpt2.py")


def test_fewer_sentences_than_the_exercise_asks_for_are_a_draft(runs):
    write_sentences(runs, prefixes=9)
    assert "ten prefixes" in build.read_pdf(make_report(runs))[1]


@pytest.mark.parametrize("line", ["It costs $5 only.", "# Heading", "3 * 4", "@ref", '#image("no.png")'])
def test_mistake_in_the_notes_is_one_sentence_with_its_line(runs, line):
    with pytest.raises(UserError, match=r"notes.typ has a mistake \(line 4: .*backslash") as error:
        make_report(runs, notes=f"= Layers\nText.\n\n{line}\n= Training\nText.")
    assert "\n" not in str(error.value)


def test_too_many_pages_are_refused(runs):
    with pytest.raises(UserError, match=r"has \d+ pages, \d+ more than allowed, and without your notes \d"):
        make_report(runs, notes="= Layers\n#lorem(5000)")


def test_letters_that_no_font_has_are_named(runs, capsys):
    make_report(runs)
    assert "font" not in capsys.readouterr().out
    make_report(runs, "--name", "Ada \U0001B170")  # Nushu
    assert "no font" in capsys.readouterr().out


# ---- The code of models.py


def test_code_is_that_of_models_py():
    code = build.layers_code(models_text())
    lines = models_text().splitlines()
    assert {line for line in code.splitlines() if line} <= set(lines)
    assert "def forward(self, x, mask=None):" in code
    assert '"""' not in code
    assert "class MyTransformer" not in code
    other = "class MyLayerNorm:\n    def forward(self, y):\n        return y * self.g\n"
    assert build.layers_code("import torch\n" + other + "x = 3\n") == other.strip()
    assert build.layers_code(other + "        # long\n" * 60) is not None  # comments after a class are not in it
    assert build.layers_code(other.replace("        return", "        y = y + 1\n" * 60 + "        return")) is None
