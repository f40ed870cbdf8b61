"""Waiting until a change is in force everywhere, and saying where it is not.

Belongs here: reading acknowledgements. Never here: making changes, or what a worker does to acknowledge.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from time import monotonic
from typing import Literal

from msgspec import Struct

from gateway.controlplane.previewing import ChangePreview
from gateway.ports import Acknowledgement, Head, Kind, RulesStore

LIVE_MS = 3_000
"""A worker acknowledges every second; one silent for longer than this when a change is made is not waited for."""
_LOOK_SECONDS = 0.01
_SILENCE_SECONDS = 1.5  # one heartbeat and a half


class DocumentOutcome(Struct, frozen=True):
    """What a change does to one document. `was` is the revision that it had before.

    `was` is None for a document that did not exist, and where it is not known any more: in the answer to a change
    that was sent again.
    """

    kind: Kind
    name: str
    outcome: Literal["made", "changed", "deleted", "unchanged"]
    was: int | None = None


class Published(Struct, frozen=True):
    """What came of a change: its revision, whether anything changed at all, and where it is in force.

    `laggards` maps live workers to why it is not in force there (yet). `in_force` is True when there are none, and
    at least one worker has acknowledged: with no worker alive a change is kept, but in force nowhere. After a dry run
    `revision` is the one that the rules have, `changed` whether they would change, and no worker is asked. With
    `confirm_within_ms` the change is taken back unless it is confirmed in that time from when it was made.
    """

    revision: int
    changed: bool
    in_force: bool
    acknowledged: tuple[str, ...]
    laggards: Mapping[str, str]
    documents: tuple[DocumentOutcome, ...] = ()
    preview: ChangePreview | None = None
    confirm_within_ms: int | None = None
    dry_run: bool = False


class Reach(Struct, frozen=True):
    """Where a revision is in force: the workers that acknowledged it, and the live ones that did not, with why."""

    acknowledged: tuple[str, ...]
    laggards: Mapping[str, str]

    @property
    def everywhere(self) -> bool:
        """Whether every live worker has it, and there is one."""
        return bool(self.acknowledged) and not self.laggards


async def converge(store: RulesStore, head: Head, models: Collection[str], patience_s: float) -> Reach:
    """Wait up to `patience_s` until every live worker has `head`, or a later one, without a problem for `models`.

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
        laggards = {said.worker: why for said in live if (why := _why_not(said, head, models))}
        now = monotonic()
        if now >= deadline or (now >= settled and not laggards):
            return Reach(tuple(said.worker for said in live if said.worker not in laggards), laggards)
        await asyncio.sleep(_LOOK_SECONDS)
        every = await store.acknowledgements()


def _speaking(every: Sequence[Acknowledgement]) -> set[str]:
    return {said.worker for said in every if said.age_ms < LIVE_MS}


def _why_not(said: Acknowledgement, head: Head, models: Collection[str]) -> str | None:
    if said.head.revision >= head.revision and said.head.epoch == head.epoch:
        problems = [said.problems[model] for model in models if model in said.problems]
        return "; ".join(problems) or None
    behind = f"it has revision {said.head.revision} so far"
    if said.head.revision >= head.revision:
        behind = f"it has revision {said.head.revision} of another life of the rules store"
    silent = f", and has been silent for {said.age_ms / 1000:.0f} s" if said.age_ms >= LIVE_MS else ""
    return behind + silent + "".join(f"; {why}" for _, why in sorted(said.alarms.items()))
