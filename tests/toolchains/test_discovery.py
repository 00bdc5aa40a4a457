"""Toolchains are asked what they are; a name means one of them, or says which there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from nbsupport.base.errors import LabError, MissingError
from nbsupport.toolchains import discovery, probe, profdata
from nbsupport.toolchains.probe import Toolchain


def test_raw_versions_are_read_from_what_each_emits(toolchain: Callable[[str], Toolchain]) -> None:
    found = {major: toolchain(major).raw_version for major in ("17", "18", "19", "22", "23")}
    assert found == {"17": 8, "18": 9, "19": 10, "22": 10, "23": 11}


def test_raw_version_agrees_with_the_toolchains_own_header(
    toolchain: Callable[[str], Toolchain],
) -> None:
    for major in ("17", "18", "19", "22", "23"):
        one = toolchain(major)
        header = next(one.prefix.glob("lib/clang/*/include/profile/InstrProfData.inc"))
        match = re.search(r"#define INSTR_PROF_RAW_VERSION (\d+)", header.read_text())
        assert match
        assert int(match[1]) == one.raw_version


def test_each_is_described_whole(toolchain: Callable[[str], Toolchain]) -> None:
    one = toolchain("19@wheel")
    shown = json.loads(json.dumps(one.to_json()))
    assert list(shown) == [
        "name", "version", "raw_version", "provider", "prefix", "targets", "runtime",
        "llvm_profdata", "lldb",
    ]  # fmt: skip
    assert (shown["name"], shown["version"], shown["provider"]) == ("19@wheel", "19.1.7", "wheel")
    assert "x86-64" in shown["targets"]
    for tool in ("runtime", "llvm_profdata", "lldb"):
        assert Path(shown[tool]).is_file()


@pytest.mark.parametrize("name", ["99", "19@homebrew", "zig"])
def test_an_unknown_one_names_those_there_are(name: str, clang: Path) -> None:
    with pytest.raises(MissingError, match=rf"toolchain {name}: not found \(there are .*19@wheel"):
        discovery.find(name)


def test_one_that_can_be_installed_says_how(cache: Path) -> None:
    with pytest.raises(MissingError, match=r"pgo-lab toolchains --install 19\.1\.7"):
        discovery.find("19@wheel")


def test_a_path_is_asked_too(clang: Path, tmp_path: Path) -> None:
    assert discovery.find(str(clang)).name == "19@wheel"
    wrapper = tmp_path / "my-clang"
    wrapper.write_text(f'#!/bin/sh\nexec "{clang}" "$@"\n')
    wrapper.chmod(0o755)
    one = discovery.find(str(wrapper))
    assert (one.name, one.version, one.raw_version) == ("19@my-clang", "19.1.7", 10)


def test_a_path_that_is_no_compiler_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no compiler there"):
        discovery.find(str(tmp_path / "nothing"))
    with pytest.raises(LabError, match="does not say a clang version"):
        discovery.find("/bin/echo")


def test_gcc_is_known_and_does_not_instrument() -> None:
    if shutil.which("gcc") is None:
        pytest.skip("no gcc; apt-get install gcc")
    gcc = discovery.find("gcc")
    said = subprocess.run(["gcc", "-dumpfullversion"], check=True, capture_output=True, text=True)
    assert (gcc.kind, gcc.version, gcc.raw_version) == ("gcc", said.stdout.strip(), None)


def test_a_compiler_that_changed_is_asked_again(clang: Path, cache: Path, tmp_path: Path) -> None:
    wrapper = tmp_path / "clang"

    def version(text: str) -> str:
        wrapper.write_text(f"#!/bin/sh\necho 'clang version {text}'\n")
        wrapper.chmod(0o755)
        return probe.probe(wrapper, "path").version

    assert version("19.1.7") == "19.1.7"
    assert version("19.1.70") == "19.1.70"


def test_a_compiler_that_was_ended_is_asked_again(cache: Path, tmp_path: Path) -> None:
    wrapper = tmp_path / "clang"
    says = "case $1 in --version) echo 'clang version 19.1.7' ;; -fprofile-generate) {} ;; esac"
    wrapper.write_text(f"#!/bin/sh\n{says.format('kill -KILL $$')}\n")
    wrapper.chmod(0o755)
    with pytest.raises(LabError, match="it was ended before it answered; try again"):
        probe.probe(wrapper, "path")
    assert not (cache / "probes").exists()
    wrapper.write_text(f"#!/bin/sh\n{says.format('exit 1')}\n")  # it cannot instrument
    assert probe.probe(wrapper, "path").raw_version is None
    assert len(list((cache / "probes").iterdir())) == 1


def test_apples_shim_is_the_compiler_of_the_chosen_xcode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shim = Path("/usr/bin/env")  # a file of /usr/bin, in place of /usr/bin/clang
    plain = probe.identity(shim)
    xcrun = tmp_path / "xcrun"
    xcrun.write_text('#!/bin/sh\n[ "$*" = "-f env" ] && echo "$DEVELOPER_DIR/clang"\n')
    xcrun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    identities = {plain}
    for name in ("Xcode", "Xcode_16.2"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "clang").write_text(name)
        monkeypatch.setenv("DEVELOPER_DIR", str(folder))
        assert probe.identity(shim) == plain  # this is no Mac
        with monkeypatch.context() as mac:
            mac.setattr("sys.platform", "darwin")
            identities |= {probe.identity(shim), probe.identity(folder / "clang")}
    assert len(identities) == 3
    xcrun.write_text("#!/bin/sh\nexit 1\n")
    monkeypatch.setattr("sys.platform", "darwin")
    assert probe.identity(shim) == plain


def test_a_lost_tool_is_noticed(clang: Path, cache: Path) -> None:
    # The note of an earlier probe names a file that is gone: ask again.
    probe.probe(clang, "wheel")
    note = next((cache / "probes").iterdir())
    note.write_text(note.read_text().replace("llvm-profdata", "llvm-profdata-gone"))
    again = probe.probe(clang, "wheel")
    assert again.llvm_profdata
    assert again.llvm_profdata.is_file()


def test_the_users_rustc(toolchain: Callable[[str], Toolchain]) -> None:
    try:
        rustc = discovery.find_rustc("19")
    except MissingError as error:
        pytest.skip(str(error))
    assert (rustc.version, rustc.raw_version) == ("19.1.7", 10)
    assert rustc.runtime
    assert profdata.tool(rustc) == toolchain("19").llvm_profdata
    assert discovery.companion(rustc).name == "19@wheel"


def test_a_rustc_that_is_not_there_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="a rustc with LLVM 17: not found"):
        discovery.find_rustc("17")


def stand_in(folder: Path, clang: Path, says: str = "") -> Path:
    """Write a compiler that is clang 19, but may say that it is another."""
    folder.mkdir(parents=True)
    compiler = folder / "clang"
    other = f'[ "$1" = --version ] && {{ echo "{says}"; exit; }}\n' if says else ""
    compiler.write_text(f'#!/bin/sh\n{other}exec "{clang}" "$@"\n')
    compiler.chmod(0o755)
    return compiler


def test_condas_clang_is_found(
    clang: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = stand_in(tmp_path / "env" / "bin", clang)
    monkeypatch.setenv("CONDA_PREFIX", str(tmp_path / "env"))
    found = discovery.find("19@conda")
    assert (found.compiler, found.raw_version, found.lldb) == (compiler, 10, None)
    assert discovery.find("19").provider == "wheel"  # it comes after the wheel


def test_apples_numbers_are_not_llvms(
    clang: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A stand-in: nobody here has a Mac. What it emits decides, not what it is called.
    says = "Apple clang version 16.0.0 (clang-1600.0.26.6)"
    compiler = stand_in(tmp_path / "usr" / "bin", clang, says)
    found = probe.probe(compiler, "system")
    assert (found.name, found.version, found.raw_version) == ("16@apple", "16.0.0", 10)
    monkeypatch.setattr(discovery, "_candidates", lambda: [(compiler, "system")])
    with pytest.raises(MissingError):  # not LLVM 16
        discovery.find("16")


def test_one_that_does_not_start_is_left_out(
    clang: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = stand_in(tmp_path / "env" / "bin", clang)
    compiler.write_text("#!/nonexistent\n")
    monkeypatch.setenv("CONDA_PREFIX", str(tmp_path / "env"))
    assert "19@conda" not in [one.name for one in discovery.discover()]
