"""Compiles and links what the readers of object files are tested with."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

from nbsupport.audit import objects
from nbsupport.profile import infer
from nbsupport.toolchains.probe import Toolchain

LLVMS = ("17", "18", "19", "22", "23")
FOO = "static int inner(int x) { return x + 1; }\nint foo(int x) { return x > 3 ? inner(x) : 2; }\n"
MAIN = "int foo(int);\nint main(int c, char **v) { return foo(c) > 100; }\nint some = 7;\n"
TRIPLES = {
    "x86_64-linux-gnu": ("elf", "x86_64-linux", 64),
    "i386-linux-gnu": ("elf", "i386-linux", 32),
    "x86_64-apple-macos11": ("mach-o", "x86_64-apple-darwin", 64),
    "x86_64-pc-windows-msvc": ("coff", "x86_64-windows", 64),
    "i686-pc-windows-msvc": ("coff", "i386-windows", 32),
}
#: A stand-in for the runtime's function, for formats whose runtime is not on this machine.
STAND_IN = """
__asm__(".text\\n.skip 300000");
extern unsigned get_version(void); int print(void *, const char *, int, int);
extern void *stream;
__attribute__((noinline)) int __llvm_profile_write_file(void) {
  if (get_version() != VERSION)
    return print(stream, "LLVM Profile Error: Runtime and instrumentation version mismatch : "
                 "expected %d, but get %d\\n", VERSION, get_version());
  return 0;
}
"""


class Bench:
    """Compiles and links in one folder, each thing once."""

    def __init__(self, folder: Path, find: Callable[[str], Toolchain]) -> None:
        self.folder, self.find = folder, find

    def tool(self, llvm: str, name: str) -> Path:
        return self.find(llvm).compiler.parent / name

    def run(self, llvm: str, tool: str, *args: str | Path) -> None:
        done = subprocess.run(
            [self.tool(llvm, tool), *args], cwd=self.folder, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()

    def object(self, llvm: str, source: str, *flags: str, triple: str = "x86_64-linux-gnu") -> Path:
        flags = flags or ("-O1", "-fprofile-generate")
        made = self.folder / f"{llvm}-{triple}-{hash((source, flags)) % (1 << 32)}.o"
        if not made.exists():
            text = made.with_suffix(".c")
            text.write_text(source)
            self.run(
                llvm,
                "clang",
                f"--target={triple}",
                "-ffreestanding",
                *flags,
                "-c",
                text.name,
                "-o",
                made,
            )
        return made

    def linked(self, llvm: str, out: str, *args: str | Path, lld: bool = True) -> Path:
        linker = ["-fuse-ld=lld"] if lld else []
        self.run(llvm, "clang", "-fprofile-generate", *linker, *args, "-o", out)
        return self.folder / out


def read(path: Path) -> objects.BinaryFile:
    found = objects.read(path)
    assert found is not None
    return found


def only(path: Path) -> objects.BinaryPart:
    found = read(path)
    assert (len(found.parts), found.problems) == (1, ())
    return found.parts[0]


def runs(part: objects.BinaryPart) -> list[tuple[int, int]]:
    return [(r.record_size, r.records) for s in part.sections for r in infer.find(s).runs]


def raw(bench: Bench, llvm: str) -> int:
    version = bench.find(llvm).raw_version
    assert version is not None
    return version


def texts(part: objects.BinaryPart) -> list[bytes]:
    return [name for section in part.sections for name in section.names.text]


def mach_o(bench: Bench, *sources: Path) -> Path:
    out = bench.folder / f"lib{len(sources)}.dylib"
    bench.run("19", "ld64.lld", "-arch", "x86_64", "-platform_version", "macos", "11.0", "11.0",
              "-dylib", "-undefined", "dynamic_lookup", *sources, "-o", out)  # fmt: skip
    return out


def pe(bench: Bench, name: str, *args: str | Path) -> Path:
    out = bench.folder / name
    bench.run("19", "lld-link", "/dll", "/noentry", "/nodefaultlib", "/force:unresolved",
              f"/out:{out}", *args)  # fmt: skip
    return out


def pair(bench: Bench, triple: str) -> tuple[Path, Path, Path]:
    standing = STAND_IN.replace("VERSION", "10")
    return (
        bench.object("17", FOO, triple=triple),
        bench.object("23", MAIN, triple=triple),
        bench.object("19", standing, "-O1", triple=triple),
    )
