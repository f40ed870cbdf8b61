"""A stretch of traffic tried on another version: how often the two agree, what flips, and how fast each is.

Belongs here: choosing the sample, the sums, and the list of flips. Never here: one replay (`replay`), or HTTP.

The sample is the same for every candidate: of the requests that can be replayed, those whose record ids have the
smallest digests. So it does not depend on order, on chance, or on the version that is tried.
"""

import heapq
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Final

from msgspec import Struct

from gateway.errors import CannotReplay
from gateway.evidence.bench import Bench, Ran
from gateway.evidence.inputs import Answer, answer_of, input_of, pick, why_no_input
from gateway.evidence.reasons import Reasons
from gateway.evidence.replay import Replay, Replaying
from gateway.ports import AuditStore, Filter, Kept
from gateway.record import Record

MOST_LISTED: Final = 100
"""Flips and failures that are listed; the others are counted."""
Report = Callable[[int, int], None]
"""Is told how many steps of how many are done."""


class Flip(Struct, frozen=True):
    """One request to which the candidate says something else, or nothing: which, what served it, and what differs."""

    record_id: str
    request_id: str
    version: str
    why: str


class Latency(Struct, frozen=True):
    """Nearest-rank percentiles of the time inside a version, in µs, of so many runs."""

    runs: int
    p50_us: int
    p99_us: int


class OutputSum(Struct, frozen=True):
    """How far an output is apart at most, over the sample: in which record, and in how many it flips."""

    name: str
    flips: int
    largest: float | int | None
    record_id: str | None


class Trial(Struct, frozen=True):
    """What came of it. Of `primaries` in the stretch, `replayable` could be run again (`passed_over`: why the others
    could not), `sampled` of them were; `by_version` counts which versions had served those.

    `agreed` and `flipped` were compared with the candidate, `failed` are those that it refused or failed on, and
    `uncompared` those without an answer to compare with, by why; `agreement` is the share of the first among the first
    three (None: there are none). `identical` counts how often the version that had served gave the very bytes again,
    `not_identical` how often not; `not_again` why it did not run.

    `recorded` are the times of the records, `again` and `candidate` those of the replay, taken in turn. `agrees` says
    that something could be compared, and nothing flipped or failed.
    """

    model: str
    version: str
    primaries: int
    replayable: int
    passed_over: Mapping[str, int]
    sampled: int
    by_version: Mapping[str, int]
    agreed: int
    flipped: int
    failed: int
    uncompared: Mapping[str, int]
    agreement: float | None
    identical: int
    not_identical: int
    not_again: Mapping[str, int]
    outputs: tuple[OutputSum, ...]
    recorded: Latency | None
    again: Latency | None
    candidate: Latency | None
    flips: tuple[Flip, ...]
    left_out: int
    agrees: bool


class TrialRun:
    """Replays the sample of one stretch through one version."""

    def __init__(self, store: AuditStore, bench: Bench, replaying: Replaying) -> None:
        self._store = store
        self._bench = bench
        self._replaying = replaying
        self._passed_over = Reasons()
        self._uncompared = Reasons()
        self._not_again = Reasons()
        self._versions: Counter[str] = Counter()
        self._counts: Counter[str] = Counter()
        self._outputs: dict[str, OutputSum] = {}
        self._flips: list[Flip] = []
        self._times: dict[str, list[int]] = {"recorded": [], "again": [], "candidate": []}

    async def run(self, wanted: Filter, version: str, sample: int, report: Report) -> Trial:
        """Replay `sample` primaries of those wanted (a filter with a model) through `version`.

        Raises:
            CannotReplay: the version cannot run.
        """
        model = wanted.model or ""
        candidate = await self._bench.named(model, version)
        total = self._store.count(wanted)
        chosen = self._choose(wanted, sample, lambda done: report(done, total + min(sample, total)))
        for at, record_id in enumerate(chosen):
            await self._one(record_id, candidate.manifest.version)
            report(total + at + 1, total + len(chosen))
        return self._result(model, version)

    def _choose(self, wanted: Filter, sample: int, done: Callable[[int], None]) -> Sequence[str]:
        """Return the record ids of the sample, in the order they were recorded."""
        heap: list[tuple[int, int, str]] = []  # the smallest digests, the largest of them on top
        for chunk in self._store.scan(wanted, contents=False):
            for kept in chunk:
                self._counts["primaries"] += 1
                why = _why_not(kept)
                if why:
                    self._passed_over.add(why)
                    continue
                record_id = kept.frame.record.record_id
                digest = int.from_bytes(blake2b(record_id.encode(), digest_size=8).digest(), "big")
                entry = (-digest, self._counts["primaries"], record_id)
                if len(heap) < sample:
                    heapq.heappush(heap, entry)
                elif entry > heap[0]:
                    heapq.heapreplace(heap, entry)
            done(self._counts["primaries"])
        return [record_id for _, _, record_id in sorted(heap, key=lambda entry: entry[1])]

    async def _one(self, record_id: str, version: str) -> None:
        found = self._store.find(record_id)
        try:
            kept = pick(found, record_id)
            body = input_of(kept, found)
        except CannotReplay as error:
            self._passed_over.add(error.message)
            return
        record, answer = kept.frame.record, answer_of(kept)
        self._versions[record.served or ""] += 1
        self._times["recorded"].append(record.infer_us)
        again = await self._again(record, answer, body)
        candidate = await self._bench.named(record.model, version)
        ran = await self._bench.run(candidate, record, body)
        self._times["candidate"].append(ran.infer_us)
        if ran.error_code is not None or ran.status >= 400:
            self._counts["failed"] += 1
            self._list(record, f"it answers {ran.status} ({ran.error_code or 'the backend refused it'})")
            return
        reference = answer.body if answer.body is not None else again.body if again is not None else None
        self._sum(record, self._replaying.against(reference, answer.why, candidate, ran))

    async def _again(self, record: Record, answer: Answer, body: bytes) -> Ran | None:
        """Run the version that had served, too: for a fair time, and to see whether it still says the same."""
        try:
            ran = await self._bench.run(await self._bench.recorded(record), record, body)
        except CannotReplay as error:
            self._not_again.add(error.message)
            return None
        self._times["again"].append(ran.infer_us)
        identical = self._replaying.against_record(record, answer, ran).identical
        if identical is not None:
            self._counts["identical" if identical else "not_identical"] += 1
        return ran

    def _sum(self, record: Record, replay: Replay) -> None:
        if replay.why:
            self._uncompared.add(replay.why)
            return
        self._counts["flipped" if replay.flips else "agreed"] += 1
        if replay.flips:
            self._list(record, replay.flips)
        for one in replay.outputs:
            known = self._outputs.get(one.name, OutputSum(one.name, 0, None, None))
            largest, record_id = known.largest, known.record_id
            if one.largest is not None and (largest is None or one.largest > largest):
                largest, record_id = one.largest, record.record_id
            self._outputs[one.name] = OutputSum(one.name, known.flips + bool(one.flips), largest, record_id)

    def _list(self, record: Record, why: str) -> None:
        if len(self._flips) < MOST_LISTED:
            self._flips.append(Flip(record.record_id, record.request_id, record.served or "", why))

    def _result(self, model: str, version: str) -> Trial:
        counts = self._counts
        compared = counts["agreed"] + counts["flipped"] + counts["failed"]
        listable = counts["flipped"] + counts["failed"]
        return Trial(
            model=model,
            version=version,
            primaries=counts["primaries"],
            replayable=counts["primaries"] - self._passed_over.total,
            passed_over=self._passed_over.counted(),
            sampled=self._versions.total(),
            by_version=dict(sorted(self._versions.items())),
            agreed=counts["agreed"],
            flipped=counts["flipped"],
            failed=counts["failed"],
            uncompared=self._uncompared.counted(),
            agreement=counts["agreed"] / compared if compared else None,
            identical=counts["identical"],
            not_identical=counts["not_identical"],
            not_again=self._not_again.counted(),
            outputs=tuple(self._outputs.values()),
            recorded=_latency(self._times["recorded"]),
            again=_latency(self._times["again"]),
            candidate=_latency(self._times["candidate"]),
            flips=tuple(self._flips),
            left_out=listable - len(self._flips),
            agrees=bool(compared) and not listable,
        )


def _why_not(kept: Kept) -> str:
    """Return why a primary is not one of those that are sampled; empty when it is."""
    record = kept.frame.record
    if record.served is None or record.outcome != "served":
        return "no version had answered it"
    if kept.erasure is not None:
        return "its contents were erased for good"
    return why_no_input(record.request, None)


def _latency(times: list[int]) -> Latency | None:
    if not times:
        return None
    ordered = sorted(times)
    p50, p99 = (ordered[max(0, -(-len(ordered) * percent // 100) - 1)] for percent in (50, 99))
    return Latency(len(ordered), p50, p99)
