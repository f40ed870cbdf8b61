"""Where a worker's records go: into its journal, and what to do while the disk is too full to go on.

With `on_full = "refuse"` new requests are refused while the disk is full; those under way are still recorded, for
which there is room. With `"serve"` nothing is written while it is full; what is lost is counted on the worker's board
and, as soon as there is room, told by a `records.lost` record in the journal, so that nobody can take the gap for
completeness.

Belongs here: that policy. Never here: writing files (`journal`), or HTTP.
"""

from collections.abc import Callable
from contextlib import suppress
from time import time_ns
from typing import Literal

from gateway.arrival import Arrival
from gateway.errors import AuditUnavailable
from gateway.journal import Journal
from gateway.journal.space import Space
from gateway.metrics import Board, Slot
from gateway.record import Record

OnFull = Literal["refuse", "serve"]
LossRecord = Callable[[int, int, int], Record]
"""Makes the record of a loss: how many records, and the Unix times in ns between which they were lost."""


class Sink:
    """The `RecordSink` of one worker. Everything but `failed` belongs to the worker's event loop."""

    def __init__(
        self, journal: Journal, space: Space, board: Board, loss_record: LossRecord, *, on_full: OnFull = "refuse"
    ) -> None:
        self._journal = journal
        self._space = space
        self._board = board
        self._loss_record = loss_record
        self._serve = on_full == "serve"
        self._first_lost_ns = 0

    @property
    def failed(self) -> bool:
        """Whether records can no longer be kept here; it never becomes False again."""
        return self._journal.failed

    def check(self) -> None:
        """Raise `AuditUnavailable` when records cannot be kept now."""
        if self._space.full and not self._serve:
            raise AuditUnavailable(
                f"the disk of the records is {self._space.percent:.0f} % full, so nothing is served until there is room"
            )
        if self._journal.failed:
            raise AuditUnavailable("records cannot be kept here any more; send the request again")

    def append(self, record: Record, request: bytes, response: bytes) -> Arrival[None] | None:
        """Make the record survive as `Journal.enqueue` does; or while the disk is full, if that is wanted, count it."""
        if self._serve:
            if self._space.full:
                self._count_loss()
                return None
            self._tell_losses()
        return self._journal.enqueue(record, request, response)

    def close(self) -> None:
        """Tell what was lost, if there is any way to, and close the journal."""
        with suppress(AuditUnavailable):  # the board still has the number, for the next life of the worker
            self._tell_losses()
        self._journal.close()

    def _count_loss(self) -> None:
        if not self._first_lost_ns:
            self._first_lost_ns = time_ns()
        self._board.add(Slot.RECORDS_LOST)

    def _tell_losses(self) -> None:
        lost = self._board[Slot.RECORDS_LOST]
        untold = lost - self._board[Slot.LOSSES_RECORDED]
        if untold > 0 and not self._journal.failed:
            now = time_ns()
            waiting = self._journal.append(self._loss_record(untold, self._first_lost_ns or now, now), b"", b"")
            if waiting is not None:
                waiting.add_done_callback(lambda done: done.cancelled() or done.exception())  # logged where it failed
            self._board[Slot.LOSSES_RECORDED] = lost
            self._first_lost_ns = 0
