"""What the recorder does to the audit store: batches and checkpoints, each into the file of its day.

Belongs here: which file is written, which frames are new, when a chunk of records is finished. Never here: reading for
anybody else.
"""

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import islice

import apsw

from gateway.errors import AuditUnavailable
from gateway.logs import logger
from gateway.ports import Batch, Place, SignedCheckpoint
from gateway.record import Frame
from gateway.stores import audit_sqlite_evidence as evidence
from gateway.stores import audit_sqlite_writing as writing
from gateway.stores.audit_sqlite_day import CHUNK_BITS
from gateway.stores.audit_sqlite_extents import Extents, extent_in
from gateway.stores.audit_sqlite_files import DayFiles
from gateway.stores.audit_sqlite_index import UNFINISHED, Index
from gateway.stores.audit_sqlite_lookups import chunk_keys, last_number
from gateway.stores.audit_sqlite_privacy import empty_log
from gateway.stores.sqlite_file import SqliteFile

_FILTERS_AT_ONCE = 4  # each takes a tenth of a second, and a batch must not wait for many


class Recording:
    """Writes into the files of the store. Every call may come from any thread; raises `AuditUnavailable`."""

    def __init__(self, files: DayFiles, index: Index, extents: Extents) -> None:
        self._files = files
        self._index = index
        self._extents = extents
        self._lock = threading.Lock()
        self._past = threading.Lock()
        self._day: str | None = None
        self._file: SqliteFile | None = None
        self._writer: writing.DayWriter | None = None
        self._lasts: dict[str, int] | None = None
        self._sealed: dict[str, int] | None = None
        self._finished = ("", 0)
        self._closed = False

    def write(self, batch: Batch) -> None:
        """Commit a batch; see `AuditStore.write`.

        Without a frame it goes to the newest day, whichever it names: a day begins with its first record.
        """
        with self._lock:
            self._refuse_closed()
            newest = self._extents.newest()
            day = batch.day if batch.frames or newest is None else newest
            if newest is not None and day < newest:
                raise AuditUnavailable(f"day {day} of the audit store is complete since {newest} has begun")
            file = self._opened(day)
            try:
                with file.transaction() as connection:
                    if day != newest:
                        self._begin(connection, newest)
                    fresh = self._fresh(batch.frames)
                    if self._writer is None:
                        self._writer = writing.DayWriter(connection)
                    self._writer.write(batch, fresh)
            except BaseException:
                self._writer = self._lasts = None
                raise
            self._finish()

    def seal(self, checkpoint: SignedCheckpoint) -> None:
        """Add a checkpoint; see `AuditStore.seal`."""
        one = checkpoint
        with self._lock:
            self._refuse_closed()
            if self._sealed is None:
                self._sealed = {}
                for _, numbers in self._files.ask_each(self._files.days(), evidence.numbers_in):
                    for gateway, _, last in numbers:
                        self._sealed[gateway] = max(last, self._sealed.get(gateway, last))
            if one.number <= self._sealed.get(one.gateway, one.number - 1):
                question = partial(evidence.checkpoint_in, gateway=one.gateway, number=one.number)
                for _, kept in self._files.ask_each(self._files.days(), question):
                    if kept != one:
                        raise AuditUnavailable(f"gateway {one.gateway} has another checkpoint {one.number} already")
                    return
            with self._changing(one.day) as file, file.transaction() as connection:
                evidence.seal(connection, one)
            self._sealed[one.gateway] = max(one.number, self._sealed.get(one.gateway, one.number))

    @contextmanager
    def changing(self, day: str) -> Iterator[SqliteFile]:
        """Lend the file of a day for changing it; of the newest day, the recorder waits meanwhile."""
        newest = self._extents.newest()
        with self._lock if day == newest else self._past, self._changing(day) as file:
            yield file

    @contextmanager
    def dropping(self) -> Iterator[None]:
        """Keep everybody from changing a complete day meanwhile."""
        with self._past:
            yield

    def close(self) -> None:
        """Close what is open for writing. May be called again."""
        with self._lock:
            self._closed = True
            if self._file is not None:
                self._file.close()
            self._file = self._writer = None

    # ── under the lock ───────────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def _changing(self, day: str) -> Iterator[SqliteFile]:
        if day == self._day and self._file is not None:
            yield self._file
            return
        file = self._files.opened_for_writing(day)
        try:
            yield file
        finally:
            file.close()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise AuditUnavailable("the audit store is closed")

    def _opened(self, day: str) -> SqliteFile:
        if self._file is None or self._day != day:
            self._leave()
            self._file, self._day = self._files.opened_for_writing(day), day
        return self._file

    def _leave(self) -> None:
        """Close the file that was written, with all of it in one place unless somebody is reading."""
        if self._file is not None and self._day is not None:
            self._files.forget(self._day)
            with suppress(AuditUnavailable):
                empty_log(self._file, seconds=0)
            self._file.close()
        self._file = self._writer = None

    def _begin(self, connection: apsw.Connection, previous: str | None) -> None:
        positions, gaps = None, None
        if previous is not None:
            positions = self._files.ask(previous, writing.positions_in)
            gaps = self._files.ask(previous, writing.gaps_in)
        writing.begin(connection, (positions or {}).values(), gaps or (), time.time_ns())

    def _fresh(self, frames: Sequence[Frame]) -> list[Frame]:
        """Return the frames whose places are not taken."""
        if self._lasts is None:
            self._lasts = {}
            for extent in self._extents.all().values():
                for journal, (_, last) in extent.journals.items():
                    self._lasts[journal] = max(last, self._lasts.get(journal, 0))
        lasts = self._lasts
        fresh: list[Frame] = []
        came: dict[tuple[str, int], Frame] = {}
        for frame in frames:
            place = (frame.journal, frame.sequence)
            if frame.sequence > lasts.get(frame.journal, 0):
                lasts[frame.journal] = frame.sequence
            elif place in came:
                if came[place] != frame:
                    writing.conflict(frame, "another record of the same batch has its place")
                continue
            elif self._stands(frame):
                continue
            came[place] = frame
            fresh.append(frame)
        return fresh

    def _stands(self, frame: Frame) -> bool:
        place = Place(frame.journal, frame.sequence)
        days = [day for day, extent in self._extents.all().items() if extent.holds(place)]
        answers = self._files.ask_each(reversed(days), partial(writing.stands_in, frame=frame))
        return any(stands for _, stands in answers)

    def _finish(self) -> None:
        """Make the filters of chunks that are finished: all of the days before, and those before the present chunk.

        The batch is committed already, so what fails here is only said. Look-ups do without; the next chunk
        tries again.
        """
        assert self._day is not None
        assert self._writer is not None
        here = (self._day, self._writer.next_number >> CHUNK_BITS)
        if here == self._finished:
            return
        try:
            due = list(islice(self._unfinished(*here), _FILTERS_AT_ONCE + 1))
            for day, chunk, final in due[:_FILTERS_AT_ONCE]:
                found = self._files.ask(day, partial(chunk_keys, chunk=chunk))
                if found is not None:
                    self._index.finish(day, chunk, found.keys, final=final, strays=found.strays)
                if final and (extent := self._files.ask(day, extent_in)) is not None:
                    self._index.complete(day, extent)
        except AuditUnavailable as error:
            logger().error("audit_index_behind", why=error.message)
            due = []
        if len(due) <= _FILTERS_AT_ONCE:
            self._finished = here

    def _unfinished(self, newest: str, present: int) -> Iterator[tuple[str, int, bool]]:
        """Yield (day, chunk, whether it is the day's last) of what has no filter and can have one."""
        finished = self._index.finished()
        for day in self._files.days():
            done = finished.get(day, UNFINISHED)
            if day == newest:
                yield from ((day, chunk, False) for chunk in range(done.chunks, present))
            elif day < newest and not done.final:
                last = (self._files.ask(day, last_number) or 0) >> CHUNK_BITS
                yield from ((day, chunk, chunk == last) for chunk in range(min(done.chunks, last), last + 1))
