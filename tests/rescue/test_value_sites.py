"""Where the runtime looks for value counters in foreign records, in real programs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nbsupport.audit import objects
from nbsupport.lab import build, counts
from nbsupport.lab.lab import Lab
from nbsupport.rescue import value_sites
from nbsupport.rescue.rescued import VALUES
from nbsupport.toolchains.probe import Toolchain
from tests.rescue.programs import (
    Saved,
    command,
    expected,
    linked,
)


def test_value_counters_on_the_heap_are_left_alone(
    lab: Lab, saved: Saved, toolchain: Callable[[str], Toolchain], tmp_path: Path
) -> None:
    """-vp-static-alloc=false: no record has a list of its own, so value sites do nothing."""
    trial, _ = linked(lab, "hot", "19", "17")
    out, objects = tmp_path / "dynamic", list[Path]()
    for job in build.jobs(trial):
        objects.append(tmp_path / f"{len(objects)}.o")
        compiler, *words = job.command
        flags = ("-mllvm", "-vp-static-alloc=false")
        command(compiler, *flags, *words, objects[-1], cwd=job.unit.folder)
    command(toolchain("19").compiler, "-fuse-ld=lld", "-fprofile-generate", *objects, "-o", out)
    found, seen = saved(out)
    assert found.lost == (VALUES,) and not found.notes
    assert counts.difference(seen, expected(lab, trial)) is None


def test_where_the_runtime_looks_beyond_the_records_nothing_is_mended(
    saved: Saved, toolchain: Callable[[str], Toolchain], tmp_path: Path
) -> None:
    """LLVM 23 looks 48 bytes on, where the last of the records of LLVM 17 has ended."""
    sources = {
        "main": "int copy(char *, char *, unsigned long); char a[9], b[9];"
        "int main(int n, char **v) { return copy(a, b, (unsigned long)n); }",
        "last": "#include <string.h>\n"
        "int copy(char *a, char *b, unsigned long n) { memcpy(a, b, n); return 0; }",
    }
    flags = ("-O1", "-fPIC", "-fprofile-generate")
    for (name, text), version in zip(sources.items(), ("23", "17"), strict=True):
        (tmp_path / f"{name}.c").write_text(text)
        command(toolchain(version).compiler, *flags, "-c", f"{name}.c", cwd=tmp_path)
    link = (toolchain("23").compiler, "-fuse-ld=lld", *flags, "main.o", "last.o", "-o", "out")
    command(*link, cwd=tmp_path)
    file = objects.read(tmp_path / "out")
    assert file and value_sites.slots(file.parts[0], 11) is None
    found, seen = saved(tmp_path / "out")
    assert found.lost == (VALUES,) and not found.notes
    assert {name: row for (name, _), row in seen.items()} == {"main": (1,), "copy": (1,)}
