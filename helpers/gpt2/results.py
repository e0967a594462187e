"""Write the sentences and all facts about them as JSON and as a Markdown table."""

import json
import re

from helpers.files import whole_file


def write_results(folder, result):
    """Write a result as JSON and as a Markdown table: both files, or neither of them."""
    with whole_file(folder / "gpt2_sentences.json") as data, whole_file(folder / "gpt2_sentences.md") as table:
        data.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        table.write_text(as_markdown(result), encoding="utf-8")


def as_markdown(result):
    """Return the Markdown table of a result."""
    heading = ("Written by {model} ({parameters:,} parameters; {weights} with SHA-256 `{weights_sha256}`) through "
               "{backend}: seed {seed}, top-k {settings[top_k]}, temperature {settings[temperature]:g}, at most "
               "{settings[max_new_tokens]} new tokens.\n")
    lines = [heading.format(**result), "| prefix | sentence |", "|---|---|"]
    for one in result["sentences"]:
        mark = " *(cut)*" if one["cut"] else ""
        lines.append(f"| {escape(one['prefix'])} | {escape(one['sentence'])}{mark} |")
    return "\n".join(lines) + "\n"


def escape(text):
    """Return `text` with the special characters of Markdown escaped."""
    return re.sub(r"([\\`*_{}\[\]<>#|~$&])", r"\\\1", text)
