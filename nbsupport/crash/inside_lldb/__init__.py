"""What runs in LLDB's own Python: nothing here imports nbsupport.

LLDB imports this folder as a package (``command script import``) and calls
`__lldb_init_module`. It keeps to the part of LLDB's Python interface that LLDB 14 to 23 and
Apple's share, and to Python 3.8, because the Python is the one that LLDB was built with. The
lab imports protocol.py alone, which needs no LLDB.
"""

from __future__ import annotations

from typing import Any


def __lldb_init_module(_debugger: Any, _session: Any) -> None:
    from . import agent  # noqa: PLC0415 - it imports lldb, which the lab has not

    agent.serve()
