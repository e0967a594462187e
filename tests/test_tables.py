"""`predict` with tables: CSV and TSV with and without labels, and the table that it writes."""

import csv
import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from helpers.inference import predict, tables
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
    if path.suffix.lower() == ".gz":
        options["compression"] = "gzip"
    pd.DataFrame(columns).to_csv(path, index=False, sep="\t" if ".tsv" in path.name.lower() else ",", **options)
    return path


@pytest.fixture
def probabilities(call):
    """A function that returns the label and the probability of each text, given as arguments."""
    def probabilities(texts):
        answers = [json.loads(line) for line in call("predict", "--json", "--", *texts)[1].splitlines()]
        return [(answer["label"], answer["probability"]) for answer in answers]
    return probabilities


@pytest.mark.parametrize("name", ["r.csv", "r.tsv", "R.CSV", "r.csv.gz", "r.TSV.GZ"])
@pytest.mark.parametrize(("columns", "options"), [
    ({"review": TEXTS, "sentiment": ["positive", "negative", "positive"]}, []),
    ({"id": [7, 8, 9], " Te xt": TEXTS, "LABEL": [1, 0, 1]}, []),
    ({"stars": ["8", "1", "9"], "The comment": TEXTS}, ["--column", "the Comment"]),
    ({"text": ["-"] * 3, "review": TEXTS}, []),
    ({"text": TEXTS, "labels": ["pos"] * 3, "truth": ["pos", "neg", "1"]}, ["--label-column", "truth"])])
def test_texts_of_a_table_get_the_same_labels(call, probabilities, tmp_path, name, columns, options):
    path = write(tmp_path / name, columns)
    code, out, err = call("predict", "--json", "--file", path, *options)
    answers = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert [answer["text"] for answer in answers] == TEXTS
    assert [answer["label"] for answer in answers] == [label for label, _ in probabilities(TEXTS)]
    assert ("accuracy 100.00% on 3 labelled texts" in err) == (not {"stars", "review"} & set(columns)
                                                               or "sentiment" in columns)


FILM, BAD = "A superb film", "Awful"


@pytest.mark.parametrize(("name", "content", "texts", "accuracy"), [
    ("r.csv", "text;sentiment\nA superb film, really;positive\nAwful;negative\n", ["A superb film, really", BAD], 2),
    ("r.csv", "sep=;\r\nid;review\r\n1;A superb film\r\n2;Awful\r\n", [FILM, BAD], None),
    ("r.csv", '"sep=\t"\nid\treview\n1\tA superb film\n2\tAwful\n', [FILM, BAD], None),
    ("r.csv", "sep=\ntext\nA superb film\nAwful\n", [FILM, BAD], None),
    ("r.csv", "\ufefftext,label\rA superb film,1.0\rAwful,\r", [FILM, BAD], 1),
    ("r.csv", "text,label\nA superb film,\nAwful,\n", [FILM, BAD], None),
    ("r.csv", "\n,text,,\n0,A superb film,,\n1,Awful,,\n\n\n", [FILM, BAD], None),
    ("r.csv", "review,text\nA superb film,8\nAwful,2\n", [FILM, BAD], None),
    ("r.csv", 'text\nA 5" superb\u2028film\n"Awful\x85"\n', ['A 5" superb\u2028film', "Awful\x85"], None),
    ("r.csv", "text,predicted_label\nA superb film,negative\nAwful,positive\n", [FILM, BAD], None),
    ("r.tsv", 'text\tlabel\n"A superb film\t1\nAwful\t0\nBoring "film\t0\n"Bad"\t0\n',
     ['"A superb film', BAD, 'Boring "film', '"Bad"'], 4),
    ("r.tsv", 'text\tlabel\n"A superb film\t1\nAwful"\t0\n', ['"A superb film', 'Awful"'], 2),
    ("r.tsv", '"text"\t"label"\r\n"A ""superb"" film"\t"1"\r\n"Awful"\t"0"\r\n', ['A "superb" film', BAD], 2),
    ("r.jsonl", '{"text": "A superb film", "label": 1}\n\n{"label": 0, "n": [1], "text": "Awful"}', [FILM, BAD], 2),
    ("r.jsonl", '\ufeff{"Text": "A superb\u2028film"}\r\n{"id": 7}\r\n', ["A superb\u2028film"], None)])
def test_tables_as_other_programs_write_them(call, tmp_path, name, content, texts, accuracy):
    (tmp_path / name).write_bytes(content.encode())
    _, out, err = call("predict", "--json", "--file", tmp_path / name)
    assert [json.loads(line)["text"] for line in out.splitlines()] == texts
    assert re.findall("accuracy 100.00% on (.) labelled", err) == [str(accuracy)] * bool(accuracy)
    assert err.replace("note: skipped blank texts: 1\n", "").count("\n") == bool(accuracy)


@pytest.mark.parametrize(("labels", "options", "expected"), [
    ({"label": ["good", "bad", "1"]}, [], "no accuracy, because the column label has values other than"),
    ({"label": ["1", "1", "0"], "Sentiment": ["1", "0", "1"]}, [], "several columns hold labels (label, Sentiment)"),
    ({"label": ["1", "1", "0"], "Label": ["1", "0", "1"]}, ["--label-column", "Label"], "accuracy 100.00% on 3"),
    ({"label": ["1", "0", "1"], "sentiment": ["", " ", ""]}, [], "accuracy 100.00% on 3 labelled texts (column label)"),
    ({"stars": ["1", "two", ""]}, ["--label-column", "stars"], "values of the column stars that are not labels: 1"),
    ({"label": [" Positive", "NEG ", "1.0"]}, [], "accuracy 100.00% on 3 labelled texts (column label)")])
def test_labels_and_notes_about_them(call, tmp_path, labels, options, expected):
    code, out, err = call("predict", "--file", write(tmp_path / "r.csv", {"text": TEXTS} | labels), *options)
    assert (code, expected in out + err) == (0, True)
    assert ("accuracy" in out) == ("no accuracy" not in err)


@pytest.mark.parametrize(("labels", "correct"), [(["positive", "positive", "positive"], 2), (["neg", "POS", "neg"], 0),
                                               ([" 1", "0 ", "0"], 2)])
def test_accuracy_is_printed_at_the_end(call, tmp_path, labels, correct):
    path = write(tmp_path / "r.csv", {"review": TEXTS, "sentiment": labels})
    assert call("predict", "--file", path)[1].splitlines()[-1] == (
        f"accuracy {correct / 3:.2%} on 3 labelled texts (column sentiment)")


def read(path):
    """Return the columns of a table that `predict` wrote, and its cells as text, by pandas."""
    if path.suffix == ".jsonl":
        return pd.DataFrame(map(json.loads, path.read_text(encoding="utf-8").splitlines()))
    return pd.read_csv(path, sep="\t" if ".tsv" in path.name else ",", dtype=str, keep_default_na=False)


@pytest.mark.parametrize("name", ["o.csv", "o.tsv", "o.csv.gz", "o.tsv.gz", "o.jsonl"])
def test_written_table_has_two_more_columns(call, probabilities, tmp_path, name):
    texts = [TEXTS[0], " ", *TEXTS[1:], "x" * 1200]
    columns = {"n": ["01", "02", "NA", "", "\r"], "review": texts, "label": [1, 0, 0, 1, 1]}
    path = write(tmp_path / "r.csv", columns, quoting=csv.QUOTE_ALL)
    code, out, err = call("predict", "--file", path, "--out", tmp_path / "new" / name)
    assert (code, out) == (0, "accuracy 100.00% on 3 labelled texts (column label)\n")
    assert err == (f"note: quotes enclose a line break in 2 of the rows of {path}\n"
                   "note: skipped blank texts: 1\n"
                   "note: no answer, because the text has more than 1,000 characters without a space: text 5\n")
    table = read(tmp_path / "new" / name)
    assert list(table) == ["n", "review", "label", "predicted_label", "predicted_probability"]
    assert table["n"].tolist() == ["01", "02", "NA", "", "\r"]
    assert table["review"].tolist() == texts
    labels, shares = zip(*probabilities(TEXTS), strict=True)
    assert table["predicted_label"].fillna("").tolist() == [labels[0], "", *labels[1:], ""]
    found = [float(share) for share in table["predicted_probability"].replace("", None).dropna()]
    assert found == pytest.approx(shares, abs=1e-6)


@pytest.mark.parametrize("endings", [[".csv", ".csv"], [".jsonl", ".tsv", ".csv.gz", ".jsonl"]])
def test_written_table_can_be_read_again(call, tmp_path, endings):
    """Earlier answers are replaced, and they are read neither as texts nor as labels."""
    path = write(tmp_path / "0.csv", {"Predicted Label": ["-"] * 3, "text": TEXTS, "name": ["\r", "é\t,;", '"']},
                 quoting=csv.QUOTE_ALL)
    contents = []
    for number, ending in enumerate(endings, 1):
        code, out, err = call("predict", "--file", path, "--out", tmp_path / f"{number}{ending}")
        assert (code, out, "accuracy" in err) == (0, "", False)
        path = tmp_path / f"{number}{ending}"
        contents.append(read(path).astype(str))
    assert contents[0]["Predicted Label"].tolist() == ["-"] * 3
    assert all(content.equals(contents[0]) for content in contents)


def test_values_of_json_lines_are_kept(call, tmp_path):
    """A text that is not a string, or has half of a surrogate pair, gets no answer."""
    values = [{"text": "Superb", "n": 1.0, "d": {"k": [None, True]}}, {"text": 5}, {"text": ["Awful"]},
              {"text": "\ud800 film", "n": 2**70}, {"text": None, "é": "\ud800"}]
    (tmp_path / "r.jsonl").write_text("\n".join(map(json.dumps, values)))
    code, _, err = call("predict", "--file", tmp_path / "r.jsonl", "--out", tmp_path / "o.jsonl")
    assert (code, "is not a string: text 2, 3\n" in err, "is binary data: text 4\n" in err) == (0, True, True)
    written = [json.loads(line) for line in (tmp_path / "o.jsonl").read_text().splitlines()]
    assert [answer.pop("predicted_label") for answer in written] == ["positive", None, None, None, None]
    assert [answer.pop("predicted_probability") is None for answer in written] == [False, True, True, True, True]
    assert written == [dict.fromkeys(["text", "n", "d", "é"]) | value for value in values]
    assert call("predict", "--file", tmp_path / "r.jsonl", "--out", tmp_path / "o.csv")[0] == 0
    assert read(tmp_path / "o.csv")["d"].tolist() == ['{"k": [null, true]}', "", "", "", ""]


def test_table_is_written_completely_or_not_at_all(call, tmp_path, monkeypatch):
    def full(self, content):
        self.write_text("half", encoding="utf-8")
        raise OSError(28, "No space left on device")
    path = write(tmp_path / "r.csv", {"review": TEXTS})
    monkeypatch.setattr(Path, "write_bytes", full)
    assert "No space" in refused(*call("predict", "--file", path, "--out", tmp_path / "o.csv"))
    assert [path.name for path in tmp_path.iterdir()] == ["r.csv"]


PACKED = gzip.compress(b"text\nfine\n", mtime=0)
WITHOUT_HEADER = "A superb film,positive\nAwful,negative\n"


@pytest.mark.parametrize(("name", "content", "options", "words"), [
    ("r.csv", "a,b\nfine film,good film\n", [], "no column review or text; name the column with"),
    ("r.csv", "a,b\nfine film,good film\n", [], "one of: a, b"), ("r.csv", WITHOUT_HEADER, [], "insert a first line"),
    ("r.tsv", WITHOUT_HEADER.replace(",", "\t"), [], "one of: A superb film, positive"),
    ("r.csv", "review,n\nfine,1\n", ["--column", "text"], "one of: review, n"),
    ("r.csv", "review text\nfine\n", [], "one of: review text"), ("r.csv", "n\n1\n2\n", [], "one of: n"),
    ("r.csv", "review,Review\na,b\n", [], "2 columns with the same name"),
    ("r.csv", "n,n,text\n1,2,c\n", ["--column", "n"], "2 columns with the same name"),
    ("r.csv", "n,n,text\n1,2,c\n", ["--out", "o.jsonl"], "several columns with the same name"),
    ("r.csv", "predicted_label,b\nfine,1\n", ["--column", "predicted_label"], "one of: b"),
    ("r.csv", "text,predicted_label\nfine,pos\n", ["--label-column", "predicted_label"], "no column predicted_label"),
    ("r.csv", "text,n\nfine,5\n", ["--label-column", "n"], "no labels"),
    ("r.csv", "text,n\nfine,5\n", ["--label-column", "text"], "no column text with labels"),
    ("r.txt", "text\nfine\n", ["--column", "text"], "--column needs a table"),
    ("r.csv", "review\n", [], "no text"), ("r.csv", "", [], "is empty"), ("r.csv.gz", b"", [], "is empty"),
    ("r.csv", 'review\n"fine', [], "the quotes in row 1"), ("r.csv", 'review,n\n"a",1\n"b"c,2\n', [], "row 2"),
    ("r.csv", 'review,n\n"fine,1\nbad,2\n"good,3\n', [], "the quotes in row 1"),
    ("r.csv", "text;n\nfine, good;1\n", ["--column", "txt"], "one of: text;n"),
    ("r.csv", "review,n\nfine,1,2,3\n", [], "row 1 of"), ("r.csv", "review,n\na,1\nfine\n", [], "row 2 of"),
    ("r.tsv", "review\tn\na\t\"1\nfine\n", [], "a tab or a line break"),
    ("r.csv", b"text\nfine\r\ncaf\xe9\n", [], "line 3 is not UTF-8"),
    ("r.csv.gz", b"text\nfine\n", [], "not a gzip file or is damaged"),
    ("r.csv.gz", PACKED[:-9], [], "not a gzip file or is damaged"),
    ("r.tsv.gz", PACKED[:12] + b"\xff" + PACKED[13:], [], "not a gzip file or is damaged"),
    ("r.csv.gz", gzip.compress(bytes(10**6 + 1), 1), [], "more than 1,000,000 bytes"),
    ("r.jsonl", '{"text": "a"}\n\n["a"]\n', [], "line 3 of"), ("r.jsonl", "[" * 99999, [], "not a JSON object"),
    ("r.jsonl", "{'text': 'a'}\n", [], "not a JSON object"), ("r.jsonl", "", [], "no column with texts"),
    ("r.jsonl", "{}\n", [], "no column with texts"), ("r.csv", "predicted_label\npos\n", [], "no column with texts"),
    *[(f"r{ending}", "text\nfine\n", [], "save it as .csv, .tsv or .jsonl") for ending in (
        ".xlsx", ".XLS", ".ods", ".parquet", ".json", ".ndjson", ".tab", ".csv.zip", ".tsv.bz2", ".txt.gz")],
    ("r.csv", "review\nfine\n", ["--out", "o.txt"], "a name that ends in .csv, .tsv"),
    ("r.csv", "review\nfine\n", ["--out", "o.xlsx"], "a name that ends in .csv, .tsv")])
def test_bad_table_is_refused(call, tmp_path, monkeypatch, name, content, options, words):
    monkeypatch.setattr(tables, "LARGEST_INPUT", 10**6)
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    assert words in refused(*call("predict", "--file", tmp_path / name, *options))


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
    ("PYTHONIOENCODING=ascii $P predict 'é film' 日本語 2>&-", 2, 0), ("$P predict 日本語 >&-", 0, 1)])
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


def test_rows_that_quotes_join_are_noted(call, tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text('text\n"Superb.\nAwful.\nGood."\nBad.\n', encoding="utf-8")
    assert "quotes enclose a line break in 1 of the rows" in call("predict", "--file", path)[2]
