"""Notebooks as values: run, kept, compared, replayed."""
