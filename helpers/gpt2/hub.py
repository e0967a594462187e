"""Get the files of GPT-2 from the Hugging Face hub or from its cache on this machine."""

import contextlib
import os
from pathlib import Path

from helpers.cli import Unreachable
from helpers.downloads import open_url

MODELS = ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"]
HUB_FILES = ["config.json", "model.safetensors", "tokenizer.json"]
REFUSED = (401, 403)  # status codes of a server that asks for a token, or for another one


def hub_folder(name):
    """Return the folder in the hub's cache with the files of `name`, one of MODELS; download them if needed.

    Raises Unreachable if the hub does not deliver them, or if the environment forbids downloads. Its message is the
    beginning of a sentence, and says what to do.
    """
    address = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    os.environ["HF_ENDPOINT"] = address
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # the hub's library reads both variables when it is imported
    from transformers.utils.hub import cached_file, is_offline_mode

    def fetch(**options):
        # adds a file to the cache only when it is complete
        paths = [cached_file(f"openai-community/{name}", file, **options) for file in HUB_FILES]
        return Path(paths[0]).parent

    with contextlib.suppress(OSError, ValueError):  # not in the cache
        return fetch(local_files_only=True)
    if is_offline_mode():
        raise Unreachable("it is not in the cache, and HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE forbids downloads; unset "
                          "that variable")
    check_connection(address, f"{address}/openai-community/{name}/resolve/main/config.json")
    try:
        return fetch()
    except Exception as error:  # the type differs between versions of the library
        status = find_status(error)
        if status:
            raise Unreachable(explain_status(address, status)) from error
        raise Unreachable(f"{address} answers, but its files cannot be downloaded ({type(error).__name__}); run again "
                          "later") from error


def check_connection(address, url):
    """Raise Unreachable at once if the server does not answer; the hub's library would try for minutes."""
    try:
        with open_url(url):
            pass
    except Unreachable as error:
        status = getattr(error.__cause__, "code", None)
        if status is None:
            raise Unreachable(f"{error}; connect to a network and run again") from error
        if status not in REFUSED:  # unlike `open_url`, the library sends a token
            raise Unreachable(explain_status(address, status)) from error


def find_status(error):
    """Return the status code in the answer that caused an error of the hub's library, or None."""
    while error:
        response = getattr(error, "response", None)
        if response is not None:
            return response.status_code
        error = error.__cause__ or error.__context__
    return None


def explain_status(address, status):
    """Return the problem that a status code tells, and what to do, as the beginning of a sentence."""
    if status in REFUSED:
        return f"{address} refuses access (status {status}); unset the token in HF_TOKEN, or set a new one"
    return f"{address} answers with status {status}; run again later"
