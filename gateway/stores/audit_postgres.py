"""The audit store in PostgreSQL 15 or newer, for any number of gateways that share one database.

What is committed survives the death of the server's machine, whatever its defaults are: our sessions turn
`synchronous_commit` on. A connection that is lost leaves no doubt: whether its last transaction was committed or not,
the same batch can be written again, and what is there already is left as it is.

Belongs here: which connection does what. Never here: making ids or times, deciding what a record means, or a statement.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date

import psycopg

from gateway.errors import InvalidInput
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
from gateway.stores import audit_postgres_checkpoints as checkpointing
from gateway.stores import audit_postgres_days as partitions
from gateway.stores import audit_postgres_evidence as evidence
from gateway.stores import audit_postgres_listing as listing
from gateway.stores import audit_postgres_lookups as lookups
from gateway.stores import audit_postgres_privacy as privacy
from gateway.stores import audit_postgres_scanning as scanning
from gateway.stores import audit_postgres_schema as schema
from gateway.stores import audit_postgres_writing as writing
from gateway.stores.audit_postgres_places import Rows
from gateway.stores.postgres_connection import Link, Unreachable
from gateway.stores.postgres_link import PostgresLink
from gateway.stores.postgres_url import parse_postgres_url


class PostgresAudit:
    """An `AuditStore` in the database at `url` (`postgres_url` has its form). Every call may come from any thread.

    The tables are made, or brought to this version, by the first connection that writes, which is tried at once. A
    server that cannot be reached then is no error, since a gateway serves without it; every call tries again. With
    `read_only` nothing is made or changed.

    Raises:
        SettingsError: the URL cannot be used (construction).
        AuditUnavailable: PostgreSQL cannot do it; nothing is half done (construction and every call).
    """

    def __init__(self, url: str, *, read_only: bool = False) -> None:
        self._link = PostgresLink(parse_postgres_url(url), self._prepare, self._check, read_only)
        self._read_only = read_only
        self._partitions = partitions.Partitions()
        self._rows = Rows(self._link.reader)
        try:
            if read_only:
                with self._link.reader():
                    pass
            else:
                self._finish_rewrites()
        except Unreachable as error:
            logger().warning("audit_store_away", why=error.message)

    def _finish_rewrites(self) -> None:
        with self._link.writer() as connection:
            pending = privacy.pending(connection)
        if pending:
            with self._link.upkeep() as connection:
                privacy.finish(connection)

    def _prepare(self, connection: Link) -> None:
        schema.bring_schema(connection, self._link.where)
        connection.execute(writing.ARRIVING)

    def _check(self, connection: Link) -> None:
        if not self._read_only and not schema.is_there(connection):
            with self._link.writer():
                pass  # which makes the tables
        schema.check_schema(connection, self._link.where)

    # ── the recorder ─────────────────────────────────────────────────────────────────────────────────────────────

    def positions(self) -> Mapping[str, JournalPosition]:
        """Return the committed position of every journal."""
        # On the connection for writing: a replica may be behind, and the recorder never waits for who looks things up.
        with self._link.reader() if self._read_only else self._link.writer() as connection:
            return writing.positions(connection)

    def write(self, batch: Batch) -> None:
        """Commit a batch in one transaction."""
        day = partitions.parse_day(batch.day)
        if day is None:
            raise InvalidInput(f"day: {batch.day!r} is no day such as 2026-11-25")
        with self._link.writer() as connection:
            try:
                self._write(connection, day, batch)
            except psycopg.errors.CheckViolation:  # there is no partition: the day was dropped since we made it
                self._partitions.forget()
                self._write(connection, day, batch)

    def _write(self, connection: Link, day: date, batch: Batch) -> None:
        if batch.frames:
            self._partitions.make(connection, day)
        with connection.transaction():
            writing.write(connection, batch)

    def seal(self, checkpoint: SignedCheckpoint) -> None:
        """Add a checkpoint."""
        with self._link.writer() as connection, connection.transaction():
            checkpointing.seal(connection, checkpoint)

    def last_checkpoint(self, gateway: str) -> SignedCheckpoint | None:
        """Return the newest checkpoint of a gateway, or None."""
        with self._link.reader() as connection:
            return checkpointing.last_checkpoint(connection, gateway)

    def publish_key(self, key: PublicKey) -> None:
        """Keep a public key; one that is there is left as it is."""
        with self._link.writer() as connection:
            checkpointing.publish_key(connection, key)

    # ── look-ups ─────────────────────────────────────────────────────────────────────────────────────────────────

    def find(self, any_id: str) -> Sequence[Kept]:
        """Return the records that a record id, request id or OIP id names, oldest first, with their families."""
        try:
            any_id.encode()
        except UnicodeEncodeError:
            return ()  # no record carries such an id
        with self._snapshot() as connection:
            return lookups.find(connection, any_id)

    def page(self, wanted: Filter, after: str | None, limit: int) -> Page:
        """Return the next `limit` records of a listing, newest first by (day, received time)."""
        with self._snapshot() as connection:
            return listing.page(connection, wanted, after, limit)

    def sample(self, model: str, since_ns: int, limit: int) -> Sequence[Sampled]:
        """Return the newest primary records of a model that a rule decided, newest first."""
        with self._snapshot() as connection:
            return scanning.sample(connection, model, since_ns, limit)

    def count(self, wanted: Filter) -> int:
        """Return how many records `scan` would return."""
        return scanning.count(self._link.reader, wanted)

    def scan(self, wanted: Filter, *, contents: bool) -> Iterator[Sequence[Kept]]:
        """Yield records in the order they were recorded, day by day, in chunks."""
        return scanning.scan(self._link.reader, wanted, contents=contents)

    # ── evidence ─────────────────────────────────────────────────────────────────────────────────────────────────

    def days(self) -> Sequence[Day]:
        """Return every day that the store has, in order."""
        return evidence.days(self._link.reader)

    def holdings(self, since_ns: int | None = None, until_ns: int | None = None) -> Sequence[Holding]:
        """Return what the store holds, by journal and day in order."""
        return evidence.holdings(self._link.reader, since_ns, until_ns)

    def gaps(self) -> Sequence[Gap]:
        """Return every gap that was ever committed, in order of journal and sequence."""
        with self._link.reader() as connection:
            return checkpointing.gaps(connection)

    def dropped(self) -> Sequence[Dropped]:
        """Return what was dropped with whole days, in order of day and journal."""
        with self._link.reader() as connection:
            return checkpointing.dropped(connection)

    def keys(self) -> Sequence[PublicKey]:
        """Return every public key that was published, oldest first."""
        with self._link.reader() as connection:
            return checkpointing.keys(connection)

    def checkpoints(self, gateway: str | None = None, day: str | None = None) -> Iterator[SignedCheckpoint]:
        """Yield the checkpoints, of one gateway or of one day if that is said, in order of gateway and number."""
        return checkpointing.checkpoints(self._link.reader, gateway, day)

    def checkpoint_of(self, place: Place) -> SignedCheckpoint | None:
        """Return the checkpoint that covers a place, or None while there is none."""
        with self._link.reader() as connection:
            return checkpointing.checkpoint_of(connection, place)

    def rows(self, journal: str, first: int, last: int) -> Iterator[Row]:
        """Yield what stands in the places from `first` to `last` of a journal, in order."""
        return self._rows.read(journal, first, last)

    # ── privacy ──────────────────────────────────────────────────────────────────────────────────────────────────

    def places_of(self, unit: bytes) -> Sequence[Place]:
        """Return where the records of a caller stand, with their shadows, in order."""
        with self._link.reader() as connection:
            return privacy.places_of(connection, unit)

    def erase(self, places: Collection[Place], erasure: str) -> int:
        """Take the contents of records for good, and return of how many."""
        with self._link.upkeep() as connection:
            return privacy.erase(connection, places, erasure)

    def places_in(self, day: str, models: Collection[str]) -> Sequence[Place]:
        """Return the places of a day's records of some models, in order; stubs do not count."""
        with self._link.reader() as connection:
            return privacy.places_in(connection, day, models)

    def thin(self, day: str, models: Collection[str], pruning: str) -> Thinned:
        """Take the records of some models out of a day, and leave stubs."""
        with self._link.upkeep() as connection:
            return Thinned(privacy.thin(connection, day, models, pruning))

    def drop(self, day: str, pruning: str) -> Sequence[Dropped]:
        """Take a whole day with its checkpoints out of the store."""
        self._partitions.forget()
        with self._link.upkeep() as connection:
            return privacy.drop(connection, day, pruning)

    def close(self) -> None:
        """Close every connection. May be called again."""
        self._link.close()

    @contextmanager
    def _snapshot(self) -> Iterator[Link]:
        """Lend a connection for reading, in a transaction whose statements all see the same."""
        with self._link.reader() as connection, connection.transaction():
            yield connection
