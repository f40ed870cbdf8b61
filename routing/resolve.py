"""The decision: one route, its cohorts and the facts of one request give one version and the reason.

Belongs here: `resolve`, the same code for live traffic, previews and the auditor's re-computation. Never here: whether
a version exists or is loaded (that is the data plane's), any source of facts, or a decision in words (`explain`).
"""

from collections.abc import Callable, Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from routing.facts import Facts
from routing.hashing import shadow_hit, winner
from routing.types import Cohort, Decision, Pin, Route, Shadow

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


class VersionDenied(Exception):
    """The caller named a version and the route says `client_versions: deny`."""


def draw(route: Route, unit: bytes) -> str:
    """Return the version that the split gives to the caller with digest `unit` (16 bytes)."""
    return winner(route.salt, unit, route.split)


def resolve(
    route: Route, cohorts: Mapping[str, Cohort], facts: Facts, drawn_by: Callable[[Route, bytes], str] = draw
) -> Decision:
    """Return the version that serves a request and the rule that chose it. First match wins.

    1. `explicit`: the caller named a version; 2. `pin`: the first pin that has not expired and whose cohort holds
    the caller; 3. `split`: weighted rendezvous hashing. Where the route has a brake and the version so drawn is
    braked: 4. `brake`: the same hashing among the versions of the split that are not, unless there are none. Nobody is
    diverted from a version that was named or pinned: whoever chose it wants that one or an error.

    `drawn_by` does what `draw` does, for those who remember what it said.

    Raises:
        VersionDenied: the caller named a version and the route does not allow that.
    """
    if facts.asked_version is not None:
        if route.client_versions == "deny":
            raise VersionDenied(facts.asked_version)
        return Decision(facts.asked_version, "explicit", "client_versions")
    for index, pin in enumerate(route.pins):
        if not expired(pin, facts) and holds(cohorts.get(pin.cohort), facts):
            return Decision(pin.version, "pin", f"pins[{index}]", pin.cohort)
    drawn = drawn_by(route, facts.unit)
    if drawn in facts.braked and route.brake is not None and (others := standing(route, facts.braked)):
        diverted = winner(route.salt, facts.unit, others)
        return Decision(diverted, "brake", "brake", instead_of=drawn)
    return Decision(drawn, "split", "split")


def standing(route: Route, braked: Collection[str]) -> Mapping[str, int]:
    """Return the versions that have a share of the split and are not braked, with their weights in basis points."""
    return {version: weight for version, weight in route.split.items() if weight > 0 and version not in braked}


def expired(pin: Pin, facts: Facts) -> bool:
    """Tell whether a pin had expired when the request was received; the very instant of `expires` counts as expired."""
    return pin.expires is not None and facts.received_ns >= (pin.expires - _EPOCH) // _MICROSECOND * 1000


def holds(cohort: Cohort | None, facts: Facts) -> bool:
    """Tell whether the caller is in the cohort. A cohort that does not exist holds nobody."""
    if cohort is None:
        return False
    if facts.keyed and facts.unit in cohort.digests:
        return True
    return bool(cohort.match) and all(
        facts.headers.get(clause.header.lower()) in clause.accepted for clause in cohort.match
    )


def shadows_for(route: Route, record_id: str, served: str | None) -> tuple[Shadow, ...]:
    """Return the shadows that get a copy of the request; the version that served is never its own shadow."""
    return tuple(
        shadow
        for shadow in route.shadows
        if shadow.version != served and shadow_hit(route.salt, record_id, shadow.version, shadow.sample)
    )


def routing_key(route: Route, headers: Mapping[str, str]) -> str | None:
    """Return the caller's routing key: of the route's key headers the first that is present and not empty, or None.

    `headers` has lower-case names. A later source counts only when every earlier one is missing or empty, so a caller
    who sends both headers has one key, in whatever order they were sent.
    """
    for source in route.key:
        value = headers.get(source.header.lower())
        if value:
            return value
    return None


def consulted_headers(route: Route, cohorts: Mapping[str, Cohort]) -> tuple[str, ...]:
    """Return the lower-case names of the headers that the route's cohorts look at, sorted, each once."""
    named = (cohorts.get(pin.cohort) for pin in route.pins)
    return tuple(sorted({clause.header.lower() for cohort in named if cohort for clause in cohort.match}))


def named_versions(route: Route) -> frozenset[str]:
    """Return every version that the route names, in whatever role and with whatever weight."""
    return frozenset(
        [
            *route.split,
            *(pin.version for pin in route.pins),
            *(shadow.version for shadow in route.shadows),
            *route.fallback,
        ]
    )
