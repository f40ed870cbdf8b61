"""The sockets of records: where a worker puts one, and the store that keeps it.

Belongs here: the shape of a sink and of an audit store as our code wants them. Never here: an implementation.

Everything in a store is kept under the UTC day on which it was shipped (`Batch.day`), never under the time a caller
claims; so a day is complete when the next one begins, and a checkpoint never covers two days.
"""

from collections.abc import Awaitable, Collection, Iterator, Mapping, Sequence
from typing import Protocol

from msgspec import Struct

from gateway.record import Frame, Record


class RecordSink(Protocol):
    """Where the data plane puts a record before its reply leaves."""

    def check(self) -> None:
        """Raise `AuditUnavailable` when records cannot be kept now, so that no work is begun for nothing."""

    def append(self, record: Record, request: bytes, response: bytes) -> Awaitable[None] | None:
        """Make the record survive, once what is returned has been awaited, the death of this process; with durability
        `power`, that of the machine. `request` and `response` are the parts of `capture`.

        Raises (here or when awaited):
            AuditUnavailable: it is not recorded.
        """

    @property
    def failed(self) -> bool:
        """Whether records can no longer be kept here; it never becomes False again."""


class JournalPosition(Struct, frozen=True):
    """How far one journal has been shipped: the next byte to read in a segment, the last sequence, the chain after
    it (empty when nobody can tell, because what stands there cannot be read).
    """

    journal: str
    segment: int
    offset: int
    sequence: int
    chain: bytes


class Gap(Struct, frozen=True):
    """A stretch of a journal that could not be read: set aside (quarantined), never passed over in silence.

    `first` is the sequence expected where it begins, `count` how many records are lost by it (0: none, or nobody can
    tell), `segment` and `offset` where its bytes lie, `at_ns` when it was found (Unix ns).
    """

    journal: str
    first: int
    count: int
    segment: int
    offset: int
    why: str
    at_ns: int


class Batch(Struct, frozen=True):
    """What one transaction of the recorder commits, under one day (ISO, UTC, such as `2026-11-25`)."""

    day: str
    frames: Sequence[Frame]
    positions: Sequence[JournalPosition]
    gaps: Sequence[Gap] = ()


class Place(Struct, frozen=True, order=True):
    """Where a record stands: its journal and its sequence there. No two records have one place."""

    journal: str
    sequence: int


class Kept(Struct, frozen=True):
    """A record as the store has it. The parts in `frame` are empty where none is kept, or `erasure` took it.

    `erasure` is the record id of the control record by which its contents were erased, None if they were not.
    """

    frame: Frame
    day: str
    erasure: str | None = None


class Row(Struct, frozen=True):
    """A record as verification wants it: nothing parsed, nothing believed.

    `sealed` is None for a stub, which is what pruning by the control record `pruning` left; then `chain` is what the
    stub says, else it is empty and has to be worked out. `damage` says what the store itself can see is wrong: a column
    that contradicts the sealed part, or a sealed part that is no record; empty when nothing is.
    """

    journal: str
    sequence: int
    previous: bytes
    sealed: bytes | None
    request: bytes
    response: bytes
    chain: bytes = b""
    erasure: str | None = None
    pruning: str | None = None
    damage: str = ""


class Sampled(Struct, frozen=True):
    """What a record says about who was decided for: the facts of a primary request, and the version that was chosen.

    `revision` and `cohort_revision` are the record's: they tell which headers the rules looked at then.
    """

    record_id: str
    received_ns: int
    unit: bytes
    keyed: bool
    headers: Mapping[str, str]
    asked_version: str | None
    intended: str | None
    revision: int | None = None
    cohort_revision: int | None = None


class Filter(Struct, frozen=True):
    """Which records a listing is of; None does not matter. Times are received times in Unix ns, `until_ns` excluded.

    `version` is the one that served, or that should have when none did. `caller` is the client's address, `action` that
    of a control record, `actor` who did it.
    """

    model: str | None = None
    version: str | None = None
    status: int | None = None
    outcome: str | None = None
    reason: str | None = None
    role: str | None = None
    caller: str | None = None
    gateway: str | None = None
    action: str | None = None
    since_ns: int | None = None
    until_ns: int | None = None


class Page(Struct, frozen=True):
    """One page of a listing, newest first. `next` asks for the one after it; None: there is nothing more.

    A page looks at a bounded number of records, so with a filter that fits few it may be short, or empty, and still
    have a `next`.
    """

    records: Sequence[Record]
    next: str | None


class Holding(Struct, frozen=True):
    """What the store holds of one journal in one day: the first and last sequence, how many records, how many stubs."""

    journal: str
    day: str
    first: int
    last: int
    records: int
    stubs: int


class Dropped(Struct, frozen=True):
    """What a day held of one journal when it was dropped by the control record `pruning`."""

    day: str
    journal: str
    first: int
    last: int
    records: int
    pruning: str


class Day(Struct, frozen=True):
    """One day of the store: how many records it holds by model ("" for those of none), and their received times."""

    day: str
    records: Mapping[str, int]
    first_ns: int
    last_ns: int


class Thinned(Struct, frozen=True):
    """What thinning a day took: the places, each once, in order. Empty when there was nothing (any more)."""

    places: Sequence[Place]


class SignedCheckpoint(Struct, frozen=True):
    """One checkpoint: what is said (`statement`, JSON, signed), which stretches of journals it covers (`listing`, JSON,
    whose SHA-256 the statement holds), and the Ed25519 signature (64 bytes) by the key of id `key`.

    `number` counts the checkpoints of one gateway from 1; all it covers lies in `day`.
    """

    gateway: str
    number: int
    day: str
    at_ns: int
    statement: bytes
    listing: bytes
    signature: bytes
    key: str


class PublicKey(Struct, frozen=True):
    """A gateway's public key (PEM, SubjectPublicKeyInfo), its id, and since when it is used (Unix ns)."""

    gateway: str
    key: str
    pem: str
    since_ns: int


FIND_LIMIT = 1_000
"""How many records one look-up returns for an id that callers repeat: the newest so many of each kind of id."""


class AuditStore(Protocol):
    """Where records are kept. Any number of readers in any thread. Every call raises `AuditUnavailable` when it fails.

    What a writing call returned from survives the death of the machine. Calls block.
    """

    # ── the recorder ─────────────────────────────────────────────────────────────────────────────────────────────

    def positions(self) -> Mapping[str, JournalPosition]:
        """Return the committed position of every journal."""

    def write(self, batch: Batch) -> None:
        """Commit frames, gaps and positions in one transaction; a place that is taken is left as it is.

        A frame that is not the one which stands in its place raises an alarm (`record_conflict`). Whatever stands in a
        record fits: no record may keep the others of its batch from being committed.
        """

    def seal(self, checkpoint: SignedCheckpoint) -> None:
        """Add a checkpoint. The same one again changes nothing; another of its gateway and number is refused."""

    def last_checkpoint(self, gateway: str) -> SignedCheckpoint | None:
        """Return the newest checkpoint of a gateway, or None."""

    def publish_key(self, key: PublicKey) -> None:
        """Keep a public key; one that is there is left as it is."""

    # ── look-ups ─────────────────────────────────────────────────────────────────────────────────────────────────

    def find(self, any_id: str) -> Sequence[Kept]:
        """Return the records that a record id, request id or OIP id names, oldest first, each once.

        With them come the shadows of the primaries among them, and the primaries of the shadows. Of an OIP id or
        request id that many records carry, the newest `FIND_LIMIT`.
        """

    def page(self, wanted: Filter, after: str | None, limit: int) -> Page:
        """Return the next `limit` records of a listing, newest first by (day, received time).

        Raises:
            InvalidInput: `after` is not the `next` of a page.
        """

    def sample(self, model: str, since_ns: int, limit: int) -> Sequence[Sampled]:
        """Return the newest primary records of a model received since then (Unix ns), newest first, at most `limit`.

        Only those for which a version was chosen by a rule.
        """

    def count(self, wanted: Filter) -> int:
        """Return how many records `scan` would return. Only model, role and times of the filter may be given."""

    def scan(self, wanted: Filter, *, contents: bool) -> Iterator[Sequence[Kept]]:
        """Yield records in the order they were recorded, day by day, in chunks; without their parts unless `contents`.

        Only model, role and times of the filter may be given.
        """

    # ── evidence ─────────────────────────────────────────────────────────────────────────────────────────────────

    def days(self) -> Sequence[Day]:
        """Return every day that the store has, in order."""

    def holdings(self, since_ns: int | None = None, until_ns: int | None = None) -> Sequence[Holding]:
        """Return what the store holds, by journal and day in order; with times, of records received within them.

        Between the first and last sequence of a journal that were received within the times, every record counts.
        """

    def gaps(self) -> Sequence[Gap]:
        """Return every gap that was ever committed, in order of journal and sequence."""

    def dropped(self) -> Sequence[Dropped]:
        """Return what was dropped with whole days, in order of day and journal."""

    def keys(self) -> Sequence[PublicKey]:
        """Return every public key that was published, oldest first."""

    def checkpoints(self, gateway: str | None = None, day: str | None = None) -> Iterator[SignedCheckpoint]:
        """Yield the checkpoints, of one gateway or of one day if that is said, in order of gateway and number."""

    def checkpoint_of(self, place: Place) -> SignedCheckpoint | None:
        """Return the checkpoint that covers a place, or None while there is none."""

    def rows(self, journal: str, first: int, last: int) -> Iterator[Row]:
        """Yield what stands in the places from `first` to `last` of a journal, in order; places without a row are
        passed over. Nothing that stands there makes it fail."""

    # ── privacy ──────────────────────────────────────────────────────────────────────────────────────────────────

    def places_of(self, unit: bytes) -> Sequence[Place]:
        """Return where the records of a caller stand, by the digest of the routing key, with their shadows, in
        order.
        """

    def erase(self, places: Collection[Place], erasure: str) -> int:
        """Take the contents (both parts) of records for good and note by which control record; return of how many.

        Those whose contents an earlier erasure took are left as they are and not counted. The bytes are no longer in
        any file of the store when it returns, as far as the kind of store can promise that.
        """

    def places_in(self, day: str, models: Collection[str]) -> Sequence[Place]:
        """Return the places of a day's records of some models, in order; stubs do not count."""

    def thin(self, day: str, models: Collection[str], pruning: str) -> Thinned:
        """Take the records of some models out of a day, and leave stubs, so that the rest can still be verified.

        Each stub notes `pruning`. The day must not be the newest: no record may come to it any more.
        """

    def drop(self, day: str, pruning: str) -> Sequence[Dropped]:
        """Take a whole day with its checkpoints out of the store; positions and gaps stay. The newest day is refused.

        Returns what it held; nothing when the day is not there (any more).
        """

    def close(self) -> None:
        """Close the store."""
