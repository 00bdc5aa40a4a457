"""What a program of macOS costs on the emulated processor; part of `make bench`."""

from __future__ import annotations

from nbsupport.lab.lab import Lab
from nbsupport.macos import build_program, emulate
from tests.bench.row import Place, Row, Sample, seconds


def trial(place: Place) -> tuple[Sample, Sample]:
    program = build_program("cold", "arm64", "19", "16")
    lab = place.stack.enter_context(Lab())
    native = lab.trial("cold", "19", "17")
    lab.run(native)
    return (
        lambda: seconds(lambda: emulate(program.path, program.main)),
        lambda: seconds(lambda: lab.run(native)),
    )


ROWS = (Row("macos.trial", "an emulated trial that crashes", "a native one, warm", "2 s", trial),)
