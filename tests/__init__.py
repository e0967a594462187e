"""Tests, the loops that they compare with, and the command that judges anybody's layers."""
