"""The examples in docstrings of pure functions do what they show."""

from __future__ import annotations

import doctest
import importlib

import pytest

#: Modules of pure functions; each has examples.
MODULES = [
    "nbsupport.audit.fate",
    "nbsupport.crash.address",
    "nbsupport.lab.counts",
    "nbsupport.profile.layout",
    "nbsupport.profile.names",
]


@pytest.mark.parametrize("name", MODULES)
def test_examples_do_what_they_show(name: str) -> None:
    result = doctest.testmod(importlib.import_module(name))
    assert result.failed == 0 < result.attempted
