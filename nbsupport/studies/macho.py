"""The grid of programs for macOS: what came of each, beside what the audit of its file predicts.

It is a laboratory, not a macOS: nothing of Apple's is in it but headers.
"""

from __future__ import annotations

import functools
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import pandas as pd

from nbsupport.audit import audit
from nbsupport.base import LabError, files, progress, settings
from nbsupport.lab import ORDERS, Lab
from nbsupport.macos import Emulated, MachOProgram, build_program, emulate
from nbsupport.macos.target import Arch
from nbsupport.notebooks import recorded
from nbsupport.show import Shown, look, shown
from nbsupport.show.widgets import ALL, Live, choice, live
from nbsupport.studies import ruler
from nbsupport.studies.macho_trial import reported_address, require_choice, ruler_of_crash
from nbsupport.studies.observations import Observation
from nbsupport.toolchains import find, profdata

#: Who instruments what: one LLVM all of it, two of them main and the library, or one LLVM main
#: alone, as `-fno-profile-generate` for C does.
Mix = Literal["one LLVM", "two LLVMs", "C not instrumented"]
UNIFORM, MIXED, BARE = MIXES = get_args(Mix)
#: How ld64.lld links, as `build_program` is told; the first is how it is usually done.
LINKS: dict[str, dict[str, bool]] = {
    "chained fixups": {},
    "opcodes": {"fixups": False},
    "-dead_strip": {"dead_strip": True},
}
USUAL = next(iter(LINKS))
#: The programs of the grid. The first two have their runtime optimized in each way.
_PROGRAMS = (
    *("cold", "hot", "explicit", "allocator"),
    *("mimalloc", "mimalloc-no-realloc", "mimalloc-checked"),
)
_OPTIMIZED = _PROGRAMS[:2]
#: Those that are linked in each way.
_LINKED = ("cold", "hot", "mimalloc-checked")
#: What stands for an LLVM where the wheels generate no code: Debian's of the same raw version.
_STAND_IN = {8: "16", 10: "19"}
#: The columns of a way to build a program, each with its words in a figure.
_WAYS = {
    (UNIFORM, "main-first"): "one LLVM\nmain first",
    (UNIFORM, "foreign-first"): "one LLVM\nlibrary first",
    (MIXED, "main-first"): "two LLVMs\nmain first",
    (MIXED, "foreign-first"): "two LLVMs\nlibrary first",
    (BARE, "main-first"): "library not\ninstrumented",
}
_TABLE = "macho"  # as it is recorded
#: A section that is kept as a picture has fewer bytes.
_SMALL = 1024


@dataclass(frozen=True)
class MachOCase:
    """A way to build and to link a program; `link` is of `LINKS`."""

    arch: Arch
    program: str
    mix: Mix = UNIFORM
    order: str = ORDERS[0]
    optimize: str = "s"
    link: str = USUAL

    def build(self, llvm: str, foreign: str) -> MachOProgram:
        """Build it: main by `llvm`, the library by `foreign`, or by LLVMs of their raw versions."""
        library = llvm if self.mix == UNIFORM else foreign
        main, other = (_compiler(self.arch, name) for name in (llvm, library))
        how: dict[str, Any] = {"order": self.order, "optimize": self.optimize, **LINKS[self.link]}
        instrument: Any = "none" if self.mix == BARE else "ir"
        return build_program(self.program, self.arch, main, other, instrument=instrument, **how)


def _compiler(arch: Arch, name: str) -> str:
    """Return the LLVM that stands for `name` where code for `arch` is to be generated."""
    if arch == "x86_64" or name in _STAND_IN.values():
        return name
    return _STAND_IN.get(find(name).raw_version or 0, name)


def cases(arch: Arch, program: str) -> list[MachOCase]:
    """Return all ways to build the programs of the grid, and `program`, for a processor."""
    ways = []
    for name in dict.fromkeys((program, *_PROGRAMS)):
        levels = "s23" if name in (program, *_OPTIMIZED) else "s"
        for mix, order, level in itertools.product(MIXES[:2], ORDERS, levels):
            ways.append(MachOCase(arch, name, mix, order, level))
        links = LINKS if name in (program, *_LINKED) else (USUAL,)
        for mix, link in itertools.product(MIXES[:2], links):
            ways.append(MachOCase(arch, name, mix, link=link))
        ways.append(MachOCase(arch, name, BARE))
    return list(dict.fromkeys(ways))


@dataclass(frozen=True)
class MachOStudy:
    """A row for each program (`rows`), and in `note` when they were measured, and what is missing.

    `program` is the one to look at closely; `live`: the rows were measured now. Columns: those of
    `MachOCase`; `llvm` and `foreign`, as they were asked for; `main` and `library`, the versions
    that compiled; `foretold` by the audit of the file; `outcome`, `exit_code`, `died` (when),
    `function`, `offset`, `frames` (innermost first); `address`, from the registers, `reported` by
    the processor, `spelled` by the records; `written`, the fields that spell it; `functions` and
    `bytes` of the profile; `as_linux`, how it is beside that of Linux; `section`, the ruler as
    JSON. All but these two numbers are texts, "" for what there is not.
    """

    rows: pd.DataFrame
    note: Shown
    program: str
    live: bool = False

    def select(self, **values: str) -> pd.DataFrame:
        """Return the rows that have these values: linked as usual, main first, for size, or `ALL`.

        That is what `link`, `order` and `optimize` are if nothing else is said.
        """
        rows = self.rows
        usual = {"link": USUAL, "order": ORDERS[0], "optimize": "-Os"}
        for column, value in {**usual, **values}.items():
            rows = rows[rows[column] == value] if value != ALL else rows
        return rows

    @property
    def at(self) -> dict[str, str]:
        """What the rows are of: both LLVMs, as they were asked for, and the processors."""
        llvms = dict(self.rows.iloc[0][["llvm", "foreign"]])
        return {**llvms, "arch": ",".join(dict.fromkeys(self.rows["arch"]))}


def measure(arch: str, llvm: str, foreign: str, program: str, *, scope: str) -> MachOStudy:
    """Build and execute all programs, for the processor `arch`, or "both", in the scope "whole".

    Else, or where that cannot be done here, return what was recorded; the note says so.
    """
    processors = (
        get_args(Arch) if arch == "both" else (require_choice("arch", arch, get_args(Arch)),)
    )
    if scope != "whole":
        what = "compilers for macOS (80 MB to download) and an emulator (the extra macho)"
        why = f"that takes {what}. To do it: make report-all, which brings both"
        return _replay(processors, (llvm, foreign), program, why)
    reasons = list[str]()
    trials = list[tuple[MachOCase, MachOProgram, Emulated]]()
    execute = functools.partial(_execute, llvm=llvm, foreign=foreign, reasons=reasons)
    for processor in processors:
        # One first: what there is not for this processor is looked for once.
        if execute(MachOCase(processor, "cold", MIXED)):
            ran = progress.each(cases(processor, program), execute, f"programs for {processor}")
            trials += [trial for trial in ran if trial]
    left_out = "; ".join(dict.fromkeys(reasons))
    if not trials:
        return _replay(processors, (llvm, foreign), program, left_out)
    with Lab(debugger=False) as lab:
        linux = functools.cache(functools.partial(_profile_of_linux, lab, llvm))
        rows = pd.DataFrame([_row(*trial, linux) for trial in trials])
    rows.insert(6, "llvm", llvm)
    rows.insert(7, "foreign", foreign)
    line = f"Built and executed here: {len(rows)} programs."
    return _study(rows, f"{line} Left out: {left_out}." if left_out else line, program, live=True)


def _replay(
    processors: Sequence[str], llvms: tuple[str, str], program: str, why: str
) -> MachOStudy:
    run = recorded()
    day = str(run.manifest["started"]).partition("T")[0]
    rows = run.tables[_TABLE]
    rows = rows[rows["arch"].isin(processors)]
    line = f"Recorded on {day}: {len(rows)} programs. Nothing was built here, since {why}."
    study = _study(rows, line, program)
    have = [study.at[name] for name in ("llvm", "foreign")]
    if have != [*llvms]:
        more = f"They are of LLVM {' and '.join(have)}, not {' and '.join(llvms)}."
        study = _study(rows, f"{line} {more}", program)
    return study


def _study(rows: pd.DataFrame, line: str, program: str, *, live: bool = False) -> MachOStudy:
    listed = program in set(rows["program"])
    line = line if listed else f"{line} {program} is not among them: cold is shown in its place."
    note = Shown(line, shown.element("p", line))
    return MachOStudy(rows, note, program if listed else _PROGRAMS[0], live)


def _execute(
    case: MachOCase, *, llvm: str, foreign: str, reasons: list[str]
) -> tuple[MachOCase, MachOProgram, Emulated] | None:
    """Build and execute a program; None, and why in `reasons`, where that cannot be done."""
    try:
        built = case.build(llvm, foreign)
        return case, built, emulate(built.path, built.main)
    except LabError as error:
        reasons.append(f"{error.what}: {error.why}")
        return None


def _profile_of_linux(lab: Lab, llvm: str, program: str) -> str:
    """Return, as text, the profile of a program that one LLVM builds for this machine."""
    return lab.run_once(lab.trial(program, llvm, llvm))[0]


def _row(case: MachOCase, built: MachOProgram, emulated: Emulated, linux: Any) -> dict[str, Any]:
    outcome, section = emulated.outcome, ruler_of_crash(built, emulated)
    document = outcome.to_row()
    functions = document["frames"].split(" < ") if outcome.crash else []
    written = "in main's own write" if "__llvm_profile_write_file" in functions else "in main"
    died = "at exit" if "exit handlers" in functions else written
    row = {
        **vars(case),
        "optimize": f"-O{case.optimize}",
        "main": built.main.version,
        "library": built.foreign.version,
        "foretold": " or ".join(audit([built.path]).judgement.outcomes),
        "outcome": outcome.kind,
        "exit_code": outcome.exit_code,
        "died": died if outcome.crash else None,
        "function": document["function"],
        "offset": outcome.crash.frames[0].offset if outcome.crash else None,
        "frames": document["frames"],
        "address": document["fault_address"],
        "reported": reported_address(emulated),
        "spelled": section.fault_address if section else None,
        "as_linux": _beside(emulated.text, linux(case.program)) if case.mix == UNIFORM else None,
        "written": _written(section.misread) if section and section.misread else None,
        "section": json.dumps(section.to_json())
        if section and len(section.data) < _SMALL
        else None,
    }
    texts = {name: "" if value is None else str(value) for name, value in row.items()}
    return {**texts, "functions": outcome.profile.functions, "bytes": outcome.profile.bytes}


def _written(misread: ruler.Misread) -> str:
    """Return the fields that the runtime takes for a pointer, with what their compiler wrote."""
    parts = (f"{name} {', '.join(map(str, n))}" for name, n in misread.written.items())
    return ", ".join(parts)


def _beside(text: str, linux: str) -> str:
    """Say how a profile is beside that of Linux, both as llvm-profdata's text."""
    if text == linux:
        return "the same bytes"
    here, other = profdata.parse(text), profdata.parse(linux)
    alike = sum(
        record.counters == here[key].counters for key, record in other.items() if key in here
    )
    if alike == len(here) == len(other):
        return "the same counts, other values"
    return f"{alike} of {len(other)} alike"


def surprises(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose outcome the audit of the file did not leave possible."""
    pairs = zip(rows["outcome"], rows["foretold"], strict=True)
    return rows[[outcome not in foretold.split(" or ") for outcome, foretold in pairs]]


def show_parts(study: MachOStudy) -> Shown:
    """Show which compilers make what of the mixed programs, for each processor."""
    rows = study.select(mix=MIXED).drop_duplicates("arch")[["arch", "main", "library"]]
    heads = ("processor", "clang of main and runtime", "of the library")
    return shown.table(heads, rows.to_numpy().tolist())


def show_uniform(study: MachOStudy) -> Shown:
    """Show what came of the programs that one LLVM builds, beside Linux."""
    columns = ["program", "outcome", "exit_code", "functions", "as_linux"]
    heads = ("program", "outcome", "exit code", "functions", "profile, beside Linux's", "on")
    return shown.table(heads, _together(study.select(mix=UNIFORM), columns))


def _together(rows: pd.DataFrame, columns: Sequence[str]) -> list[tuple[Any, ...]]:
    """Return the rows of a table, each with the processors that it is alike on."""
    archs = dict[tuple[Any, ...], list[str]]()
    for row in rows.to_dict("records"):
        archs.setdefault(tuple(row[name] for name in columns), []).append(row["arch"])
    return [
        (*cells, names[0] if len(set(names)) == 1 else "both") for cells, names in archs.items()
    ]


def show_links(study: MachOStudy) -> Shown:
    """Show what each way to link makes of a program's profile, and of its crash."""
    rows = []
    groups = study.select(link=ALL).groupby(["program", "mix", "arch"], sort=False)
    for key, group in groups:
        own = group.set_index("link")
        if len(own) == len(LINKS):
            row = dict(zip(("program", "mix", "arch"), key, strict=True))
            rows.append({**row, **{link: _in_short(own.loc[link]) for link in LINKS}})
    lines = _together(pd.DataFrame(rows), ["program", "mix", *LINKS])
    return shown.table(("program", "instrumented by", *LINKS, "on"), lines)


def _in_short(row: Any) -> str:
    if row["outcome"] == "crash":
        return f"dies {row['died']}, at {row['address']}"
    return f"{row['functions']} functions, {row['as_linux']}"


def show_offsets(rows: pd.DataFrame) -> Shown:
    """Show where in which function programs died, by processor and by how the runtime is made."""
    levels = list(dict.fromkeys(rows["optimize"]))
    lines = []
    for (arch, function), group in rows.groupby(["arch", "function"], sort=True):
        offsets = dict(zip(group["optimize"], group["offset"], strict=True))
        lines.append((arch, function, *(f"+{offsets.get(level, '')}" for level in levels)))
    return shown.table(("processor", "function", *levels), lines)


def show_frames(rows: pd.DataFrame) -> Shown:
    """Show the frames of crashes beside each other, innermost first, by processor."""
    frames = [row["frames"].split(" < ") for row in rows.to_dict("records")]
    lines = itertools.zip_longest(*frames, fillvalue="")
    return shown.table(("frame", *rows["arch"]), [(f"#{n}", *line) for n, line in enumerate(lines)])


def show_addresses(rows: pd.DataFrame, observed: Sequence[Observation]) -> Shown:
    """Show where each program died, as told by file, registers, processor, and by the user."""
    facts = {fact.id: fact.value for fact in observed}
    user = f"{facts['address']}; far on ARM: {facts['register']}"
    columns = ["program", "written", "spelled", "address", "reported"]
    heads = ("program", "the record says", "so it spells", "by the registers", "by the processor")
    lines = [*_together(rows, columns), ("the user's", "-", "-", "-", user, "a Mac")]
    return shown.table((*heads, "on"), lines)


def faces(study: MachOStudy) -> pd.DataFrame:
    """Return how mixed programs end in both orders, and how they should with the library first.

    Columns: `program`, `arch`; `main_first`, when they died; `library_first` and `exit_code`,
    `bytes` (of the profile) of that; `expected`. A value site that runs crashes in any order;
    without one, a program of two raw versions with different strides ends with a message.
    """
    both = [study.select(mix=MIXED, order=order) for order in ORDERS]
    key = ["program", "arch"]
    merged = both[0].merge(both[1], on=key, suffixes=("_first", ""))
    died = merged["died_first"]
    merged["main_first"] = died.where(died != "", merged["outcome_first"])
    merged["library_first"] = merged["outcome"]
    turned = {"in main": "crash", "ok": "ok"}
    merged["expected"] = [turned.get(end, "version-mismatch") for end in merged["main_first"]]
    return merged[[*key, "main_first", "library_first", "exit_code", "bytes", "expected"]]


def show_faces(table: pd.DataFrame) -> Shown:
    """Show a table of `faces`; what died has no exit code."""
    columns = ["program", "main_first", "library_first", "exit_code", "bytes"]
    heads = ("program", "main first: dies", "library first", "exit code", "bytes", "on")
    return shown.table(heads, _together(table.replace("", "-"), columns))


def rulers(rows: pd.DataFrame) -> dict[str, ruler.Ruler]:
    """Return the record ruler of the first program for each processor that has one."""
    first = rows[rows["section"] != ""].drop_duplicates("arch")
    pairs = zip(first["arch"], first["section"], strict=True)
    return {arch: ruler.from_json(json.loads(section)) for arch, section in pairs}


def table(rows: pd.DataFrame) -> Shown:
    """Show how programs are built, what the audit foretold of that, and what happened."""
    lines = []
    for key, group in rows.groupby(["mix", "order", "foretold", "outcome", "died", "function"]):
        mix, order, *foretold, died, function = key
        archs = list(dict.fromkeys(group["arch"]))
        where = f"{died}, in {function}" if died else "-"
        built = f"{mix}, {str(order).replace('-', ' ')}"
        names = ", ".join(dict.fromkeys(group["program"]))
        on = "both" if archs[1:] else archs[0]
        lines.append((built, names, *foretold, where, len(group), on))
    heads = (
        "instrumented by",
        "programs",
        "the audit predicts",
        "what happened",
        "dies",
        "trials",
        "on",
    )
    return shown.table(heads, lines)


def figure(rows: pd.DataFrame) -> Shown:
    """Show how each program ended, a panel for each processor.

    A frame marks what the audit did not predict.
    """
    processors, names = (list(dict.fromkeys(rows[column])) for column in ("arch", "program"))
    drawn, axes = look.charts(len(processors) * (64 + 22 * len(names)), len(processors))
    odd = set(surprises(rows).index)
    for panel, arch in zip(axes.flat, processors, strict=True):
        own = rows[rows["arch"] == arch].groupby(["program", "mix", "order"])
        for (name, *way), group in own:
            kinds = list(dict.fromkeys(group["outcome"]))
            fill, word = look.OUTCOMES[kinds[0]] if len(kinds) == 1 else (look.GREY, "several")
            edge = {"edgecolor": look.INK, "linewidth": 2.5} if odd & set(group.index) else {}
            place = list(_WAYS).index(tuple(way)), names.index(name)
            look.cell(panel, place, (0.95, 0.9), fill, f"{word}, {len(group)}", **edge)
        panel.set_xticks(range(len(_WAYS)), list(_WAYS.values()))
        panel.set_yticks(range(len(names)), names)
        panel.set(xlim=(-0.5, len(_WAYS) - 0.5), ylim=(len(names) - 0.5, -0.5))
        panel.set_title(arch, loc="left", **look.HEAD)
    caption = (
        f"{len(rows) - len(odd)} of {len(rows)} programs end as the audit of their files predicts"
    )
    caption += "; each cell counts its programs"
    counted = rows["outcome"].value_counts().items()
    return shown.framed(drawn, f"{caption}.", "; ".join(f"{kind} {n}" for kind, n in counted))


def widget(rows: pd.DataFrame) -> Live:
    """Return the figure, with a choice of processor and program that lists what came of them."""
    choices = [choice(name, [ALL, *rows[name].unique()]) for name in ("arch", "program")]

    def listed() -> str:
        part = rows
        for control, name in zip(choices, ("arch", "program"), strict=True):
            part = part[part[name] == control.value] if control.value != ALL else part
        return figure(part).html + table(part).html

    static = figure(rows)
    return live(choices, listed, static)


@dataclass(frozen=True)
class MachOCriterion:
    """How programs are held against an observation; data/macos/observations.toml explains it."""

    leaves: str
    column: str = ""
    mix: str = MIXED
    part: bool = False
    says: Mapping[str, str] = field(default_factory=dict)


def compare(study: MachOStudy, observed: Sequence[Observation]) -> pd.DataFrame:
    """Hold the programs against each thing that the user saw.

    Columns: `what`, `user`, `here`, `agrees` (yes, no, in part, on one processor, or "not
    tried"), `leaves`.
    """
    path = settings.data_dir() / "macos" / "observations.toml"
    facts = {fact.id: fact for fact in observed}
    lines = []
    for name, entry in files.read_toml(path).items():
        rule = files.load(MachOCriterion, entry, f"{path.name}: {name}")
        rows = study.select(mix=rule.mix)
        here, agrees = dict[str, str](), dict[str, bool]()
        for arch, own in rows.groupby("arch", sort=True):
            values = dict(zip(own["program"], own[rule.column], strict=True)) if rule.column else {}
            pairs = [(values.get(program, "-"), text) for program, text in rule.says.items()]
            here[str(arch)] = ", ".join(dict.fromkeys(value for value, _ in pairs))
            agrees[str(arch)] = all(value == text for value, text in pairs)
        cells = [f"{arch}: {text}" for arch, text in here.items()]
        texts = cells if len(set(here.values())) > 1 else [*here.values()][:1]
        alike = [arch for arch, agreed in agrees.items() if agreed]
        whole = "in part" if rule.part else "yes"
        verdict = whole if alike == [*agrees] else f"on {alike[0]} alone" if alike else "no"
        fact = facts[name]
        cell = ("; ".join(texts), verdict) if rule.says else ("-", "not tried")
        lines.append((fact.what, fact.value, *cell, rule.leaves))
    return pd.DataFrame(lines, columns=["what", "user", "here", "agrees", "leaves"])


def show_compared(compared: pd.DataFrame) -> Shown:
    """Show a table of `compare`."""
    heads = ("observation", "the user", "here", "agrees", "what this does not establish")
    return shown.table(heads, compared.to_numpy().tolist())
