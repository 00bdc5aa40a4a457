"""What tools say about profiles, found in a text and put into words: `data/messages.toml`."""

import functools
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any

from nbsupport.base import files, settings
from nbsupport.profile import layout

_RAW = ("raw_version", "raw_expected")  # groups that are numbers of raw versions
_WRAP = 24  # characters: a shorter line was ended by who wrote it, not by a window's edge
_PASTED = 2000  # lines: a longer text is a log, which nobody's mail program wrapped
_TRIES = 1000  # lines: a string that stands in so many, and in none is the message, is another's
_PART = 6  # characters of a string that others may have, too
_GAPS = re.compile(r"[\s:;]+(?=\.(?:\s|$))|\s+(?=[:;,])|(?<=\s)\s+")  # what an empty group leaves

#: What is said of a build for coverage, not for optimization.
_COVERAGE = re.compile(
    r"profile-instr-generate|instrument-coverage|coverage-mapping|llvm-cov|Coverage"
)


@dataclass(frozen=True)
class Cause:
    """Why a message may have come, the command that tells it from the others, and what to do.

    `mix`: it needs objects of two LLVMs in one link, so an audit that finds one LLVM rules it out.
    `coverage` is what to do in a coverage build, "" where that is the same. `reason` is a pattern
    of what the message gives as its reason (its group of that name) where this is the cause.
    """

    why: str
    tells: str
    do: str
    mix: bool = False
    coverage: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Message:
    """What tools say about a profile; the first lines of `messages.toml` explain the fields.

    `general`: it says only that something before it failed.
    """

    name: str
    says: tuple[str, ...]
    pattern: str
    strings: tuple[str, ...]
    means: str
    causes: tuple[Cause, ...]
    since: str = ""
    until: str = ""
    not_run: str = ""
    general: bool = False

    @property
    def who(self) -> str:
        """Who says it, and from which LLVM to which: `say clang and rustc, from LLVM 17 on`."""
        names = [name.replace("runtime", "the profile runtime") for name in self.says]
        listed = " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
        say = "says" if len(names) == 1 else "say"
        since = f", from LLVM {self.since} on" if self.since else ""
        until = f", up to LLVM {self.until}" if self.until else ""
        heard = "; not run here" if self.not_run else ""
        return f"{say} {listed}{since}{until}{heard}"

    @functools.cached_property
    def regex(self) -> re.Pattern[str]:
        """The pattern without the line breaks that the data file gives it, compiled."""
        return re.compile(re.sub(r"\n *", "", self.pattern))

    def read(self, line: str) -> dict[str, str] | None:
        """Return what the message names in a line, or None where the line is not the message.

        Beside each raw version stands under `…_llvm` which LLVMs write it.
        """
        match = self.regex.search(line) if any(text in line for text in self.strings) else None
        if match is None:
            return None
        values = {name: value or "" for name, value in match.groupdict().items()}
        for name in _RAW:
            if values.get(name):
                values[f"{name}_llvm"] = layout.llvm_of(int(values[name]))
        return values


@dataclass(frozen=True)
class Occurrence:
    """A message in a text: `line` is the index of its first line, `values` is what it names."""

    message: Message
    line: int
    values: Mapping[str, str]

    @property
    def means(self) -> str:
        """What it means, in one sentence, with what it names filled in."""
        return self.fill(self.message.means)

    def fill(self, sentence: str) -> str:
        """Return a sentence of the message, or of a cause of it, with what it names filled in."""
        return _GAPS.sub("", sentence.format_map(self.values))


@functools.cache
def load() -> dict[str, Message]:
    """Return the messages by name, innermost cause first.

    Raises `LabError` for a data file that is not there, or has a field that nobody knows.
    """
    tables = files.read_toml(settings.data_dir() / "messages.toml")
    return {name: _message(name, table) for name, table in tables.items()}


def _message(name: str, table: dict[str, Any]) -> Message:
    where = f"message {name}"
    causes = [files.load(Cause, cause, where) for cause in table.get("causes", ())]
    return files.load(Message, {**table, "name": name, "causes": causes}, where)


def find(lines: Sequence[str]) -> list[Occurrence]:
    """Return the messages in a text, innermost cause first, those that are `general` last.

    `lines` are those of the text, without colours and prefixes of logs. Each message is returned
    once, for its first line; one that was wrapped (by a window, by mail) for the line it begins in.
    """
    numbers = _different(lines)
    text = "\n".join(lines[number] for number in numbers)
    order = list(load().values())
    strings = _held(text)
    single = (_first(message, text, strings) for message in order)
    occurrences = {o.message.name: replace(o, line=numbers[o.line]) for o in single if o}
    if len(lines) <= _PASTED:
        others = [message for message in order if message.name not in occurrences]
        for occurrence in _wrapped(lines, others):
            occurrences.setdefault(occurrence.message.name, occurrence)
    innermost = [occurrences[message.name] for message in order if message.name in occurrences]
    return sorted(innermost, key=lambda occurrence: occurrence.message.general)


def _different(lines: Sequence[str]) -> list[int]:
    """Return the indices of the lines that differ from those before by more than numbers.

    A log says the same of a hundred thousand functions, addresses and times.
    """
    if not lines:
        return []
    text = "\n".join(lines).encode(errors="replace")
    shapes = text.translate(None, b"0123456789abcdefABCDEF").split(b"\n")
    return sorted(dict(zip(reversed(shapes), range(len(lines) - 1, -1, -1), strict=True)).values())


@functools.cache
def _parts() -> dict[str, frozenset[str]]:
    """Group the strings of all messages by a part that they share: few are to be looked for."""
    holders = defaultdict(set)
    for string in {string for message in load().values() for string in message.strings}:
        for start in range(max(len(string) - _PART, 0) + 1):
            holders[string[start : start + _PART]].add(string)
    groups: dict[str, frozenset[str]] = {}
    grouped: set[str] = set()
    for part in sorted(holders, key=lambda part: (-len(holders[part]), part)):
        if new := holders[part] - grouped:
            groups[part] = frozenset(new)
            grouped |= new
    return groups


def _held(text: str) -> set[str]:
    """Return those strings of the messages that a text holds."""
    groups = (strings for part, strings in _parts().items() if part in text)
    return {string for strings in groups for string in strings if string in text}


def _first(message: Message, text: str, strings: AbstractSet[str]) -> Occurrence | None:
    """Return the first line of a text that is the message; `strings` are those that it holds."""
    best: tuple[int, dict[str, str]] | None = None
    for string in strings & set(message.strings):
        end = 0
        for _ in range(_TRIES):
            place = text.find(string, end)
            start = text.rfind("\n", 0, place) + 1
            if place < 0 or (best and start >= best[0]):
                break
            end = text.find("\n", place)
            end = len(text) if end < 0 else end
            values = message.read(text[start:end])
            if values is not None:
                best = start, values
                break
    return Occurrence(message, text.count("\n", 0, best[0]), best[1]) if best else None


def _wrapped(lines: Sequence[str], messages: Sequence[Message]) -> Iterator[Occurrence]:
    """Yield those of the messages that stand in two or three lines together."""
    # A window breaks words and keeps blanks, mail breaks at blanks and drops them.
    ways = [("", list(lines)), (" ", [line.strip() for line in lines])]
    held = set().union(*(_held(glue.join(parts)) for glue, parts in ways))
    parted = [message for message in messages if held & set(message.strings)]
    for number in range(len(lines) - 1 if parted else 0):
        if len(lines[number]) < _WRAP:
            continue
        joined = [glue.join(p[number : number + n]) for n in (2, 3) for glue, p in ways]
        for message in parted:
            values = next(filter(None, map(message.read, joined)), None)
            if values is not None:
                yield Occurrence(message, number, values)


def causes(
    occurrence: Occurrence, lines: Sequence[str], *, mixed: bool | None = None
) -> tuple[Cause, ...]:
    """Return the causes that a message may have, their sentences filled in, the first one first.

    `lines` are those of its text: where they are of a coverage build, advice is for that. `mixed`
    is what an audit of the program says: causes that need a mix come first, or are left out; None:
    it does not tell. What the message itself gives as the reason comes before all others.
    """
    reason = occurrence.values.get("reason", "")
    coverage = any(_COVERAGE.search(line) for line in lines)
    likely = []
    for cause in occurrence.message.causes:
        do = cause.coverage if coverage and cause.coverage else cause.do
        texts = (cause.why, cause.tells, do, cause.coverage)
        why, tells, do, other = map(occurrence.fill, texts)
        if mixed is not False or not cause.mix:
            likely.append(replace(cause, why=why, tells=tells, do=do, coverage=other))
    likely.sort(key=lambda cause: not (mixed and cause.mix))
    likely.sort(key=lambda cause: not (cause.reason and re.search(cause.reason, reason)))
    return tuple(likely)


def summary(occurrences: Sequence[Occurrence]) -> str:
    """Return what the innermost message means and who says it, and what others there are."""
    first, *others = occurrences
    more = [also.means for also in others if not also.message.general]
    who = first.message.who
    return " ".join((first.means, f"(So {who}.)", *(f"Also: {also}" for also in more[:3])))
