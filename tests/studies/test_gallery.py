"""Crashes that tools print here are judged as they were made; what does not crash has no row."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nbsupport.lab.lab import Lab
from nbsupport.studies import gallery
from nbsupport.toolchains.probe import Toolchain


@pytest.mark.whole  # the claim of notebook 06 says it, too
def test_each_text_is_judged_as_it_was_made(
    lab: Lab, toolchain: Callable[[str], Toolchain]
) -> None:
    toolchain("17")
    judged = gallery.judge(lab, "19", "17")
    assert (judged["verdict"] == judged["made"]).all(), judged.to_string()
    tools = {tool for fault in gallery.load().values() for tool in fault.tools}
    assert set(judged["tool"]) == tools
    assert set(judged["made"]) == {"ours", "not-ours"}
    assert set(judged[judged["made"] == "ours"]["face"]) == {"at exit", "in main"}
    text = gallery.table(judged).text
    assert all(fault.what in text for fault in gallery.load().values())


def test_two_llvms_that_are_alike_make_no_crash_of_ours(
    lab: Lab, toolchain: Callable[[str], Toolchain], monkeypatch: pytest.MonkeyPatch
) -> None:
    toolchain("22")
    some = {name: case for name, case in gallery.load().items() if name in ("mix-in-main", "null")}
    monkeypatch.setattr(gallery, "load", lambda: some)
    monkeypatch.setattr(gallery, "_path", {"gdb": "gdb"}.get)
    judged = gallery.judge(lab, "19", "22")
    assert list(judged["fault"]) == [some["null"].what]
    assert list(judged["verdict"]) == ["not-ours"]


def test_a_tool_that_is_not_here_has_no_row(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gallery, "_path", lambda tool: None)
    judged = gallery.judge(lab, "19", "19")
    assert set(judged["tool"]) == {"LLVM's handler"}
