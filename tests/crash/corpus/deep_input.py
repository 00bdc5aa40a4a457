"""Writes a Rust program that is nested too deep for rustc: `deep_input.py FILE`"""

from __future__ import annotations

import sys
from pathlib import Path

DEPTH = 200_000
Path(sys.argv[1]).write_text("fn main() { let _ = " + "-" * DEPTH + "1i64; }\n")
