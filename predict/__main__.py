"""Classify film reviews with a trained network.

    python predict.py "A film to fall asleep in."
    python predict.py --file reviews.csv --out answers.csv     each row of a table
    python predict.py --explain why.html "Not bad at all."     the effect and the attention of each word

Tables end in .csv, .tsv (also with .gz) or .jsonl. Texts are in the column `review` or `text`, labels, if any, in
`sentiment` or `label`. `--out` adds the columns `predicted_label` and `predicted_probability`.
"""

import argparse
import csv
import gzip
import json
from pathlib import Path
from textwrap import shorten

from helpers import UserError, run
from helpers.files import whole_file, write_text
from helpers.predictor import Predictor

MODEL = Path(__file__).parents[1] / "pretrained" / "sentiment" / "model.pt"
LABELS = {"positive": True, "pos": True, "1": True, "negative": False, "neg": False, "0": False}
SURE = 0.55  # a lower probability of the predicted label is shown with the words "hard to say"
LONGEST_WORD = 1000  # characters; spaCy's time grows with the square of a word's length


def parse_args(argv=None):
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="*", metavar="TEXT", help="a review in quotes")
    parser.add_argument("--file", help="a table, or a .txt file with one review in each line")
    parser.add_argument("--column", help="column of the table with the texts (default: review or text)")
    parser.add_argument("--label-column", help="column of the table with the labels (default: sentiment or label)")
    parser.add_argument("--out", help="write a table with the answers instead of printing them")
    parser.add_argument("--model", default=MODEL, help="model.pt of a run (default: the bundled network)")
    parser.add_argument("--explain", metavar="FILE", help="write an .html page that explains the answer for one TEXT")
    args = parser.parse_args(argv)
    if bool(args.texts) == bool(args.file):
        parser.error('give a text in quotes, as in predict.py "A fine film.", or --file FILE')
    if args.explain and (len(args.texts) != 1 or not args.explain.endswith(".html")):
        parser.error("--explain takes one TEXT and a name that ends in .html")
    return args


def open_text(path, mode):
    """Open a text file, packed if its name ends in .gz."""
    return (gzip.open if str(path).endswith(".gz") else open)(path, mode + "t", encoding="utf-8-sig", newline="")


def ending(path):
    """Return the ending of a file's name without .gz."""
    return Path(str(path).removesuffix(".gz")).suffix.lower()


def read_table(path):
    """Return the rows of a table, or the lines of a .txt file, as dicts. Raises UserError if it is damaged."""
    kind, rows = ending(path), []
    try:
        with open_text(path, "r") as file:
            if kind == ".jsonl":
                rows = [json.loads(line) for line in file if line.strip()]
            elif kind in (".csv", ".tsv"):
                delimiter = max(",;\t", key=file.readline().count)  # some versions of Excel write a semicolon
                file.seek(0)
                rows = list(csv.DictReader(file, delimiter=delimiter, strict=True))
            elif kind == ".txt":
                rows = [{"text": line.strip()} for line in file]
            else:
                raise UserError(f"{path} has an unknown format; save it as .csv, .tsv, .jsonl or .txt.")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text; save the file as UTF-8.") from error
    except (csv.Error, json.JSONDecodeError) as error:
        raise UserError(f"{path} is not a well-formed {kind} file: {error}.") from error
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict) or None in row or (kind != ".jsonl" and None in row.values()):
            raise UserError(f"row {number} of {path} has another number of fields than the header; put each text in "
                            "quotes.")
    return rows


def find_column(rows, wanted, usual, path):
    """Return the name of the column `wanted`, or without it of one of the `usual` ones, in any case; else None."""
    columns = {name.strip().lower(): name for row in rows[:1] for name in row}
    for name in [wanted] if wanted else usual:
        if name.lower() in columns:
            return columns[name.lower()]
    if wanted:
        raise UserError(f"{path} has no column {wanted}, only {', '.join(columns)}.")
    return None


def write_table(path, rows):
    """Write rows as a table. The ending of the path tells the format."""
    with whole_file(path) as temporary, open_text(temporary, "w") as file:
        if ending(path) == ".jsonl":
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        else:
            writer = csv.DictWriter(file, rows[0], delimiter="\t" if ending(path) == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)


def main():
    args = parse_args()
    rows = read_table(args.file) if args.file else [{"text": text} for text in args.texts]
    column = find_column(rows, args.column, ["review", "text"], args.file)
    if column is None:
        raise UserError(f"{args.file} has no column review or text; name it with --column.")
    texts = [str(row.get(column) or "") for row in rows]
    longest = [max(map(len, text.split()), default=0) for text in texts]  # word of each text
    readable = [number for number, length in enumerate(longest) if 0 < length < LONGEST_WORD]
    if not readable:
        raise UserError("there is no text to classify; give a film review in English.")
    predictor = Predictor.load(args.model)
    if args.explain:
        from predict.explain import explanation_page

        write_text(args.explain, explanation_page(predictor, texts[0]))
    answers = [(None, None)] * len(texts)  # label and probability; none for blank texts and binary data
    positive = predictor.probabilities([texts[number] for number in readable])
    for number, p in zip(readable, positive.tolist(), strict=True):
        answers[number] = ("positive", p) if p > 0.5 else ("negative", 1 - p)
    if args.out:
        for row, (label, probability) in zip(rows, answers, strict=True):
            row |= {"predicted_label": label, "predicted_probability": probability}
        write_table(args.out, rows)
    else:
        for text, (label, probability) in zip(texts, answers, strict=True):
            doubt = "hard to say: " if label and probability < SURE else ""
            print(f"{label}  {probability:6.1%}  {doubt}{shorten(text, 60)}" if label else "no text")
    if label_column := find_column(rows, args.label_column, ["sentiment", "label"], args.file):
        truths = [LABELS.get(str(row.get(label_column)).strip().lower()) for row in rows]
        right = [(label == "positive") == truth for (label, _), truth in zip(answers, truths, strict=True)
                 if label and truth is not None]
        if right:
            print(f"accuracy {sum(right) / len(right):.2%} on {len(right):,} labelled texts")


if __name__ == "__main__":
    run(main)
