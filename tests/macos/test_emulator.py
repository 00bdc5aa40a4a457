"""Mach-O programs, executed on an emulated processor; what they come to is held against Linux."""

from __future__ import annotations

import importlib.util
import json
import random
import resource
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lief
import pytest

from nbsupport.base import settings
from nbsupport.base.errors import LabError, MissingError
from nbsupport.crash.crash import Crash
from nbsupport.macos import runtime, target
from nbsupport.macos.build import MachOProgram, build_program
from nbsupport.macos.emulator import Emulated, emulate
from nbsupport.macos.executable import SLIDE, load
from nbsupport.toolchains import Toolchain, profdata

ARCHS = ["arm64", "x86_64"]
#: The other LLVM of a mixed program: its records have 48 bytes, main's 64.
OTHER = {"arm64": "16", "x86_64": "17"}
PROGRAMS = Path(settings.data_dir(), "programs")
Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return what makes an executable out of a source in C, for macOS or for this machine."""

    def program(source: str, arch: Any = "arm64", *flags: str, link: tuple[str, ...] = ()) -> Path:
        text, built = tmp_path / "p.c", tmp_path / f"{arch}.o"
        text.write_text(source)
        llvm = target.compiler("x86_64" if arch == "native" else arch, "19")
        if arch == "native":
            runtime.run((llvm.compiler, "-O1", *flags, text, "-o", built, "-lm"), tmp_path)
            return built
        how = (*target.compile_flags(arch), "-O1", "-fPIC", *flags)
        runtime.run((llvm.compiler, *how, "-c", text, "-o", built), tmp_path)
        out = tmp_path / f"{arch}-program"
        line = (*target.link_flags(arch, fixups=True, dead_strip=False), *link)
        linker = target.linker(arch, llvm)
        runtime.run((linker, *line, built, target.system_library(), "-o", out), tmp_path)
        return out

    return program


def run(program: MachOProgram | Path, **how: Any) -> Emulated:
    if isinstance(program, MachOProgram):
        return emulate(program.path, program.main, **how)
    return emulate(program, target.compiler("x86_64", "19"), **how)


def crash(result: Emulated) -> Crash:
    assert result.outcome.crash, result.outcome.detail
    return result.outcome.crash


def functions(result: Emulated) -> list[str]:
    return [frame.function for frame in crash(result).frames]


# The experiments.


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("fixups", [True, False])
@pytest.mark.parametrize("name", ["cold", "hot"])
def test_a_uniform_program_has_the_profile_of_linux(
    arch: Any, fixups: bool, name: str, compiler: Toolchain, tmp_path: Path
) -> None:
    result = run(build_program(name, arch, "19", "19", fixups=fixups))
    assert (result.outcome.kind, result.outcome.exit_code) == ("ok", 0), result.outcome.detail
    sources = ("main.c", f"library_{name}.c")
    flags = ("-O1", "-fPIC", "-fprofile-generate", "-fuse-ld=lld", "-D_FORTIFY_SOURCE=0")
    native = tmp_path / "native"
    runtime.run((compiler.compiler, *flags, *sources, "-o", native), PROGRAMS)
    profile = tmp_path / "native.profraw"
    done = subprocess.run(
        [native], env={"LLVM_PROFILE_FILE": str(profile)}, capture_output=True, check=True
    )
    assert result.stdout.encode() == done.stdout
    assert result.stderr.encode() == done.stderr
    assert result.text == profdata.as_text(profdata.tool(compiler), profile).stdout
    assert result.outcome.profile.functions == result.text.count("# Func Hash") > 5


#: Where the runtime dies, by processor and by how it is optimized.
OFFSETS = {("arm64", "s"): 88, ("arm64", "2"): 96, ("arm64", "3"): 96}


@pytest.mark.parametrize("optimize", ["s", "2", "3"])
@pytest.mark.parametrize("arch", ARCHS)
def test_a_mixed_program_dies_where_the_record_says(arch: Any, optimize: Any) -> None:
    program = build_program("cold", arch, "19", OTHER[arch], optimize=optimize)
    assert program.foretell("cold").outcomes == {"crash"}
    result = run(program)
    dead = crash(result)
    assert (result.outcome.kind, dead.signal) == ("crash", "SIGSEGV")
    assert functions(result)[:2] == ["initializeValueProfRuntimeRecord", "writeOneValueProfData"]
    assert functions(result)[-2:] == ["__llvm_profile_write_file", "exit handlers"]
    assert dead.frames[0].offset == OFFSETS.get((arch, optimize), dead.frames[0].offset)
    # The first foreign record comes after main's three of 64 bytes; there the runtime finds Values.
    file = lief.MachO.parse(str(program.path))  # what is in it lives as long as it does
    binary = file.at(0) if file else None
    assert binary
    section = binary.get_section("__llvm_prf_data")
    assert section
    content = bytes(section.content)
    values = int.from_bytes(content[3 * 64 + 40 : 3 * 64 + 48], "little")
    assert values == 0x0001_0001_0000_0003  # a counter's number, and those of two kinds of sites
    assert dead.fault_address == result.reported == values
    assert dead.fault_address_from == "registers"
    assert dead.instruction and "[" in dead.instruction
    assert {frame.module for frame in dead.frames} == {"cold", "libSystem"}
    assert result.outcome.profile.bytes == 0  # what the runtime had written was buffered


@pytest.mark.parametrize("arch", ARCHS)
def test_foreign_first_is_a_version_mismatch(arch: Any) -> None:
    program = build_program("cold", arch, "19", OTHER[arch], order="foreign-first")
    result = run(program)
    assert result.outcome.kind == "version-mismatch"
    assert (result.outcome.exit_code, result.outcome.profile.bytes) == (0, 0)
    assert "expected 10, but get 8" in result.stderr


@pytest.mark.parametrize("arch", ARCHS)
def test_hot_value_sites_die_in_main(arch: Any) -> None:
    result = run(build_program("hot", arch, "19", OTHER[arch]))
    assert functions(result)[0] == "__llvm_profile_instrument_target"
    assert functions(result)[-2:] == ["main", "start of dyld"]
    assert result.stdout == ""  # what main prints comes later


@pytest.mark.parametrize("arch", ARCHS)
def test_mimalloc_runs_and_mixed_it_dies_at_exit(arch: Any) -> None:
    uniform = run(build_program("mimalloc-no-realloc", arch, "19", "19"))
    assert uniform.outcome.kind == "ok", uniform.outcome.detail
    assert uniform.outcome.profile.functions > 100
    mixed = run(build_program("mimalloc-no-realloc", arch, "19", OTHER[arch]))
    assert functions(mixed)[0] == "initializeValueProfRuntimeRecord"
    assert crash(mixed).fault_address in range(1, 0x1000)


def test_a_trial_takes_at_most_two_seconds_of_a_processor() -> None:
    program = build_program("cold", "arm64", "19", "16")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run(program)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2


# The laboratory: the same program prints the same here and on the emulated processor.

PRINTS = r"""
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
static _Thread_local int local = 41, zero;
static const char *words[] = {"a", "word"};
static void last(void) { printf("last\n"); }
static void first(void) { printf("first\n"); fflush(stdout); }
__attribute__((constructor)) static void before(void) { printf("before main\n"); }
int main(int count, char **arguments, char **environment) {
    char text[40] = "";
    atexit(last);
    atexit(first);
    printf("%d %s %d %d\n", count, words[1], ++local, zero++);
    printf("%5d|%-5d|%05x|%lu|%hhu|%c|%%|%.2s|%*d|%lld\n", -3, 3, 0xabc, 1ul << 40, 300, 'x', "text", 4, 7, -5ll);
    printf("%d %d %d %d %d %d %d %d %d\n", 1, 2, 3, 4, 5, 6, 7, 8, 9);
    printf("%d %s\n", snprintf(text, 6, "long %s", "text"), text);
    char *block = calloc(3, 5);
    memset(block, 'z', 14);
    block = realloc(block, 300000);
    printf("%s %zu %d %s\n", block, strlen(block), strcmp("a", "b") < 0, strchr("ab/cd", '/'));
    free(block);
    printf("%d %s\n", atoi(getenv("NUMBER")), strstr("a needle", "need"));
    FILE *file = fopen("file", "w+");
    fwrite("0123456789", 1, 10, file);
    fseek(file, 4, SEEK_SET);
    printf("%d %ld", (int)fread(text, 2, 3, file), ftell(file));
    printf(" %.6s %d\n", text, ftruncate(fileno(file), 3));
    fclose(file);
    file = fopen("file", "a");
    fputs("appended", file);
    fclose(file);
    int descriptor = open("file", O_RDWR | O_CREAT, 0666);
    file = fdopen(descriptor, "r+b");
    memset(text, 0, sizeof text);
    fread(text, 1, 39, file);
    printf("%s %d %d\n", text, fopen("none", "r") == NULL, errno == ENOENT);
    return 300;
}
"""


@pytest.mark.parametrize("arch", ARCHS)
def test_a_program_prints_what_it_prints_here(arch: str, make: Make, tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    native = make(PRINTS, "native")
    done = subprocess.run(
        [native], cwd=here, env={"NUMBER": " -17"}, capture_output=True, text=True, check=False
    )
    result = run(make(PRINTS, arch), environment={"NUMBER": " -17"})
    assert result.stdout == done.stdout
    assert result.stdout.splitlines()[0] == "before main"
    assert (result.outcome.kind, result.outcome.exit_code, done.returncode) == ("failed", 44, 44)


def test_the_processor_is_that_of_a_mac(make: Make) -> None:
    source = r"""
    #include <stdio.h>
    #include <string.h>
    int main(void) {
        static long number = 5;
        static char text[] = "text";
        unsigned long thread;
        __asm__("mrs %0, tpidrro_el0" : "=r"(thread));
        long *tagged = (long *)((unsigned long)&number | 0xabul << 56);
        __asm__ volatile("ldadd %0, xzr, [%1]" : : "r"(2l), "r"(tagged) : "memory");
        char *name = text + (0x12ul << 56);
        printf("%ld %d %s %d", *tagged, ((unsigned long *)thread)[0] == thread, name, (int)strlen(name));
        printf(" %lx", (unsigned long)main & 0xfff000);
        return 0;
    }
    """
    program = make(source, "arm64", "-march=armv8.1-a")
    moved = (load(program).main & 0xFFF000) >> 0
    assert SLIDE and moved != (load(program).main - SLIDE) & 0xFFF000
    assert run(program).stdout == f"7 1 text 4 {moved:x}"


def test_the_thread_register_of_x86_64_points_to_itself(make: Make) -> None:
    source = '#include <stdio.h>\nint main(void) { void **p; __asm__("mov %%gs:0, %0" : "=r"(p)); printf("%d", p == *p); }'
    assert run(make(source, "x86_64")).stdout == "1"


# Ends of programs.

DEATHS = {
    "SIGSEGV": "return *(volatile int *)16;",
    "SIGBUS": "*(volatile char *)main = 0;",  # what cannot be written
    "SIGABRT": "abort();",
    "SIGTRAP": "__builtin_debugtrap();",
    "SIGILL": '__asm__(".long 0xb0f");',  # ud2, udf
}


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("signal", DEATHS)
def test_a_program_dies_of_a_signal(arch: str, signal: str, make: Make) -> None:
    result = run(
        make(f"#include <stdlib.h>\nint main(void) {{ {DEATHS[signal]} return 0; }}", arch)
    )
    assert (result.outcome.kind, result.outcome.signal) == ("crash", signal)
    expected = ["abort", "main"] if signal == "SIGABRT" else ["main", "start of dyld"]
    assert functions(result)[:2] == expected
    if signal == "SIGSEGV":
        assert crash(result).fault_address == result.reported == 16


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize(
    ("body", "address", "frames"),
    [
        ("strcpy_is_not = strlen((char *)24); return 0;", 24, ["strlen", "main"]),
        ("((void (*)(void))(strcpy_is_not + 40))(); return 0;", 40, ["", "main"]),
        ("memcpy(malloc(16), (char *)main + (1ul << 40), 8); return 0;", None, ["memcpy", "main"]),
    ],
)
def test_a_fault_of_what_stands_in_is_the_programs(
    arch: str, body: str, address: int | None, frames: list[str], make: Make
) -> None:
    source = f"#include <stdlib.h>\n#include <string.h>\nvolatile long strcpy_is_not;\nint main(void) {{ {body} }}"
    result = run(make(source, arch, "-fno-builtin"))
    assert functions(result)[:2] == frames
    assert address in (None, crash(result).fault_address)


def test_endless_recursion_runs_off_the_stack(make: Make) -> None:
    source = "int f(volatile int *p) { volatile int q = *p; return f(&q) + q; } int main(int n, char **v) { return f(&n); }"
    result = run(make(source))
    assert result.outcome.signal == "SIGSEGV"
    assert functions(result) == ["f"] * 64


def test_an_endless_loop_ends_at_the_instruction_limit(make: Make) -> None:
    result = run(make("volatile int n; int main(void) { for (;;) n++; }"), instructions=10_000)
    assert result.outcome.kind == "limit"
    assert result.outcome.detail == "stopped after 10,000 instructions"


def test_time_memory_and_output_are_limited(make: Make) -> None:
    program = make('#include <stdio.h>\nint main(void) { for (;;) puts("again and again"); }')
    limits = settings.Limits(seconds=60, output=10_000)
    result = run(program, limits=limits, instructions=10**12)
    assert result.outcome.detail == "stopped at the output limit"
    assert len(result.stdout) == 10_000
    quiet = make("volatile int n; int main(void) { for (;;) n++; }")
    slow = run(quiet, limits=settings.Limits(seconds=3), instructions=10**12)
    assert slow.outcome.detail == "stopped at the time limit"
    greedy = make(
        "#include <stdlib.h>\n#include <string.h>\n"
        "int main(void) { for (;;) memset(malloc(1 << 26), 1, 1 << 26); }",
        "arm64",
        "-fno-builtin",
    )
    large = run(greedy, limits=settings.Limits(seconds=60, memory=512 << 20))
    assert large.outcome.detail == "stopped at the memory limit"


# What is not emulated, or not there: one line.


@pytest.mark.parametrize("name", ["unicorn", "capstone", "lief"])
def test_without_the_extra_it_says_how_to_get_it(
    name: str, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = make("int main(void) { return 0; }")
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == name else find(n))
    with pytest.raises(MissingError, match=rf"{name} is not installed; pip install .*\[macho\]"):
        run(program)


REFUSED = {
    "it calls pthread_create, which is not emulated": "void pthread_create(void); int main(void) { pthread_create(); }",
    "which is outside its folder": '#include <stdio.h>\nint main(void) { return fopen("/etc/passwd", "r") != 0; }',
    "it asks for ../result, which is outside": '#include <stdio.h>\nint main(void) { return fopen("../result", "w") != 0; }',
    "calls the kernel by itself": 'int main(void) { __asm__("svc #0x80"); return 0; }',
    "it reads optarg of libSystem": "extern char *optarg; int main(void) { return optarg[0]; }",
    "it prints %f: not emulated": '#include <stdio.h>\nint main(void) { printf("%f", 1.0); }',
}


@pytest.mark.parametrize("why", REFUSED)
def test_what_is_not_emulated_ends_the_run_with_its_name(why: str, make: Make) -> None:
    with pytest.raises(LabError) as caught:
        run(make(REFUSED[why]))
    assert why in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


def test_files_that_are_no_plain_programs_are_refused(make: Make, tmp_path: Path) -> None:
    def refused(path: Path) -> str:
        with pytest.raises(LabError) as caught:
            run(path)
        (line,) = str(caught.value).splitlines()
        return line

    main = "int main(void) { return 0; }"
    library = make(
        "int f(void) { return 0; }", "arm64", link=("-dylib", "-install_name", "/l.dylib")
    )
    library = library.rename(tmp_path / "l.dylib")
    assert "of type DYLIB" in refused(library)
    needs = make("int f(void); int main(void) { return f(); }", "arm64", link=(str(library),))
    assert "it needs /l.dylib" in refused(needs)
    section = '__attribute__((used, section("__DATA,__objc_data"))) static int n; '
    assert "Objective-C" in refused(make(section + main))
    assert "of type OBJECT" in refused(tmp_path / "arm64.o")
    parts = [make(main, "arm64"), make(main, "x86_64")]
    fat = tmp_path / "fat"
    fat.write_bytes(universal(parts))
    assert "a fat file, with 2 programs" in refused(fat)
    for content in (b"", b"text", Path(sys.executable).read_bytes()[:4096]):
        fat.write_bytes(content)
        assert "not a Mach-O file, or a corrupt one" in refused(fat)
    assert "corrupt" in refused(tmp_path / "none")


def universal(parts: list[Path]) -> bytes:
    """Return a fat file, as lipo makes one. Source: mach-o/fat.h: all its numbers are big-endian."""
    place, rows, rest = 1 << 14, b"", b""
    for part in parts:
        content = part.read_bytes()
        cpu = struct.unpack_from("<2I", content, 4)
        rows += struct.pack(">5I", *cpu, place + len(rest), len(content), 14)
        rest += content.ljust(-(-len(content) // (1 << 14)) << 14, b"\0")
    return (struct.pack(">2I", 0xCAFEBABE, len(parts)) + rows).ljust(place, b"\0") + rest


@pytest.mark.parametrize("arch", ARCHS)
def test_a_corrupt_program_is_contained(arch: str, make: Make, tmp_path: Path) -> None:
    whole = make(PRINTS, arch).read_bytes()
    broken = tmp_path / "broken"
    chance = random.Random(22)  # noqa: S311 - the same bytes each time
    lines = set()
    for content in (whole[:0x300], *flipped(whole, chance)):
        broken.write_bytes(content)
        try:
            result = run(broken, instructions=10**6)
            assert result.outcome.kind in ("crash", "limit", "failed", "no-profile")
        except LabError as error:
            (line,) = str(error).splitlines()
            lines.add(line.partition(":")[0])
            assert "Traceback" not in line
    assert lines


def flipped(whole: bytes, chance: random.Random) -> Iterator[bytes]:
    """Yield the program with bytes of its header and commands replaced."""
    for _ in range(12):
        content = bytearray(whole)
        for _ in range(4):
            content[chance.randrange(16, 0x600)] = chance.randrange(256)
        yield bytes(content)


def test_the_child_says_in_json_how_it_ended(make: Make, tmp_path: Path) -> None:
    result = tmp_path / "result"
    words = [make("int main(void) { return 7; }"), tmp_path, result, "1000", "{}"]
    module = "nbsupport.macos.child"
    subprocess.run([sys.executable, "-m", module, *map(str, words)], check=True)
    assert json.loads(result.read_text()) == {"exit_code": 7}
