"""From the journals to the figures and the audit store: each record counted once and kept exactly once, in order.

What the store has, the journal has on disk (it is synced before each commit), and how far the journals have been
shipped is committed with the records themselves; so whatever is killed, and whenever, nothing is lost or doubled. What
cannot be read, or what the store will not take, is committed as a gap, so it neither blocks the rest nor goes unseen.

Belongs here: when to read, count, commit, have a checkpoint made, and delete. Never here: being on the request path,
the format of a journal, signatures, or SQL.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from msgspec import Struct

from gateway.counting import Counting
from gateway.errors import AuditUnavailable
from gateway.journal import JournalReader
from gateway.journal.backlog import beyond
from gateway.journal.discarding import Discarding
from gateway.journal.segment import Corruption
from gateway.journal.tail import Budget
from gateway.logs import logger
from gateway.metrics import Lag
from gateway.ports import AuditStore, Batch, Gap, JournalPosition
from gateway.record import Frame

TICK_SECONDS = 0.05
"""How often the journals are looked at; with what a commit takes, a record is in the store well within 250 ms. What has
come meanwhile is one burst of work, which requests wait for where it has their processor: half as often, it is twice as
long."""
BATCH_FRAMES = 1_000
BATCH_BYTES = 4 * 2**20
_FIRST_RETRY_SECONDS = 0.1
_LAST_RETRY_SECONDS = 5.0
_DELETE_EVERY_SECONDS = 1.0


class Checkpoints(Protocol):
    """Who makes the checkpoints. Called in the recorder's thread; raises `AuditUnavailable` when the store does."""

    def begin(self) -> str:
        """Take up what the store holds beyond the last checkpoint, and return the newest day of it ("": none)."""

    def committed(self, batch: Batch) -> None:
        """Note what was committed."""

    def due(self) -> bool:
        """Tell whether what was committed since the last checkpoint should be sealed now."""

    def seal(self) -> None:
        """Make a checkpoint of what was committed since the last one; nothing, when nothing was."""


class _Read(Struct, frozen=True):
    """What one commit takes. `reached_end` says that there was no more to read; `asked` whom that will satisfy."""

    batch: Batch
    shipped: Mapping[Path, tuple[int, int]]
    reached_end: bool
    asked: int


class Recorder:
    """Reads all journals under `journals`, counts every frame with `observe` and ships it to `store`.

    `observe` is given each frame once in the life of the process, in batches, whether the store works or not: what is
    shipped is counted as it is read, and while the store fails another reader runs ahead of it. Segments that
    are shipped are deleted when they are older than `keep_segments_seconds`, but never the newest of a journal nor
    one with damage in it.
    """

    def __init__(
        self,
        journals: Path,
        store: AuditStore,
        checkpoints: Checkpoints,
        observe: Callable[[Sequence[Frame]], None],
        keep_segments_seconds: float,
    ) -> None:
        self._journals = journals
        self._store = store
        self._checkpoints = checkpoints
        self._counting = Counting(journals, observe)
        self._discarding = Discarding(keep_segments_seconds)
        self._shipping: JournalReader | None = None
        self._positions: Mapping[str, JournalPosition] | None = None
        self._pending: _Read | None = None
        self._committed: Sequence[JournalPosition] = ()
        self._gaps: list[Gap] = []
        self._day = ""
        self._shipped: Mapping[Path, tuple[int, int]] = {}
        self._oldest_ns: int | None = None
        self._corrupt_frames = 0
        self._retry_seconds = 0.0
        self._retry_at = 0.0
        self._round_at = 0.0
        self._delete_at = 0.0
        self._wake = threading.Event()
        self._caught_up = threading.Condition()
        self._asked = 0
        self._answered = 0
        self._sealed_for = 0

    def run(self, stop: threading.Event) -> None:
        """Work until `stop` is set; then ship what is there and return."""
        try:
            while True:
                last = stop.is_set()
                self._round(last)
                if last:
                    break
                self._wake.wait(TICK_SECONDS)
                self._wake.clear()
        finally:
            self._counting.close()
            if self._shipping is not None:
                self._shipping.close()
        if self._pending is not None or self._shipping is None:
            logger().warning("recorder_stopped_behind", why="the store failed; the journals keep the rest")

    def catch_up(self, timeout: float) -> bool:
        """Return True as soon as all that was in the journals at the time of the call is in the store.

        False after `timeout` seconds without that. May be called from any thread but the recorder's.
        """
        with self._caught_up:
            self._asked += 1
            asked = self._asked
            self._wake.set()
            return self._caught_up.wait_for(lambda: self._answered >= asked, timeout)

    def seal(self, timeout: float) -> bool:
        """Return True as soon as a checkpoint covers all that was in the journals at the time of the call.

        False after `timeout` seconds without that. May be called from any thread but the recorder's.
        """
        with self._caught_up:
            self._asked += 1
            asked = self._sealed_for = self._asked
            self._wake.set()
            return self._caught_up.wait_for(lambda: self._answered >= asked, timeout)

    def lag(self) -> Lag:
        """Return how far the store is behind the journals. May be called from any thread."""
        positions, oldest = self._positions, self._oldest_ns
        behind = [beyond(folder, positions or {}) for folder in _folders(self._journals)]
        return Lag(
            records=sum(records for records, _ in behind) if positions is not None else None,
            bytes=sum(size for _, size in behind),
            seconds=max(0.0, (time.time_ns() - oldest) / 1e9) if oldest is not None else 0.0,
            corrupt_frames=self._corrupt_frames,
        )

    # ── the recorder's own thread ────────────────────────────────────────────────────────────────────────────────

    def _round(self, last: bool) -> None:
        if time.monotonic() < self._round_at and not last:
            return
        try:
            if self._shipping is None:
                self._begin()
            while self._ship(last) or (not last and self._count_ahead()):
                pass
            if last or self._checkpoints.due():
                self._checkpoints.seal()
            if time.monotonic() >= self._delete_at:
                self._delete_at = time.monotonic() + _DELETE_EVERY_SECONDS
                self._discarding.delete({folder: segment for folder, (segment, _) in self._shipped.items()})
        except Exception as error:  # noqa: BLE001 - whatever it is, the next round must come: nobody else ships records
            self._postpone(error)
            self._round_at = self._retry_at

    def _begin(self) -> None:
        self._positions = positions = self._store.positions()
        self._day = self._checkpoints.begin()
        self._shipping = JournalReader(self._journals, positions, self._alarm)

    def _count_ahead(self) -> bool:
        """While the store fails, count what it cannot take yet; return whether there is more."""
        if self._pending is None:
            return False
        assert self._shipping is not None
        assert self._positions is not None
        return self._counting.run_ahead(self._shipping, self._positions)

    def _ship(self, last: bool) -> bool:
        """Commit the next batch, which may be one that failed before; return whether there is more."""
        if time.monotonic() < self._retry_at and not last:
            return False
        # A batch that failed is tried again as it is, unless it was empty and records may have come meanwhile.
        read = self._pending
        if read is None or not (read.batch.frames or read.batch.gaps):
            read = self._gather()
        self._pending, batch = read, read.batch
        if batch.frames:
            first = batch.frames[0].record
            self._oldest_ns = first.received_ns + first.total_us * 1_000
        if batch.frames or batch.gaps or batch.positions != self._committed:
            try:
                self._commit(batch)
            except Exception as error:  # noqa: BLE001 - a store of any kind may fail in any way; all of it is retried
                self._postpone(error)
                return False
        self._pending, self._retry_seconds = None, 0.0
        self._committed, self._shipped = batch.positions, read.shipped
        self._positions = {**(self._positions or {}), **{position.journal: position for position in batch.positions}}
        if read.reached_end:
            self._oldest_ns = None
            if self._answered < self._sealed_for <= read.asked:
                self._checkpoints.seal()
            with self._caught_up:
                self._answered = read.asked
                self._caught_up.notify_all()
        return not read.reached_end

    def _gather(self) -> _Read:
        assert self._shipping is not None
        asked = self._asked  # before reading: who asks later may have written what this round does not read
        self._shipping.discover()
        budget = Budget(BATCH_FRAMES, BATCH_BYTES)
        frames = self._shipping.read(budget)
        self._counting.count(frames)
        self._counting.rejoin(self._shipping)
        self._discarding.mark()
        gaps, self._gaps = tuple(self._gaps), []
        batch = Batch(self._today(), frames, self._shipping.positions(), gaps)
        return _Read(batch, self._shipping.places(), bool(budget), asked)

    def _today(self) -> str:
        """Return the day that records are kept under: of UTC, but never one before the last, whatever the clock
        does.
        """
        return max(self._day, f"{datetime.now(UTC):%Y-%m-%d}")

    def _commit(self, batch: Batch) -> None:
        assert self._shipping is not None
        if batch.day != self._day:
            self._checkpoints.seal()  # one checkpoint never covers two days
            self._day = batch.day
        self._shipping.sync()
        try:
            self._store.write(batch)
        except AuditUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - the store failed to promise that any record fits
            batch = self._commit_around(batch, error)
        self._checkpoints.committed(batch)

    def _commit_around(self, batch: Batch, failure: Exception) -> Batch:
        """Commit record by record, those that the store will not take as gaps; return what was committed."""
        logger().error("records_not_taken", records=len(batch.frames), exc_info=failure)
        taken: list[Frame] = []
        gaps = list(batch.gaps)
        for frame in batch.frames:
            try:
                self._store.write(Batch(batch.day, [frame], ()))
                taken.append(frame)
            except AuditUnavailable:
                raise
            except Exception as error:  # noqa: BLE001 - as above, and now it is known which one
                why = f"the store does not take it: {error}"
                logger().error("record_set_aside", record_id=frame.record.record_id, journal=frame.journal, why=why)
                gaps.append(Gap(frame.journal, frame.sequence, 1, 0, 0, why, time.time_ns()))
        whole = Batch(batch.day, taken, batch.positions, gaps)
        self._store.write(whole)
        self._corrupt_frames += len(batch.frames) - len(taken)  # only now: all of it is tried again when that fails
        return whole

    def _postpone(self, error: Exception) -> None:
        self._retry_seconds = min(max(_FIRST_RETRY_SECONDS, self._retry_seconds * 2), _LAST_RETRY_SECONDS)
        self._retry_at = time.monotonic() + self._retry_seconds
        logger().error("records_not_shipped", again_in_seconds=self._retry_seconds, exc_info=error)

    def _alarm(self, segment: Path, damage: Corruption) -> None:
        self._corrupt_frames += max(1, damage.missing) - damage.told
        logger().error(
            "journal_corrupt",
            segment=str(segment),
            journal=damage.journal,
            offset=damage.offset,
            sequence=damage.sequence,
            records_missing=damage.missing or None,
            why=damage.why,
            reading_goes_on_in="this segment" if damage.frames_follow else "the next segment",
        )
        journal = damage.journal or segment.parent.name
        found = Gap(journal, damage.sequence, damage.missing, damage.segment, damage.offset, damage.why, time.time_ns())
        self._gaps.append(found)
        self._discarding.keep(segment)


def _folders(journals: Path) -> list[Path]:
    return [path for path in journals.iterdir() if path.is_dir()] if journals.is_dir() else []
