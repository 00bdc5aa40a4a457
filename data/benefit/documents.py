"""Loads and dumps a document with orjson: SEED RECORDS ROUNDS. One record is about 700 bytes.

Prints its size, a checksum of what was dumped, and the seconds of the fastest round (the clock on
the wall: that of the processor may tick in 4 ms). Python's own json checks what was dumped.
"""

import hashlib
import json
import random
import sys
import time

import orjson

WORDS = ["session", "zurück", 'logon "remote"', "kernel", "C:\\Windows", "日本語", "é😀", "a\tb"]
seed, records, rounds = map(int, sys.argv[1:])
source = random.Random(seed)  # noqa: S311 - the same each time


def value(depth):
    """Return a value of any kind; below depth 3, neither a list nor an object."""
    kind = source.random()
    if kind < 0.15 and depth < 3:
        return {source.choice(WORDS): value(depth + 1) for _ in range(4)}
    if kind < 0.25 and depth < 3:
        return [value(depth + 1) for _ in range(source.randrange(6))]
    if kind < 0.6:
        return " ".join(source.choices(WORDS, k=source.randrange(1, 9)))
    if kind < 0.8:
        return source.randrange(-(10 ** source.randrange(1, 18)), 10**9)
    return source.choice([None, True, False, source.gauss(0, 1e6), 1 / (1 + source.random())])


records_of_a_kind = [{f"field{k}": value(0) for k in range(8)} for _ in range(500)]
document = [{"id": n, **records_of_a_kind[n % 500]} for n in range(records)]
text = json.dumps(document, ensure_ascii=False).encode()
dumped = orjson.dumps(orjson.loads(text))
assert json.loads(dumped) == document
times = []
for _ in range(rounds):
    start = time.perf_counter()
    orjson.dumps(orjson.loads(text))
    times.append(time.perf_counter() - start)
checksum = hashlib.sha256(dumped).hexdigest()[:16]
print(f"bytes {len(text)}\nchecksum {checksum}\nseconds {min(times, default=0):.6f}")  # noqa: T201
