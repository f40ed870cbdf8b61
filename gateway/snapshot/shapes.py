"""What is in force, as the path of a request reads it.

Belongs here: the shapes. Never here: what is put into them.
"""

from collections.abc import Mapping, Set
from time import monotonic_ns

from msgspec import Struct

from gateway.ports import Head
from gateway.snapshot.frozen_map import FrozenMap
from gateway.snapshot.prepared import PreparedVersion
from routing import Cohort, Route


class RouteEntry(Struct, frozen=True):
    """A route in force and what the data plane needs of it for every request, worked out once.

    `revision` last changed the route; `consulted` are the lower-case names of the headers that its cohorts look at;
    `cohort_revision` is the newest revision among those cohorts, None when it pins none.
    """

    route: Route
    revision: int
    consulted: tuple[str, ...] = ()
    cohort_revision: int | None = None


class Snapshot(Struct, frozen=True, eq=False):
    """All that decisions need, as of one head; it never changes, a new one takes its place.

    `versions` has every version that a route in force names, by (model, version), also those with a problem;
    `registered` has every version there is. A version that a route names and nobody has registered is in neither.
    """

    head: Head
    routes: FrozenMap[str, RouteEntry]
    cohorts: Mapping[str, Cohort]
    cohort_revisions: Mapping[str, int]
    versions: FrozenMap[tuple[str, str], PreparedVersion]
    registered: Set[tuple[str, str]]


class Current:
    """What is in force in one worker now. `Rules` keeps it up; who serves requests only reads it.

    `confirmed_ns` is when the store last confirmed it (monotonic), None before it ever has.
    """

    def __init__(self, stale_after_ms: int) -> None:
        self.snapshot: Snapshot | None = None
        self.confirmed_ns: int | None = None
        self._stale_after_ns = stale_after_ms * 1_000_000

    @property
    def stale(self) -> bool:
        """Whether the store has not confirmed the rules in force for longer than `stale_after_ms`."""
        return self.confirmed_ns is None or monotonic_ns() - self.confirmed_ns > self._stale_after_ns
