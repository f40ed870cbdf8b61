"""Processes as /proc shows them: who belongs to a program, what CPU time and memory it has taken, how busy a core is.

Belongs here: reading /proc (proc(5)). Never here: starting or ending anything.
"""

import os
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

_US_PER_TICK = 1e6 / os.sysconf("SC_CLK_TCK")


class Process(Struct, frozen=True):
    """One process; `started` tells a pid that is used again from the one before (ticks since boot).

    `cpu_us` is user + system time in µs, that of children that have ended and were waited for included.
    """

    pid: int
    parent: int
    session: int
    started: int
    cpu_us: float
    command: str

    def is_running(self) -> bool:
        """Tell whether this very process still runs; a zombie does not."""
        found = _read(self.pid)
        return found is not None and found.started == self.started


def tree(root: int) -> list[Process]:
    """Return the running processes of a program: `root`, all below it, and all of the session that it leads.

    The session catches those whose parent has ended before them.
    """
    running = {found.pid: found for entry in Path("/proc").glob("[0-9]*") if (found := _read(int(entry.name)))}
    members = {pid for pid, process in running.items() if root in (pid, process.session)}
    while more := {pid for pid, process in running.items() if process.parent in members} - members:
        members |= more
    return [running[pid] for pid in sorted(members)]


def cpu_us(processes: Iterable[Process]) -> float:
    """Return the CPU time of processes so far, in µs."""
    return sum(process.cpu_us for process in processes)


def resident_bytes(pid: int) -> int:
    """Return how much memory a process has in RAM, in bytes."""
    return _status(pid, "VmRSS") * 1024


def open_files(pid: int) -> int:
    """Return how many file descriptors a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - only the count is wanted, thousands of times


def threads(pid: int) -> int:
    """Return how many threads a process has."""
    return _status(pid, "Threads")


def core_busy_us(core: int) -> float:
    """Return the time that a core has spent on programs since boot, in µs; time stolen by the host counts, too.

    Interrupts are left out: those of the measured traffic itself belong to no process.
    """
    for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
        name, *values = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _iowait, _irq, _softirq, steal = (int(value) for value in values[:8])
            return (user + nice + system + steal) * _US_PER_TICK
    raise ValueError(f"this machine has no core {core}")


def _status(pid: int, field: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))


def _read(pid: int) -> Process | None:
    folder = Path(f"/proc/{pid}")
    try:
        stat = (folder / "stat").read_text(encoding="utf-8", errors="replace")
        command = (folder / "cmdline").read_bytes()
    except OSError:
        return None  # it ended between the two
    state, parent, _group, session, *rest = stat.rpartition(")")[2].split()
    if state in "ZX":
        return None
    # user, system and the same two of waited-for children are fields 14-17, the start is field 22; `rest` begins at 7.
    ticks = sum(int(value) for value in rest[7:11])
    words = command.replace(b"\0", b" ").decode(errors="replace").strip()
    return Process(pid, int(parent), int(session), int(rest[15]), ticks * _US_PER_TICK, words)
