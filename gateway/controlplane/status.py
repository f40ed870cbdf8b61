"""Where the rules stand: the store, every worker of every gateway, and what waits to be confirmed.

Belongs here: bringing together what store, watch and boards say. Never here: judging whether that is good enough.

It answers when the store does not: what the workers of this gateway have stands on their boards.
"""

import asyncio
import time
from collections.abc import Awaitable, Mapping, Sequence
from typing import TypeVar

from msgspec import Struct

from gateway.controlplane.convergence import LIVE_MS
from gateway.controlplane.impaired import Impaired, impaired_versions
from gateway.controlplane.storewatch import StoreWatch
from gateway.errors import RulesUnavailable
from gateway.gauges import BoardFolder, is_alive
from gateway.metrics import Board, Slot
from gateway.ports import Acknowledgement, Head, RulesStore, Unconfirmed

_PATIENCE_SECONDS = 1.2

T = TypeVar("T")


class StoreStatus(Struct, frozen=True):
    """The rules store: its head, or why it does not answer; and why it is in doubt, if it is. `known` is the newest
    head that this gateway knows of.
    """

    answering: bool
    why: str | None
    head: Head | None
    known: Head | None
    in_doubt: str | None


class WorkerStatus(Struct, frozen=True):
    """One worker. What is not known is None.

    `said_ms` is how long ago it spoke to the store; `alive` that this is not long, or that its process is there (of
    this gateway's own workers). `since_ns` (Unix ns) is since when it has its `revision`, `rules_age_ms` how long ago
    it last made sure that the rules are the store's: of other gateways' workers, at most that long.
    """

    worker: str
    own: bool
    alive: bool
    ready: bool
    revision: int | None
    epoch: str | None
    since_ns: int | None
    rules_age_ms: int | None
    said_ms: int | None
    problems: Mapping[str, str] = {}
    alarms: Mapping[str, str] = {}


class Status(Struct, frozen=True):
    """The whole. `gateway` is the one that was asked; `unconfirmed` is empty while the store does not answer.

    `impaired` are versions, as the workers of that gateway tell.
    """

    gateway: str
    store: StoreStatus
    workers: tuple[WorkerStatus, ...]
    unconfirmed: tuple[Unconfirmed, ...]
    impaired: tuple[Impaired, ...] = ()


class Fleet:
    """Asks store and boards. `gateway` is the name of this one, `boards` are those of its workers."""

    def __init__(self, store: RulesStore, watch: StoreWatch, boards: BoardFolder, gateway: str) -> None:
        self._store = store
        self._watch = watch
        self._boards = boards
        self._gateway = gateway

    async def status(self) -> Status:
        """Return how things stand, within about a second and a half whatever the store does."""
        head, said, unconfirmed = await asyncio.gather(
            _answer(self._store.head()), _answer(self._store.acknowledgements()), _answer(self._store.unconfirmed())
        )
        silences = [answer for answer in (head, said, unconfirmed) if isinstance(answer, RulesUnavailable)]
        store = StoreStatus(
            answering=not silences,
            why=silences[0].message if silences else None,
            head=head if not isinstance(head, RulesUnavailable) else None,
            known=self._watch.known,
            in_doubt=self._watch.doubt,
        )
        spoken = said if not isinstance(said, RulesUnavailable) else ()
        waiting = unconfirmed if not isinstance(unconfirmed, RulesUnavailable) else ()
        impaired = impaired_versions(self._boards, self._name)
        return Status(self._gateway, store, self._workers(spoken), tuple(waiting), impaired)

    def _workers(self, said: Sequence[Acknowledgement]) -> tuple[WorkerStatus, ...]:
        found = {one.worker: _by_word(one) for one in said}
        for stem, board in self._boards.open().items():
            name = self._name(stem)
            found[name] = _by_board(name, board, found.get(name))
        return tuple(found[name] for name in sorted(found))

    def _name(self, stem: str) -> str:
        """Return the name of the worker whose board is `<stem>.board`."""
        return f"{self._gateway}/w{stem.removeprefix('worker-')}"


def _by_word(said: Acknowledgement) -> WorkerStatus:
    """Return what a worker says of itself; it looks at the store all the time, and again before it speaks."""
    return WorkerStatus(
        worker=said.worker,
        own=False,
        alive=said.age_ms < LIVE_MS,
        ready=said.ready and said.age_ms < LIVE_MS,
        revision=said.head.revision,
        epoch=said.head.epoch,
        since_ns=said.since_ms * 1_000_000 or None,
        rules_age_ms=said.age_ms if not said.alarms else None,
        said_ms=said.age_ms,
        problems=said.problems,
        alarms=said.alarms,
    )


def _by_board(name: str, board: Board, said: WorkerStatus | None) -> WorkerStatus:
    """Return what the board of a worker says, and of the rest what it said to the store."""
    alive = is_alive(board[Slot.PID])
    checked, revision, since = (
        board[slot] if alive else 0 for slot in (Slot.RULES_CHECKED_NS, Slot.RULES_REVISION, Slot.RULES_SINCE_NS)
    )
    alarms = dict(said.alarms) if said is not None else {}
    if alive and board[Slot.RULES_ALARM] and not alarms:
        alarms["rules"] = "newer rules are refused; the log of the gateway says why"
    return WorkerStatus(
        worker=name,
        own=True,
        alive=alive,
        ready=alive and bool(board[Slot.READY]),
        revision=revision if since else None,
        epoch=said.epoch if said is not None and said.revision == revision else None,
        since_ns=since or None,
        rules_age_ms=max(0, time.time_ns() - checked) // 1_000_000 if checked else None,
        said_ms=said.said_ms if said is not None else None,
        problems=said.problems if said is not None else {},
        alarms=alarms if alive else {},
    )


async def _answer(asked: Awaitable[T]) -> T | RulesUnavailable:
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            return await asked
    except RulesUnavailable as error:
        return error
    except TimeoutError:
        return RulesUnavailable(f"the rules store does not answer within {_PATIENCE_SECONDS:g} s")
