"""The brake of one worker: a version of a split that fails too often is diverted from at once, until its route changes.

Belongs here: counting failures, tripping, and forgetting when the route has changed. Never here: who is diverted to
where (that is `routing.resolve`), changing rules (that is the control plane's), or what a request is told.
"""

from collections.abc import Callable, Collection
from time import time_ns
from typing import Final

from msgspec import Struct, field

from gateway.attempt import Tried
from gateway.logs import logger
from gateway.metrics import Board, Slot
from gateway.snapshot import RouteEntry, Snapshot
from gateway.trips import Trip
from routing import Brake, standing

NOT_ITS_OWN: Final = frozenset({"overloaded", "stopping", "not_ready"})
"""Failures that say nothing about the version: that too much was asked of it, and what is the gateway's own.

A version that is merely asked too much would send its load to the next one, and that to the one after."""


class _Window(Struct):
    """The last requests of one version: a bit for each of `failures`, the newest the lowest, and how many there are."""

    failures: int = 0
    seen: int = 0


class _Known(Struct):
    """What is known of one model under one revision of its route."""

    revision: int
    windows: dict[str, _Window] = field(default_factory=dict)
    versions: tuple[str, ...] = ()
    trips: list[Trip] = field(default_factory=list)
    told_alone: bool = False


class Brakes:
    """The brakes of one worker's routes; only routes that have one are to be asked about or noted.

    `tell` is told every trip that holds whenever that changes.
    """

    def __init__(self, board: Board, tell: Callable[[Collection[Trip]], None] = lambda _: None) -> None:
        self._board = board
        self._tell = tell
        self._models: dict[str, _Known] = {}
        self._looked: Snapshot | None = None

    def braked(self, entry: RouteEntry) -> tuple[str, ...]:
        """Return the versions that a route is diverted from now, sorted."""
        known = self._models.get(entry.route.model)
        return known.versions if known is not None and known.revision == entry.revision else ()

    def note(self, entry: RouteEntry, snapshot: Snapshot, tried: Tried) -> None:
        """Note what came of one try of a version, whoever chose it."""
        brake = entry.route.brake
        assert brake is not None
        failed = tried.outcome == "failed"
        if failed and tried.error_code in NOT_ITS_OWN:
            return
        known = self._models.get(entry.route.model)
        if known is None or known.revision != entry.revision:
            known = self._renewed(known, entry)
            if known is None:
                return
        version = tried.attempt.version
        window = known.windows.get(version)
        if window is None:
            window = known.windows[version] = _Window()
        if window.seen < brake.of:
            window.seen += 1
        if failed or window.failures:
            window.failures = (window.failures << 1 | failed) & ((1 << brake.of) - 1)
            if failed and window.failures.bit_count() >= brake.failures and version not in known.versions:
                self._trip(known, entry, snapshot, version, brake)

    def look(self, snapshot: Snapshot | None) -> None:
        """Forget what is known of routes that have changed since, or are gone. To be called every moment."""
        if snapshot is self._looked or snapshot is None:
            return
        self._looked = snapshot
        released: list[Trip] = []
        for model, known in list(self._models.items()):
            entry = snapshot.routes.get(model)
            if entry is None or entry.revision != known.revision:
                released += known.trips
                del self._models[model]
        if released:
            for trip in released:
                logger().warning("brake_released", model=trip.model, version=trip.version, revision=trip.revision)
            self._show()

    def _renewed(self, known: _Known | None, entry: RouteEntry) -> _Known | None:
        """Begin to know a route. None when it is an older one, of a request that began before it changed, or while
        `look` has not released yet what was braked before.
        """
        if known is not None and (known.revision > entry.revision or known.trips):
            return None
        begun = self._models[entry.route.model] = _Known(entry.revision)
        return begun

    def _trip(self, known: _Known, entry: RouteEntry, snapshot: Snapshot, version: str, brake: Brake) -> None:
        route = entry.route
        if not route.split.get(version):
            return  # nobody is sent there by the split
        healthy = [
            other
            for other in standing(route, {*known.versions, version})
            if (prepared := snapshot.versions.get((route.model, other))) is not None and prepared.problem is None
        ]
        window = known.windows[version]
        failures = window.failures.bit_count()
        trip = Trip(route.model, version, entry.revision, failures, window.seen, time_ns())
        said = {"model": trip.model, "version": version, "failures": failures, "of": trip.of, "limit": brake.failures}
        if not healthy:
            if not known.told_alone:
                known.told_alone = True
                logger().error("brake_cannot_divert", **said, why="no other version of the split can serve")
            return
        known.versions = tuple(sorted({*known.versions, version}))
        known.trips.append(trip)
        logger().error("version_braked", **said, revision=entry.revision, diverted_to=healthy)
        self._show()

    def _show(self) -> None:
        trips = [trip for known in self._models.values() for trip in known.trips]
        self._board[Slot.VERSIONS_BRAKED] = len(trips)
        self._tell(trips)
