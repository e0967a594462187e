"""One script a question, see README.md."""

import helpers.runtime  # noqa: F401  before any of them imports torch, whose threads it tells how to wait
