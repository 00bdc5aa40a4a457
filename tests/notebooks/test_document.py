"""What a notebook is known by, and what of an executed one is committed."""

from __future__ import annotations

import json

import pytest

from nbsupport.notebooks import document
from tests.support.notebooks import PROSE, book, cell, output, prose


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda made: made.cells[1].update(source="y = 2"), id="code"),
        pytest.param(lambda made: made.cells[1].metadata.update(tags=["x"]), id="tags"),
        pytest.param(lambda made: made.cells.append(cell("z")), id="another cell"),
    ],
)
def test_digest_tells_code_apart(change: object) -> None:
    assert callable(change)
    before, after = book(prose(PROSE), "x = 1"), book(prose(PROSE), "x = 1")
    assert document.digest(before, {}) == document.digest(after, {})
    change(after)
    assert document.digest(before, {}) != document.digest(after, {})


def test_digest_tells_parameters_and_surroundings_apart() -> None:
    one = book("x = 1")
    seen = {
        document.digest(one, {"a": 1}),
        document.digest(one, {"a": "1"}),
        document.digest(one, {}, "c"),
    }
    assert len(seen) == 3


def test_normalize_keeps_code_tags_and_outputs() -> None:
    shown = output("execute_result", data={"text/plain": "1"}, execution_count=7)
    one = cell("1", "kept", outputs=(shown,))
    one.execution_count = 7
    one.metadata["papermill"] = {"duration": 1.5}
    one.metadata["execution"] = {"iopub.status.busy": "2025-01-01T00:00:00Z"}
    whole = book(prose(PROSE), one)
    whole.metadata = {
        "kernelspec": {"name": "other", "display_name": "Mine", "language": "python"},
        "language_info": {"name": "python", "version": "3.11.7"},
        "papermill": {"input_path": "/home/me/x.ipynb"},
        "widgets": {"application/vnd.jupyter.widget-state+json": {}},
    }
    assert json.loads(json.dumps(document.normalize(whole))) == {
        "cells": [
            {"cell_type": "markdown", "id": "cell-1", "metadata": {}, "source": PROSE},
            {
                "cell_type": "code",
                "id": "cell-2",
                "metadata": {"tags": ["kept"]},
                "source": "1",
                "execution_count": 7,
                "outputs": [
                    {
                        "output_type": "execute_result",
                        "data": {"text/plain": "1"},
                        "metadata": {},
                        "execution_count": 7,
                    }
                ],
            },
        ],
        "metadata": {
            "kernelspec": {
                "name": "python3",
                "display_name": "Python 3 (ipykernel)",
                "language": "python",
            },
            "language_info": {"name": "python"},
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def test_normalize_merges_streams_between_displays() -> None:
    stream = [output("stream", name=name, text=text) for name, text in ("e1", "o2", "e3", "o4")]
    for one in stream:
        one.name = {"e": "stderr", "o": "stdout"}[one.name]
    shown = output("display_data", data={"text/plain": "x"})
    (made,) = document.normalize(book(cell("", outputs=(*stream, shown, stream[1])))).cells
    assert [(o.get("name"), o.get("text")) for o in made.outputs] == [
        ("stdout", "24"),
        ("stderr", "13"),
        (None, None),
        ("stdout", "2"),
    ]


def test_normalize_drops_widget_views() -> None:
    view = {"model_id": "random"}
    alone = output("display_data", data={document.WIDGET: view})
    both = output("display_data", data={document.WIDGET: view, "text/html": "<b>twin</b>"})
    (made,) = document.normalize(book(cell("", outputs=(alone, both)))).cells
    assert [o.data for o in made.outputs] == [{"text/html": "<b>twin</b>"}]


def test_normalize_changes_nothing_twice_and_not_its_argument() -> None:
    given = book(prose(PROSE), cell("x", outputs=(output("stream", name="stdout", text="x"),)))
    before = json.dumps(given)
    once = document.normalize(given)
    assert json.dumps(given) == before
    assert document.normalize(once) == once


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("at /home/me/x.c:3", ["/home/me/x.c:3"]),
        ("'/srv/pgo-lab-1/run.profraw'", ["/srv/pgo-lab-1/run.profraw"]),
        ("/Users/me/t, /root/a", ["/Users/me/t,", "/root/a"]),
        ("lib/home/x ~/tmp/y a/b 1/2 </tmp> https://example.org/home/x", []),
    ],
)
def test_machine_paths(text: str, found: list[str]) -> None:
    shown = output("stream", name="stdout", text=text)
    html = output("display_data", data={"text/html": text, "image/png": "/root/base64"})
    assert [path for _, path in document.machine_paths(book(cell("", outputs=(shown,))))] == found
    assert [path for _, path in document.machine_paths(book(cell("", outputs=(html,))))] == found
