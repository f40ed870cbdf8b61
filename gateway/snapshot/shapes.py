"""What is in force, as the path of a request reads it.

Belongs here: the shapes. Never here: what is put into them.
"""

from collections.abc import Mapping, Set

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
