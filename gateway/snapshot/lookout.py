"""Looking at the store's head: is there anything new, does it follow ours, and how long ago did the store answer.

Belongs here: when to look, and what was seen. Never here: fetching what is new, or putting it in force.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from time import monotonic_ns, time_ns

from gateway.config import RulesSettings
from gateway.errors import RulesUnavailable
from gateway.logs import logger
from gateway.metrics import Board, Slot
from gateway.ports import Head, RulesSource
from gateway.snapshot.alarms import Alarms
from gateway.snapshot.arrears import Arrears
from gateway.snapshot.documents import Documents
from gateway.snapshot.fetching import must_follow
from gateway.snapshot.history import History
from gateway.snapshot.shapes import Current

_LONGEST_PAUSE_SECONDS = 0.5  # between two looks at a store that does not answer
_LISTEN_AGAIN_SECONDS = 0.5
_NOTICE_SECONDS = 1.0  # a change is seen whose notice does not come for so long: the connection is frozen


class Lookout:
    """What one worker sees of the store. `newer` is set whenever `newest` is a head that is to be gone to."""

    def __init__(
        self,
        source: RulesSource,
        history: History,
        documents: Documents,
        alarms: Alarms,
        board: Board,
        *,
        settings: RulesSettings,
        current: Current,
        in_force: Callable[[], Head | None],
    ) -> None:
        self._source = source
        self._history = history
        self._documents = documents
        self._alarms = alarms
        self._board = board
        self._current = current
        self._in_force = in_force
        self._arrears = Arrears(settings.behind_not_ready_ms * 1_000_000)
        self._poll_seconds = settings.poll_ms / 1000
        self._pause_seconds = self._poll_seconds
        self._hint = asyncio.Event()
        self._listening: asyncio.Timeout | None = None
        self._lost_ns: int | None = None
        self.newest: Head | None = None
        self.newer = asyncio.Event()

    @property
    def behind(self) -> bool:
        """Whether newer rules could not be had for longer than `behind_not_ready_ms`, from a store that answers."""
        return self._arrears.exceeded

    async def poll(self) -> None:
        """Look once, and wait until it is time for the next look; a notice ends the wait."""
        answered = await self.look()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._poll_seconds if answered else self._pause_seconds):
                await self._hint.wait()
        self._pause_seconds = self._poll_seconds if answered else min(self._pause_seconds * 2, _LONGEST_PAUSE_SECONDS)

    async def listen(self) -> None:
        """Take the store's notices as hints until they end. That they are missing costs time only, so it is no news."""
        try:
            async with asyncio.timeout(None) as self._listening:
                async for _ in self._source.notices():
                    self._listening.reschedule(None)
                    self._hint.set()
        except (RulesUnavailable, TimeoutError):
            pass
        finally:
            self._listening = None
        await asyncio.sleep(_LISTEN_AGAIN_SECONDS)

    async def look(self) -> bool:
        """Ask the store for its head and return whether it answered."""
        # Ours is taken before the question: what comes to be in force while it is under way may well be newer.
        ours, operation_id = must_follow(self._documents), self._documents.operation_id
        in_force = self._in_force()
        # Cleared before the question: any number of notices that come meanwhile make for one more look.
        hinted = self._hint.is_set()
        self._hint.clear()
        self._history.doubtful |= self._current.stale
        try:
            head = await self._source.head()
            trouble = await self._history.trouble(head, ours, operation_id)
        except RulesUnavailable as error:
            self._note_lost(error.message)
            return False
        self._note_answer()
        self._alarms.note("store", trouble)
        self._history.doubtful = trouble is not None
        if trouble is not None:
            self._arrears.interrupt()
        else:
            if not hinted and head not in (self.newest, in_force):
                self._doubt_listening()
            self._note_head(head, in_force)
        self._note_arrears()
        return True

    def _note_head(self, head: Head | None, in_force: Head | None) -> None:
        self._current.confirmed_ns = now_ns = monotonic_ns()
        self._board[Slot.RULES_CHECKED_NS] = time_ns()
        self._arrears.look(in_force, head, now_ns)
        self.newest = head
        if head != self._in_force():
            self.newer.set()

    def _doubt_listening(self) -> None:
        """Listen anew unless a notice still comes: a change was seen that none told of."""
        if not self._hint.is_set() and self._listening is not None and not self._listening.expired():
            self._listening.reschedule(asyncio.get_running_loop().time() + _NOTICE_SECONDS)

    def _note_arrears(self) -> None:
        why = "newer rules in the store could not be put in force for a while, though it answers"
        self._alarms.note("behind", why if self.behind else None)

    def _note_lost(self, why: str) -> None:
        self._history.doubtful = True
        self._arrears.interrupt()
        self._note_arrears()
        if self._lost_ns is None:
            self._lost_ns = monotonic_ns()
            logger().warning("rules_store_lost", why=why)

    def _note_answer(self) -> None:
        if self._lost_ns is not None:
            logger().info("rules_store_back", after_seconds=(monotonic_ns() - self._lost_ns) / 1e9)
            self._lost_ns = None
