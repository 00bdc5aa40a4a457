"""Trials: a program, built by one or two toolchains, run once, and what came of it."""
