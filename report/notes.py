"""The student's own explanations: a Markdown file with one heading for each part of the report.

`markdown_it` reads the file as CommonMark with tables and formulas. The report shows HTML as it is typed.
"""

import re

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode
from mdit_py_plugins.dollarmath import dollarmath_plugin

from helpers.cli import UserError
from report.fonts import break_words
from report.formulas import draw_formula

PARTS = {"5": "Self-attention and layer normalisation", "6": "Sentiment analysis", "6.1": "Bonus",
         "7": "Text generation"}
QUESTIONS = {
    "5": "How do your two layers work, and how do you know that they are right?",
    "6": "What did you train, and what do loss, accuracy and errors tell you?",
    "6.1": "What did you change, why should it help, and did it?",
    "7": "How good are the sentences, and why?"}
ALLOWED = "use the headings # 5, # 6, # 6.1 and # 7, each once, and **bold** lines inside a part"
# "5 Layers", "6.1. Bonus", "Section 7: Text", "**5** Layers"; not "6,1 Bonus" or "5th part".
HEADING = re.compile(r"\W*(?:(?:section|part|chapter|exercise)\s+)?(\d+(?:\.\d+)*)(?!\w|[.,-]\d)", re.IGNORECASE)
# A comment is removed, but code keeps what looks like one.
FENCE = r"^ {0,3}(?P<fence>`{3,}|~{3,}).*?(?:^ {0,3}(?P=fence)|\Z)"
COMMENT = re.compile(rf"(?P<code>{FENCE}|`[^`\n]*`)|<!--.*?-->", re.DOTALL | re.MULTILINE)
HTML_IMAGE = re.compile(r"<img\b", re.IGNORECASE)
DEEPEST = 40  # levels of the tree; each list inside another adds two
PARSER = MarkdownIt("commonmark", {"html": False, "maxNesting": 100}).enable(["table", "strikethrough"])
PARSER.use(dollarmath_plugin, allow_digits=False, allow_space=False)  # "$5 and $6" is not a formula


def make_template():
    """Return a file for notes: the headings, each with a question."""
    return "\n".join(f"# {part} {title}\n\n<!-- {QUESTIONS[part]} -->\n" for part, title in PARTS.items())


def read_notes(path):
    """Return the notes of each part: a dict from "6.1" to a list of nodes, as `convert` makes them."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError(f"cannot find {path}; write one with --notes-template > {path}.") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8; save it as UTF-8.") from error
    tokens = PARSER.parse(COMMENT.sub(lambda found: found["code"] or "", text))
    if any(token.level > DEEPEST for token in tokens):
        raise UserError(f"{path} has lists or quotes that are nested too deep; use fewer levels.")
    notes, part = {}, None
    for node in SyntaxTreeNode(tokens).children:
        if node.type == "heading":
            part = find_part(node, path)
            if part in notes:
                raise UserError(f"{path} has two headings for part {part}; {ALLOWED}.")
            notes[part] = []
        elif part is None:
            raise UserError(f"{path} has text before its first heading; {ALLOWED}.")
        else:
            notes[part].append(convert(node, path))
    return {part: nodes for part, nodes in notes.items() if nodes}


def find_part(heading, path):
    """Return the part that a heading names. Raises UserError if the report has no such part."""
    title = heading.children[0].content if heading.children else ""
    found = HEADING.match(title)
    if not found or found[1] not in PARTS:
        raise UserError(f"{path} has the heading '{title}', which is not a part of the report; {ALLOWED}.")
    return found[1]


def convert(node, path):
    """Return a node of the Markdown tree as a dict with "kind" (a type of `markdown_it`), "text" and "children".

    A link also has "target", a numbered list "start", a cell of a table "align", and a formula what `draw_formula`
    returns. Raises UserError for a heading inside another node and for a picture.
    """
    if node.type == "heading":
        find_part(node, path)
        raise UserError(f"{path} has a heading inside a list or a quote; {ALLOWED}.")
    if node.type == "image" or (node.type == "text" and HTML_IMAGE.search(node.content)):
        raise UserError(f"{path} has a picture, which the report cannot show; remove it, or hand in a PDF of your own.")
    found = {"kind": node.type, "text": "" if node.type == "inline" else break_words(node.content),
             "children": [convert(child, path) for child in node.children]}
    if node.type == "link":
        found["target"] = str(node.attrs["href"])
    elif node.type == "ordered_list":
        found["start"] = node.attrs.get("start", 1)
    elif node.type in ("th", "td"):
        found["align"] = str(node.attrs.get("style", "text-align:left")).removeprefix("text-align:")
    elif node.type == "paragraph":
        found["tight"] = node.hidden
    elif node.type.startswith("math"):
        found |= draw_formula(node.content, is_block=node.type != "math_inline")
    return found


def plain(notes):
    """Return all text of notes that the report sets in its fonts, for a check of the fonts."""
    texts, nodes = [], [node for of_part in notes.values() for node in of_part]
    while nodes:
        node = nodes.pop()
        nodes += node["children"]
        if "svg" not in node:
            texts.append(node["text"])
    return "".join(texts)
