"""Find the files of a submission that should not be handed in: data, checkpoints, minGPT, system files."""

from check.locate import is_mingpt, list_files
from check.readme import list_readmes

MOST_NAMES = 8  # in a message


def check_extra(folder, base, wanted):
    """Check that nothing is handed in besides the README, the code and PDFs. `wanted` are the code and PDFs."""
    wanted = {*wanted, *list_readmes(base)}
    names = []
    for path in list_files(folder):
        if path not in wanted:
            names.append(name_extra(path, base if path.is_relative_to(base) else folder, wanted))
    names = list(dict.fromkeys(names))
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    if names:
        return {"ok": False, "detail": f"remove {', '.join(names[:MOST_NAMES])}{more}"}
    return {"ok": True, "detail": "none"}


def name_extra(path, base, wanted):
    """Return the name of an additional file in a message: the outermost folder with nothing wanted, or the file."""
    name = str(path.relative_to(base))
    for parent in reversed(path.relative_to(base).parents[:-1]):
        if not any(other.is_relative_to(base / parent) for other in wanted):
            name = f"{parent}/"
            break
    return f"{name} (minGPT's own code)" if is_mingpt(path, base) else name
