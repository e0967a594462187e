"""The report shows the runs that it is given, and says nothing that their figures contradict."""

import functools
import importlib.metadata
import io
import json
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pypdf
import pytest
import torch
import typst

import sentiment_analysis
from helpers.bonus import PRESETS
from helpers.cli import UserError
from report import analysis, build, content, findings
from report.fonts import needs_system_fonts
from report.notes import PARTS, make_template, read_notes
from tests.made_up import TWO_BLOCKS, make_analysis, make_metrics, make_sentences, write_own_sentences, write_run
from tests.made_up import write_sentences as write_gpt2
from tests.toy import ROOT, read_json, refused, train_toy

REPORT = ROOT / "report"
AUTHOR = {"name": "Ada Lovelace", "cse": "ada", "id": "123456789"}
BONUS = sentiment_analysis.Settings(**PRESETS["bonus"])


@pytest.fixture(autouse=True)
def quick_layers(monkeypatch):
    """Do not compare the layers in each report: that takes seconds and has a test of its own."""
    differences = {"loops": 1e-16, "pytorch": 2e-16, "gradient": 3e-10}
    layers = {"shapes": 6, "attention": differences, "norm": differences}
    monkeypatch.setattr(content, "layer_differences", lambda: layers)


@functools.lru_cache
def text_of(pdf):
    """Return the text of a PDF without white space, so that line breaks do not matter."""
    return "".join("".join(page.extract_text() for page in pypdf.PdfReader(io.BytesIO(pdf)).pages).split())


def holds(pdf, *wanted):
    text = text_of(pdf)
    for one in wanted:
        assert "".join(one.split()) in text, one


def lacks(pdf, *unwanted):
    text = text_of(pdf)
    for one in unwanted:
        assert "".join(one.split()) not in text, one


def report_of(runs, **options):
    return build.render(content.runs_content(runs, options.pop("allow_substitutes", False)), AUTHOR, **options)


def shown(it):
    return f"{100 * it['mean']:.2f}" + (f" ± {100 * it['sd']:.2f}" if it["sd"] is not None else "")


# ---- The reference report


@pytest.fixture(scope="module")
def reference():
    return content.reference_content()


@pytest.fixture(scope="module")
def committed():
    return (REPORT / "report.pdf").read_bytes()


def test_committed_report_shows_the_committed_results(reference, committed):
    reader = pypdf.PdfReader(io.BytesIO(committed))
    assert reader.metadata["/Keywords"] == build.digest(reference | {"author": None, "notes": {}}), "run make reference"
    assert len(reader.pages) <= build.MAX_PAGES
    holds(committed, "reference solution")
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    if f"matplotlib=={importlib.metadata.version('matplotlib')}" in constraints:  # others draw other SVGs
        assert committed == build.render(reference)


def test_digest_does_not_depend_on_line_ends(tmp_path, monkeypatch):
    """A clone with core.autocrlf=true has other bytes."""
    before = build.digest({})
    for path in build.TEMPLATE.parent.glob("*.typ"):
        (tmp_path / path.name).write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    monkeypatch.setattr(build, "TEMPLATE", tmp_path / "report.typ")
    assert build.digest({}) == before
    (tmp_path / "layout.typ").write_text("another layout")
    assert build.digest({}) != before


def test_headline_figures_are_those_of_the_results(reference, committed):
    for group in (reference["required"], *reference["bonus"]):
        holds(committed, shown(group["test_accuracy"]), shown(group["without_duplicates"]))
    for epoch in reference["required"]["epochs"]:
        holds(committed, f"{epoch['train_loss']:.4f} {epoch['valid_loss']:.4f} {100 * epoch['valid_accuracy']:.2f} %")
    for row in reference["extras"].get("ablation", {"rows": []})["rows"]:
        holds(committed, row["what"], shown(row["valid_accuracy"]))
    for row in reference["extras"]["published"]["rows"]:
        holds(committed, row["what"], f"{100 * row['test_accuracy']:.2f}")
    for row in reference["extras"]["short_sentences"]["means"]:
        holds(committed, f"{100 * row['accuracy']['mean']:.1f}")
    found = reference["required"]["analysis"]
    for row in found["error_by_stars"] + found["error_by_length"]:
        holds(committed, f"{row['reviews']:,} {100 * row['error']:.1f} %")
    holds(committed, *(one["sentence"] for one in reference["sentences"]["sentences"]))


def test_readme_shows_the_results(reference):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    for group in (reference["required"], *reference["bonus"]):
        assert shown(group["test_accuracy"]) in text


def test_missing_results_are_said_to_be_missing(tmp_path):
    holds(build.render(content.reference_content(tmp_path)), *content.MEASURE.values())


# ---- The report of runs


def figures_of(group):
    """Return the figures of a group as the report writes them: accuracies, losses, and large counts of reviews."""
    figures = {shown(group[key]) + " %" for key in ("test_accuracy", "without_duplicates", "valid_accuracy")}
    figures |= {f"{epoch[key]:.4f}" for epoch in group["epochs"] for key in ("train_loss", "valid_loss")}
    figures |= {f"{100 * epoch['valid_accuracy']:.2f} %" for epoch in group["epochs"]}
    return figures | {f"{count:,}" for count in sum(group["confusion"], []) if count > 999}


def test_report_shows_the_run_and_none_of_the_reference_figures(tmp_path, reference):
    write_run(tmp_path / "required", make_metrics(accuracy=0.81236, valid_losses=[0.61239, 0.5, 0.4, 0.3, 0.28]))
    pdf = report_of(tmp_path)
    holds(pdf, *AUTHOR.values(), "81.24 %", "seed 42", "81.14 %", "0.6124", "2,399", "2026-10-09",
          "Abacus 9, 3 threads, PyTorch 2.13.0", "20,000", "So good it hurts.", "0.987",
          "python sentiment_analysis.py --preset bonus", "python generate_gpt2.py",
          *figures_of(content.runs_content(tmp_path)["required"]))
    for group in (reference["required"], *reference["bonus"]):
        lacks(pdf, *figures_of(group), group["machine"], shown(group["test_accuracy"]))
    analysis = reference["required"]["analysis"]
    lacks(pdf, *(one["text"] for one in analysis["examples"]), *(one["sentence"] for one in analysis["attention"]),
          *(f"{row['reviews']:,} {100 * row['error']:.1f} %" for row in analysis["error_by_stars"]), "hand-out",
          "Keras", "reference solution")


def test_groups_of_runs(tmp_path, monkeypatch):
    for seed, accuracy in ((42, 0.81), (43, 0.83)):
        write_run(tmp_path / f"required-{seed}", make_metrics(seed, accuracy=accuracy))
    write_run(tmp_path / "better-on-test", make_metrics(settings=TWO_BLOCKS, accuracy=0.99, valid_accuracy=0.85))
    write_run(tmp_path / "bonus", make_metrics(settings=BONUS, accuracy=0.91, valid_accuracy=0.92))
    handout = replace(sentiment_analysis.HANDOUT, glove_dim=50)
    write_run(tmp_path / "handout", make_metrics(settings=handout, accuracy=0.8141, valid_accuracy=0.99))
    write_run(tmp_path / "sample", make_metrics(settings=sentiment_analysis.SAMPLE, accuracy=0.8642, data="SAMPLE"))
    metrics = make_metrics(accuracy=0.8472, models="/home/ada/mine.py")
    write_run(tmp_path / "theirs", metrics | {"test": {"accuracy": 0.8472, "confusion": [[1, 1], [1, 1]]}})
    (tmp_path / "theirs" / "analysis.json").unlink()
    monkeypatch.setitem(sys.modules, "helpers.bonus", None)  # the report does not need this folder
    found = content.runs_content(tmp_path)
    assert found["required"]["names"] == ["required-42", "required-43"]
    assert found["required"]["test_accuracy"] == {"mean": pytest.approx(0.82), "sd": pytest.approx(0.0141421, abs=1e-6)}
    assert [group["title"] for group in found["bonus"]] == ["bonus"]
    assert {one["names"][0]: one["preset"] for one in found["mentions"]} == {
        f"{tmp_path.name}/better-on-test": None, f"{tmp_path.name}/handout": "handout",
        f"{tmp_path.name}/sample": "sample", f"{tmp_path.name}/theirs": None}
    pdf = build.render(found, AUTHOR)
    holds(pdf, "82.00 ± 1.41 %", "42 and 43", "91.00", "N-gram channels", "81.41 %", "SAMPLE reviews, which says",
          "the network in mine.py): test accuracy 84.72 %")
    lacks(pdf, "Substitutes.")


def test_a_run_that_repeats_another_counts_once(tmp_path, capsys):
    for name in ("a", "b"):
        write_run(tmp_path / name, make_metrics())
    assert content.runs_content(tmp_path)["required"]["seeds"] == [42]
    assert "repeats" in capsys.readouterr().out


def test_other_settings_are_shown_as_what_they_are(tmp_path):
    write_run(tmp_path / "required", make_metrics())
    write_run(tmp_path / "two", make_metrics(settings=TWO_BLOCKS))
    pdf = report_of(tmp_path)
    holds(pdf, "number of transformer blocks", "It is that of section 6.")
    lacks(pdf, "N-gram channels", "Short texts.")


@pytest.mark.parametrize(("losses", "says"), [
    ([0.5, 0.4, 0.3, 0.35, 0.4], "lowest after epoch 3 (0.3000) and is 0.4000 after the last one"),
    ([0.5, 0.4, 0.3, 0.25, 0.252], "it no longer falls, and it hardly rises"),
    ([0.5, 0.4, 0.3, 0.25, 0.2], "Both losses fall in every epoch"),
    ([0.5, 0.6, 0.3, 0.25, 0.2], "not both losses fall"),
    ([0.9, 0.8, 0.7, 0.6, 0.5], "no overfitting")])
def test_text_about_the_curves_follows_them(tmp_path, losses, says):
    write_run(tmp_path / "required", make_metrics(valid_losses=losses))
    pdf = report_of(tmp_path)
    holds(pdf, says)
    assert ("Thevalidationlossislowerthanthetrainingloss" in text_of(pdf)) == (losses[0] < 0.7)


def test_text_about_errors_and_attention_follows_them(tmp_path):
    write_run(tmp_path / "required", make_metrics())
    holds(report_of(tmp_path), "mixed opinions are harder", "long reviews are harder", "rows of a matrix are similar",
          "80 % of the weight is on bad", "is classified as negative")
    other = make_analysis()
    other["error_by_stars"][0]["error"] = other["error_by_length"][0]["error"] = 0.5
    other["attention"] = [{"sentence": "Not bad.", "words": ["not", "bad", "."], "probability": 0.75,
                           "weights": np.eye(3).tolist()}]
    write_run(tmp_path / "other" / "required", make_metrics(), other)
    holds(report_of(tmp_path / "other"), "mixed opinions are not harder", "short reviews are harder", "The rows differ",
          "is classified as positive")
    other["error_by_stars"].append({"stars": 10, "reviews": 300, "error": 0.1})
    assert findings.error_findings(other)["stars"]["clear"] == pytest.approx(0.2), "each review counts the same"


def test_reading_of_sentences():
    sentences = [{"prefix": "My name", "sentence": "My name is a film.", "cut": False},
                 {"prefix": "If you", "sentence": "If you is a film.", "cut": True},
                 {"prefix": "Do not", "sentence": "Do not filmmaker go", "cut": False}]
    found = findings.reading(sentences)
    assert (found["repeated"], found["cut"], found["film_prefixes"], found["prefixes"]) == (2, 1, 2, 3)
    assert (found["words"], found["distinct_words"], found["longest"]) == (14, 11, 5)


@pytest.mark.parametrize(("sentences", "says", "says_not"), [
    ({}, ["GPT-2 (124,439,808 parameters)", "run with minGPT"], ["weights in", "not GPT-2"]),
    ({"weights_sha256": "ab" * 32, "model": "gpt2"}, ["weights in gpt2, 124,439,808 parameters, SHA-256 abab"],
     ["not GPT-2", "was written by GPT-2"]),
    ({"backend": "transformers"}, ["transformers in place of minGPT"], [])])
def test_sentences_are_by_the_weights_whose_digest_they_have(tmp_path, sentences, says, says_not):
    write_gpt2(tmp_path, **sentences)
    pdf = report_of(tmp_path)
    holds(pdf, "My name made sentence number 4.", *says)
    lacks(pdf, *says_not)


def test_substitutes_are_refused_unless_allowed_and_then_on_page_one(tmp_path):
    write_run(tmp_path / "sample", make_metrics(settings=sentiment_analysis.SAMPLE, data="SAMPLE"))
    write_own_sentences(tmp_path)
    with pytest.raises(UserError, match="SAMPLE reviews, not on IMDB. The sentences .*small GPT.* --allow-substitutes"):
        report_of(tmp_path)
    page_one = pypdf.PdfReader(io.BytesIO(report_of(tmp_path, allow_substitutes=True))).pages[0].extract_text()
    assert "not on IMDB" in page_one
    assert "a small GPT trained on film reviews, not GPT-2" in page_one


def test_nothing_reaches_into_the_margins(tmp_path, monkeypatch):
    write_run(tmp_path / "required", make_metrics())
    write_run(tmp_path / "bonus", make_metrics(settings=BONUS))
    write_gpt2(tmp_path, weights_sha256="ab" * 32, model="weights" * 20)
    pages = []

    def compile_png(template, **options):
        if isinstance(template, str):  # the report, not the glyphs of fonts.py
            pages.extend(typst_compile(template, format="png", ppi=50, **options))
        return typst_compile(template, **options)

    typst_compile = typst.compile
    monkeypatch.setattr(build.typst, "compile", compile_png)
    word = "wide" * 60
    (tmp_path / "notes.md").write_text(f"# 6\n{word} `{word}` $x_1 + {'x + ' * 90} x$\n\n- {word}\n\n|a|b|\n|-|-|\n"
                                       f"|{word}|b|\n\n```\n{word}\n```\n", encoding="utf-8")
    monkeypatch.setitem(AUTHOR, "name", word)
    report_of(tmp_path, notes=read_notes(tmp_path / "notes.md"))
    for page in pages:
        ink = matplotlib.image.imread(io.BytesIO(page))[..., :3].mean(axis=(0, 2)) < 1  # of each column of pixels
        margin = round(len(ink) * 1.9 / 21)  # cm of an A4 page, 2 less what punctuation may hang over
        assert not ink[:margin].any()
        assert not ink[-margin:].any()
        assert ink.any()


# ---- Bad input


@pytest.mark.parametrize(("change", "message"), [
    (lambda run: (run / "checkpoint.pt").touch(), "is an unfinished run; continue it with --resume"),
    (lambda run: (run / "metrics.json").write_text('{"data": '), "metrics.json is damaged"),
    (lambda run: (run / "metrics.json").write_text("[" * 100_000), "metrics.json is damaged"),
    (lambda run: (run / "metrics.json").write_text("null"), "metrics.json is damaged or of another version"),
    (lambda run: (run / "metrics.json").write_text("[]"), "metrics.json is damaged or of another version"),
    (lambda run: (run / "metrics.json").write_text("{}"), "metrics.json is damaged or of another version"),
    (lambda run: (run / "metrics.json").write_bytes(b"\xff\xfe"), "metrics.json is damaged"),
    (lambda run: (run / "metrics.json").write_text(json.dumps(make_metrics(epochs=[]))), "is damaged or of another"),
    (lambda run: (run / "metrics.json").write_text(json.dumps(make_metrics(test=3))), "is damaged or of another"),
    (lambda run: (run / "analysis.json").unlink(), "analysis.json is missing"),
    (lambda run: (run / "analysis.json").write_text(json.dumps(make_analysis(attention=[1]))), "is damaged or of")])
def test_bad_run_is_refused_and_the_report_stays(call, tmp_path, change, message):
    write_run(tmp_path / "required", make_metrics())
    (tmp_path / "report.pdf").write_bytes(b"old")
    change(tmp_path / "required")
    assert message in refused(*call("--runs", tmp_path, main=build.main))
    assert (tmp_path / "report.pdf").read_bytes() == b"old"


@pytest.mark.parametrize("count", [0, 5, 49])
def test_generation_that_is_not_ten_times_five_sentences_is_refused(tmp_path, count):
    write_gpt2(tmp_path, sentences=make_sentences()["sentences"][:count])
    with pytest.raises(UserError, match="does not hold 10 prefixes with 5 sentences each"):
        report_of(tmp_path)


def test_missing_and_empty_folders_are_refused(tmp_path):
    with pytest.raises(UserError, match="cannot find the folder"):
        report_of(tmp_path / "nothing")
    with pytest.raises(UserError, match="holds no finished run"):
        report_of(tmp_path)


@pytest.mark.parametrize(("option", "name"), [("--runs", "runs"), ("--notes", "notes"), ("--out", "out.pdf")])
def test_home_folder_is_expanded(call, tmp_path, monkeypatch, option, name):
    """The shell does not expand `--runs=~/x`."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))  # of Windows
    write_run(tmp_path / "runs" / "required", make_metrics())
    (tmp_path / "notes").write_text("# 5\n\nMine.\n", encoding="utf-8")
    options = {"--runs": tmp_path / "runs", "--out": tmp_path / "out.pdf"} | {option: f"~/{name}"}
    code, _, err = call(*(f"{key}={value}" for key, value in options.items()), main=build.main)
    assert (code, (tmp_path / "out.pdf").exists()) == (0, True), err


def test_report_does_not_replace_a_file_of_another_kind(call, tmp_path):
    write_run(tmp_path / "runs" / "required", make_metrics())
    (tmp_path / "notes.md").write_text("# 5\n\nMine.\n", encoding="utf-8")
    code, _, err = call("--runs", tmp_path / "runs", "--out", tmp_path / "notes.md", main=build.main)
    assert (code, "a name that ends in .pdf" in err) == (2, True)
    assert "Mine." in (tmp_path / "notes.md").read_text(encoding="utf-8")


def test_too_many_pages_are_refused(tmp_path):
    write_run(tmp_path / "required", make_metrics())
    (tmp_path / "notes.md").write_text("# 6\n" + "A long explanation. " * 2000, encoding="utf-8")
    with pytest.raises(UserError, match="pages and may have 6; shorten the notes"):
        report_of(tmp_path, notes=read_notes(tmp_path / "notes.md"))


# ---- Names and notes


@pytest.mark.parametrize("name", ["Žofie Ελλη Жанна", "שלום עליכם", "Ḥāfiẓ"])
def test_name_in_any_script_is_on_the_cover_as_typed(tmp_path, name):
    write_run(tmp_path / "required", make_metrics())
    pdf = build.render(content.runs_content(tmp_path), AUTHOR | {"name": name})
    text = text_of(pdf)
    assert all(letter in text for letter in name if letter != " ")


@pytest.mark.parametrize(("text", "message"), [
    ("\u0c85\U0001e900", "no font on this machine has .* the name; install the font Noto Sans "),
    ("A\x96", "the character U\\+0096 in the name cannot be printed"),
    ("A\u0378", r"U\+0378"), ("A\udcff", r"U\+DCFF"), ("A\x07", r"U\+0007")])
def test_name_that_no_font_has_is_refused(text, message):
    with pytest.raises(UserError, match=message):
        needs_system_fonts(text, "the name")


def test_what_no_font_has_is_replaced_in_the_texts_of_others(tmp_path):
    """Windows-1252 that was decoded as Latin-1, and characters that Unicode does not assign."""
    review = "A\x96B\x8d\x80 \u0378 façade “Жизнь” \u0007"
    examples = [{"text": review, "stars": 1, "label": 0, "tokens": 5, "probability": 0.9}]
    write_run(tmp_path / "required", make_metrics(), make_analysis(examples=examples))
    sentences = make_sentences()["sentences"]
    sentences[0]["sentence"] = "My name is \udcff\U0003fffd naïve."
    write_gpt2(tmp_path, sentences=sentences)
    holds(report_of(tmp_path), "A–B\ufffd€ \ufffd façade “Жизнь” \ufffd", "My name is \ufffd\ufffd naïve.")


NOTES = """\
# Section 5: Self-attention

#1 is a sentence, snake_case_words and 3 * 4 * 5 < 6 @fig #let x = [1] \\alpha costs $5 and $6 &lt; <b>tag</b>.
A **strong _and_ soft** word, `x * y_1`, [a link](https://example.com/a_b), $\\frac{a_1 * b}{c_2 * d}$,
$\\foo{x}$.<!-- hint -->

- one
  more

  1. inner

     second paragraph
- two

3) three

| left | right |
|:-----|------:|
| `a`  | **b** |

```python
# 7 a comment <!-- stays -->
```

    # 6 indented code

> quoted

6.1 Bonus
=========
<!-- two
# 7
lines -->
The bonus\\
is here.
"""


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_notes_are_set_as_they_are_written(tmp_path, newline):
    path = tmp_path / "notes.md"
    path.write_bytes(b"\xef\xbb\xbf" + NOTES.replace("\n", newline).encode())
    notes = read_notes(path)
    kinds = {part: [node["kind"] for node in nodes] for part, nodes in notes.items()}
    assert kinds == {"5": ["paragraph", "bullet_list", "ordered_list", "table", "fence", "code_block", "blockquote"],
                     "6.1": ["paragraph"]}
    if newline != "\n":
        return
    write_run(tmp_path / "required", make_metrics())
    pdf = report_of(tmp_path, notes=notes)
    holds(pdf, "#1 is a sentence, snake_case_words and 3 * 4 * 5 < 6 @fig #let x = [1] \\alpha costs $5 and $6 <",
          "<b>tag</b>. A strong and soft word, x * y_1, a link,", r"\foo{x}.", "• one more",
          "1. inner second paragraph", "3. three", "left right a b", "# 7 a comment <!-- stays -->",
          "# 6 indented code", "quoted", "The bonus is here.")
    lacks(pdf, "hint", "lines -->", "frac", "**")


@pytest.mark.parametrize(("heading", "part"), [
    ("# 5", "5"), ("## 5. Self-Attention", "5"), ("### Section 6.1", "6.1"), ("# **7** Text", "7"), ("7 Text", None),
    ("6\n===", "6"), ("6.1 Bonus\n---", "6.1"), ("# Part 7: text", "7"), ("# 6.1. Bonus #", "6.1"),
    ("# 8", None), ("# 5.1 Layers", None), ("# 6,1 Bonus", None), ("# 5th part", None), ("# Layers", None), ("#", None),
    ("# 5-7", None), ("# 5\n\n# 5", None), ("# 6\n\n- # 7", None), ("# 6\n\n> # Title", None)])
def test_headings_of_notes(tmp_path, heading, part):
    path = tmp_path / "notes.md"
    path.write_text(f"{heading}\n\ntext\n", encoding="utf-8")
    if part:
        assert read_notes(path).keys() == {part}
        return
    with pytest.raises(UserError, match="use the headings # 5, # 6, # 6.1 and # 7") as caught:
        read_notes(path)
    assert "\n" not in str(caught.value)


def test_template_of_notes_is_empty_and_has_all_parts(call, tmp_path):
    _, out, _ = call("--notes-template", main=build.main)
    assert out.strip() == make_template().strip()
    (tmp_path / "notes.md").write_text(out, encoding="utf-8")
    assert read_notes(tmp_path / "notes.md") == {}
    assert all(f"# {part} " in out for part in PARTS)


@pytest.mark.parametrize(("text", "message"), [
    (b"text", "text before its first heading"), (b"\xff\xfe#\0", "not UTF-8"), (None, "cannot find"),
    (b"# 5\n![](a.png)", "picture"), (b"# 5\n<IMG src='a.png'>", "picture"),
    (b"# 5\n" + b"> " * 300 + b"deep", "too deep"),
    (b"# 5\n" + b"\n".join(b"  " * i + b"- deep" for i in range(60)), "too deep")])
def test_bad_notes_are_refused(tmp_path, text, message):
    path = tmp_path / "notes.md"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(UserError, match=message):
        read_notes(path)


# ---- Layers


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

    x, mask = torch.randn(2, 3, 4, dtype=torch.float64), torch.ones(2, 3, dtype=torch.bool)
    assert analysis.gradient_difference(Detached(4, 4).double(), x, mask) > 0.1


# ---- From training to the report


def test_report_of_a_training(call, data, tmp_path, monkeypatch):
    run = train_toy(data, tmp_path / "runs", "bonus", "--preset", "bonus", "--epochs", 1)
    train_toy(data, tmp_path / "runs", "required", "--epochs", 2)
    code, out, err = call("--runs", run.parent, "--name", "Ada", main=build.main)
    assert code == 0, err
    assert out.startswith(f"{Path(run.parent, 'report.pdf')}: ")
    pdf = (run.parent / "report.pdf").read_bytes()
    holds(pdf, f"{100 * read_json(run / 'metrics.json')['test']['accuracy']:.2f} %", "Missing: a run with the required")
    call("--runs", run.parent, "--name", "Ada", "--out", tmp_path / "again.pdf", main=build.main)
    assert (tmp_path / "again.pdf").read_bytes() == pdf
    monkeypatch.setattr(analysis, "RESULT", tmp_path / "analysis.json")
    code, _, err = call("--run", run, main=analysis.main)
    assert code == 2
    assert "required setting" in err
    required = tmp_path / "runs" / "required"
    settings = read_json(required / "metrics.json")["settings"]
    monkeypatch.setattr(analysis, "REQUIRED", sentiment_analysis.Settings(**settings))
    call("--run", required, main=analysis.main)
    assert read_json(tmp_path / "analysis.json").keys() >= {"seed", "layers", "data", "attention"}
