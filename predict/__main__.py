"""Classify film reviews with a trained network.

    python -m predict "A film to fall asleep in."
    python -m predict --file reviews.csv --out answers.csv    each row of a table, or each line of a .txt file
    python -m predict --explain why.html "Not bad at all."    a page with the effect and the attention of each word
"""

import argparse
import json
import os
import sys
from pathlib import Path

from helpers import UserError, run
from helpers.files import write_text
from helpers.predictor import Predictor, models_text, read_model, same_code
from predict.answers import SURE, classify
from predict.explain import explanation_page
from predict.tables import cell_text, ending, find_column, read_table, write_table

BUNDLED = Path(__file__).parents[1] / "pretrained" / "sentiment" / "model.pt"
LABELS = dict.fromkeys(["positive", "pos", "1", "1.0"], "positive") | {"": None}
LABELS |= dict.fromkeys(["negative", "neg", "0", "0.0"], "negative")


def parse_args(argv=None):
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(prog="python -m predict", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("texts", nargs="*", metavar="TEXT", help="a review in quotes; put -- first if it starts with a dash")
    add("--file", help="a table (.csv, .tsv, both also .gz, or .jsonl), or .txt with a review in each line")
    add("--column", help="column of the table with the texts (default: review or text)")
    add("--label-column", metavar="COLUMN", help="column of the table with the labels (default: sentiment or label)")
    add("--out", metavar="FILE", help="instead of printing, add predicted_label and predicted_probability to the table")
    add("--json", action="store_true", help="print an object of JSON for each text: text, label, probability, sure "
        f"(probability of at least {SURE:.0%}%), known (share of the words in the vocabulary) and note")
    add("--explain", metavar="FILE", help="write an .html page that explains the answer to one TEXT")
    add("--model", help="model.pt or folder of a run (default: the bundled network, or else the newest run)")
    args = parser.parse_args(argv)
    if bool(args.texts) == bool(args.file):
        parser.error('give a text in quotes, as in python -m predict "A fine film.", or --file FILE')
    if args.out and (args.json or ending(args.out) not in (".csv", ".tsv", ".jsonl")):
        parser.error("--out takes a name that ends in .csv, .tsv or .jsonl, and no --json")
    if args.explain and (len(args.texts) != 1 or ending(args.explain) != ".html"):
        parser.error("--explain takes a name that ends in .html, and one TEXT in quotes")
    return args


def note(message):
    """Print a note where it does not mix with the answers."""
    print(f"note: {message}", file=sys.stderr)


def note_on_texts(texts):
    """Print a note if texts of the command line are probably something else."""
    for text in texts:
        if os.path.isfile(text):
            note(f"this classifies the name {text}; use --file {text} to classify what is in the file")
    if len(texts) > 1 and all(len(text.split()) == 1 for text in texts):
        note("each word is a text of its own; put a text in quotes")


def find_model():
    """Return the path of the bundled network if it was trained with this `models.py`, else that of the newest run."""
    if BUNDLED.exists() and same_code(read_model(BUNDLED)["models"], models_text()):
        return BUNDLED
    runs = sorted(Path("runs").rglob("model.pt"), key=os.path.getmtime)
    if not runs:
        raise UserError("the bundled network does not fit this models.py, and runs/ holds no other; train one by "
                        "python sentiment_analysis.py.")
    note(f"the bundled network does not fit this models.py, so the newest run answers: {runs[-1]}")
    return runs[-1]


def print_notes(predictor, answers):
    """Print a note if the network is a small one, and each note on answers with the numbers of the texts."""
    if predictor.data == "SAMPLE":
        note("the network was trained on the SAMPLE, 312 invented reviews, and knows few words")
    for message in {answer.note: None for answer in answers if answer.note}:
        numbers = [str(number) for number, answer in enumerate(answers, 1) if answer.note == message]
        note(f"{message}: text {', '.join(numbers[:10])}" + ", …" * (len(numbers) > 10))


def describe(text, answer):
    """Return the label, the probability and the beginning of a text as one line."""
    line = " ".join(text.split())
    shown = line if len(line) <= 60 else line[:59] + "…"
    doubt = "" if answer.sure else "hard to say: "
    return f"{answer.label}  {answer.probability:6.1%}  {doubt}{shown}" if answer.label else f"{'no text':16}  {shown}"


def describe_accuracy(answers, cells):
    """Return the accuracy on the texts with an answer and a label, or why it is unknown, as one line."""
    labels = [LABELS.get(cell.strip().lower(), "other") for cell in cells]
    right = [answer.label == label for answer, label in zip(answers, labels, strict=True) if answer.label and label]
    if not right or "other" in labels:  # in a column of stars, 1 is not a label
        return "accuracy unknown: labels are positive and negative, pos and neg, or 1 and 0, and nothing else"
    return f"accuracy {sum(right) / len(right):.2%} on {len(right):,} labelled texts"


def main():
    args = parse_args()
    note_on_texts(args.texts)
    rows = read_table(args.file) if args.file else [{"text": text} for text in args.texts]
    column = find_column(rows, args.column, ["review", "text"])
    if column is None:
        raise UserError(f"{args.file} has no column review or text; name the column with the texts by --column.")
    label_column = find_column(rows, args.label_column, ["sentiment", "label"])
    texts = [cell_text(row, column) for row in rows]

    path = Path(args.model) if args.model else find_model()
    predictor = Predictor.load(path / "model.pt" if path.is_dir() else path)
    answers = classify(predictor, texts)
    print_notes(predictor, answers)
    if args.explain:
        write_text(args.explain, explanation_page(predictor, texts[0]))
    for row, text, answer in zip(rows, texts, answers, strict=True):
        row |= {"predicted_label": answer.label, "predicted_probability": answer.probability}
        if not args.out:
            print(json.dumps({"text": text} | answer._asdict()) if args.json else describe(text, answer))
    if args.out:
        write_table(args.out, rows)
    if label_column is not None:
        accuracy = describe_accuracy(answers, [cell_text(row, label_column) for row in rows])
        print(accuracy, file=sys.stderr if args.json else sys.stdout)


if __name__ == "__main__":
    run(main)
