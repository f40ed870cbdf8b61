"""What the audit store knows beside its days, in the file `index.db`.

    keys                public keys
    dropped             what was dropped with whole days
    dropping            days whose files were still to be taken away when their summary was committed
    chunks, blocks      filters of the ids in finished chunks of records, so that a look-up opens few days
    complete, extents   between which times and places a complete day lies

The last two only repeat what the days' files say, and are made again when they are missing.

Belongs here: its schema and statements. Never here: records.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gateway.columns import packed_id, unpacked_id
from gateway.ports import Dropped, Place, PublicKey
from gateway.stores.audit_sqlite_filters import filter_of, may_have
from gateway.stores.sqlite_file import Schema, SqliteFile

_STATEMENTS = """
CREATE TABLE keys (
  gateway TEXT NOT NULL,
  key TEXT NOT NULL,
  pem TEXT NOT NULL,
  since_ns INTEGER NOT NULL,
  PRIMARY KEY (gateway, key)
) STRICT;
CREATE TABLE dropped (
  day TEXT NOT NULL,
  journal TEXT NOT NULL,
  first INTEGER NOT NULL,
  last INTEGER NOT NULL,
  records INTEGER NOT NULL,
  pruning ANY NOT NULL,
  PRIMARY KEY (day, journal, pruning)
) STRICT, WITHOUT ROWID;
CREATE TABLE dropping (day TEXT NOT NULL PRIMARY KEY) STRICT;
CREATE TABLE chunks (
  id INTEGER PRIMARY KEY,
  day TEXT NOT NULL,
  chunk INTEGER NOT NULL,
  final INTEGER NOT NULL,
  strays INTEGER NOT NULL,
  blocks INTEGER NOT NULL,
  UNIQUE (day, chunk)
) STRICT;
CREATE TABLE complete (day TEXT NOT NULL PRIMARY KEY, first_ns INTEGER NOT NULL, last_ns INTEGER NOT NULL) STRICT;
CREATE TABLE extents (
  day TEXT NOT NULL,
  journal TEXT NOT NULL,
  first INTEGER NOT NULL,
  last INTEGER NOT NULL,
  PRIMARY KEY (day, journal)
) STRICT, WITHOUT ROWID;
CREATE TABLE blocks (
  of INTEGER NOT NULL,
  block INTEGER NOT NULL,
  bits BLOB NOT NULL,
  PRIMARY KEY (of, block)
) STRICT, WITHOUT ROWID;
"""
SCHEMA: Final = Schema("audit store's index", 0x506D4149, 1, _STATEMENTS)
# The key as SQL has it is that of `block_of`.
_ASK = """
SELECT day, chunk, bits FROM chunks LEFT JOIN blocks ON of = id AND block = (? & 9223372036854775807) % blocks
"""


class Extent(Struct, frozen=True):
    """The first and last received time (Unix ns) in a day, and of each journal the first and last sequence.

    Stubs count. A day without either has a last time before its first. `unreadable` says why nobody can tell; then
    everything may be in it.
    """

    first_ns: int
    last_ns: int
    journals: Mapping[str, tuple[int, int]]
    unreadable: str = ""

    def meets(self, since_ns: int | None, until_ns: int | None) -> bool:
        """Tell whether something in it may have been received within these times, `until_ns` excluded."""
        return (until_ns is None or self.first_ns < until_ns) and (since_ns is None or self.last_ns >= since_ns)

    def holds(self, place: Place) -> bool:
        """Tell whether a place may be in it."""
        first, last = self.journals.get(place.journal, (1, 0))
        return first <= place.sequence <= last


class Finished(Struct, frozen=True):
    """How far a day has filters: the chunks below `chunks`, all of the day if `final`; `strays`: some record is one."""

    chunks: int
    final: bool
    strays: bool


UNFINISHED: Final = Finished(0, False, True)


class Index:
    """The file at `path`, made if there is none unless `read_only`. Every call may come from any thread.

    Raises (construction and every call):
        AuditUnavailable: SQLite cannot do it.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._file = SqliteFile(path, SCHEMA, read_only=read_only)

    def close(self) -> None:
        """Close the file. May be called again."""
        self._file.close()

    # ── keys ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def publish_key(self, key: PublicKey) -> None:
        """Keep a public key; one that is there is left as it is."""
        with self._file.transaction() as connection:
            connection.execute(
                "INSERT INTO keys VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (key.gateway, key.key, key.pem, key.since_ns),
            )

    def keys(self) -> Sequence[PublicKey]:
        """Return every public key, oldest first."""
        statement = "SELECT gateway, key, pem, since_ns FROM keys ORDER BY since_ns, gateway, key"
        return [PublicKey(*row) for row in self._rows(statement)]

    # ── days that are gone ───────────────────────────────────────────────────────────────────────────────────────

    def begin_dropping(self, day: str, held: Sequence[Dropped]) -> None:
        """Keep what a day held; from now on its file is to be taken away."""
        with self._file.transaction() as connection:
            connection.executemany(
                "INSERT INTO dropped VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                ((one.day, one.journal, one.first, one.last, one.records, packed_id(one.pruning)) for one in held),
            )
            connection.execute("INSERT INTO dropping VALUES (?) ON CONFLICT DO NOTHING", (day,))
            connection.execute("DELETE FROM blocks WHERE of IN (SELECT id FROM chunks WHERE day = ?)", (day,))
            connection.execute("DELETE FROM chunks WHERE day = ?", (day,))
            connection.execute("DELETE FROM extents WHERE day = ?", (day,))
            connection.execute("DELETE FROM complete WHERE day = ?", (day,))

    def end_dropping(self, day: str) -> None:
        """Note that the file of a day is gone."""
        with self._file.transaction() as connection:
            connection.execute("DELETE FROM dropping WHERE day = ?", (day,))

    def dropping(self) -> Sequence[str]:
        """Return the days whose files are still to be taken away."""
        return [row[0] for row in self._rows("SELECT day FROM dropping")]

    def dropped(self) -> Sequence[Dropped]:
        """Return what was dropped, in order of day and journal."""
        statement = "SELECT day, journal, first, last, records, pruning FROM dropped ORDER BY day, journal, first"
        return [
            Dropped(day, journal, first, last, records, unpacked_id(pruning))
            for day, journal, first, last, records, pruning in self._rows(statement)
        ]

    # ── filters ──────────────────────────────────────────────────────────────────────────────────────────────────

    def finish(self, day: str, chunk: int, keys: NDArray[np.int64], *, final: bool, strays: bool) -> None:
        """Keep the filter of a chunk, to which no record can come any more; `final` if none comes to its day either."""
        bits = filter_of(keys)
        with self._file.transaction() as connection:
            old = "SELECT id FROM chunks WHERE day = ? AND chunk = ?"
            connection.execute(f"DELETE FROM blocks WHERE of = ({old})", (day, chunk))  # noqa: S608 - names of ours
            connection.execute("DELETE FROM chunks WHERE day = ? AND chunk = ?", (day, chunk))
            made = connection.execute(
                "INSERT INTO chunks (day, chunk, final, strays, blocks) VALUES (?, ?, ?, ?, ?) RETURNING id",
                (day, chunk, int(final), int(strays), len(bits)),
            ).get
            connection.execute("DELETE FROM blocks WHERE of = ?", (made,))  # of a chunk that was lost
            connection.executemany("INSERT INTO blocks VALUES (?, ?, ?)", ((made, *block) for block in enumerate(bits)))

    def complete(self, day: str, extent: Extent) -> None:
        """Keep between which times and places a complete day lies."""
        with self._file.transaction() as connection:
            connection.execute(
                "INSERT INTO complete VALUES (?, ?, ?) ON CONFLICT DO NOTHING", (day, extent.first_ns, extent.last_ns)
            )
            connection.executemany(
                "INSERT INTO extents VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                ((day, journal, first, last) for journal, (first, last) in extent.journals.items()),
            )

    def extents(self) -> Mapping[str, Extent]:
        """Return between which times and places each complete day lies."""
        journals: dict[str, dict[str, tuple[int, int]]] = {}
        for day, journal, first, last in self._rows("SELECT day, journal, first, last FROM extents"):
            journals.setdefault(day, {})[journal] = (first, last)
        times = self._rows("SELECT day, first_ns, last_ns FROM complete WHERE day IN (SELECT day FROM extents)")
        return {day: Extent(first_ns, last_ns, journals.get(day, {})) for day, first_ns, last_ns in times}

    def finished(self) -> Mapping[str, Finished]:
        """Return how far each day has filters; those that have none are not in it."""
        # The filters of a day are made in order, so as many as there are, are those of its first chunks.
        rows = self._rows("SELECT day, count(*), max(final), max(strays) FROM chunks GROUP BY day")
        return {day: Finished(chunks, bool(final), bool(strays)) for day, chunks, final, strays in rows}

    def may_hold(self, key: int) -> Mapping[str, Sequence[int]]:
        """Return in which finished chunks of which days a key may be."""
        found: dict[str, list[int]] = {}
        for day, chunk, bits in self._rows(_ASK, key):
            if bits is None or may_have(key, bits):  # None: it was lost
                found.setdefault(day, []).append(chunk)
        return found

    def _rows(self, statement: str, *values: Any) -> list[Any]:
        with self._file.reader() as connection:
            return connection.execute(statement, values).fetchall()
