"""A decision with its reasons in words: every rule on the way to it, and why it matched or did not.

Belongs here: `explain`. Never here: deciding (that is `resolve`, which this asks).
"""

from collections.abc import Iterator, Mapping

from msgspec import Struct

from routing.facts import Facts
from routing.hashing import scores
from routing.resolve import VersionDenied, expired, holds, resolve, shadows_for
from routing.types import Cohort, Decision, Pin, Route


class Step(Struct, frozen=True):
    """One rule of a route as it met one request: its path, whether it matched, and why or why not in words."""

    rule: str
    matched: bool
    why: str


class Explanation(Struct, frozen=True):
    """A decision with every rule on the way to it, and the rendezvous score of each version of the split.

    `scores` is filled for every version of positive weight, also when an earlier rule decided. `decision` is None
    when the request is refused (the last step says why). `shadows` are the versions that would get a copy; a refused
    request is copied to none.
    """

    decision: Decision | None
    steps: tuple[Step, ...]
    scores: Mapping[str, float]
    shadows: tuple[str, ...]


def explain(route: Route, cohorts: Mapping[str, Cohort], facts: Facts) -> Explanation:
    """Return the decision with every rule considered. The decision itself is `resolve`'s, never worked out twice."""
    try:
        decision: Decision | None = resolve(route, cohorts, facts)
    except VersionDenied:
        decision = None
    return Explanation(
        decision=decision,
        steps=tuple(_steps(route, cohorts, facts, decision)),
        scores=dict(scores(route.salt, facts.unit, route.split)),
        shadows=_shadowed(route, facts.record_id, decision),
    )


def _shadowed(route: Route, record_id: str, decision: Decision | None) -> tuple[str, ...]:
    if decision is None:
        return ()
    return tuple(shadow.version for shadow in shadows_for(route, record_id, decision.version))


def _steps(route: Route, cohorts: Mapping[str, Cohort], facts: Facts, decision: Decision | None) -> Iterator[Step]:
    asked = facts.asked_version
    if asked is not None:
        allowed = decision is not None
        verb = "allows" if allowed else "denies"
        yield Step("client_versions", allowed, f"the caller named version {asked}; the route {verb} that")
        return
    yield Step("client_versions", False, "the caller named no version")
    for index, pin in enumerate(route.pins):
        rule = f"pins[{index}]"
        matched = decision is not None and decision.rule == rule
        yield Step(rule, matched, _why_pin(pin, cohorts.get(pin.cohort), facts))
        if matched:
            return
    source = "the routing key" if facts.keyed else "the record id (the request has no routing key)"
    diverted_from = decision.instead_of if decision is not None else None
    if diverted_from is None:
        yield Step("split", True, f"smallest rendezvous score of {source}")
        return
    yield Step("split", False, f"smallest rendezvous score of {source}: version {diverted_from}, which is braked")
    yield Step("brake", True, "smallest rendezvous score among the versions that are not")


def _why_pin(pin: Pin, cohort: Cohort | None, facts: Facts) -> str:
    if pin.expires is not None and expired(pin, facts):
        return f"expired at {pin.expires.isoformat()}"
    if cohort is None:
        return f"cohort {pin.cohort} does not exist"
    if facts.keyed and facts.unit in cohort.digests:
        return f"cohort {pin.cohort} lists the routing key"
    if holds(cohort, facts):
        return f"every clause of cohort {pin.cohort} holds"
    return f"the caller is not in cohort {pin.cohort}"
