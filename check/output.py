"""The text that a student reads about a verdict."""

import textwrap


def describe(name, verdict):
    """Return the lines on a class, given its verdict from `judge`."""
    lines = [f"{name:<18}{headline(verdict)}"]
    for note in verdict["notes"]:
        label, text = note.split(": ", 1)
        lines += textwrap.wrap(text, 110, initial_indent=f"  {label:<24}", subsequent_indent=" " * 26,
                               break_on_hyphens=False)
    return lines


def headline(verdict):
    """Return the verdict in one line."""
    if verdict["right"]:
        return f"right: equal to the loops within {verdict['difference']:.0e}, with correct gradients"
    if verdict["mistake"] == "biases":
        return "right except for its biases"
    codes = (verdict["mistake"] or "unknown mistake").replace("+", ", ")
    return f"wrong: {codes}"
