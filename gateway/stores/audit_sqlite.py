"""The audit store in SQLite files, one for each day, for one gateway that needs no other server.

    <day>.db    what was shipped on that UTC day (`audit_sqlite_day` has the schema)
    index.db    what outlives days (`audit_sqlite_index`)

Positions and gaps stand in the file that was written last, and are carried on when another one is written, in the
transaction of its first batch. What is committed survives the death of the machine, so a journal segment may be
deleted as soon as its records are committed.

Belongs here: going from day to day. Never here: making ids or times, deciding what a record means, or a statement.
"""

import heapq
import re
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import apsw
import msgspec

from gateway.chain import link
from gateway.errors import AuditUnavailable, InvalidInput
from gateway.ports import (
    FIND_LIMIT,
    Batch,
    Day,
    Dropped,
    Filter,
    Gap,
    Holding,
    JournalPosition,
    Kept,
    Page,
    Place,
    PublicKey,
    Row,
    Sampled,
    SignedCheckpoint,
    Thinned,
)
from gateway.record import Frame, Record
from gateway.stores import audit_sqlite_evidence as evidence
from gateway.stores import audit_sqlite_privacy as privacy
from gateway.stores import audit_sqlite_writing as writing
from gateway.stores.audit_sqlite_files import DayFiles
from gateway.stores.audit_sqlite_index import Index
from gateway.stores.audit_sqlite_lookups import Reading
from gateway.stores.sqlite_file import SqliteFile

_DAY = re.compile(r"\d{4}-\d\d-\d\d\Z", re.ASCII)
_CHUNK = 500


class SqliteAudit:
    """An `AuditStore` in `folder`, made if there is none. Every call may come from any thread.

    With `read_only` nothing is made or changed; any number of processes may have it open so while one writes.

    Raises (construction and every call):
        AuditUnavailable: SQLite cannot do it; nothing is half done.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self._read_only = read_only
        self._index = Index(folder / "index.db")
        self._files = DayFiles(folder)
        self._writing = threading.Lock()
        self._file: SqliteFile | None = None
        self._writer: writing.DayWriter | None = None
        self._day = ""
        self._turn = 0
        if not read_only:
            for day in self._index.dropping():
                self._take_away(day)

    # ── the recorder ─────────────────────────────────────────────────────────────────────────────────────────────

    def positions(self) -> Mapping[str, JournalPosition]:
        """Return the committed position of every journal."""
        newest = self._newest()
        if newest is None:
            return {}
        with self._files.reader(newest[0]) as connection:
            return writing.positions_in(connection)

    def write(self, batch: Batch) -> None:
        """Commit a batch in one transaction."""
        if not _DAY.match(batch.day):
            raise InvalidInput(f"day: {batch.day!r} is no day such as 2026-11-25")
        with self._writing:
            newest = self._newest()
            day = batch.day
            if newest is not None and not batch.frames and not batch.gaps:
                day = newest[0]
            positions: Mapping[str, JournalPosition] = {}
            gaps: Sequence[Gap] = ()
            if newest is not None and newest[0] != day:
                with self._files.reader(newest[0]) as connection:
                    positions, gaps = writing.positions_in(connection), writing.gaps_in(connection)
            file = self._file_of(day)
            with file.transaction() as connection:
                writer = writing.DayWriter(connection)
                if newest is None or newest[0] != day:
                    turn = newest[1] + 1 if newest is not None else 1
                    writing.carry_on(connection, turn, positions.values(), gaps)
                writer.write(batch, self._fresh(batch, connection, day))

    def seal(self, checkpoint: SignedCheckpoint) -> None:
        """Add a checkpoint."""
        with self._writing:
            for day in self._files.days():
                with self._files.reader(day) as connection:
                    kept = evidence.checkpoint_in(day, connection, checkpoint.gateway, checkpoint.number)
                if kept == checkpoint:
                    return
                if kept is not None:
                    raise AuditUnavailable(
                        f"checkpoint {checkpoint.number} of gateway {checkpoint.gateway} is kept, and is another one"
                    )
            with self._file_of(checkpoint.day).transaction() as connection:
                evidence.seal(connection, checkpoint)

    def last_checkpoint(self, gateway: str) -> SignedCheckpoint | None:
        """Return the newest checkpoint of a gateway, or None."""
        found = None
        for day in self._files.days():
            with self._files.reader(day) as connection:
                last = evidence.last_checkpoint_in(day, connection, gateway)
            if last is not None and (found is None or last.number > found.number):
                found = last
        return found

    def publish_key(self, key: PublicKey) -> None:
        """Keep a public key; one that is there is left as it is."""
        self._index.publish_key(key)

    # ── look-ups ─────────────────────────────────────────────────────────────────────────────────────────────────

    def find(self, any_id: str) -> Sequence[Kept]:
        """Return the records that a record id, request id or OIP id names, oldest first, with their families."""
        try:
            any_id.encode()
        except UnicodeEncodeError:
            return ()  # no record carries such an id
        found: dict[Place, Kept] = {}
        named = [*self._of_id(any_id), *self._of_request(any_id), *self._of_oip(any_id)]
        family = list(named)
        for kept in named:
            record = kept.frame.record
            if record.primary_id is not None:
                family += self._of_id(record.primary_id)
            family += self._shadows_of(record.record_id)
        for kept in family:
            found[Place(kept.frame.journal, kept.frame.sequence)] = kept
        return sorted(found.values(), key=_oldest_first)

    def page(self, wanted: Filter, after: str | None, limit: int) -> Page:
        """Return the next `limit` records of a listing, newest first by (day, received time)."""
        from_day, place = _cursor(after) if after is not None else ("9999-12-31", None)
        records: list[Record] = []
        for day in reversed(self._files.days()):
            if day > from_day:
                continue
            with self._reading(day) as reading:
                stretch = reading.page(wanted, place if day == from_day else None, limit - len(records), 0)
            records += stretch.records
            if stretch.next is not None:
                return Page(records, _packed_cursor(day, stretch.next))
        return Page(records, None)

    def sample(self, model: str, since_ns: int, limit: int) -> Sequence[Sampled]:
        """Return the newest primary records of a model that a rule decided, newest first."""
        found: list[Sampled] = []
        for day in self._files.days():
            with self._reading(day) as reading:
                found += reading.sample(model, since_ns, limit)
        return heapq.nlargest(limit, found, key=lambda one: one.received_ns)

    def count(self, wanted: Filter) -> int:
        """Return how many records `scan` would return."""
        total = 0
        for day in self._files.days():
            with self._reading(day) as reading:
                total += reading.count(wanted)
        return total

    def scan(self, wanted: Filter, *, contents: bool) -> Iterator[Sequence[Kept]]:
        """Yield records in the order they were recorded, day by day, in chunks."""
        for day in self._files.days():
            after: int | None = 0
            while after is not None:
                with self._reading(day) as reading:
                    chunk, after = reading.scan(wanted, after, _CHUNK, contents=contents)
                if chunk:
                    yield chunk

    # ── evidence ─────────────────────────────────────────────────────────────────────────────────────────────────

    def days(self) -> Sequence[Day]:
        """Return every day that the store has, in order."""
        found = []
        for day in self._files.days():
            with self._files.reader(day) as connection:
                found.append(evidence.day_of(day, connection))
        return [day for day in found if day is not None]

    def holdings(self, since_ns: int | None = None, until_ns: int | None = None) -> Sequence[Holding]:
        """Return what the store holds, by journal and day in order."""
        found: list[Holding] = []
        for day in self._files.days():
            with self._files.reader(day) as connection:
                found += evidence.held(day, connection, since_ns, until_ns)
        return sorted(found, key=lambda one: (one.journal, one.day))

    def gaps(self) -> Sequence[Gap]:
        """Return every gap that was ever committed, in order of journal and sequence."""
        newest = self._newest()
        if newest is None:
            return ()
        with self._files.reader(newest[0]) as connection:
            return writing.gaps_in(connection)

    def dropped(self) -> Sequence[Dropped]:
        """Return what was dropped with whole days, in order of day and journal."""
        return self._index.dropped()

    def keys(self) -> Sequence[PublicKey]:
        """Return every public key that was published, oldest first."""
        return self._index.keys()

    def checkpoints(self, gateway: str | None = None) -> Iterator[SignedCheckpoint]:
        """Yield the checkpoints in order of gateway and number."""
        runs = []
        for day in self._files.days():
            with self._files.reader(day) as connection:
                runs += [(name, first, last, day) for name, first, last in evidence.numbers_in(connection)]
        for name, first, last, day in sorted(runs):
            if gateway is None or name == gateway:
                above = first - 1
                while above < last:
                    with self._files.reader(day) as connection:
                        found = evidence.checkpoints_in(day, connection, name, above, _CHUNK)
                    yield from found
                    above = found[-1].number if found else last

    def checkpoint_of(self, place: Place) -> SignedCheckpoint | None:
        """Return the checkpoint that covers a place, or None while there is none."""
        for day in reversed(self._files.days()):
            with self._files.reader(day) as connection:
                found = evidence.covering_in(day, connection, place.journal, place.sequence)
            if found is not None:
                return found
        return None

    def rows(self, journal: str, first: int, last: int) -> Iterator[Row]:
        """Yield what stands in the places from `first` to `last` of a journal, in order."""
        runs = [one for one in self.holdings() if one.journal == journal and one.first <= last and one.last >= first]
        for run in sorted(runs, key=lambda one: one.first):
            at, end = max(first, run.first), min(last, run.last)
            while at <= end:
                with self._files.reader(run.day) as connection:
                    found = evidence.RowReader(connection, journal).read(at, end, _CHUNK)
                yield from found
                at = found[-1].sequence + 1 if found else end + 1

    # ── privacy ──────────────────────────────────────────────────────────────────────────────────────────────────

    def places_of(self, unit: bytes) -> Sequence[Place]:
        """Return where the records of a caller stand, with their shadows, in order."""
        found: set[Place] = set()
        for day in self._files.days():
            with self._reading(day) as reading:
                found |= {Place(*place) for place in reading.places_of(unit)}
        return sorted(found)

    def erase(self, places: Collection[Place], erasure: str) -> int:
        """Take the contents of records for good, and return of how many."""
        erased = 0
        for day in self._files.days():
            with self._files.reader(day) as connection:
                numbers = privacy.places_in(connection, places)
            if numbers:
                with self._writing:
                    file = self._file_of(day)
                    with file.transaction() as connection:
                        erased += privacy.erase(connection, numbers.values(), erasure)
                    with file.writer() as connection:
                        privacy.empty_log(connection, str(self._files.path(day)))
        return erased

    def thin(self, day: str, models: Collection[str], pruning: str) -> Thinned:
        """Take the records of some models out of a day, and leave stubs."""
        places: list[Place] = []
        if day not in self._files.days():
            return Thinned(places)
        with self._writing:
            file = self._file_of(day)
            with file.transaction() as connection:
                for model in models:
                    for number, journal, sequence, previous, sealed in privacy.thinnable(connection, model, 0, -1):
                        privacy.leave_stub(connection, number, link(previous, sequence, sealed), pruning)
                        places.append(Place(journal, sequence))
            with file.writer() as connection:
                privacy.empty_log(connection, str(self._files.path(day)))
        return Thinned(sorted(places))

    def drop(self, day: str, pruning: str) -> Sequence[Dropped]:
        """Take a whole day with its checkpoints out of the store."""
        with self._writing:
            days, newest = self._files.days(), self._newest()
            if day not in days:
                return ()
            if day == days[-1] or (newest is not None and day == newest[0]):
                raise InvalidInput(f"day: {day} is the newest day of the audit store and cannot be dropped")
            with self._files.reader(day) as connection:
                holdings = evidence.held(day, connection, None, None)
            held = [
                Dropped(day, one.journal, one.first, one.last, one.records + one.stubs, pruning) for one in holdings
            ]
            self._index.begin_dropping(day, held)
            self._take_away(day)
        return held

    def close(self) -> None:
        """Close the store. May be called again."""
        with self._writing:
            if self._file is not None:
                self._file.close()
            self._file, self._day = None, ""
            self._files.close()
            self._index.close()

    # ── days ─────────────────────────────────────────────────────────────────────────────────────────────────────

    @contextmanager
    def _reading(self, day: str) -> Iterator[Reading]:
        with self._files.reader(day) as connection:
            yield Reading(day, connection)

    def _newest(self) -> tuple[str, int] | None:
        """Return the day whose file has the positions, and which turn that is."""
        turns = []
        for day in self._files.days():
            with self._files.reader(day) as connection:
                turns.append((writing.turn_of(connection), day))
        turn, day = max(turns, default=(0, ""))
        return (day, turn) if turn else None

    def _file_of(self, day: str) -> SqliteFile:
        if self._file is None or self._day != day:
            if self._file is not None:
                self._file.close()
            self._file, self._day = self._files.opened_for_writing(day), day
        return self._file

    def _fresh(self, batch: Batch, connection: apsw.Connection, day: str) -> list[Frame]:
        taken, fresh = set(), []
        others = [other for other in self._files.days() if other != day]
        for frame in batch.frames:
            place = (frame.journal, frame.sequence)
            if place in taken or writing.stands(connection, frame):
                continue
            for other in others:
                with self._files.reader(other) as reading:
                    if writing.stands(reading, frame):
                        break
            else:
                taken.add(place)
                fresh.append(frame)
        return fresh

    def _take_away(self, day: str) -> None:
        self._files.forget(day)
        path = self._files.path(day)
        for name in (path, path.with_name(f"{path.name}-wal"), path.with_name(f"{path.name}-shm")):
            name.unlink(missing_ok=True)
        self._index.end_dropping(day)

    def _of_id(self, record_id: str) -> list[Kept]:
        found: list[Kept] = []
        for day in self._files.days():
            with self._reading(day) as reading:
                found += reading.kept(reading.of_id(record_id))
        return found

    def _shadows_of(self, record_id: str) -> list[Kept]:
        found: list[Kept] = []
        for day in self._files.days():
            with self._reading(day) as reading:
                found += reading.kept(reading.shadows_of(record_id))
        return found

    def _of_request(self, request_id: str) -> list[Kept]:
        found: list[Kept] = []
        for day in reversed(self._files.days()):
            with self._reading(day) as reading:
                found += reading.of_request(request_id, FIND_LIMIT - len(found))
            if len(found) >= FIND_LIMIT:
                break
        return found

    def _of_oip(self, oip_id: str) -> list[Kept]:
        found: list[Kept] = []
        for day in reversed(self._files.days()):
            with self._reading(day) as reading:
                found += reading.of_oip(oip_id, FIND_LIMIT - len(found))
            if len(found) >= FIND_LIMIT:
                break
        return found


def _oldest_first(kept: Kept) -> tuple[int, bool, str]:
    record = kept.frame.record
    return record.received_ns, record.role != "primary", record.record_id


def _packed_cursor(day: str, place: tuple[int, int]) -> str:
    return msgspec.json.encode([day, *place]).hex()


def _cursor(text: str) -> tuple[str, tuple[int, int]]:
    try:
        day, received_ns, number = msgspec.json.decode(bytes.fromhex(text), type=tuple[str, int, int])
    except (ValueError, msgspec.DecodeError):
        raise InvalidInput("after: it is not the `next` of a page") from None
    return day, (received_ns, number)
