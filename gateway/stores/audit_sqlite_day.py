"""One day of the audit store: the schema of its file, and a record as rows of it.

    records     what is looked up, listed and sampled of each record; `number` is the order of recording
    sealed      the record itself, and the chain before it
    parts       the contents of its bodies, which can be erased
    erasures    by which control record that was done
    stubs       what pruning left of a record
    journals, words   names that are repeated, as small integers
    checkpoints, covers   the day's checkpoints, and the stretches of journals that each is of
    positions, gaps   of the whole store, carried on from day to day; `begun` has a row as soon as that was done

Rows of `records` are narrow, because listings go through many of them to show a few. Ids that callers choose are found
by 64 bits of their hash: half as long as they are, and in chunks of 65 536 records, so that what a batch adds to the
index lies on few pages. A record id tells when the record was received; only one that does not (`stray`) has an index.

Belongs here: the schema, and what goes into a row. Never here: connections, or going from day to day.
"""

from collections.abc import Callable
from hashlib import blake2b
from typing import Any, Final

from gateway.columns import bounded, headers_of, packed_id, tells_its_time, unit_of
from gateway.record import Record
from gateway.stores.sqlite_file import Schema

_STATEMENTS: Final = """
CREATE TABLE records (
  number INTEGER PRIMARY KEY,
  journal INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  record_id ANY NOT NULL,
  stray INTEGER,
  received_ns INTEGER NOT NULL,
  model INTEGER NOT NULL,
  version INTEGER,
  status INTEGER NOT NULL,
  outcome INTEGER NOT NULL,
  reason INTEGER,
  role INTEGER NOT NULL,
  caller INTEGER NOT NULL,
  gateway INTEGER NOT NULL,
  action INTEGER,
  request_key INTEGER,
  oip_key INTEGER,
  primary_id ANY,
  unit BLOB,
  keyed INTEGER,
  headers BLOB,
  asked_version INTEGER,
  intended INTEGER,
  revision INTEGER,
  cohort_revision INTEGER,
  UNIQUE (journal, sequence)
) STRICT;
CREATE INDEX records_by_time ON records (received_ns);
CREATE INDEX records_by_model ON records (model, received_ns);
CREATE INDEX records_not_served ON records (received_ns) WHERE outcome <> 0;
CREATE INDEX records_of_control ON records (received_ns) WHERE role = 2;
CREATE INDEX records_by_request ON records ((number >> 16), request_key) WHERE request_key IS NOT NULL;
CREATE INDEX records_by_oip ON records ((number >> 16), oip_key) WHERE oip_key IS NOT NULL;
CREATE INDEX records_by_primary ON records (primary_id) WHERE primary_id IS NOT NULL;
CREATE INDEX records_stray ON records (record_id) WHERE stray IS NOT NULL;
CREATE TABLE sealed (number INTEGER PRIMARY KEY, previous BLOB NOT NULL, sealed BLOB NOT NULL) STRICT;
CREATE TABLE parts (number INTEGER PRIMARY KEY, request BLOB NOT NULL, response BLOB NOT NULL) STRICT;
CREATE TABLE erasures (number INTEGER PRIMARY KEY, erasure ANY NOT NULL) STRICT;
CREATE TABLE stubs (
  number INTEGER PRIMARY KEY,
  journal INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  received_ns INTEGER NOT NULL,
  previous BLOB NOT NULL,
  chain BLOB NOT NULL,
  pruning ANY NOT NULL,
  UNIQUE (journal, sequence)
) STRICT;
CREATE TABLE journals (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE words (id INTEGER PRIMARY KEY, word TEXT NOT NULL UNIQUE) STRICT;
CREATE TABLE checkpoints (
  gateway TEXT NOT NULL,
  number INTEGER NOT NULL,
  day TEXT NOT NULL,
  at_ns INTEGER NOT NULL,
  statement BLOB NOT NULL,
  listing BLOB NOT NULL,
  signature BLOB NOT NULL,
  key TEXT NOT NULL,
  PRIMARY KEY (gateway, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE covers (
  journal TEXT NOT NULL,
  last INTEGER NOT NULL,
  first INTEGER NOT NULL,
  gateway TEXT NOT NULL,
  number INTEGER NOT NULL,
  PRIMARY KEY (journal, last, gateway, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE positions (
  journal TEXT NOT NULL PRIMARY KEY,
  segment INTEGER NOT NULL,
  "offset" INTEGER NOT NULL,
  sequence INTEGER NOT NULL,
  chain BLOB NOT NULL
) STRICT;
CREATE TABLE gaps (
  journal TEXT NOT NULL,
  first INTEGER NOT NULL,
  count INTEGER NOT NULL,
  segment INTEGER NOT NULL,
  "offset" INTEGER NOT NULL,
  why TEXT NOT NULL,
  at_ns INTEGER NOT NULL,
  PRIMARY KEY (journal, first, segment, "offset")
) STRICT, WITHOUT ROWID;
CREATE TABLE begun (at_ns INTEGER NOT NULL) STRICT;
"""
SCHEMA: Final = Schema(
    "audit store's day",
    0x506D4144,
    1,
    _STATEMENTS,
    settings="PRAGMA secure_delete = ON; PRAGMA wal_autocheckpoint = 2000;",
    page_bytes=16_384,  # of 8 KiB, the log of a commit costs a fifth more CPU under load
)
CHUNK_BITS: Final = 16
"""Records whose numbers differ only in so many bits are one chunk of the indexes by ids that callers choose."""
COLUMNS: Final = (
    "record_id, stray, received_ns, model, version, status, outcome, reason, role, caller, gateway, action, "
    "request_key, oip_key, primary_id, unit, keyed, headers, asked_version, intended, revision, cohort_revision"
)
INSERT: Final = f"INSERT INTO records VALUES ({','.join('?' * 25)})"  # noqa: S608 - no names at all
"""Of number, journal, sequence and `COLUMNS`. Short: APSW goes through the text of a statement for every row."""
ROLES: Final = {"primary": 0, "shadow": 1, "control": 2}
OUTCOMES: Final = {"served": 0, "failed": 1, "refused": 2}
Word = Callable[[str], int | None]
"""The small integer of a name; None, when only asking, of one that the day does not have."""
_UNDECIDED: Final = (None,) * 6


def row_of(record: Record, word: Word) -> tuple[Any, ...]:
    """Return the values of `COLUMNS` for a record: what `columns_of` says of it, as this kind of store keeps it.

    Written out, since every record comes by here and the way over `Columns` costs a third more.

    Raises:
        UnicodeEncodeError: there is text in it that is no Unicode.
    """
    received_ns, request_id, oip_id = bounded(record.received_ns), record.request_id, record.oip_id
    served, intended, reason, action = record.served, record.intended, record.reason, record.action
    record_id, primary_id = packed_id(record.record_id), None
    stray = not tells_its_time(record_id, received_ns)
    if record.primary_id is not None:
        primary_id = packed_id(record.primary_id)
        stray = stray or not tells_its_time(primary_id, received_ns)
    version = served if served is not None else intended
    unit = unit_of(record)
    row = (
        record_id,
        1 if stray else None,
        received_ns,
        word(record.model),
        word(version) if version is not None else None,
        bounded(record.status),
        OUTCOMES.get(record.outcome, -1),
        word(reason) if reason is not None else None,
        ROLES.get(record.role, -1),
        word(record.client),
        word(record.gateway),
        word(action) if action is not None else None,
        request_key(request_id) if request_id != record.record_id else None,
        oip_key(oip_id) if oip_id is not None else None,
        primary_id,
        unit,
    )
    if record.role != "primary" or unit is None or intended is None or reason is None:
        return row + _UNDECIDED
    asked, revision, cohort_revision = record.asked_version, record.revision, record.cohort_revision
    return (
        *row,
        int(record.keyed),
        headers_of(record),
        word(asked) if asked is not None else None,
        word(intended),
        bounded(revision) if revision is not None else None,
        bounded(cohort_revision) if cohort_revision is not None else None,
    )


def request_key(request_id: str) -> int:
    """Return what a request id is found by."""
    return _key(b"q" + request_id.encode())


def oip_key(oip_id: str) -> int:
    """Return what an OIP id is found by."""
    return _key(b"o" + oip_id.encode())


def stray_key(packed: object) -> int:
    """Return what a stray's packed record id, or that of its primary, is found by across days; also what a damaged row
    has in its place.
    """
    return _key(b"r" + (packed if isinstance(packed, bytes) else str(packed).encode()))


def _key(data: bytes) -> int:
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "big", signed=True)
