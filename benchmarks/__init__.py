"""Benchmarks: one script for each question; README.md lists them."""

import helpers  # noqa: F401  before torch, which reads the environment when it is imported
