"""Whether the rules store can take changes, looked at once a second; and its beginning, when it is new.

Belongs here: the newest rules known here, and why changes are impossible now. Never here: which rules are right; a
store that lost them is a person's decision.
"""

import asyncio
from logging import ERROR, INFO
from pathlib import Path

from msgspec import Struct

from gateway.errors import RulesInDoubt, RulesUnavailable
from gateway.gauges import BoardFolder, is_alive
from gateway.logs import logger
from gateway.metrics import Slot
from gateway.ports import Head, RulesStore
from gateway.snapshot import History, LastGood, Saved, last_known_revision

_LOOK_SECONDS = 1.0
_DECIDE = (
    "the last good rules stay in force and changes are refused; decide with `pointsman rules republish` (the last good "
    "rules of this gateway are right) or `pointsman rules accept` (those in the store are)"
)


class StoreWatch:
    """Begins the rules store if it is new, knows its troubles, and the newest head that it must not fall behind.

    `rules_folder` has the last good rules of this gateway, `boards` the figures of its workers.
    """

    def __init__(self, store: RulesStore, rules_folder: Path, boards: BoardFolder) -> None:
        self._store = store
        self._folder = rules_folder
        self._boards = boards
        self._looking = asyncio.Lock()
        self._looked = False
        self._known: _Known | None = None
        self._silence: str | None = "the rules store has not answered yet"
        self._doubt: str | None = None
        self._told: list[str] | None = None

    @property
    def known(self) -> Head | None:
        """The newest head known here: from the last good rules, from every look, and from changes made here."""
        return self._known.head if self._known is not None else None

    @property
    def doubt(self) -> str | None:
        """Why nobody can say which rules are right, as of the last look that the store answered."""
        return self._doubt

    def troubles(self) -> list[str]:
        """Return why changes are impossible, in words; nothing when they are possible."""
        doubt = [f"{self._doubt}; {_DECIDE}"] if self._doubt is not None else []
        return doubt + ([self._silence] if self._silence is not None else [])

    async def floor(self) -> Head:
        """Return the head that no change may be made below.

        Raises:
            RulesInDoubt: the store lost rules, and nobody has decided yet which are right.
            RulesUnavailable: the store has not answered so far.
        """
        if self._known is None or not self._looked:
            await self.look()
        if self._doubt is not None:
            raise RulesInDoubt(f"{self._doubt}; {_DECIDE}")
        if self._known is None:
            raise RulesUnavailable(self._silence or "the rules store has no rules")
        return self._known.head

    def made(self, floor: Head, revision: int, operation_id: str) -> None:
        """Note a revision that was made here just now, with that floor."""
        if self._known is not None and self._known.head.epoch == floor.epoch and revision > self._known.head.revision:
            self._known = _Known(Head(floor.epoch, revision), operation_id)

    def resettled(self, head: Head, operation_id: str) -> None:
        """Note that the store's new life has begun with this head: it is what counts from now on."""
        self._known, self._doubt, self._silence = _Known(head, operation_id), None, None

    async def last_good(self) -> Saved | None:
        """Return the newest of the last good rules of this gateway that is intact, if there is one."""
        return await asyncio.to_thread(LastGood(self._folder).newest)

    async def last_revision(self) -> int:
        """Return the newest revision that was ever in force in this gateway, as its files and workers tell."""
        return max(self._of_workers(), await asyncio.to_thread(last_known_revision, self._folder))

    async def run(self) -> None:
        """Look for ever, and log every change of what is seen. A defect of ours is logged, and looking goes on."""
        while True:
            try:
                await self.look()
            except Exception as defect:  # noqa: BLE001
                logger().error("store_watch_defect", exc_info=defect)
            self._tell()
            await asyncio.sleep(_LOOK_SECONDS)

    def _tell(self) -> None:
        found = self.troubles()
        if found != self._told:
            logger().log(ERROR if found else INFO, "control_not_ready" if found else "control_ready", why=found)
        self._told = found

    # ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────

    async def look(self) -> None:
        """Look at the store now. What is wrong with it is not raised: `troubles` and `floor` say it from then on."""
        async with self._looking:
            try:
                if not self._looked and (saved := await self.last_good()) is not None:
                    self._known = _Known(saved.head, saved.operation_id)
                self._looked = True
                await self._judge()
                self._silence = None
            except RulesUnavailable as error:
                self._silence = error.message

    async def _judge(self) -> None:
        ours = self._known
        # Before the head is asked for: what a worker has by then, the store must have.
        last = self._of_workers() if ours is not None and ours.head.revision else await self.last_revision()
        head = await self._store.head()
        doubt = await self._doubt_about(head, ours, last)
        if doubt is None and head is None:
            head, doubt = await self._begin()
        if doubt is None and head is not None:
            await self._advance(head, ours)
            self._doubt = None
        elif self._known is ours:  # else it was resettled while we looked
            self._doubt = doubt

    async def _doubt_about(self, head: Head | None, ours: "_Known | None", last: int) -> str | None:
        if ours is not None and ours.head.revision:
            # A history of its own for each look: it compares the operations, too, however short a silence was.
            trouble = await History(self._store).trouble(head, ours.head, ours.operation_id)
            if trouble is not None:
                return trouble
        if (head.revision if head is not None else 0) < last:
            found = f"is at revision {head.revision}" if head is not None else "has no rules"
            return f"the rules store {found}, but revision {last} was in force here before"
        return None

    async def _begin(self) -> tuple[Head | None, str | None]:
        """Begin the life of a store in which nothing was ever in force; or say why it cannot be begun."""
        try:
            return await self._store.initialise(), None
        except RulesInDoubt as error:
            return None, error.message

    async def _advance(self, head: Head, ours: "_Known | None") -> None:
        if ours is not None and head == ours.head:
            return
        revisions = await self._store.revisions(head.revision - 1, head.revision) if head.revision else None
        if self._known is ours:  # else a change made here is newer, or a resettlement
            self._known = _Known(head, revisions[0].operation_id if revisions else "")

    def _of_workers(self) -> int:
        boards = self._boards.open().values()
        return max((board[Slot.RULES_REVISION] for board in boards if is_alive(board[Slot.PID])), default=0)


class _Known(Struct, frozen=True):
    """A head that the store has had, and the operation that made it."""

    head: Head
    operation_id: str
