"""What the tests of macOS programs need: compilers for it, and the emulator."""

from __future__ import annotations

import pytest

from nbsupport.base.errors import MissingError
from nbsupport.macos import target
from nbsupport.toolchains import Toolchain, download


@pytest.fixture(autouse=True, scope="module")
def compiler() -> Toolchain:
    """Install what compiles for macOS, or skip all of this; return LLVM 19 for x86-64."""
    pytest.importorskip("unicorn")
    try:
        download.install("macho")
        target.compiler("x86_64", "17")
        return target.compiler("x86_64", "19")
    except MissingError as error:
        pytest.skip(str(error))
