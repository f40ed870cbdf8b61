"""Programs on a core of their own, started for a measurement and ended by their process ids, whatever happens.

Belongs here: starting, watching and ending. Never here: what a program is configured to do.

A program leads a session of its own, so a Ctrl-C on the terminal reaches only the measurement, which then ends what it
has started; and the kernel sends the program a SIGTERM should the measurement itself be killed (setpriv(1)).
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import FrameType, TracebackType
from typing import Self

from loadtests.bench.proctree import Process, tree

_END_SECONDS = 15.0


class ProgramFailed(Exception):
    """A program ended or does not do what it was started for; the message says what it last wrote."""


class Program:
    """One running program with everything that it starts itself."""

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        cores: Sequence[int],
        variables: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> None:
        """Start `command` on `cores`, its output in the file `log`.

        `variables` come on top of the present environment, of which only Pointsman's own are left out.
        """
        self.log = log
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("POINTSMAN_")}
        placed = ["setpriv", "--pdeathsig", "TERM", "taskset", "-c", ",".join(map(str, cores))]
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*placed, *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=inherited | dict(variables or {}),
                cwd=folder,
                start_new_session=True,
            )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def processes(self) -> list[Process]:
        """Return its running processes."""
        return tree(self.pid)

    def wait_until(self, condition: Callable[[], bool], what: str, seconds: float) -> None:
        """Wait for a condition.

        Raises:
            ProgramFailed: it ended, or the condition does not hold within `seconds`.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if self._process.poll() is not None:
                raise ProgramFailed(f"ended with {self._process.returncode}: {self.last_words()}")
            if time.monotonic() > deadline:
                raise ProgramFailed(f"not within {seconds:.0f} s: {what}; its log ends: {self.last_words()}")
            time.sleep(0.05)

    def last_words(self) -> str:
        """Return the last line of its log that says something."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").splitlines()
        return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "nothing")

    def freeze(self) -> None:
        """Have it stop where it is, with every connection open (SIGSTOP)."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Have it go on."""
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it without a chance to tidy up."""
        _send(self.processes(), signal.SIGKILL, 5.0)
        self._process.wait()

    def stop(self) -> None:
        """End it and everything that it has started: asked first, then killed."""
        members = self.processes()
        self._process.terminate()
        self.thaw()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)
        left = {process.pid: process for process in (*members, *self.processes())}.values()
        for number, seconds in ((signal.SIGTERM, 2.0), (signal.SIGKILL, 5.0)):
            _send([process for process in left if process.is_running()], number, seconds)
        self._process.wait()


def _send(processes: Sequence[Process], number: int, seconds: float) -> None:
    for process in processes:
        with suppress(ProcessLookupError):
            os.kill(process.pid, number)
    deadline = time.monotonic() + seconds
    while any(process.is_running() for process in processes) and time.monotonic() < deadline:
        time.sleep(0.02)


def free_port() -> int:
    """Return a port of loopback that nothing listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def two_cores() -> tuple[int, int]:
    """Return the core for what is measured and the core for the load, the first two that this process may use."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        sys.exit("a measurement needs two cores, one for what is measured and one for the load")
    return cores[0], cores[1]


def end_in_order() -> None:
    """Let SIGTERM and SIGHUP end the measurement as Ctrl-C does: through every `finally`."""

    def stop(number: int, _frame: FrameType | None) -> None:
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
