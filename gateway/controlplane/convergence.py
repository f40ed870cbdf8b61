"""Waiting until a change is in force everywhere, and saying where it is not.

Belongs here: reading acknowledgements. Never here: making changes, or what a worker does to acknowledge.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from time import monotonic

from msgspec import Struct

from gateway.ports import Acknowledgement, RulesStore

LIVE_MS = 3_000
"""A worker acknowledges every second; one silent for longer than this when a change is made is not waited for."""
_LOOK_SECONDS = 0.01
_SILENCE_SECONDS = 1.5  # one heartbeat and a half


class Published(Struct, frozen=True):
    """What came of a change: its revision, whether anything changed at all, and where it is in force.

    `laggards` maps live workers to why it is not in force there (yet). `in_force` is True when there are none, and
    at least one worker has acknowledged: with no worker alive a change is kept, but in force nowhere.
    """

    revision: int
    changed: bool
    in_force: bool
    acknowledged: tuple[str, ...]
    laggards: Mapping[str, str]


async def converge(
    store: RulesStore, revision: int, changed: bool, models: Collection[str], patience_s: float
) -> Published:
    """Wait up to `patience_s` until every live worker has `revision` without a problem for one of `models`.

    A worker that falls silent during the wait stays a laggard: it may be frozen, with the old rules in force.

    Raises:
        RulesUnavailable: the store stopped answering. The change is made all the same.
    """
    started = monotonic()
    deadline = started + patience_s
    every = await store.acknowledgements()
    awaited = _speaking(every)
    # A store that knows no worker may just have come back; within a heartbeat it has heard from all of them.
    settled = started if awaited else min(deadline, started + _SILENCE_SECONDS)
    while True:
        awaited |= _speaking(every)
        live = [said for said in every if said.worker in awaited]
        laggards = {said.worker: why for said in live if (why := _why_not(said, revision, models))}
        now = monotonic()
        if now >= deadline or (now >= settled and not laggards):
            acknowledged = tuple(said.worker for said in live if said.worker not in laggards)
            return Published(revision, changed, bool(acknowledged) and not laggards, acknowledged, laggards)
        await asyncio.sleep(_LOOK_SECONDS)
        every = await store.acknowledgements()


def _speaking(every: Sequence[Acknowledgement]) -> set[str]:
    return {said.worker for said in every if said.age_ms < LIVE_MS}


def _why_not(said: Acknowledgement, revision: int, models: Collection[str]) -> str | None:
    if said.head.revision < revision:
        silent = f", and has been silent for {said.age_ms / 1000:.0f} s" if said.age_ms >= LIVE_MS else ""
        return f"it has revision {said.head.revision} so far{silent}"
    problems = [said.problems[model] for model in models if model in said.problems]
    return "; ".join(problems) or None
