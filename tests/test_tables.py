"""`predict` with tables: CSV and TSV with and without labels, and the table that it writes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from helpers.inference import predict
from tests.toy import ROOT, refused, run_python

TEXTS = ["A superb film.\nI loved it, all of it!", "Boring, \"awful\" and dreadful", "Wonderful"]


@pytest.fixture(autouse=True, scope="module")
def predictor():
    """The bundled network, loaded once."""
    with pytest.MonkeyPatch.context() as patch:
        loaded = predict.Predictor.load()
        patch.setattr(predict.Predictor, "load", lambda path: loaded)
        yield


def write(path, columns, **options):
    pd.DataFrame(columns).to_csv(path, index=False, sep="\t" if path.suffix.lower() == ".tsv" else ",", **options)
    return path


@pytest.fixture
def probabilities(call):
    """A function that returns the label and the probability of each text, given as arguments."""
    def probabilities(texts):
        answers = [json.loads(line) for line in call("predict", "--json", "--", *texts)[1].splitlines()]
        return [(answer["label"], answer["probability"]) for answer in answers]
    return probabilities


@pytest.mark.parametrize("name", ["r.csv", "r.tsv", "R.CSV"])
@pytest.mark.parametrize(("columns", "options"), [
    ({"review": TEXTS, "sentiment": ["positive", "negative", "positive"]}, []),
    ({"id": [7, 8, 9], "Text": TEXTS, "label": [1, 0, 1]}, []),
    ({"stars": ["8", "1", "9"], "comment": TEXTS}, []),
    ({"review": ["-"] * 3, "comment": TEXTS}, ["--column", "comment"])])
def test_texts_of_a_table_get_the_same_labels(call, probabilities, tmp_path, name, columns, options):
    path = write(tmp_path / name, columns)
    code, out, err = call("predict", "--json", "--file", path, *options)
    answers = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [answer["text"] for answer in answers] == TEXTS
    assert [answer["label"] for answer in answers] == [label for label, _ in probabilities(TEXTS)]
    assert ("accuracy 100.00% on 3 labelled texts" in err) == ("sentiment" in columns or "label" in columns)


@pytest.mark.parametrize(("content", "texts", "accuracy"), [
    ("text;sentiment\nA superb film, really;positive\nAwful;negative\n", ["A superb film, really", "Awful"], 2),
    ("sep=;\r\nid;review\r\n1;A superb film\r\n2;Awful\r\n", ["A superb film", "Awful"], None),
    ("review\tlabel\nA superb film\t1.0\nAwful\t\n", ["A superb film", "Awful"], 1),
    ("sep=\ntext\nA superb film\nAwful\n", ["A superb film", "Awful"], None),
    ("text\tlabel\nA superb film\t\nAwful\t\n", ["A superb film", "Awful"], None),
    (",text\n0,A superb film\n1,Awful\n", ["A superb film", "Awful"], None),
    ("text,spoiler\nA superb film,0\nAwful,1\n", ["A superb film", "Awful"], None),
    ("review,text\n8,A superb film\n2,Awful\n", ["A superb film", "Awful"], None)])
def test_tables_as_other_programs_write_them(call, tmp_path, content, texts, accuracy):
    (tmp_path / "r.csv").write_text(content, encoding="utf-8")
    _, out, err = call("predict", "--json", "--file", tmp_path / "r.csv")
    assert [json.loads(line)["text"] for line in out.splitlines()] == texts
    assert re.findall("accuracy 100.00% on (.) labelled", err) == [str(accuracy)] * bool(accuracy)
    assert err.count("\n") == bool(accuracy)


def test_written_table_can_be_read_again(call, tmp_path):
    path = write(tmp_path / "0.csv", {"text": TEXTS})
    for i in range(3):
        assert call("predict", "--file", path, "--out", tmp_path / f"{i + 1}.csv")[0] == 0
        path = tmp_path / f"{i + 1}.csv"
    assert [name for name in pd.read_csv(path) if "label" in name] == [
        "label", "predicted label", "predicted predicted label"]


def test_note_on_a_label_column_with_other_values(call, tmp_path):
    path = write(tmp_path / "r.csv", {"text": TEXTS, "label": ["good", "bad", "1"]})
    assert "no accuracy, because the column label has values other than" in call("predict", "--file", path)[2]


@pytest.mark.parametrize(("labels", "correct"), [(["positive", "positive", "positive"], 2), (["neg", "POS", "neg"], 0),
                                               ([" 1", "0 ", "0"], 2)])
def test_accuracy_is_printed_at_the_end(call, tmp_path, labels, correct):
    path = write(tmp_path / "r.csv", {"review": TEXTS, "sentiment": labels})
    assert call("predict", "--file", path)[1].splitlines()[-1] == (
        f"accuracy {correct / 3:.2%} on 3 labelled texts (column sentiment)")


def test_written_table_has_two_more_columns(call, probabilities, tmp_path):
    texts = [TEXTS[0], " ", *TEXTS[1:]]
    path = write(tmp_path / "r.csv", {"n": ["01", "02", "NA", ""], "review": texts, "label": [1, 0, 0, 1]})
    code, out, err = call("predict", "--file", path, "--out", tmp_path / "new" / "o.tsv")
    assert (code, out) == (0, "accuracy 100.00% on 3 labelled texts (column label)\n")
    assert "skipped blank texts: 1" in err
    table = pd.read_csv(tmp_path / "new" / "o.tsv", sep="\t", dtype=str, keep_default_na=False)
    assert list(table) == ["n", "review", "label", "predicted label", "probability"]
    assert table["n"].tolist() == ["01", "02", "NA", ""]
    assert table["review"].tolist() == texts
    labels, shares = zip(*probabilities(TEXTS), strict=True)
    assert table["predicted label"].tolist() == [labels[0], "", *labels[1:]]
    assert [float(share) for share in table["probability"] if share] == pytest.approx(shares, abs=1e-6)


def test_table_is_written_completely_or_not_at_all(call, tmp_path, monkeypatch):
    def full(self, path, **options):
        Path(path).write_text("half", encoding="utf-8")
        raise OSError(28, "No space left on device")
    path = write(tmp_path / "r.csv", {"review": TEXTS})
    monkeypatch.setattr(pd.DataFrame, "to_csv", full)
    assert "No space" in refused(*call("predict", "--file", path, "--out", tmp_path / "o.csv"))
    assert [path.name for path in tmp_path.iterdir()] == ["r.csv"]


@pytest.mark.parametrize(("content", "options", "words"), [
    ("a,b\nfine film,good film\n", [], "name one of a, b with --column"),
    ("review,n\nfine,1\n", ["--column", "text"], "name one of review, n with --column"),
    ("n\n1\n2\n", [], "name one of n"), ("review\n", [], "no text"), ("", [], "cannot be read as a table"),
    ('review\n"fine', [], "cannot be read as a table"),
    ("review,n\nfine,1,2,3\n", [], "cannot be read as a table"),
    ("review\nfine\n", ["--out", "o.txt"], "a name that ends in .csv or .tsv")])
def test_bad_table_is_refused(call, tmp_path, content, options, words):
    path = tmp_path / "r.csv"
    path.write_text(content, encoding="utf-8")
    assert words in refused(*call("predict", "--file", path, *options))


@pytest.mark.parametrize(("text", "share"), [
    ("Фильм ужасный.", 0), ("🎬 !!! 10/10", 0), ("A film, Фильм ужасный!", 0.5), ("A fine film.", 1),
    ("Quel film ennuyeux, vraiment.", None)])
def test_note_on_unknown_words(call, text, share):
    _, out, err = call("predict", "--json", text)
    answer = json.loads(out)
    if share is not None:
        assert answer["known"] == share
    assert ("note" in answer) == ("knows fewer than half" in err) == (answer["known"] < 0.5)


# In a shell


def shell(command, **environment):
    """Run a command line in which $P is the program; return exit code, standard output and standard error."""
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=ROOT,
                          env=os.environ | environment | {"P": f"{sys.executable} sentiment_analysis.py"}, timeout=200)
    assert "Traceback" not in done.stdout + done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(("command", "out", "err"), [
    ("$P predict --json 日本語 2>&-", 1, 0), ("$P predict 日本語 >&-", 0, 1),
    ("P=${P/ / -OO }; PYTHONIOENCODING=ascii $P predict 'é film'", 1, 0)])
def test_closed_streams_and_ascii_output(command, out, err):
    code, output, errors = shell(command)
    assert (code, output.count("\n"), errors.count("\n")) == (0, out, err)


def test_reader_that_stops_early_causes_no_message():
    code, out, err = shell("(yes film | head -9000 | nl) | TQDM_DISABLE=1 $P predict | head -1; exit ${PIPESTATUS[1]}")
    assert (code, out.count("\n"), err) == (141, 1, "")


@pytest.mark.parametrize("way", [
    ["-m", "helpers.inference.predict"], ["helpers/inference/predict.py"], ["-m", "helpers.evaluate"],
    ["helpers/evaluate.py"]])
def test_file_of_a_command_names_the_command(way):
    code, out, err = run_python(*way, "a film")
    assert (code, out, err.count("\n"), "python sentiment_analysis.py" in err) == (1, "", 1, True)
