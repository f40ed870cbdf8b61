"""Evidence that the rules were followed: every recorded decision taken again, from the stored revision and the record.

Belongs here: which rules a record is held against, and the sum of what was found. Never here: reading the store or the
archive of revisions (both are handed in), or a judgement on one record (`decisions`).
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

from msgspec import Struct

from gateway.errors import GatewayError
from gateway.evidence.decisions import Finding, Then, judge_primary, judge_shadow, then_of, undecided
from gateway.evidence.reasons import Reasons
from gateway.ports import Kept
from gateway.record import Record
from routing import RouteRules

MOST_LISTED: Final = 100
"""Differences that one recomputation lists; the others are counted."""
_REMEMBERED_PRIMARIES = 20_000
# About 100 MB: a listed key takes some 100 bytes as a digest, a route with its objects as much as 50 of them.
_MOST_WEIGHT = 1_000_000
_ROUTE_WEIGHT = 50

Wanted = tuple[str, int, int | None]
"""A model, the revision of its route and that of its cohorts (None: it pinned none), as records have them."""
RulesThen = Callable[[Sequence[Wanted]], Awaitable[Mapping[Wanted, RouteRules | GatewayError]]]
"""Returns each model's route as of its revision with its cohorts as of theirs, or why nobody can tell."""


class Difference(Struct, frozen=True):
    """One record that does not say what the rules give, and in words what each says. `received_ns` is Unix time."""

    record_id: str
    request_id: str
    role: str
    model: str
    revision: int | None
    received_ns: int
    why: str


class Recomputed(Struct, frozen=True):
    """What came of it. Each of `records` was `checked` (of these `differ` differ), `unchecked` or `undecided`.

    `unchecked` and `undecided` count by why; requests of the second kind were refused before a rule was asked. Control
    records are none of `records`. `differences` lists the first so many, `left_out` is how many more there are.
    """

    records: int
    checked: int
    differ: int
    unchecked: Mapping[str, int]
    undecided: Mapping[str, int]
    differences: tuple[Difference, ...]
    left_out: int


class Recomputation:
    """Takes records, in the order they were recorded, and says in the end what was found."""

    def __init__(self, rules_then: RulesThen) -> None:
        self._rules_then = rules_then
        self._rules: dict[Wanted, Then | Finding] = {}
        self._weights: dict[Wanted, int] = {}
        self._weight = 0
        self._served: dict[str, str | None] = {}
        self._records = 0
        self._unchecked = Reasons()
        self._undecided = Reasons()
        self._differences: list[Difference] = []
        self._differ = 0

    async def take(self, chunk: Sequence[Kept]) -> None:
        """Decide the requests of some records again."""
        records = [kept.frame.record for kept in chunk if kept.frame.record.role != "control"]
        named = dict.fromkeys(
            (one.model, one.revision, one.cohort_revision) for one in records if one.revision is not None
        )
        await self._learn([wanted for wanted in named if wanted not in self._rules])
        self._records += len(records)
        for record in records:
            finding = self._judge(record)
            if finding is not None:
                self._note(record, finding)
        self._forget()

    def result(self) -> Recomputed:
        """Return what was found so far."""
        return Recomputed(
            records=self._records,
            checked=self._records - self._unchecked.total - self._undecided.total,
            differ=self._differ,
            unchecked=self._unchecked.counted(),
            undecided=self._undecided.counted(),
            differences=tuple(self._differences),
            left_out=self._differ - len(self._differences),
        )

    def _judge(self, record: Record) -> Finding | None:
        if record.revision is None:
            return undecided(record)
        then = self._rules[record.model, record.revision, record.cohort_revision]
        if isinstance(then, Finding):
            return then
        if record.role == "shadow":
            return judge_shadow(record, then, self._served.get(record.primary_id or ""))
        if then.route.shadows:
            self._served[record.record_id] = record.served
        return judge_primary(record, then)

    def _note(self, record: Record, finding: Finding) -> None:
        if finding.kind == "undecided":
            self._undecided.add(finding.words)
        elif finding.kind == "unchecked":
            self._unchecked.add(finding.words)
        else:
            self._differ += 1
            if len(self._differences) < MOST_LISTED:
                self._differences.append(_difference(record, finding.words))

    async def _learn(self, wanted: Sequence[Wanted]) -> None:
        told = await self._rules_then(wanted) if wanted else {}
        for one, rules in told.items():
            weight = _ROUTE_WEIGHT
            if isinstance(rules, GatewayError):
                self._rules[one] = Finding("unchecked", rules.message)
            else:
                self._rules[one] = then_of(rules) or Finding("unchecked", f"model {one[0]} had no route then")
                weight += sum(len(cohort.keys) for cohort in rules.cohorts.values())
            self._weights[one] = weight
            self._weight += weight

    def _forget(self) -> None:
        """Let go of the rules and primaries that were met first, so that a long stretch takes no more memory."""
        while self._weight > _MOST_WEIGHT and len(self._rules) > 1:
            oldest = next(iter(self._rules))
            del self._rules[oldest]
            self._weight -= self._weights.pop(oldest)
        if len(self._served) > _REMEMBERED_PRIMARIES:
            for record_id in list(self._served)[: len(self._served) - _REMEMBERED_PRIMARIES]:
                del self._served[record_id]


def _difference(record: Record, why: str) -> Difference:
    return Difference(
        record_id=record.record_id,
        request_id=record.request_id,
        role=record.role,
        model=record.model,
        revision=record.revision,
        received_ns=record.received_ns,
        why=why,
    )
