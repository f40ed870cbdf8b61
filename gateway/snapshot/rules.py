"""The rules in force in one worker: `Rules` holds the immutable `Snapshot` and keeps it up to date.

Belongs here: following the head, swapping one reference, saying how old the rules are and what is wrong with them.
Never here: I/O per request, partial swaps, or guessing which rules are right.

A request takes `Rules.snapshot` once and uses it to its end. Three tasks run beside the requests: one asks the store
for its head, one fetches what changed and puts it in force, one acknowledges. So neither a slow load nor a frozen
store keeps the others from their work, and how old the rules are is always known.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic_ns, time_ns

from gateway.config import RulesSettings
from gateway.errors import RulesUnavailable
from gateway.logs import logger
from gateway.metrics import Board, Slot
from gateway.ports import Acknowledgement, ExecutorFactory, Head, RulesSource
from gateway.snapshot.alarms import Alarms
from gateway.snapshot.documents import Documents
from gateway.snapshot.history import History, must_follow
from gateway.snapshot.inforce import InForce, Snapshot
from gateway.snapshot.lastgood import LastGood, Saved
from gateway.snapshot.preparation import Preparations

_HEARTBEAT_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 0.5  # between two polls of a store that does not answer


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
        self._history = History(source)
        self._board = board
        self._worker = worker
        self._poll_seconds = settings.poll_ms / 1000
        self._stale_ns = settings.stale_after_ms * 1_000_000
        self._documents = Documents()
        self._preparations = Preparations(executor_for, self._on_settled)
        self._in_force = InForce(self._documents, self._preparations)
        self._last_good = LastGood(folder)
        self._alarms = Alarms(board)
        self._snapshot: Snapshot | None = None
        self._kept: Head | None = None  # newest head whose documents are looked at and on disk
        self._checked_ns: int | None = None
        self._lost_ns: int | None = None
        self._why_none = ""
        self._pause_seconds = self._poll_seconds
        self._newest: Head | None = None
        self._newer = asyncio.Event()
        self._news = asyncio.Event()
        self._settled: set[str] = set()
        self._told: tuple[Head, Mapping[str, str]] | None = None
        self._touched: set[str] = set()  # by documents taken, and not looked at yet

    @property
    def snapshot(self) -> Snapshot | None:
        """The rules in force; None until there are any."""
        return self._snapshot

    @property
    def stale(self) -> bool:
        """Whether the store has not confirmed the rules in force for longer than `stale_after_ms`."""
        return self._checked_ns is None or monotonic_ns() - self._checked_ns > self._stale_ns

    async def start(self) -> None:
        """Put the first rules in force: the store's, else the last good ones on disk; else `run` goes on trying.

        Returns when every version that they name has been tried once, so that a worker that is ready is wholly so.
        """
        saved = await asyncio.to_thread(self._last_good.newest)
        try:
            rules = await self._history.first(saved)
        except RulesUnavailable as error:
            if saved is None:
                self._note_none(error.message)
                return
            logger().warning("rules_from_last_good_file", revision=saved.head.revision, why=error.message)
            rules = saved
        await self._documents.take(rules.head, rules.operation_id, rules.documents)
        snapshot = await self._in_force.begin()
        await self._check()  # preparing may have taken minutes, and the first record already says how old its rules are
        self._put_in_force(snapshot)
        await self._keep()

    async def run(self) -> None:
        """Follow the store until cancelled."""
        while self._snapshot is None:
            await asyncio.sleep(_LONGEST_PAUSE_SECONDS)
            await self.start()
        async with asyncio.TaskGroup() as group:
            for name, turn in (("poll", self._poll), ("follow", self._follow), ("heartbeat", self._heartbeat)):
                group.create_task(self._repeat(name, turn), name=f"rules {name}")

    async def close(self) -> None:
        """Take this worker off the list and release every version. `run` has been cancelled before."""
        with suppress(RulesUnavailable):
            await self._source.withdraw(self._worker)
        self._snapshot = None
        await self._preparations.close()

    async def _repeat(self, name: str, turn: Callable[[], Awaitable[None]]) -> None:
        """Take turns for ever. A defect of ours in one is an alarm, not the end of following the rules."""
        while True:
            try:
                await turn()
            except Exception as defect:  # noqa: BLE001
                logger().error("rules_defect", task=name, exc_info=defect)
                self._alarms.note(name, "a defect keeps the rules from being followed; the log has the details")
                await asyncio.sleep(_LONGEST_PAUSE_SECONDS)
            else:
                self._alarms.note(name, None)

    # ── is there anything new, and is it ours ────────────────────────────────────────────────────────────────────

    async def _poll(self) -> None:
        answered = await self._check()
        await asyncio.sleep(self._poll_seconds if answered else self._pause_seconds)
        self._pause_seconds = self._poll_seconds if answered else min(self._pause_seconds * 2, _LONGEST_PAUSE_SECONDS)

    async def _check(self) -> bool:
        """Ask the store for its head and return whether it answered."""
        # Ours is taken before the question: what comes to be in force while it is under way may well be newer.
        documents = self._documents
        ours, operation_id = must_follow(documents), documents.operation_id
        self._history.doubtful |= self.stale
        try:
            head = await self._source.head()
            trouble = await self._history.trouble(head, ours, operation_id)
        except RulesUnavailable as error:
            self._note_lost(error.message)
            return False
        self._note_answer()
        self._alarms.note("store", trouble)
        self._history.doubtful = trouble is not None
        if trouble is None:
            self._checked_ns = monotonic_ns()
            self._board[Slot.RULES_CHECKED_NS] = time_ns()
            if self._is_behind(head):
                self._newest = head
                self._newer.set()
        return True

    # ── getting it, and putting it in force ──────────────────────────────────────────────────────────────────────

    async def _follow(self) -> None:
        await self._newer.wait()
        self._newer.clear()
        try:
            await self._fetch()
        except RulesUnavailable as error:
            # Nothing is lost: the next poll finds the newer head again.
            logger().warning("rules_not_fetched", why=error.message)
        if self._is_behind(self._documents.head):
            self._put_in_force(self._in_force.advance(self._snapshot, self._touched))
            self._touched = set()
            await self._keep()

    async def _fetch(self) -> None:
        """Take what changed in the store. What it touches stays noted until it has been put in force."""
        assert self._newest is not None
        if advance := await self._history.changes(self._documents, self._newest):
            self._touched |= await self._documents.take(advance.head, advance.operation_id, advance.changed)

    def _is_behind(self, head: Head | None) -> bool:
        """Tell whether something is to be put in force to be at `head`; also after a defect on the way there."""
        return bool(self._touched) or self._snapshot is None or self._snapshot.head != head

    def _put_in_force(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
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
        if self._snapshot is None:
            return
        if not self._settled:
            asyncio.get_running_loop().call_soon(self._place_settled)
        self._settled.add(model)

    def _place_settled(self) -> None:
        settled, self._settled = self._settled, set()
        if self._snapshot is not None:
            self._put_in_force(self._in_force.advance(self._snapshot, settled))
            self._news.set()

    async def _keep(self) -> None:
        """Write the last good file, then let the head be acknowledged: what is acknowledged outlives the store."""
        documents = self._documents
        assert documents.head is not None
        saved = Saved(documents.head, documents.operation_id, dict(documents.stored))
        if saved.documents:
            try:
                await asyncio.to_thread(self._last_good.write, saved)
            except OSError as error:
                logger().error("last_good_not_written", revision=saved.head.revision, why=str(error))
        self._kept = saved.head
        self._news.set()

    # ── saying so ────────────────────────────────────────────────────────────────────────────────────────────────

    async def _heartbeat(self) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_HEARTBEAT_SECONDS):
                await self._news.wait()
        self._news.clear()
        if self._kept is None:
            return
        problems = self._in_force.problems | self._documents.problems()
        with suppress(RulesUnavailable):  # the poll says that the store does not answer
            await self._source.acknowledge(Acknowledgement(self._worker, self._kept, problems))

    def _note_none(self, why: str) -> None:
        if why != self._why_none:
            logger().warning("no_rules_yet", why=why)
            self._why_none = why

    def _note_lost(self, why: str) -> None:
        self._history.doubtful = True
        if self._lost_ns is None:
            self._lost_ns = monotonic_ns()
            logger().warning("rules_store_lost", why=why)

    def _note_answer(self) -> None:
        if self._lost_ns is not None:
            logger().info("rules_store_back", after_seconds=(monotonic_ns() - self._lost_ns) / 1e9)
            self._lost_ns = None
