"""The rules in force in one worker: `Rules` holds the immutable `Snapshot` and keeps it up to date.

Belongs here: getting what is new, swapping one reference, and saying which rules are in force. Never here: I/O per
request, partial swaps, or guessing which rules are right.

A request takes `Rules.snapshot` once and uses it to its end. Four tasks run beside the requests: one asks the store
for its head, one listens for a hint to ask sooner, one fetches what changed and puts it in force, one acknowledges. So
neither a slow load nor a frozen store keeps the others from their work, and how old the rules are is always known.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from time import time_ns

from gateway.config import RulesSettings
from gateway.errors import RulesUnavailable
from gateway.logs import logger
from gateway.metrics import Board, Slot
from gateway.ports import Acknowledgement, ExecutorFactory, Head, RulesSource
from gateway.snapshot.alarms import Alarms
from gateway.snapshot.documents import Documents
from gateway.snapshot.fetching import Advance, Fetching
from gateway.snapshot.history import History
from gateway.snapshot.inforce import InForce
from gateway.snapshot.keeping import Keeping
from gateway.snapshot.lookout import Lookout
from gateway.snapshot.preparation import Preparations
from gateway.snapshot.shapes import Current, Snapshot

_HEARTBEAT_SECONDS = 1.0
_AGAIN_SECONDS = 0.5  # after a start without any rules, and after a defect


class Rules:
    """The rules of one worker. `start` once, then `run` as a task to the end, then `close`."""

    def __init__(  # noqa: PLR0917 - the composition root names every part it connects
        self,
        source: RulesSource,
        executor_for: ExecutorFactory,
        folder: Path,
        board: Board,
        settings: RulesSettings,
        worker: str,
    ) -> None:
        """`folder` holds the last good rules and is shared by the workers of a gateway; `source` stays the caller's."""
        self._source = source
        self._board = board
        self._worker = worker
        self._documents = Documents()
        self._preparations = Preparations(executor_for, self._on_settled)
        self._in_force = InForce(self._documents, self._preparations)
        self._keeping = Keeping(folder, self._documents)
        self._alarms = Alarms(board)
        history = History(source)
        self._fetching = Fetching(source, history)
        self.current = Current(settings.stale_after_ms)
        self._lookout = Lookout(
            source,
            history,
            self._documents,
            self._alarms,
            board,
            settings=settings,
            current=self.current,
            in_force=self._head,
        )
        self._since_ns = 0
        self._kept: tuple[Head, int] | None = None  # newest head that is looked at and on disk, and since when
        self._why_none = ""
        self._news = asyncio.Event()
        self._settled: set[str] = set()
        self._told: tuple[Head, Mapping[str, str]] | None = None
        self._touched: set[str] = set()  # by documents taken, and not looked at yet

    @property
    def snapshot(self) -> Snapshot | None:
        """The rules in force; None until there are any."""
        return self.current.snapshot

    @property
    def stale(self) -> bool:
        """Whether the store has not confirmed the rules in force for longer than `stale_after_ms`."""
        return self.current.stale

    @property
    def behind(self) -> bool:
        """Whether this worker should take no requests, as it cannot catch up with a store that answers.

        Never because the store is silent or in doubt, nor because a version cannot be prepared: then what is in force
        is the best there is anywhere.
        """
        return self._lookout.behind

    async def start(self) -> None:
        """Put the first rules in force: the store's, else the last good ones on disk; else `run` goes on trying.

        Returns when every version that they name has been tried once, so that a worker that is ready is wholly so.
        """
        if self._documents.head is None and (saved := await self._keeping.newest()) is not None:
            await self._documents.take(saved.head, saved.operation_id, saved.documents)
        saved_head = self._documents.head
        try:
            await self._take(await self._fetching.everything(self._documents))
        except RulesUnavailable as error:
            if saved_head is None:
                self._note_none(error.message)
                return
            logger().warning("rules_from_last_good_file", revision=saved_head.revision, why=error.message)
        snapshot = await self._in_force.begin()
        self._touched = set()
        # Preparing may have taken minutes, and the first record already says how old its rules are.
        await self._lookout.look()
        self._put_in_force(snapshot)
        await self._keep()

    async def run(self) -> None:
        """Follow the store until cancelled."""
        while self.current.snapshot is None:
            await asyncio.sleep(_AGAIN_SECONDS)
            await self.start()
        turns = {
            "poll": self._lookout.poll,
            "notices": self._lookout.listen,
            "follow": self._follow,
            "heartbeat": self._heartbeat,
        }
        async with asyncio.TaskGroup() as group:
            for name, turn in turns.items():
                group.create_task(self._repeat(name, turn), name=f"rules {name}")

    async def close(self) -> None:
        """Take this worker off the list and release every version. `run` has been cancelled before."""
        with suppress(RulesUnavailable):
            await self._source.withdraw(self._worker)
        self.current.snapshot = None
        await self._preparations.close()
        await self._keeping.close()

    async def _repeat(self, name: str, turn: Callable[[], Awaitable[None]]) -> None:
        """Take turns for ever. A defect of ours in one is an alarm, not the end of following the rules."""
        while True:
            try:
                await turn()
            except Exception as defect:  # noqa: BLE001
                logger().error("rules_defect", task=name, exc_info=defect)
                self._alarms.note(name, "a defect keeps the rules from being followed; the log has the details")
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                self._alarms.note(name, None)

    # ── getting what is new, and putting it in force ─────────────────────────────────────────────────────────────

    async def _follow(self) -> None:
        await self._lookout.newer.wait()
        self._lookout.newer.clear()
        try:
            await self._fetch()
        except RulesUnavailable as error:
            # Nothing is lost: the next look finds the newer head again.
            logger().warning("rules_not_fetched", why=error.message)
        if self._touched or self._head() != self._documents.head:  # also after a defect on the way there
            self._put_in_force(self._in_force.advance(self.current.snapshot, self._touched))
            self._touched = set()
            await self._keep()

    async def _fetch(self) -> None:
        assert self._lookout.newest is not None
        if advance := await self._fetching.changes(self._documents, self._lookout.newest):
            await self._take(advance)

    async def _take(self, advance: Advance) -> None:
        """Take what changed in the store. What it touches stays noted until it has been put in force."""
        taken = await self._documents.take(advance.head, advance.operation_id, advance.changed)
        self._touched |= taken.touched
        self._keeping.note(taken.kept, exact=advance.by_difference)

    def _head(self) -> Head | None:
        return self.current.snapshot.head if self.current.snapshot is not None else None

    def _put_in_force(self, snapshot: Snapshot) -> None:
        if self._head() != snapshot.head:
            self._since_ns = self._board[Slot.RULES_SINCE_NS] = time_ns()
        self.current.snapshot = snapshot
        self._board[Slot.RULES_REVISION] = snapshot.head.revision
        self._board[Slot.VERSIONS_LOADED] = self._in_force.loaded
        complaints = self._documents.complaints
        self._alarms.note(
            "documents",
            "; ".join(f"{kind} {name} does not parse: {why}" for (kind, name), why in sorted(complaints.items())),
        )
        told = (snapshot.head, dict(self._in_force.problems))
        if told != self._told:  # a version that is tried again and again is no news
            self._told = told
            logger().info("rules_in_force", revision=snapshot.head.revision, not_in_force=told[1])

    def _on_settled(self, model: str) -> None:
        """Look at a model again once a try for one of its versions has ended; many of one turn of the loop at once."""
        if self.current.snapshot is None:
            return
        if not self._settled:
            asyncio.get_running_loop().call_soon(self._place_settled)
        self._settled.add(model)

    def _place_settled(self) -> None:
        settled, self._settled = self._settled, set()
        if self.current.snapshot is not None:
            self._put_in_force(self._in_force.advance(self.current.snapshot, settled))
            self._news.set()

    async def _keep(self) -> None:
        """Have the rules in force on disk, then let their head be acknowledged: so that outlives the store."""
        since_ns = self._since_ns
        self._kept = await self._keeping.keep(), since_ns
        self._news.set()

    # ── saying so ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _heartbeat(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_HEARTBEAT_SECONDS):
                await self._news.wait()
        self._news.clear()
        if self._kept is None:
            return
        head, since_ns = self._kept
        said = Acknowledgement(
            self._worker,
            head,
            self._in_force.problems | self._documents.problems(),
            since_ms=since_ns // 1_000_000,
            alarms=dict(self._alarms.present),
            ready=bool(self._board[Slot.READY]),
        )
        with suppress(RulesUnavailable):  # the lookout says that the store does not answer
            await self._source.acknowledge(said)

    def _note_none(self, why: str) -> None:
        if why != self._why_none:
            logger().warning("no_rules_yet", why=why)
            self._why_none = why
