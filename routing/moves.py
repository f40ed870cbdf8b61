"""Who moves when rules change: the same requests decided by the present and by the proposed rules, and counted.

Belongs here: comparing two decisions, both of them `resolve`'s. Never here: deciding, or any source of requests.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from msgspec import Struct, field

from routing.facts import Facts
from routing.resolve import VersionDenied, consulted_headers, resolve
from routing.types import Cohort, Decision, Route

_Outcome = tuple[Decision | None, Decision | None]
"""The decisions before and after; None: refused, or no route."""
_Way = tuple[str | None, str | None]
"""The versions of an outcome."""


class RouteRules(Struct, frozen=True):
    """One route with the cohorts that it pins, by name; `route` is None where the model has none."""

    route: Route | None = None
    cohorts: Mapping[str, Cohort] = {}


class Looked(Struct, frozen=True):
    """At which headers the rules looked when facts were collected (lower-case names): for the key, and for cohorts.

    Of every other header the facts say nothing, not even that it was missing. `key` None: nobody knows.
    """

    key: tuple[str, ...] | None = None
    headers: frozenset[str] = frozenset()


class Seen(Struct, frozen=True):
    """One request that was seen. `looked` None means that its facts are all there is to know of it."""

    facts: Facts
    looked: Looked | None = None


class MovedCaller(Struct, frozen=True):
    """A caller that goes to another version, and how many of its requests do. A version is None when refused."""

    unit: bytes
    before: str | None
    after: str | None
    requests: int


class Move(Struct, frozen=True):
    """How many callers and requests go from one version to another. None: refused, or the model has no route."""

    before: str | None
    after: str | None
    callers: int
    requests: int


class PinMoves(Struct, frozen=True):
    """How many callers gain a pin, lose theirs, or come under the pin of another cohort or version."""

    gained: int = 0
    lost: int = 0
    changed: int = 0


class Moves(Struct, frozen=True):
    """What a change of rules does to the requests that were seen.

    A caller is a distinct unit of requests with a routing key; it counts by the first of them. A request without one
    counts as a request only. `moved` has every caller that moves, those of most requests first; `moves` sums up from
    where to where. `undecidable_requests` could not be compared, for lack of the `unknown_headers`; they do not move.
    """

    requests: int = 0
    keyed_requests: int = 0
    callers: int = 0
    requests_moved: int = 0
    moved: tuple[MovedCaller, ...] = ()
    moves: tuple[Move, ...] = ()
    pins: PinMoves = PinMoves()
    undecidable_requests: int = 0
    unknown_headers: tuple[str, ...] = ()


def looked_at(rules: RouteRules) -> Looked:
    """Return at which headers these rules look."""
    if rules.route is None:
        return Looked()
    return Looked(key_headers(rules.route), frozenset(consulted_headers(rules.route, rules.cohorts)))


def key_headers(route: Route) -> tuple[str, ...]:
    """Return the lower-case names of the headers that may hold the routing key, in the order they are tried."""
    return tuple(source.header.lower() for source in route.key)


def unanswered(wanted: Looked, looked: Looked, keyed: bool) -> frozenset[str]:
    """Return the headers that rules want to look at and of which facts collected otherwise say nothing.

    A routing key is known when the sources that gave it are tried first, in the same order; that there is none is
    known when every source was tried.
    """
    headers = wanted.headers - looked.headers
    key = wanted.key or ()
    if looked.key is None:
        return headers | frozenset(key)
    if keyed:
        return headers if key[: len(looked.key)] == looked.key else headers | frozenset(key)
    return headers | (frozenset(key) - frozenset(looked.key))


def compare(seen: Iterable[Seen], present: RouteRules, proposed: RouteRules) -> Moves:
    """Return who moves. Each caller counts by the first of its requests, so they come newest first.

    Expiry is held against each request's own `received_ns`.
    """
    comparison = _Comparison(present, proposed)
    for one in seen:
        comparison.add(one)
    return comparison.total()


def decided(rules: RouteRules, facts: Facts) -> Decision | None:
    """Return the decision of `resolve`; None when the request is refused, or there is no route."""
    if rules.route is None:
        return None
    try:
        return resolve(rules.route, rules.cohorts, facts)
    except VersionDenied:
        return None


class _Caller(Struct):
    """One caller: its first request and what became of it (None when that could not be compared)."""

    first: Seen
    outcome: _Outcome | None
    requests_moved: int = 0

    def sends_again(self, seen: Seen) -> bool:
        """Tell whether a request is the first one again, as a decision sees it: then so is the outcome."""
        ours, theirs = self.first.facts, seen.facts
        return (
            ours.received_ns == theirs.received_ns
            and ours.asked_version == theirs.asked_version
            and ours.headers == theirs.headers
            and self.first.looked == seen.looked
        )


class _Comparison(Struct):
    present: RouteRules
    proposed: RouteRules
    requests: int = 0
    keyed_requests: int = 0
    undecidable: int = 0
    unknown: set[str] = field(default_factory=set)
    callers: dict[bytes, _Caller] = field(default_factory=dict)
    moved_requests: Counter[_Way] = field(default_factory=Counter)
    lacks: dict[tuple[Looked, bool], frozenset[str]] = field(default_factory=dict)

    def add(self, seen: Seen) -> None:
        self.requests += 1
        caller = self.callers.get(seen.facts.unit) if seen.facts.keyed else None
        outcome = caller.outcome if caller is not None and caller.sends_again(seen) else self._outcome(seen)
        if seen.facts.keyed:
            self.keyed_requests += 1
            if caller is None:
                caller = self.callers[seen.facts.unit] = _Caller(seen, outcome)
        if outcome is None:
            self.undecidable += 1
        elif (way := _way(outcome))[0] != way[1]:
            self.moved_requests[way] += 1
            if caller is not None:
                caller.requests_moved += 1

    def _outcome(self, seen: Seen) -> _Outcome | None:
        facts, looked = seen.facts, seen.looked
        # Who names a version is served by it or refused, whatever the headers are.
        if looked is not None and facts.asked_version is None and (lacking := self._lacking(looked, facts.keyed)):
            self.unknown |= lacking
            return None
        return decided(self.present, facts), decided(self.proposed, facts)

    def _lacking(self, looked: Looked, keyed: bool) -> frozenset[str]:
        found = self.lacks.get((looked, keyed))
        if found is None:
            wanted = (looked_at(self.present), looked_at(self.proposed))
            found = frozenset().union(*(unanswered(one, looked, keyed) for one in wanted))
            self.lacks[looked, keyed] = found
        return found

    def total(self) -> Moves:
        compared = [(unit, caller, caller.outcome) for unit, caller in self.callers.items() if caller.outcome]
        moved = [
            MovedCaller(unit, *_way(outcome), caller.requests_moved)
            for unit, caller, outcome in compared
            if _way(outcome)[0] != _way(outcome)[1]
        ]
        moved.sort(key=lambda one: (-one.requests, one.unit))
        return Moves(
            requests=self.requests,
            keyed_requests=self.keyed_requests,
            callers=len(self.callers),
            requests_moved=self.moved_requests.total(),
            moved=tuple(moved),
            moves=_summed(moved, self.moved_requests),
            pins=_pin_moves(outcome for _, _, outcome in compared),
            undecidable_requests=self.undecidable,
            unknown_headers=tuple(sorted(self.unknown)),
        )


def _way(outcome: _Outcome) -> _Way:
    before, after = outcome
    return before.version if before is not None else None, after.version if after is not None else None


def _summed(moved: Iterable[MovedCaller], moved_requests: Mapping[_Way, int]) -> tuple[Move, ...]:
    callers = Counter((caller.before, caller.after) for caller in moved)
    rows = [Move(*way, callers[way], requests) for way, requests in moved_requests.items()]
    return tuple(sorted(rows, key=lambda row: (-row.callers, -row.requests, row.before or "", row.after or "")))


def _pin_moves(outcomes: Iterable[_Outcome]) -> PinMoves:
    counted: Counter[str] = Counter()
    for before, after in outcomes:
        old, new = _pin(before), _pin(after)
        if old != new:
            counted["gained" if old is None else "lost" if new is None else "changed"] += 1
    return PinMoves(counted["gained"], counted["lost"], counted["changed"])


def _pin(decision: Decision | None) -> tuple[str | None, str] | None:
    """Return what tells one pin from another; its place in the list may change without anybody's noticing."""
    return (decision.cohort, decision.version) if decision is not None and decision.reason == "pin" else None
