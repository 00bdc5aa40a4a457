"""Every reader of files, fed with bytes that are wrong: it answers, or refuses in one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nbsupport.audit import evidence, guard
from nbsupport.audit.judge import audit
from nbsupport.base.errors import LabError
from nbsupport.crash import explanation
from nbsupport.profile import profraw, training
from nbsupport.rescue import rescue
from tests.support import hostile


def read_profile(path: Path) -> object:
    return json.dumps(training.to_json(profraw.read(path)))


def read_folder(path: Path) -> object:
    return json.dumps(training.to_json(training.read(path.parent)))


def rescue_profile(path: Path) -> object:
    return rescue.from_profraw(path, path.with_name("rescued.proftext"))


def rescue_with(path: Path) -> object:
    """As what wrote a profile."""
    return rescue.from_profraw(path, path.with_name("rescued.proftext"), binary=path)


def link(path: Path) -> object:
    return guard.refused(["cc", str(path), f"@{path}"])


READERS: list[Callable[[Path], object]] = [
    *(read_profile, read_folder, rescue_profile, rescue_with),
    *(evidence.read, lambda path: audit([path]), link, explanation.explain),
]


@pytest.mark.parametrize("reader", READERS, ids=lambda reader: reader.__name__)
def test_junk_is_answered_or_refused_in_one_line(
    reader: Callable[[Path], object], tmp_path: Path
) -> None:
    path = tmp_path / "in" / "junk"
    path.parent.mkdir()
    for name, data in hostile.JUNK.items():
        path.write_bytes(data)
        try:
            assert reader(path) is not Ellipsis, name
        except LabError as error:
            assert str(error).isprintable(), f"{name}: {error}"
