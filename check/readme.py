"""Check the README of a submission: the student's name, username and ID."""

import re

LABELS = {  # words before a colon
    "id": r"\b(id|teudat|tz|t\.z)\b|ת\.?ז|תעודת", "username": r"cse|user|login|account|e-?mail|\bcs\b",
    "name": r"name|student|author|submitted|\bby\b|שם",
}
WORDS = re.compile(r"[^\W\d_][\w'’.-]*( [^\W\d_][\w'’.-]*){1,4}")  # two to five words
LOGIN = re.compile(r"[A-Za-z][A-Za-z0-9._-]{1,30}(@[\w.-]+)?")
ID = re.compile(r"\d{5,10}")


def check_readme(base, handed_in_as):
    """Check that there is one README, and that its ID is the one in the name of the zip, which may be None."""
    paths = sorted(filter(is_readme, base.iterdir()))
    if not paths:
        return {"ok": False, "detail": "the README is missing; add one (README, README.md or README.txt) with your "
                "name, CSE username and ID"}
    found = find_person(decode(paths[0].read_bytes()[:100_000]))
    missing = [what for what in ("name", "username", "id") if not found[what]]
    problems = []
    if missing:
        words = {"name": "a name", "username": "a CSE username", "id": "an ID"}
        problems.append(f"{paths[0].name} lacks {' and '.join(words[what] for what in missing)}")
    if handed_in_as and found["id"] and handed_in_as not in found["id"]:
        problems.append(f"{paths[0].name} has the ID {', '.join(found['id'])}, and the file name has {handed_in_as}")
    if problems:
        return {"ok": False, "detail": "; ".join(problems)}
    person = ", ".join([found["name"][0], found["username"][0], *found["id"][:2]])
    return {"ok": True, "detail": f"{paths[0].name}: {person}"}


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
    """Return the names, usernames and IDs in a README, each a list. They may have labels ("Name: ...") or none."""
    found = {"name": [], "username": [], "id": []}
    for line in text.splitlines():
        for piece in re.split(r"[,;|\t]", line):
            label, value = split_label(piece.strip(" \t*#->`_"))
            kind = next((kind for kind, words in LABELS.items() if re.search(words, label.lower())), None)
            add_piece(found, kind, value.strip(" *`_<>\"'"), bool(label))
    return found


def split_label(piece):
    """Return the label and the value of "label: value"; without a label, it is empty."""
    match = re.match(r"([^:=]{1,40}?)\s*[:=]\s*(.*)", piece) or re.match(r"(?i)(id|name|cse|username)[\s-]+(.*)", piece)
    return match.groups() if match else ("", piece)


def add_piece(found, kind, value, labelled):
    """Add a value to what it is: by its label, or else by its form."""
    ids = ID.findall(value)
    if kind == "id" or (kind is None and ids and not labelled):
        found["id"] += ids
        value = ID.sub(" ", value).strip(" ()-/") if kind is None else ""
    if kind in ("name", "username") and value:
        found[kind].append(value)
    elif kind is None and not labelled:
        add_unlabelled(found, " ".join(value.split()))


def add_unlabelled(found, value):
    """Add a value without a label. A name has two words or more; a username is one word in lower case."""
    *first, last = value.split() or [""]
    if LOGIN.fullmatch(value) and not value.endswith("."):
        found["username"].append(value)
    elif first and LOGIN.fullmatch(last) and last == last.lower() and WORDS.fullmatch(" ".join(first)):
        found["name"].append(" ".join(first))
        found["username"].append(last)
    elif WORDS.fullmatch(value):
        found["name"].append(value)
