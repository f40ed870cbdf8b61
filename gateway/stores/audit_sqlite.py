"""The audit store in SQLite files, one for each day, for one gateway that needs no other server.

    <day>.db    what was shipped on that UTC day (`audit_sqlite_day` has the schema)
    index.db    what outlives days, and what makes look-ups over many of them fast (`audit_sqlite_index`)

Positions and gaps stand in the newest day's file, in the transaction of the records that they are of; they are carried
on when a new day begins. What is committed survives the death of the machine, so a journal segment may be deleted as
soon as its records are committed. Only the control process writes; its jobs open the folder for reading.

Belongs here: going from day to day. Never here: making ids or times, deciding what a record means, or a statement.
"""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

from gateway.errors import AuditUnavailable, InvalidInput
from gateway.logs import logger
from gateway.ports import (
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
from gateway.stores import audit_sqlite_evidence as evidence
from gateway.stores import audit_sqlite_lookups as lookups
from gateway.stores import audit_sqlite_writing as writing
from gateway.stores.audit_sqlite_extents import Extents
from gateway.stores.audit_sqlite_files import DayFiles
from gateway.stores.audit_sqlite_finding import Finding
from gateway.stores.audit_sqlite_index import Index
from gateway.stores.audit_sqlite_listing import page
from gateway.stores.audit_sqlite_recording import Recording
from gateway.stores.audit_sqlite_removal import Removal
from gateway.stores.audit_sqlite_rows import rows_of
from gateway.stores.sqlite_file import Damaged

_DAY = re.compile(r"\d{4}-\d\d-\d\d\Z", re.ASCII)
_AT_ONCE = 500
_CHECKPOINTS_AT_ONCE = 50  # each has a few bytes for every record that it covers
_SCANNED = Filter(model="", role="", since_ns=0, until_ns=0)


class SqliteAudit:
    """An `AuditStore` in `folder`, made if there is none. Every call may come from any thread.

    With `read_only` nothing is made or changed; any number of processes may have it open so while one writes.

    Raises (construction and every call):
        AuditUnavailable: SQLite cannot do it; nothing is half done.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self._index = Index(folder / "index.db", read_only=read_only)
        self._files = DayFiles(folder)
        self._extents = Extents(self._files, self._index)
        self._writers = _Writers(self._files, self._index, self._extents) if not read_only else None

    # ── the recorder ─────────────────────────────────────────────────────────────────────────────────────────────

    def positions(self) -> Mapping[str, JournalPosition]:
        """Return the committed position of every journal."""
        newest = self._extents.newest()
        return (self._files.ask(newest, writing.positions_in) if newest is not None else None) or {}

    def write(self, batch: Batch) -> None:
        """Commit frames, gaps and positions in one transaction; a place that is taken is left as it is."""
        if not _DAY.match(batch.day):
            raise InvalidInput(f"day: {batch.day!r} is no day such as 2026-11-25")
        self._writing().recording.write(batch)

    def seal(self, checkpoint: SignedCheckpoint) -> None:
        """Add a checkpoint; the same one again changes nothing."""
        if not _DAY.match(checkpoint.day):
            raise InvalidInput(f"day: {checkpoint.day!r} is no day such as 2026-11-25")
        self._writing().recording.seal(checkpoint)

    def last_checkpoint(self, gateway: str) -> SignedCheckpoint | None:
        """Return the newest checkpoint of a gateway, or None."""
        question = partial(evidence.last_checkpoint_in, gateway=gateway)
        last = [found for _, found in self._files.ask_each(self._files.days(), question) if found is not None]
        return max(last, key=lambda one: one.number, default=None)

    def publish_key(self, key: PublicKey) -> None:
        """Keep a public key; one that is there is left as it is."""
        self._index.publish_key(key)

    # ── look-ups ─────────────────────────────────────────────────────────────────────────────────────────────────

    def find(self, any_id: str) -> Sequence[Kept]:
        """Return the records that a record id, request id or OIP id names, oldest first, with their families."""
        finding = Finding(self._files, self._index, self._extents)
        try:
            return finding.find(any_id)
        except UnicodeEncodeError:
            return ()  # no record carries such an id

    def page(self, wanted: Filter, after: str | None, limit: int) -> Page:
        """Return the next `limit` records of a listing, newest first by (day, received time)."""
        return page(self._files, self._extents, wanted, after, limit)

    def sample(self, model: str, since_ns: int, limit: int) -> Sequence[Sampled]:
        """Return the newest primary records of a model that a rule decided, newest first."""
        found: list[Sampled] = []
        for day, extent in reversed(self._extents.all().items()):
            if extent.last_ns < since_ns:
                continue
            question = partial(lookups.sample, model=model, since_ns=since_ns, limit=limit)
            found += self._files.ask(day, question) or ()
            if len(found) >= limit:
                found = _newest(found, limit)
                since_ns = found[-1].received_ns + 1 if found else 2**63
        return _newest(found, limit)

    def count(self, wanted: Filter) -> int:
        """Return how many records `scan` would return."""
        question = partial(lookups.count, wanted=_only_scanned(wanted))
        return sum(found for _, found in self._files.ask_each(self._days_of(wanted), question))

    def scan(self, wanted: Filter, *, contents: bool) -> Iterator[Sequence[Kept]]:
        """Yield records in the order they were recorded, day by day, in chunks; without parts unless `contents`."""
        scan = partial(lookups.scan, wanted=_only_scanned(wanted), limit=_AT_ONCE, contents=contents)
        return self._scanned(scan, self._days_of(wanted))

    # ── evidence ─────────────────────────────────────────────────────────────────────────────────────────────────

    def days(self) -> Sequence[Day]:
        """Return every day that the store has, in order."""
        found: list[Day] = []
        for day, extent in self._extents.all().items():
            try:
                models = self._files.ask(day, evidence.models_in) if extent.journals or extent.unreadable else None
            except Damaged as error:
                logger().error("audit_day_damaged", day=day, why=error.message)
                models = {}  # so that it goes when its time is over, as any other
            if models is not None:
                found.append(Day(day, models, extent.first_ns, extent.last_ns))
        return found

    def holdings(self, since_ns: int | None = None, until_ns: int | None = None) -> Sequence[Holding]:
        """Return what the store holds, by journal and day in order."""
        found: list[Holding] = []
        for day, extent in self._extents.all().items():
            if extent.meets(since_ns, until_ns):
                question = partial(evidence.held_in, day=day, since_ns=since_ns, until_ns=until_ns)
                found += self._files.ask(day, question) or ()
        return sorted(found, key=lambda one: (one.journal, one.day))

    def gaps(self) -> Sequence[Gap]:
        """Return every gap that was ever committed, in order of journal and sequence."""
        newest = self._extents.newest()
        return (self._files.ask(newest, writing.gaps_in) if newest is not None else None) or ()

    def dropped(self) -> Sequence[Dropped]:
        """Return what was dropped with whole days, in order of day and journal."""
        return self._index.dropped()

    def keys(self) -> Sequence[PublicKey]:
        """Return every public key that was published, oldest first."""
        return self._index.keys()

    def checkpoints(self, gateway: str | None = None, day: str | None = None) -> Iterator[SignedCheckpoint]:
        """Yield the checkpoints, of one gateway or of one day if that is said, in order of gateway and number."""
        days = [one for one in self._files.days() if day in {None, one}]
        runs = [
            (name, first, last, one)
            for one, numbers in self._files.ask_each(days, evidence.numbers_in)
            for name, first, last in numbers
            if gateway in {None, name}
        ]
        for name, first, last, one in sorted(runs):
            above = first - 1
            while above < last:
                question = partial(evidence.checkpoints_in, gateway=name, above=above, limit=_CHECKPOINTS_AT_ONCE)
                found = self._files.ask(one, question)
                if not found:
                    break
                yield from found
                above = found[-1].number

    def checkpoint_of(self, place: Place) -> SignedCheckpoint | None:
        """Return the checkpoint that covers a place, or None while there is none."""
        extents = self._extents.all()
        likely_first = sorted(extents, key=lambda day: not extents[day].holds(place))
        found = self._files.ask_each(likely_first, partial(evidence.covering_in, place=place))
        return next((one for _, one in found), None)

    def rows(self, journal: str, first: int, last: int) -> Iterator[Row]:
        """Yield what stands in the places from `first` to `last` of a journal, in order."""
        return rows_of(self._files, self._extents.all(), journal, first, last)

    # ── privacy ──────────────────────────────────────────────────────────────────────────────────────────────────

    def places_of(self, unit: bytes) -> Sequence[Place]:
        """Return where the records of a caller stand, with their shadows, in order."""
        found = self._files.ask_each(self._files.days(), partial(lookups.of_unit, unit=unit))
        return sorted(Place(*place) for _, places in found for place in places)

    def erase(self, places: Collection[Place], erasure: str) -> int:
        """Take the contents of records for good, and return of how many."""
        return self._writing().removal.erase(places, erasure)

    def places_in(self, day: str, models: Collection[str]) -> Sequence[Place]:
        """Return the places of a day's records of some models, in order."""
        if day not in self._files.days():
            return ()
        return sorted(self._files.ask(day, partial(evidence.places_in, models=models)) or ())

    def thin(self, day: str, models: Collection[str], pruning: str) -> Thinned:
        """Take the records of some models out of a complete day, and leave stubs."""
        return self._writing().removal.thin(day, models, pruning)

    def drop(self, day: str, pruning: str) -> Sequence[Dropped]:
        """Take a whole complete day with its checkpoints out of the store."""
        return self._writing().removal.drop(day, pruning)

    def close(self) -> None:
        """Close the store; a look-up that is under way ends first in its own thread. May be called again."""
        self._files.close()
        if self._writers is not None:
            self._writers.recording.close()
        self._index.close()

    # ── days ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _writing(self) -> "_Writers":
        if self._writers is None:
            raise AuditUnavailable("the audit store was opened for reading only")
        return self._writers

    def _days_of(self, wanted: Filter) -> list[str]:
        extents = self._extents.all().items()
        return [day for day, extent in extents if extent.meets(wanted.since_ns, wanted.until_ns)]

    def _scanned(self, scan: partial[tuple[list[Kept], int | None]], days: Sequence[str]) -> Iterator[Sequence[Kept]]:
        for day in days:
            after: int | None = 0
            while after is not None:
                chunk, after = self._files.ask(day, partial(scan, day=day, after=after)) or ((), None)
                if chunk:
                    yield chunk


class _Writers:
    """What changes a store."""

    def __init__(self, files: DayFiles, index: Index, extents: Extents) -> None:
        self.recording = Recording(files, index, extents)
        self.removal = Removal(files, index, extents, self.recording)


def _newest(found: Sequence[Sampled], limit: int) -> list[Sampled]:
    return sorted(found, key=lambda one: one.received_ns, reverse=True)[:limit]


def _only_scanned(wanted: Filter) -> Filter:
    """Return the filter of a scan.

    Raises:
        InvalidInput: something is given that scans do not look at.
    """
    for name in wanted.__struct_fields__:
        if getattr(wanted, name) is not None and getattr(_SCANNED, name) is None:
            raise InvalidInput(f"{name}: all records of a model, role or time can be asked for, not those of a {name}")
    return wanted
