"""Keeping the last good rules of one worker on the disk, step by step as they are taken.

Belongs here: what has been taken and is not on the disk yet, and the thread that writes it. Never here: the files
themselves (`lastgood`), or what is in force.
"""

import asyncio
from pathlib import Path
from time import monotonic

from gateway.logs import logger
from gateway.ports import DocumentName, Head, StoredDocument
from gateway.snapshot.documents import Changed, Documents
from gateway.snapshot.lastgood import LastGood
from gateway.snapshot.lastgood_base import Saved
from gateway.snapshot.lastgood_log import Step
from gateway.tasks import Tasks

_STOP_SECONDS = 2.0
_AGAIN_SECONDS = 30.0  # after a generation could not be begun; its log goes on meanwhile


class Keeping:
    """What one worker keeps in a gateway's folder."""

    def __init__(self, folder: Path, documents: Documents) -> None:
        self._last_good = LastGood(folder)
        self._documents = documents
        self._on_disk: Head | None = None
        self._taken: dict[DocumentName, StoredDocument | None] = {}
        self._exact = False
        self._rewriting = Tasks()
        self._rewrite_after = 0.0

    async def newest(self) -> Saved | None:
        """Return the newest rules on the disk that are intact, or None; what is taken from now on follows on them."""
        saved = await asyncio.to_thread(self._last_good.newest)
        self._on_disk = saved.head if saved is not None else None
        return saved

    def note(self, kept: Changed, *, exact: bool) -> None:
        """Note what was taken. `exact` says that it leads on from the documents that were there only."""
        self._taken |= kept
        self._exact |= exact

    async def keep(self) -> Head:
        """Return the head of the documents once it is on the disk, or could not be put there, which is logged."""
        documents = self._documents
        head = documents.head
        assert head is not None
        step = Step(self._on_disk, self._exact, head, documents.operation_id, self._taken, len(documents.stored))
        try:
            if not await asyncio.to_thread(self._last_good.append, step):
                await asyncio.to_thread(self._last_good.write, self._saved(head))
        except OSError as error:
            # What was taken stays noted, so that one line brings the disk up to date when there is room again.
            logger().error("last_good_not_written", revision=head.revision, why=str(error))
            return head
        self._on_disk, self._taken, self._exact = head, {}, False
        self._begin_rewriting(head)
        return head

    def _begin_rewriting(self, head: Head) -> None:
        if self._rewriting or monotonic() < self._rewrite_after or not self._last_good.is_outgrown(head):
            return
        self._rewriting.start("rewrite the last good rules", self._rewrite(self._saved(head)))

    async def _rewrite(self, saved: Saved) -> None:
        try:
            await asyncio.to_thread(self._last_good.rewrite, saved)
        except OSError as error:
            self._rewrite_after = monotonic() + _AGAIN_SECONDS
            logger().error("last_good_not_rewritten", revision=saved.head.revision, why=str(error))

    def _saved(self, head: Head) -> Saved:
        return Saved(head, self._documents.operation_id, dict(self._documents.stored))

    async def close(self) -> None:
        """Let the thread end that may be writing."""
        self._last_good.stop()
        await self._rewriting.drain(_STOP_SECONDS)
