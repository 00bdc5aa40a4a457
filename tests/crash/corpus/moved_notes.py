"""Moves what a program's header says of its notes' place in the file: `moved_notes.py PROGRAM`

The notes keep their place in memory. Programs may have such headers (llvm-project issue 114605).
"""

from __future__ import annotations

import struct
import sys
from pathlib import Path

PT_NOTE = 4
path = Path(sys.argv[1])
image = bytearray(path.read_bytes())
(start,) = struct.unpack_from("<Q", image, 32)  # e_phoff
size, count = struct.unpack_from("<HH", image, 54)  # e_phentsize, e_phnum
for header in range(start, start + size * count, size):
    (kind,) = struct.unpack_from("<I", image, header)
    if kind == PT_NOTE:
        (offset,) = struct.unpack_from("<Q", image, header + 8)
        struct.pack_into("<Q", image, header + 8, offset + 0x10000000)
path.write_bytes(image)
