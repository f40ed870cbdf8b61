"""Copying every revision of the rules into the archive, before the store forgets it.

Belongs here: what the archive has not got yet, and when to look. Never here: how revisions are kept, or what they mean.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from logging import ERROR, INFO

from gateway.errors import AuditUnavailable, GatewayError, RulesUnavailable
from gateway.logs import logger
from gateway.ports import Head, Revision, RevisionArchive, RulesStore

_LOOK_SECONDS = 1.0
Tell = Callable[[str, Revision], Awaitable[None]]
"""Is told the epoch and every revision before it is kept; once, or again when the process died in between."""


async def tell_nobody(_epoch: str, _revision: Revision) -> None:
    """Tell nobody."""


_PAGE = 50  # revisions at a time: a cohort may have megabytes, and stands in a revision twice


class Archivist:
    """Keeps the archive as far as the store. One for each control process; `run` is its task.

    The archive goes on from what it kept last when that is still in the store's history. If not — the store has a new
    life, or it lost changes and made others of the same numbers — the whole history that the store has is walked, and
    the archive finds out itself where the two part.
    """

    def __init__(self, store: RulesStore, archive: RevisionArchive, tell: Tell = tell_nobody) -> None:
        self._store = store
        self._archive = archive
        self._tell = tell
        self._walking = asyncio.Lock()
        self._reached: Head | None = None
        self._lag: int | None = None
        self._trouble = ""

    async def run(self) -> None:
        """Keep for ever what is new, once a second; what fails is tried again."""
        while True:
            try:
                await self.catch_up()
            except GatewayError as error:
                self._note(error.message)
            except Exception as defect:  # noqa: BLE001 - the archive must go on, or history would be lost in silence
                logger().error("defect", task="archivist", exc_info=defect)
            await asyncio.sleep(_LOOK_SECONDS)

    def lag(self) -> int | None:
        """Return how many revisions the archive was behind at the last look; None when it could not be told."""
        return self._lag

    @property
    def trouble(self) -> str:
        """Why the archive could not be brought up to the store at the last look; empty when it was."""
        return self._trouble

    async def catch_up(self) -> None:
        """Return when the archive has every revision that was in the store at the time of the call.

        Raises:
            RulesUnavailable: the store does not answer.
            AuditUnavailable: the archive cannot be read or written.
        """
        async with self._walking:
            try:
                while not await self._walk():
                    pass
            except (RulesUnavailable, AuditUnavailable):
                self._reached = self._lag = None
                raise
        self._note("")

    async def _walk(self) -> bool:
        """Keep what the archive lacks; False when the store began a new life meanwhile, and it has to be done again."""
        head = await self._store.head()
        if head is None:
            self._reached = self._lag = None
            return True
        if head != self._reached:
            kept = await asyncio.to_thread(self._archive.kept)
            if kept is not None and kept.epoch == head.epoch and kept.revision <= head.revision:
                self._lag = head.revision - kept.revision
                after = await self._last_in_common(kept)
            else:
                self._lag, after = None, 0
            if not await self._keep(head, after):
                return False
        self._reached, self._lag = head, 0
        return True

    async def _last_in_common(self, kept: Head) -> int:
        """Return the number below the revision that was kept last if it is the store's, too; 0 if it is another."""
        ours = await asyncio.to_thread(self._archive.revision, kept.revision)
        theirs = await self._store.history(kept.revision - 1, 1)
        differs = (
            ours is not None
            and len(theirs) == 1
            and theirs[0].revision == ours.revision
            and theirs[0].operation_id != ours.operation_id
        )
        return 0 if differs else kept.revision - 1

    async def _keep(self, head: Head, after: int) -> bool:
        previous: Sequence[Revision] = ()
        while page := await self._store.history(after, _PAGE):
            present = await self._store.head()
            if present is None or present.epoch != head.epoch:
                return False
            for revision in page:
                known = await asyncio.to_thread(self._archive.revision, revision.revision)
                if known is None or known.operation_id != revision.operation_id:
                    await self._tell(head.epoch, revision)
            # The last of the page before goes along: the archive sees on what each revision follows.
            await asyncio.to_thread(self._archive.keep, head.epoch, [*previous, *page])
            previous, after = page[-1:], page[-1].revision
        return True

    def _note(self, trouble: str) -> None:
        if trouble != self._trouble:
            level, event = (ERROR, "archive_behind") if trouble else (INFO, "archive_up_to_date")
            logger().log(level, event, why=trouble, revisions_behind=self._lag)
        self._trouble = trouble
