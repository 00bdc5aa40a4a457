"""What `pgo-lab build` costs beside the commands of cargo that it runs; part of `make bench`."""

from __future__ import annotations

import shutil

from nbsupport.toolchains import discovery, profdata
from tests.bench.row import PGO_LAB, Place, Row, Sample, run, seconds
from tests.support import cargo_projects

#: What people type to leave the C code out, for both builds.
LEFT_OUT = "-fno-profile-generate -fno-profile-use"
TRAINING = ("1", "2000", "20")


def build(place: Place) -> tuple[Sample, Sample]:
    rustc = discovery.find_rustc("19")
    folder = place.work / "project"
    vendored = f'[source.v]\ndirectory = "{cargo_projects.crates("1.6.0")}"\n'
    source = f'[source.crates-io]\nreplace-with = "v"\n{vendored}'
    cargo_projects.copy_case("workload-system", folder, source)
    env = cargo_projects.case_environment("workload-system", rustc)
    project = cargo_projects.CargoProject(folder, rustc, env)
    cargo_projects.lock(project)
    clean = ["env", "-i", *(f"{key}={value}" for key, value in project.environment().items())]
    arguments = ("--offline", "--bin", "workload")

    def ours() -> float:
        shutil.rmtree(folder / "target", ignore_errors=True)
        train = " ".join(("{}", *TRAINING))
        command = (*clean, PGO_LAB, "build", "--train", train, "--", *arguments)
        return seconds(lambda: run(*command, cwd=folder))

    def theirs() -> float:
        out = folder / "target"
        shutil.rmtree(out, ignore_errors=True)
        target = project.triple
        cargo = (project.cargo, "build", "--release", "--target", target, *arguments)
        guarded = [f"{name}={LEFT_OUT}" for name in ("CFLAGS", "CXXFLAGS")]

        def typed() -> None:
            for kind, flag in (("generate", out / "raw"), ("use", out / "merged")):
                flags = f"RUSTFLAGS=-Cprofile-{kind}={flag}"
                run(*clean, *guarded, flags, *cargo, "--target-dir", out / kind, cwd=folder)
                if kind == "generate":
                    run(out / kind / target / "release" / "workload", *TRAINING)
                    run(profdata.tool(rustc), "merge", "-o", out / "merged", out / "raw")

        return seconds(typed)

    return ours, theirs


ROWS = (
    Row("pipeline.build", "a cargo project with C built for PGO, by one command",
        "the same commands of cargo and llvm-profdata, typed", "1.05 times", build, runs=3,
        once=False),
)  # fmt: skip
