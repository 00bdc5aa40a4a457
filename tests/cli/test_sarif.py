"""`pgo-lab audit --format sarif`: valid by the format's schema, and never an empty run in doubt."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from nbsupport.base import files, settings
from nbsupport.lab import build
from nbsupport.lab.lab import Lab

#: A package whose file is the schema of SARIF 2.1.0, and the hash of its archive.
SCHEMA = "@microsoft/jest-sarif@1.0.0-beta.0"
SHA512 = "0357ce84f77a21ce620e4e05f583f0d6a341e1717eefe22f891ef197caf617a433424c7972963d2ec1a4dab1318852047016e3a559d29b058606e9004a4890f4"


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    """Return the schema, out of the package as it is pinned."""
    if shutil.which("npm") is None:
        pytest.skip("no npm, which brings the schema: apt-get install npm")

    def fetch(folder: Path) -> None:
        command = ["npm", "pack", "--silent", SCHEMA]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        archive = folder / done.stdout.split()[-1]
        assert hashlib.sha512(archive.read_bytes()).hexdigest() == SHA512
        with tarfile.open(archive) as packed:
            member = packed.extractfile("package/lib/schemas/sarif-2.1.0-rtm.5.json")
            assert member
            (folder / "schema.json").write_bytes(member.read())

    folder = files.once(settings.cache_dir() / "npm" / SHA512[:16], fetch)
    document: dict[str, Any] = json.loads((folder / "schema.json").read_text())
    return document


def sarif(schema: dict[str, Any], code: int, *args: str | Path, cwd: Path) -> dict[str, Any]:
    """Return the one run of an audit's log, which ends with `code`, after the schema's check."""
    command = [sys.executable, "-m", "nbsupport", "audit", *args, "--format", "sarif"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    assert (done.returncode, done.stderr) == (code, "")
    document = json.loads(done.stdout)
    jsonschema.validate(document, schema)
    (run,) = document["runs"]
    assert run["invocations"][0]["exitCode"] == code
    answer: dict[str, Any] = run
    return answer


def uri(location: dict[str, Any]) -> str:
    return str(location["physicalLocation"]["artifactLocation"]["uri"])


def test_a_mix_is_an_error_at_its_image_with_the_objects_beside_it(
    schema: dict[str, Any], target: Path
) -> None:
    run = sarif(schema, 1, "release", cwd=target)
    assert run["invocations"][0]["executionSuccessful"]
    for result in run["results"]:
        assert (result["ruleId"], result["level"]) == ("mixed-record-layouts", "error")
        assert "raw version 8" in result["message"]["text"]
        assert "-fno-profile-generate" in result["message"]["text"]
        assert any("build/" in uri(location) for location in result["relatedLocations"])
    assert "release/tiny" in [uri(result["locations"][0]) for result in run["results"]]
    assert len({json.dumps(result["partialFingerprints"]) for result in run["results"]}) == len(
        run["results"]
    )


@pytest.fixture
def mixed(lab: Lab, tmp_path: Path) -> Path:
    """Return a folder of two objects of one program, with names that need quoting."""
    for job, name in zip(build.jobs(lab.trial("cold", "19", "17")), ("a b.o", "%.o"), strict=False):
        shutil.copyfile(build.compiled(job, lab.cache), tmp_path / name)
    return tmp_path


def test_objects_without_an_image_are_one_result(schema: dict[str, Any], mixed: Path) -> None:
    run = sarif(schema, 1, ".", cwd=mixed)
    (result,) = run["results"]
    assert uri(result["locations"][0]) == "%25.o"
    elsewhere = mixed / "elsewhere"
    elsewhere.mkdir()
    (result,) = sarif(schema, 1, mixed, cwd=elsewhere)["results"]
    assert uri(result["locations"][0]) == f"file://{mixed}/%25.o"


def test_what_is_fine_has_no_result(schema: dict[str, Any], mixed: Path) -> None:
    (mixed / "%.o").unlink()
    assert sarif(schema, 0, ".", cwd=mixed)["results"] == []


@pytest.mark.parametrize("name", [b"cut.o", b"cut\xff\x1b.o"])
def test_what_was_not_read_is_a_warning(schema: dict[str, Any], mixed: Path, name: bytes) -> None:
    (mixed / "%.o").unlink()
    content = (mixed / "a b.o").read_bytes()
    path = mixed / os.fsdecode(name)
    path.write_bytes(content[: len(content) // 2])
    run = sarif(schema, 2, path, cwd=mixed)
    (result,) = run["results"]
    assert (result["ruleId"], result["level"]) == ("not-read", "warning")
    assert uri(result["locations"][0]).startswith("cut")
    assert not run["invocations"][0]["executionSuccessful"]
    assert run["invocations"][0]["toolExecutionNotifications"]


def test_an_archive_names_its_members(schema: dict[str, Any], mixed: Path) -> None:
    subprocess.run(["ar", "rcs", "both.a", "a b.o", "%.o"], cwd=mixed, check=True)
    (result,) = sarif(schema, 1, "both.a", cwd=mixed)["results"]
    (related,) = result["relatedLocations"]
    names = [name["fullyQualifiedName"] for name in related["logicalLocations"]]
    assert names == ["both.a(%.o)"]


def test_the_other_formats(target: Path) -> None:
    for args, why in [
        (("--format", "sarif", "--json"), "--json and --format are two answers"),
        (("--format", "xml"), "no such format"),
    ]:
        command = [sys.executable, "-m", "nbsupport", "audit", str(target), *args]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout) == (2, "")
        assert why in done.stderr
        assert done.stderr.count("\n") == 1
