"""Check the README of a submission: the student's name, username and ID."""

import re

from check.locate import is_own, list_files

LABELS = {  # words in a label of each kind; the first kind that fits counts
    "username": r"cse|user|login|account|e-?mail|\bcs\b|benutzer|kennung|משתמש",
    "id": r"\b(id|i\.d|ids|teudat|zehut|tz|t\.z|passport)\b|identi|matrikel|ת\.?[\"״'׳]*ז|תעודת|זהות",
    "name": r"\bnames?\b|student|author|submitted|\bby\b|\bשם\b|מגיש",
}
HEADINGS = {  # words of a label that stands alone, as in the first row of a table
    "name", "names", "full", "first", "last", "student", "students", "student's", "author", "authors", "cse", "cs",
    "username", "usernames", "user", "login", "account", "email", "e-mail", "id", "ids", "i.d.", "number", "no.",
    "teudat", "zehut", "benutzername", "matrikelnummer",
    "שם", "מלא", "משתמש", "תעודת", "זהות", "ת.ז", "ת.ז.", "ת\"ז", "ת״ז",
}
PROSE = {  # words that no name holds
    "a", "all", "an", "and", "answers", "attention", "code", "contains", "content", "contents", "course", "description",
    "exercise", "file", "files", "for", "how", "implementation", "in", "introduction", "is", "layers", "learning",
    "machine", "methods", "model", "models", "notebook", "of", "on", "our", "project", "python", "readme", "report",
    "requirements", "run", "solution", "source", "submission", "the", "this", "to", "train", "training", "transformer",
    "transformers", "usage", "with",
}
MISSING = {"name": "a name", "username": "a CSE username", "id": "an ID"}
LINES = {"name": '"Name: ..."', "username": '"CSE username: ..."', "id": '"ID: ..."'}
WORDS = re.compile(r"[^\W\d_][\w'’.-]*( [^\W\d_][\w'’.-]*){1,4}")  # two to five words
LOGIN = re.compile(r"[a-z][a-z0-9._-]{1,30}(@[\w.-]+)?")
FILE_NAME = re.compile(r"\w\.(py|ipynb|pdf|md|txt|zip|csv)\b")
NO_LOGIN = re.compile(rf"{FILE_NAME.pattern}|^ex\d+$")
EMAIL = re.compile(r"[\w.-]+@[\w.-]+")
ID = re.compile(r"\d{6,10}")  # an ID without a label; the course number has five digits


def check_readme(base, handed_in_as):
    """Check that there is one README with name, username and ID. `handed_in_as` is the ID in the file name, or None."""
    paths = list_readmes(base)
    if paths and paths[0].parent != base:
        return {"ok": False, "detail": f"{paths[0].relative_to(base)} is in a folder; move it out of there"}
    if not paths:
        return {"ok": False, "detail": "the README is missing; add one (README, README.md or README.txt) with your "
                "name, CSE username and ID"}
    if len(paths) > 1:
        names = ", ".join(path.name for path in paths)
        return {"ok": False, "detail": f"{len(paths)} READMEs ({names}); keep one"}
    found = find_person(decode(paths[0].read_bytes()[:100_000]))
    problems = []
    missing = [kind for kind in MISSING if not found[kind]]
    if missing:
        what, lines = join([MISSING[kind] for kind in missing]), join([LINES[kind] for kind in missing])
        problems.append(f"{paths[0].name} lacks {what}; add {lines}")
    if handed_in_as and found["id"] and handed_in_as not in found["id"]:
        problems.append(f"{paths[0].name} has the ID {', '.join(found['id'])}, but the file name has {handed_in_as}; "
                        "correct one of them")
    if problems:
        return {"ok": False, "detail": "; ".join(problems)}
    person = ", ".join([found["name"][0], found["username"][0], *found["id"][:2]])
    return {"ok": True, "detail": f"{paths[0].name}: {person}"}


def join(parts):
    """Return "a", "a and b", or "a, b and c"."""
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def list_readmes(base):
    """Return the paths of the READMEs in a folder; if there are none, those in the folders inside it."""
    paths = sorted(filter(is_readme, base.iterdir()))
    if paths:
        return paths
    return [path for path in list_files(base) if is_readme(path) and is_own(path, base)]


def is_readme(path):
    return path.is_file() and path.stem.lower() == "readme" and path.suffix.lower() in ("", ".md", ".txt")


def decode(data):
    """Return text in UTF-8, UTF-16 or a Hebrew code page."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return data.decode("utf-16", errors="replace")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1255", errors="replace")


def find_person(text):
    """Return the names, usernames and IDs in a README, each a list.

    A value has a label in front of it ("Name: ..."), a label in a line above it, or no label. If two of the three
    have a label, all text without a label counts as prose.
    """
    found = {"name": [], "username": [], "id": []}
    waiting, loose = [], []  # labels that have no value yet, and values without a label
    for piece in split_pieces(text):
        label, value = split_label(piece)
        if not value or is_heading(piece):
            waiting += filter(None, [find_kind(label or piece)])
        elif label:
            waiting = []
            add_labelled(found, find_kind(label), value)
        elif waiting:
            add_labelled(found, waiting.pop(0), value)
        else:
            loose.append(value)
    if len(list(filter(None, found.values()))) < 2:
        for value in loose:
            add_loose(found, value)
    return found


def split_pieces(text):
    """Yield the parts of lines and of rows of a table, without Markdown and HTML tags."""
    for line in re.sub(r"</?\w+ ?/?>", "", text).splitlines():
        for piece in re.split(r"[,;|\t]|\s(?:[-–—/&]|and)\s", line):
            piece = piece.strip(" *#->`_=")
            if piece:
                yield piece


def split_label(piece):
    """Return the label and the value of "label: value" or "label is value"; without a label, it is empty."""
    match = (re.match(r"([^:=]{1,40}?)\s*(?:[:=]|\bis\b)\s*(.*)", piece)
             or re.match(r"(?i)(id|(?:full )?name|(?:cse )?username|cse)[\s-]+(.*)", piece))
    label, value = match.groups() if match else ("", piece)
    return label, value.strip(" *`_<>\"'")


def is_heading(piece):
    return all(word in HEADINGS for word in piece.lower().split())


def find_kind(label):
    """Return the key of `LABELS` that a label stands for, or None."""
    return next((kind for kind, words in LABELS.items() if re.search(words, label.lower())), None)


def add_labelled(found, kind, value):
    """Add a value that has a label of this kind, which may be None."""
    digits = re.findall(r"\d+", re.sub(r"(?<=\d)[ -](?=\d)", "", value))
    if kind == "id" and digits:
        found["id"] += digits
    elif kind == "id" and LOGIN.fullmatch(value):  # "CSE ID: ada"
        found["username"].append(value)
    elif kind == "username":
        found["id" if value.isdigit() else "username"].append(value)  # a "CSE ID" may be either
    elif kind == "name":
        found["id"] += ID.findall(value)  # "Ada Lovelace (123456789)"
        found["username"] += EMAIL.findall(value)
        name = " ".join(EMAIL.sub(" ", ID.sub(" ", value)).split()).strip(" ()<>-/")
        if is_name(name):
            found["name"].append(name)


def is_name(value):
    """Return whether a text may be the name of a person. Prose and names of files are not."""
    words = value.lower().split()
    return bool(words) and not PROSE & {*words} and not FILE_NAME.search(value) and not re.search(r"\d", value)


def add_loose(found, value):
    """Add a value without a label. Its form says what it is: a name has two words or more, a username is one word."""
    found["id"] += ID.findall(value)
    for part in ID.split(value):
        part = " ".join(part.strip(" ()-/").split())
        *first, last = part.split() or [""]
        may_be_login = LOGIN.fullmatch(last) and last not in PROSE and not NO_LOGIN.search(last)
        name = part
        if may_be_login and (not first or (len(first) > 1 and part != part.lower())):  # "ada", "Ada Lovelace ada"
            name = " ".join(first)
            if not first or is_name(name):
                found["username"].append(last)
        if WORDS.fullmatch(name) and is_name(name):
            found["name"].append(name)
