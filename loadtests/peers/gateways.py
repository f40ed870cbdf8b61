"""Pointsman, as a peer of its own comparison: forwarding, and with the digits model in process.

Belongs here: the rules it gets and which of its processes are counted as what. Never here: any switch that is not the
default; records, metrics and log lines are on because they always are.
"""

from pathlib import Path
from typing import Any

from compiling.stamp import DEFAULT, digest_of, source_digest
from gateway.examples import digits_folder
from loadtests.bench.asking import Load
from loadtests.bench.machine import pointsman_version
from loadtests.bench.pointsman import Pointsman, forwarded, from_folder
from loadtests.bench.proctree import cpu_us
from loadtests.peers.loads import digits_load, forward_load
from loadtests.peers.peer import Cpu, PeerUnavailable, Place, Served, Task

SPLIT = {"1": 9000, "2": 1000}


class ServedByPointsman(Served):
    """A running gateway; the whole product is supervisor, workers, control process and Valkey."""

    def __init__(self, gateway: Pointsman, load: Load) -> None:
        super().__init__(gateway.data_url, gateway.program, load)
        self.gateway = gateway

    def cpu(self) -> Cpu:
        """Return the CPU time of the whole product and of its data workers alone."""
        return Cpu(cpu_us(self.program.processes()), cpu_us(self.gateway.workers()))

    def settle(self) -> None:
        """Wait until everything served so far stands in the audit store."""
        self.gateway.settle(self.load.asks[0])

    def close(self) -> None:
        """End it with all its processes."""
        self.gateway.close()


class _Ours:
    """Pointsman as a peer, from the source as it is or from its compiled build."""

    def __init__(self, *, compiled: bool = False) -> None:
        self._tree = DEFAULT if compiled else None
        said = "split 90/10; records, metrics, log lines; one worker"
        self.name = "Pointsman compiled" if compiled else "Pointsman"
        self.said = f"the compiled build; {said}" if compiled else f"as it is; {said}"

    def install(self, cache: Path) -> str:  # noqa: ARG002 - the seam's shape; it is installed already
        """Return the version under test. Raises `PeerUnavailable` when the build is not of what the source is now."""
        if self._tree is not None and digest_of(self._tree) != source_digest():
            raise PeerUnavailable("there is no compiled build of this source; make it with: make compiled")
        return pointsman_version()


class PointsmanForward(_Ours):
    """Two versions on one backend, split 90 to 10."""

    task: Task = "forward"

    def start(self, place: Place) -> Served:
        """Start it and put two forwarded versions in force."""
        versions = [forwarded("fraud", version, [place.backend_url]) for version in SPLIT]
        return _start(place, [*versions, {"model": "fraud", "split": SPLIT}], forward_load(), self._tree)


class PointsmanInProcess(_Ours):
    """Two versions of the digits model, split 90 to 10."""

    task: Task = "in process"

    def start(self, place: Place) -> Served:
        """Start it and put two versions of the example model in force."""
        versions = [from_folder(digits_folder() / version) for version in SPLIT]
        return _start(place, [*versions, {"model": "digits", "split": SPLIT}], digits_load(), self._tree)


def _start(place: Place, documents: list[dict[str, Any]], load: Load, tree: Path | None) -> Served:
    gateway = Pointsman(place.folder, cores=[place.core], tree=tree)
    try:
        gateway.change(documents)
    except BaseException:
        gateway.close()
        raise
    return ServedByPointsman(gateway, load)
