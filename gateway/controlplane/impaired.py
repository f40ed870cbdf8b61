"""Versions that do not get the requests that the rules give them, or not everywhere, as this gateway's workers tell.

Belongs here: bringing together what each worker tells, by version. Never here: judging backends, versions, or whether
somebody has to act.
"""

from collections.abc import Callable

from msgspec import Struct, field

from gateway.gauges import BoardFolder, is_alive
from gateway.metrics import Slot
from gateway.standings import read_told
from gateway.trips import read_trips, trips_path


class Braked(Struct, frozen=True):
    """Why a worker diverts from a version: it failed `failures` of its last `of` requests, at `since_ns` (Unix)."""

    failures: int
    of: int
    since_ns: int


class Impaired(Struct, frozen=True):
    """One version, and by worker: its brake; how many backends are left out because they failed; how many fail their
    health checks; and how many requests it gets at once, where that is limited because it is slow.
    """

    model: str
    version: str
    braked: dict[str, Braked] = field(default_factory=dict)
    ejected: dict[str, int] = field(default_factory=dict)
    unhealthy: dict[str, int] = field(default_factory=dict)
    limited: dict[str, int] = field(default_factory=dict)


def impaired_versions(boards: BoardFolder, named: Callable[[str], str]) -> tuple[Impaired, ...]:
    """Return the versions that are impaired in a living worker now, sorted; a worker is `named` by its board's name."""
    found: dict[tuple[str, str], Impaired] = {}

    def of(model: str, version: str) -> Impaired:
        return found.setdefault((model, version), Impaired(model, version))

    for stem, board in boards.open().items():
        if not is_alive(board[Slot.PID]):
            continue
        told, worker = read_told(boards.folder / f"{stem}.standings"), named(stem)
        for standing in told.backends:
            if standing.ejected:
                of(standing.model, standing.version).ejected[worker] = standing.ejected
            if standing.unhealthy:
                of(standing.model, standing.version).unhealthy[worker] = standing.unhealthy
        for limit in told.limits:
            of(limit.model, limit.version).limited[worker] = limit.most
        for trip in read_trips(trips_path(boards.folder, stem)):
            of(trip.model, trip.version).braked[worker] = Braked(trip.failures, trip.of, trip.at_ns)
    return tuple(found[name] for name in sorted(found))
