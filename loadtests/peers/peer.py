"""The seam: what the comparison asks of a program, and what it gets when it has started one.

Belongs here: the shapes. Never here: any one program.
"""

from pathlib import Path
from typing import Literal, Protocol

from msgspec import Struct

from loadtests.bench.asking import Load, complaint_of
from loadtests.bench.proctree import cpu_us
from loadtests.bench.programs import Program

Task = Literal["forward", "in process", "chat"]
"""`forward`: OIP requests to a backend. `in process`: the digits model. `chat`: forwarding for gateways of language
models, which take nothing but chat completions."""

START_SECONDS = 120.0


class PeerUnavailable(Exception):
    """A peer does not install or does not start here; the message says why and stands in the table."""


class Place(Struct, frozen=True):
    """Where a program runs: its files, its core, the installed peers, and the backend that it may forward to."""

    folder: Path
    core: int
    cache: Path
    backend_url: str


class Cpu(Struct, frozen=True):
    """CPU time so far in µs: of the whole process tree, and of the data workers alone where there are such."""

    whole: float
    workers: float | None = None


class Served:
    """A program that answers at `url`."""

    def __init__(self, url: str, program: Program, load: Load) -> None:
        self.url, self.program, self.load = url, program, load

    def wait_until_right(self) -> None:
        """Wait until it answers the first request of its load rightly.

        Raises:
            ProgramFailed: it does not.
        """
        self.program.wait_until(
            lambda: not complaint_of(self.url, self.load, 0), "its first answer is right", START_SECONDS
        )

    def cpu(self) -> Cpu:
        """Return the CPU time that it has taken."""
        return Cpu(cpu_us(self.program.processes()))

    def settle(self) -> None:
        """Wait until no work of past requests is left; most programs have none."""

    def close(self) -> None:
        """End it with all its processes."""
        self.program.stop()


class Peer(Protocol):
    """One program of the comparison; `said` is its configuration in a few words, for the table."""

    name: str
    task: Task
    said: str

    def install(self, cache: Path) -> str:
        """Install it below `cache` if it is not there, and return its version.

        Raises:
            PeerUnavailable: it cannot be installed here.
        """
        ...

    def start(self, place: Place) -> Served:
        """Start it; the caller waits until it answers.

        Raises:
            ProgramFailed: it does not start.
        """
        ...


def start(peer: Peer, place: Place) -> Served:
    """Start a peer and wait until its answers are right; whatever goes wrong, nothing of it stays behind."""
    served = peer.start(place)
    try:
        served.wait_until_right()
    except BaseException:
        served.close()
        raise
    return served
