"""The profile runtime's sources as data: what is read of them, compared, and shown."""

from __future__ import annotations

import dataclasses
import html
import json
import re
import urllib.request
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import nbformat
import pytest

from nbsupport.base.errors import LabError, MissingError
from nbsupport.lab.lab import Lab
from nbsupport.notebooks import document
from nbsupport.studies import sources, writer
from nbsupport.studies.sources import compare, parse, structure
from nbsupport.studies.sources.structure import Structure
from nbsupport.studies.traces import Traces
from nbsupport.toolchains import tree
from nbsupport.toolchains.tree import Tree
from nbsupport.trace.trace import Trace, open_trace, recorded

LIST = """
#define INSTR_PROF_RAW_VERSION 7
INSTR_PROF_DATA(const uint64_t, llvm::Type::get(Ctx), NameRef, \\
                Hash(a, b))
INSTR_PROF_DATA(IntPtrT, llvm::Ptr::get(Ctx), Values, V)
INSTR_PROF_DATA(const uint16_t, T, NumSites[IPVK_Last+1], N) \\
INSTR_PROF_RAW_HEADER(uint64_t, Magic, magic())
"""
WRITER = """
// SPDX-License-Identifier: Ours
typedef struct Reader { int (*Init)(void *); int (*Other)(void); } Reader;
static int Calls = 0;
COMPILER_RT_WEAK int Version = 1;
extern char Start __asm("section$start");
extern int Far;
static int init(void *Record);
static Reader TheReader = {init, 0};
COMPILER_RT_VISIBILITY void (*Hook)(int) = 0;

static int init(void *Record) {
  const __llvm_profile_data *Data = (const __llvm_profile_data *)Record;
  Calls++;
  for (int I = 0; I < 2; I++)
    if (Data->NumSites[I]) /* a comment */
      return I;
  return Data->Values != 0;
}

COMPILER_RT_VISIBILITY int
writer(Reader *R, __llvm_profile_data *Data, int Far) {
  int Calls = Far;
  Data->Values = 0;
  take(&Data->NumSites[1]);
  if (Version && Start)
    atexit(finish);
  return R->Init(Data) + Calls;
}
"""
FINISH = "void finish(void) { Hook = &other; Hook(1); }\nvoid other(int Writer) { Writer = 1; }\n"


def small(folder: Path, version: str = "1.0.0", **changed: str) -> Tree:
    """Return a profile runtime of three files, in `folder`."""
    texts = {"InstrProfData.inc": LIST, "Writer.c": WRITER, "Finish.c": FINISH, **changed}
    texts = {name.replace("__", "."): text for name, text in texts.items()}
    (folder / version).mkdir(parents=True)
    for name, text in texts.items():
        (folder / version / name).write_text(text)
    hashes = {name: sha256(text.encode()).hexdigest() for name, text in sorted(texts.items())}
    return Tree(version, folder / version, "here", hashes, False)


@pytest.fixture(scope="module")
def newest() -> tuple[Tree, Structure]:
    found = tree.load("19.1.7")
    return found, structure.from_tree(found)


# -- excerpts


def test_an_excerpt_is_found_by_symbol_and_says_where_it_is(tmp_path: Path) -> None:
    found = parse.excerpt(small(tmp_path), "init", mark="Values")
    assert (found.file, found.line, found.licence) == ("Writer.c", 12, "Ours")
    start = WRITER.index("static int init(void *Record) {")
    assert found.text == WRITER[start : WRITER.index("\n\n", start)]
    assert found.marked == (18,)
    assert repr(found) == "Writer.c: init, LLVM 1.0.0, 8 lines"


@pytest.mark.parametrize("part, about, first", [
    ("loop", "Data", "  for (int I"), ("condition", "NumSites", "    if (Data->Num"),
    ("statement", "Values", "  return Data->Values"), ("loop", "", "  for (int I"),
])  # fmt: skip
def test_a_part_of_a_function_is_found_by_a_word_in_it(
    tmp_path: Path, part: parse.Part, about: str, first: str
) -> None:
    found = parse.excerpt(small(tmp_path), "init", part=part, about=about)
    assert found.text.startswith(first)


@pytest.mark.parametrize("symbol, line", [
    ("Reader", 3), ("TheReader", 9), ("Hook", 10), ("INSTR_PROF_RAW_VERSION", 2), ("Start", 6),
])  # fmt: skip
def test_types_variables_and_macros_are_symbols_too(tmp_path: Path, symbol: str, line: int) -> None:
    assert parse.excerpt(small(tmp_path), symbol).line == line


def test_a_function_in_another_file_is_found_and_said_to_have_moved(tmp_path: Path) -> None:
    found = parse.excerpt(small(tmp_path), "finish", file="Writer.c")
    assert repr(found) == "Finish.c: finish, LLVM 1.0.0, 1 lines (moved from Writer.c)"
    assert "moved" not in repr(parse.excerpt(small(tmp_path / "2"), "finish", file="Finish.c"))


def test_of_two_definitions_that_of_the_expected_file_is_taken(tmp_path: Path) -> None:
    twice = small(tmp_path, Writer__c=f"{WRITER}void other(int Mine) {{}}")
    for file in ("Writer.c", "Finish.c"):
        assert parse.excerpt(twice, "other", file=file).file == file


def test_of_a_functions_definitions_for_several_platforms_the_first_is_taken(
    tmp_path: Path,
) -> None:
    several = "".join(f"int many(int n) {{ return n + {n}; }}\n" for n in range(40))
    assert parse.excerpt(small(tmp_path, Many__c=several), "many").text.endswith("n + 0; }")


def test_of_parts_inside_each_other_the_smallest_is_taken(tmp_path: Path) -> None:
    loops = "void f(int A) {\n  for (;;)\n    while (A)\n      A--;\n}\n"
    found = parse.excerpt(small(tmp_path, Finish__c=loops), "f", part="loop", about="A")
    assert found.text.startswith("    while")


def test_what_is_gone_is_said_with_the_versions_that_have_it(
    newest: tuple[Tree, Structure],
) -> None:
    with pytest.raises(LabError, match=r"nothing in LLVM 19\.1\.7: .*no such symbol; see what"):
        parse.excerpt(newest[0], "nothing")
    with pytest.raises(
        LabError, match="writeOneValueProfData in LLVM 19.1.7: it has no loop with x"
    ):
        parse.excerpt(newest[0], "writeOneValueProfData", part="loop", about="x")
    whole = sources.load("22")
    with pytest.raises(
        LabError, match=r"no such symbol; it is in LLVM 14\.0\.6 .*19\.1\.7 \(Instr"
    ):
        whole.excerpt("writeOrderFile")


def test_words_stand_in_the_margin_of_their_line(newest: tuple[Tree, Structure]) -> None:
    function, words = "initializeValueProfRuntimeRecord", {"NodesKind[I][J]": "dies here"}
    found = parse.excerpt(newest[0], function, margin=words)
    assert found.marked == (328,)
    page = found._repr_html_()
    assert re.search(r"<b style[^>]*>dies here +328 +Nodes \?", page)
    assert re.search(r"\n {12,}327 ", page)  # the other lines move along


def test_a_number_dies_as_it_is_followed_and_an_address_one_step_later(
    newest: tuple[Tree, Structure], runs: tuple[Trace, Trace]
) -> None:
    healthy, crashing = (writer.steps(newest[1], run) for run in runs)
    number, address = {"NodesKind[I][J]": "dies here"}, {"Site->Next": "dies here"}
    assert (writer.dies_at(healthy), writer.dies_at(crashing)) == ({}, number)
    where, written = "Values of record 4, byte 192", "FunctionPointer of f: (f: .text)"
    longer = writer.ReadStep("initializeValueProfRuntimeRecord", where, "(f: .text)", written)
    assert writer.dies_at([longer]) == address


def test_lines_of_the_text_are_shown_and_never_committed(newest: tuple[Tree, Structure]) -> None:
    found = parse.excerpt(newest[0], "initializeValueProfRuntimeRecord", mark="Values")
    line = "ValueProfNode **Nodes = (ValueProfNode **)Data-&gt;Values;"
    page = found._repr_html_()
    assert line in page and "Apache-2.0 WITH LLVM-exception" in page
    assert re.search(r"<b style[^>]*> +313  +ValueProfNode \*\*Nodes", page)
    other = compare.difference("lprofWriteData", newest[0], tree.load("22.1.8"))
    assert "VNamesEnd, SkipNameDataWrite, Version);" in other.html
    data = [{"text/plain": repr(one), "text/html": one._repr_html_()} for one in (found, other)]
    new = nbformat.v4
    outputs = [new.new_output("display_data", data=one) for one in data]  # type: ignore[no-untyped-call]
    cell = new.new_code_cell("x", outputs=outputs)  # type: ignore[no-untyped-call]
    kept = document.normalize(new.new_notebook(cells=[cell]))  # type: ignore[no-untyped-call]
    for one, shown in zip((found, other), kept.cells[0].outputs, strict=True):
        assert shown.data["text/plain"] == repr(one)
        assert repr(one) in html.unescape(shown.data["text/html"])  # its head stays
        assert "<pre>… LLVM's own lines: run the cell" in shown.data["text/html"]


def held(lines: set[str], cells: list[nbformat.NotebookNode]) -> set[str]:
    """Return those of the lines that are in sources or outputs of cells."""
    text = html.unescape("\n".join(json.dumps(cell) for cell in cells))
    return {line for line in lines if line in text}


def test_no_line_of_llvms_is_in_what_is_committed(newest: tuple[Tree, Structure]) -> None:
    texts = [newest[0].content(path).decode() for path in newest[0].files]
    lines = {line.strip() for text in texts for line in text.splitlines()}
    lines = {line for line in lines if len(line) > 35 and " " in line and '"' not in line}
    found = parse.excerpt(newest[0], "initializeValueProfRuntimeRecord")._repr_html_()
    new = nbformat.v4
    shown = new.new_output("display_data", data={"text/html": found})  # type: ignore[no-untyped-call]
    cell = new.new_code_cell("x", outputs=[shown])  # type: ignore[no-untyped-call]
    assert held(lines, [cell])  # it would be seen
    notebooks = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
    assert notebooks
    for path in notebooks:
        assert not held(lines, document.read(path).cells), path


# -- where the text cannot be had


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    # urllib looks at them once; what it has seen so far is for the other tests.
    monkeypatch.setattr(urllib.request, "_opener", None)


@pytest.mark.usefixtures("offline")
def test_offline_a_version_is_there_as_it_was_recorded(cache: Path) -> None:
    found = sources.load("22")
    assert found.tree is None and found.structure.version == "22.1.8"
    assert "LLVM 22.1.8: a RECORDING (" in found.provenance and "refused" in found.provenance
    said = "lprofWriteData, LLVM 22.1.8: its text is not at hand"
    assert found.excerpt("lprofWriteData").text == said
    assert "not at hand" in found.difference(sources.load("19"), "lprofWriteData").text


@pytest.mark.usefixtures("offline")
def test_an_unknown_release_is_stood_for_by_the_known_one_of_its_major(cache: Path) -> None:
    found = sources.load("22.9.9")
    assert found.structure.version == "22.1.8" and "in place of 22.9.9; " in found.provenance
    with pytest.raises(MissingError, match=r"LLVM 20\.1\.8: .*there are 14\.0\.6, .*checkout"):
        sources.load("20.1.8")


def test_a_toolchain_means_its_version(clang: Path) -> None:
    assert sources.load("19@wheel").structure.version == "19.1.7"
    assert sources.load(str(clang.parent.parent)).structure.version == "19.1.7"


# -- structure


def test_functions_are_told_with_what_they_call_read_and_write(tmp_path: Path) -> None:
    found = structure.from_tree(small(tmp_path))
    assert (found.raw_version, found.record) == (7, ("NameRef", "Values", "NumSites"))
    assert found.header == ("Magic",)
    init, taker, finish = (found.function(name) for name in ("init", "writer", "finish"))
    assert (init.file, init.line, init.lines) == ("Writer.c", 12, 8)
    assert (init.reads, init.writes, init.globals) == (("NumSites", "Values"), (), ("Calls",))
    assert (taker.reads, taker.writes) == ((), ("Values", "NumSites"))
    assert (taker.calls, taker.through) == (("take", "atexit"), ("Init",))
    assert taker.hands_on == ("finish",)
    assert taker.globals == ("Version", "Start")  # Calls and Far are its own
    assert finish.through == ("Hook",)


def test_calls_are_followed_through_pointers_and_values(tmp_path: Path) -> None:
    found = structure.from_tree(small(tmp_path))
    assert found.tables == {"Hook": ("other",), "Init": ("init",)}
    assert found.leads_to("writer") == {"init": "Init", "finish": "as a value"}
    assert found.callers("init") == ("writer",)
    assert found.path("writer", "other") == ("writer", "finish", "other")
    assert found.path("other", "writer") == () and found.path("init", "init") == ("init",)


def test_each_global_is_told_with_where_it_comes_from(tmp_path: Path) -> None:
    found = {one.name: one.comes_from for one in structure.from_tree(small(tmp_path)).globals}
    assert found == {
        "Calls": "the runtime",
        "Version": "the runtime, unless an instrumented object has its own",
        "Start": "the linker: a section's bound",
        "Far": "outside the runtime",
        "TheReader": "the runtime",
        "Hook": "the runtime",
    }


def test_a_structure_survives_being_recorded(newest: tuple[Tree, Structure]) -> None:
    assert structure.load(newest[1].to_json()) == newest[1]


@pytest.mark.parametrize("version", ["19.1.7", "22.1.8"])
def test_what_is_recorded_is_what_the_sources_say(version: str) -> None:
    found = sources.load(version)
    assert found.tree and found.tree.pinned
    assert found.structure == next(one for one in sources.recorded() if one.version == version)


def test_every_known_version_is_recorded_with_the_layout_that_we_know() -> None:
    from nbsupport.profile.layout import LAYOUTS

    found = sources.recorded()
    assert [one.version for one in found] == list(tree.known_versions())
    for one in found:
        known = LAYOUTS[one.raw_version]
        assert one.record == tuple(field.name for field in known.record), one.version
        assert one.header == known.header, one.version


def test_the_writers_functions_are_read_rightly_in_every_version() -> None:
    for one in sources.recorded():
        assert one.function("writeOneValueProfData").reads == ("NumValueSites",)
        assert one.function("initializeValueProfRuntimeRecord").reads == ("Values", "NumValueSites")
        assert compare.crash_path(one)[-5:] == (
            "writeValueProfData",
            "writeOneValueProfData",
            "initializeValueProfRuntimeRecord",
            "__llvm_profile_instrument_target",
            "instrumentTargetValueImpl",
        )


# -- what changed


def test_code_is_compared_not_comments_or_layout(tmp_path: Path) -> None:
    old = structure.from_tree(small(tmp_path))
    same = WRITER.replace("/* a comment */", "").replace("  Calls++;", "\n\n     Calls ++ ;")
    assert (
        compare.compare(old, structure.from_tree(small(tmp_path / "2", Writer__c=same))).changed
        == ()
    )
    other = WRITER.replace("Calls++", "Calls--")
    found = compare.compare(old, structure.from_tree(small(tmp_path / "3", Writer__c=other)))
    assert found.changed == ("init",)


def test_what_came_went_and_moved_is_told(tmp_path: Path) -> None:
    old = structure.from_tree(small(tmp_path))
    texts = {"Writer__c": WRITER + FINISH.splitlines()[1], "Finish__c": "void fresh(void) {}"}
    texts["InstrProfData__inc"] = LIST.replace("NameRef", "Name").replace("VERSION 7", "VERSION 8")
    found = compare.compare(old, structure.from_tree(small(tmp_path, "2.0.0", **texts)))
    assert (found.added, found.removed, found.moved) == (("fresh",), ("finish",), ("other",))
    assert found.fields == ("record: Name is new", "record: NameRef is gone")
    assert found.summary == (
        "LLVM 1.0.0 -> 2.0.0: functions: 0 changed, 1 new, 1 gone, 1 moved to another file; "
        "none on its path. raw version 7 -> 8; record: Name is new; record: NameRef is gone."
    )


def test_a_rerun_on_a_new_llvm_reads_what_changed_on_the_crashs_path() -> None:
    by_major = {one.version.partition(".")[0]: one for one in sources.recorded()}
    found = compare.compare(by_major["19"], by_major["23"])
    assert found.path == (
        "__llvm_profile_register_write_file_atexit",
        "__llvm_profile_write_file",
        "writeFile",
        "lprofWriteData",
        "lprofWriteDataImpl",
    )
    assert "raw version 10 -> 11; record: UniformCounterPtr is new" in found.summary
    shown = compare.table(found)
    assert shown.text.startswith(found.summary) and shown.html.count("<details open>") == 1
    quiet = compare.compare(by_major["22"], by_major["22"])
    assert (quiet.path, compare.table(quiet).text) == ((), quiet.summary)


def test_what_came_or_went_on_the_way_counts_as_changed_there() -> None:
    old = sources.recorded()[-1]
    kept = tuple(one for one in old.functions if one.name != "writeFile")
    without = dataclasses.replace(old, functions=kept)
    assert "writeFile" in compare.compare(old, without).path
    assert "writeFile" in compare.compare(without, old).path


def test_another_order_of_fields_is_a_change() -> None:
    old = sources.recorded()[-1]
    turned = dataclasses.replace(old, record=old.record[::-1])
    assert compare.compare(old, turned).fields == ("record: another order",)


# -- beside the traces


@pytest.fixture(scope="module")
def runs() -> Iterator[tuple[Trace, Trace]]:
    with Lab() as lab, Traces(lab) as traces:
        yield traces.trace("cold", "19", "22"), traces.trace("cold", "19", "17")


def test_two_runs_are_walked_side_by_side_until_they_part(
    newest: tuple[Tree, Structure], runs: tuple[Trace, Trace]
) -> None:
    healthy, crashing = (writer.steps(newest[1], run) for run in runs)
    n = writer.parting(healthy, crashing)
    assert n is not None
    step = crashing[n]
    assert (step.function, step.reads) == (
        "writeOneValueProfData",
        "NumValueSites of record 4, byte 192",
    )
    assert not any(one.misread for one in (*healthy, *crashing[:n]))
    assert step.written.startswith("NameRef of ") and healthy[n].value == "1, 1, 0"
    assert writer.parting(healthy, healthy) is None
    assert writer.parting(crashing, crashing) is None  # they do not part, both misread
    assert (writer.count_records(healthy, 64), writer.count_records(crashing, 64)) == (
        (9, 9),
        (8, 8),
    )
    rows = writer.show_steps(healthy, crashing).text.splitlines()
    notes = [re.split("  +", row)[-1] for row in rows]
    assert notes == ["note", "differs", "differs", "16", *["the same"] * 3] + [
        "first misread",
        "misread",
        "misread",
    ]


def test_only_the_writers_own_steps_are_told(newest: tuple[Tree, Structure]) -> None:
    run = open_trace(recorded() / "harness-19-19-main-first")  # its main asks for counts, too
    first = writer.steps(newest[1], run)[0]
    assert (
        first.function == "lprofWriteData"
        and writer.count_records(writer.steps(newest[1], run), 64)[0] < 20
    )


def test_the_frames_are_a_way_of_calls_in_the_sources(
    newest: tuple[Tree, Structure], runs: tuple[Trace, Trace]
) -> None:
    way = writer.spine(newest[1], runs[1])
    assert [name for name, _ in way] == list(newest[1].path(*compare.WAYS[1]))
    assert [name for name, seen in way if not seen] == ["writeValueProfData"]
    assert writer.spine(newest[1], runs[0]) == ()  # did not die
    alone = dataclasses.replace(newest[1], tables={})  # no way through the pointer
    assert writer.spine(alone, runs[1]) == ()


def test_the_call_graph_marks_the_fork_and_who_comes_past_the_check(
    newest: tuple[Tree, Structure], runs: tuple[Trace, Trace]
) -> None:
    healthy, crashing = (writer.steps(newest[1], run) for run in runs)
    drawn = writer.figure(newest[1], runs[1], healthy, crashing)
    assert "__llvm_profile_write_file checks the raw version. 4 other functions" in drawn.text
    assert (
        "__llvm_profile_write_buffer" in drawn.text
        and "first misreads a field in writeOneValueProfData" in drawn.text
    )
    for said in (
        "inlined: no frame of its own",
        "by the pointer InitRTRecord",
        "(below the check)",
        "decides: DI++",
        "dies here",
    ):
        assert said in drawn.html
    alive = writer.figure(newest[1], runs[0], healthy, healthy)
    assert alive.text == "No fork to draw: this run did not die in the profile writer."
