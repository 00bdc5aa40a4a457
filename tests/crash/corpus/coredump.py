"""For gdb: prints a core's stack in coredumpctl's form, as its own daemon does not run everywhere.

Form: coredumpctl(1) of systemd 252, and the message that systemd-coredump writes.
"""

from __future__ import annotations

import gdb  # type: ignore[import-untyped]

HEAD = """\
           PID: {pid} (app)
           UID: 1000 (user)
           GID: 1000 (user)
        Signal: {number} ({name})
     Timestamp: Sun 2026-11-29 10:17:23 UTC (2min 4s ago)
  Command Line: ./app
    Executable: /home/user/app/app
 Control Group: /user.slice/user-1000.slice/session-2.scope
          Unit: session-2.scope
         Slice: user-1000.slice
       Session: 2
     Owner UID: 1000 (user)
      Hostname: machine
       Storage: /var/lib/systemd/coredump/core.app.1000.zst (present)
  Size on Disk: 33.4K
       Message: Process {pid} (app) of user 1000 dumped core.
                """
SIGNALS = {4: "ILL", 6: "ABRT", 7: "BUS", 8: "FPE", 11: "SEGV"}


def mappings() -> list[tuple[int, int, str]]:
    """Return where each file begins and ends."""
    rows = [row.split() for row in gdb.execute("info proc mappings", to_string=True).splitlines()]
    return [
        (int(row[0], 16), int(row[1], 16), row[-1])
        for row in rows
        if len(row) == 5 and row[0].startswith("0x")
    ]


def frames() -> list[str]:
    """Return the lines of the selected thread's frames, inlined ones aside."""
    lines: list[str] = []
    files = mappings()
    frame = gdb.newest_frame()
    while frame:
        if frame.type() != gdb.INLINE_FRAME:
            pc = frame.pc()
            file = next((name for low, high, name in files if low <= pc < high), "n/a")
            base = min((low for low, _, name in files if name == file), default=0)
            symbol = gdb.execute(f"info symbol {pc - bool(lines):#x}", to_string=True)
            function = "n/a" if symbol.startswith("No symbol") else symbol.split()[0]
            place = f"{file.rpartition('/')[2]} + {pc - base:#x}" if base else "n/a + 0x0"
            lines.append(f"#{len(lines):<2} 0x{pc:016x} {function} ({place})")
        frame = frame.older()
    return lines


gdb.execute("set print demangle off")  # systemd prints the names as they are in the file
number = int(gdb.parse_and_eval("$_siginfo.si_signo"))
text = HEAD.format(pid=gdb.selected_thread().ptid[1], number=number, name=SIGNALS[number])
crashed = gdb.selected_thread()
for thread in sorted(gdb.selected_inferior().threads(), key=lambda thread: thread is not crashed):
    thread.switch()
    text += "\n".join(["", f"Stack trace of thread {thread.ptid[1]}:", *frames()]).replace(
        "\n", "\n" + 16 * " "
    )
    text += "\n"
gdb.write(text + 16 * " " + "ELF object binary architecture: AMD x86-64\n")
