"""Modules used by the scripts."""
