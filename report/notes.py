"""The student's own explanations: a Markdown file with one heading for each part of the report."""

import re

from helpers.cli import UserError

PARTS = {"5": "Self-attention and layer normalisation", "6": "Sentiment analysis", "6.1": "Bonus",
         "7": "Text generation"}
QUESTIONS = {
    "5": "How do your two layers work, and how do you know that they are right?",
    "6": "What did you train, and what do loss, accuracy and errors tell you?",
    "6.1": "What did you change, why should it help, and did it?",
    "7": "How good are the sentences, and why?"}
HEADING = re.compile(r"#+\s*(\d+(?:\.\d+)*)\b")
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
ITEM = re.compile(r"(?:[-*+]|\d+[.)])\s+")
SPANS = re.compile(r"\*\*(?P<strong>.+?)\*\*|\*(?P<emph>[^*\s][^*]*)\*|`(?P<code>[^`]+)`")


def make_template():
    """Return a file of notes that is still empty."""
    return "\n".join(f"# {part} {title}\n\n<!-- {QUESTIONS[part]} -->\n" for part, title in PARTS.items())


def read_notes(path):
    """Return the notes of each part: a dict from "6.1" to a list of blocks, as `parse_block` makes them."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise UserError(f"there is no {path}; write one with --notes-template > {path}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8; save it as UTF-8.") from error
    notes, part, lines = {}, None, []
    for line in [*COMMENT.sub("", text).splitlines(), "# 5"]:  # the last heading ends the last part
        heading = HEADING.match(line)
        if not heading:
            lines.append(line)
            continue
        add_part(notes, part, "\n".join(lines), path)
        part, lines = heading[1], []
    return notes


def add_part(notes, part, text, path):
    """Add the text of a part to `notes`. Raises UserError if the report has no such part."""
    blocks = [parse_block(block) for block in re.split(r"\n\s*\n", text) if block.strip()]
    if not blocks:
        return
    if part is None:
        raise UserError(f"{path} has text before its first heading; put it under # 5, # 6, # 6.1 or # 7.")
    if part not in PARTS:
        raise UserError(f"{path} has a heading # {part}; the parts of the report are {', '.join(PARTS)}.")
    notes[part] = notes.get(part, []) + blocks


def parse_block(block):
    """Return a paragraph or a list: {"kind": "paragraph", "list" or "numbered", "items": lists of spans}."""
    lines = [line.strip() for line in block.strip().splitlines()]
    if not ITEM.match(lines[0]):
        return {"kind": "paragraph", "items": [parse_spans(" ".join(lines))]}
    items = []
    for line in lines:
        start = ITEM.match(line)
        if start:
            items.append(line[start.end():])
        else:
            items[-1] += " " + line
    kind = "numbered" if lines[0][0].isdigit() else "list"
    return {"kind": kind, "items": [parse_spans(item) for item in items]}


def parse_spans(text):
    """Return a line as spans: a list of {"kind": "text", "strong", "emph" or "code", "text"}."""
    spans, end = [], 0
    for found in SPANS.finditer(text):
        spans.append({"kind": "text", "text": text[end:found.start()]})
        spans.append({"kind": found.lastgroup, "text": found[found.lastgroup]})
        end = found.end()
    spans.append({"kind": "text", "text": text[end:]})
    return [span for span in spans if span["text"]]


def plain(notes):
    """Return all text of notes, for a check of the fonts."""
    blocks = [block for of_part in notes.values() for block in of_part]
    items = [item for block in blocks for item in block["items"]]
    return "".join(span["text"] for item in items for span in item)
