"""Tell by the SHA-256 of a weights file whether it is GPT-2's. The name of a folder proves nothing."""

GPT2_SHA256 = "248dfc3911869ec493c76e65bf2fcf7f615828b0254c12b473182f0f81d3a707"  # gpt2's own model.safetensors
OWN_GPT_SHA256 = "c3ced4cfa9956fde49a663cd2ea696c984abd08bb8dce87d7c1b6ae33f20ad90"  # pretrained/gpt-reviews
OWN_GPT_NAME = "a small GPT trained on film reviews, not GPT-2"


def is_gpt2(sha256):
    """Return whether a weights file with this SHA-256 is that of gpt2."""
    return sha256 == GPT2_SHA256


def is_own_gpt(sha256):
    """Return whether a weights file with this SHA-256 is that of this project's own small GPT."""
    return sha256 == OWN_GPT_SHA256


def describe_weights(name, parameters, sha256):
    """Return what the weights are, as a noun phrase.

    For unknown weights, it claims neither that they are GPT-2 nor that they are not.

    Args:
        name: the name of their folder.
        parameters: how many there are.
        sha256: the SHA-256 of the file; those of several files are separated by commas.
    """
    if is_gpt2(sha256):
        return "GPT-2"
    if is_own_gpt(sha256):
        return OWN_GPT_NAME
    return f"weights in {name}, {parameters:,} parameters, SHA-256 {sha256}"
