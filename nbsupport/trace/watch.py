"""What a trace watches: the functions by group, and what their arguments mean.

Names are those of the profile runtime of LLVM 14 to 23 (InstrProfiling.h,
InstrProfilingFile.c, InstrProfilingWriter.c, InstrProfilingValue.c), of C libraries, and of
the allocators' sources (mimalloc: init.c; jemalloc: jemalloc.c).
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from nbsupport.crash.inside_lldb.protocol import GroupPlan, TraceEvent, TracePlan
from nbsupport.trace.live_records import address_read
from nbsupport.trace.memory import PAST, Memory, plain

#: Calls of one function that are seen one by one; what follows runs at full speed.
MOST, MOST_SITES, MOST_RECORDS, MOST_MEMORY = 64, 8, 24, 256
#: Events of one run; from then on each function is seen once more at most.
MOST_EVENTS = 20_000

_RUNTIME = """
    __llvm_profile_initialize __llvm_profile_initialize_file __llvm_profile_set_filename
    __llvm_profile_register_write_file_atexit __llvm_profile_dump __llvm_profile_reset_counters
    __llvm_profile_write_buffer __llvm_profile_set_file_object __llvm_profile_merge_from_buffer
    __llvm_profile_get_num_data __llvm_profile_get_num_counters
    __llvm_profile_write_file writeFile lprofWriteData
"""
_SITES = """
    __llvm_profile_instrument_target __llvm_profile_instrument_memop
    __llvm_profile_instrument_range
"""
_FILE = "fopen fopen64 open open64 fdopen ftruncate fcntl flock fclose"
_ALLOCATE = "malloc calloc realloc posix_memalign aligned_alloc strdup free"
_OWN = """
    mi_malloc mi_calloc mi_realloc mi_free mi_malloc_aligned mi_zalloc mi_strdup
    je_malloc je_calloc je_realloc je_free lab_malloc lab_realloc lab_free
"""
_LIFE = """
    mi_process_init _mi_process_init mi_process_load mi_process_done _mi_process_done
    mi_thread_init mi_thread_done mi_collect mi_heap_destroy mi_heap_collect
    malloc_init malloc_init_hard jemalloc_constructor je_jemalloc_prefork je_malloc_stats_print
"""

_REGISTERED = "__cxa_atexit atexit on_exit __cxa_thread_atexit_impl"
_PROCESS = "exit _exit _Exit quick_exit fork vfork execve posix_spawn"
_RECORDS = "writeOneValueProfData initializeValueProfRuntimeRecord"

_GROUPS = (
    GroupPlan("start", ["__libc_start_main"], 1),
    GroupPlan("registered", _REGISTERED.split(), MOST),
    GroupPlan("process", _PROCESS.split(), MOST),
    GroupPlan("runtime", _RUNTIME.split(), MOST, scope=True, back=True),
    GroupPlan("write", ["lprofWriteDataImpl"], MOST, scope=True, back=True),
    GroupPlan("value site", _SITES.split(), MOST_SITES, scope=True),
    GroupPlan("record", _RECORDS.split(), MOST_RECORDS),
    GroupPlan("allocator", [*_ALLOCATE.split(), *_OWN.split()], MOST_MEMORY, gated=True),
    GroupPlan("allocator's life", _LIFE.split(), MOST),
    GroupPlan("memory", ["munmap", "mprotect", "madvise"], MOST_MEMORY),
    GroupPlan("memory", ["mmap", "mmap64"], MOST_MEMORY, back=True),
    GroupPlan("file", _FILE.split(), MOST, gated=True),
)
#: Arguments that are text, by function: which of them.
_STRINGS = {
    **dict.fromkeys(("fopen", "fopen64"), (0, 1)),
    **dict.fromkeys(("open", "open64", "strdup", "__llvm_profile_set_filename"), (0,)),
}
#: Which argument is a size in bytes; who frees its first argument.
_SIZED = {
    **dict.fromkeys(("malloc", "mi_malloc", "je_malloc", "lab_malloc", "mi_zalloc"), 0),
    **dict.fromkeys(("calloc", "realloc", "aligned_alloc", "mmap", "mmap64", "mi_realloc"), 1),
}
_FREED = ("free", "mi_free", "je_free", "lab_free")


def plan(copies: Mapping[str, Path]) -> TracePlan:
    """Return what LLDB's side is to watch; `copies`: where it copies which section of memory."""
    # Elsewhere the C library's __libc_start_main tells where main is, even without symbols.
    darwin = [GroupPlan("main", ["main"], 1, back=True)] if sys.platform == "darwin" else []
    return {
        "watcher": "trace",
        "groups": [vars(group) for group in (*_GROUPS, *darwin)],
        "strings": _STRINGS,
        "most": MOST_EVENTS,
        "copies": {name: str(path) for name, path in copies.items()},
    }


def what(event: TraceEvent, name: Callable[[int], str], owns: Memory) -> str:
    """Say in words what an event's arguments mean.

    `name` gives the function whose record is at an address.
    """
    kind, function, arguments = event.kind, event.function, event.arguments
    if kind == "registered":
        return plain(event.handler[0]) or event.handler[2]
    if kind == "returned":
        value = event.value
        return f"returned {value if value < 1 << 32 else owns.owner(value).removeprefix(PAST)}"
    if kind in ("value site", "record"):
        words = f"record of {name(address_read(event)) or 'no function'}"
        if kind == "value site":
            words += f", site {arguments[2]}, value {arguments[0]:#x}"
        return words
    if kind == "write":
        records, counters = arguments[2] - arguments[1], arguments[4] - arguments[3]
        return f"{records} bytes of records, {counters} of counters"
    if function in _SIZED:
        return f"{arguments[_SIZED[function]]} bytes"
    if function in _FREED:
        place = arguments[0]
        return f"{owns.owner(place)}{owns.profile(place, 1)}" if place else "null"
    if function in ("munmap", "mprotect", "madvise"):
        place, size, *_ = arguments
        return f"{size} bytes of: {owns.owner(place).removeprefix(PAST)}{owns.profile(place, size)}"
    if kind == "ended":
        return f"exit code {event.value}"
    return ", ".join(event.text)
