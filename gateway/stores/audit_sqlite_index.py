"""What outlives the days of the audit store: public keys, and what was dropped with whole days. The file `index.db`.

Belongs here: its schema and statements. Never here: records.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from gateway.columns import packed_id, unpacked_id
from gateway.ports import Dropped, PublicKey
from gateway.stores.sqlite_file import Schema, SqliteFile

# A day in `dropping` is one whose file was still to be taken away when its summary was committed.
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
"""
SCHEMA: Final = Schema("audit store's index", 0x506D4149, 1, _STATEMENTS)


class Index:
    """The file at `path`, made if there is none. Every call may come from any thread.

    Raises (construction and every call):
        AuditUnavailable: SQLite cannot do it.
    """

    def __init__(self, path: Path) -> None:
        self._file = SqliteFile(path, SCHEMA)

    def publish_key(self, key: PublicKey) -> None:
        """Keep a public key; one that is there is left as it is."""
        with self._file.transaction() as connection:
            connection.execute(
                "INSERT INTO keys VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                (key.gateway, key.key, key.pem, key.since_ns),
            )

    def keys(self) -> Sequence[PublicKey]:
        """Return every public key, oldest first."""
        with self._file.reader() as connection:
            rows: list[Any] = connection.execute(
                "SELECT gateway, key, pem, since_ns FROM keys ORDER BY since_ns, gateway, key"
            ).fetchall()
        return [PublicKey(*row) for row in rows]

    def dropping(self) -> Sequence[str]:
        """Return the days whose files are still to be taken away."""
        with self._file.reader() as connection:
            rows: list[Any] = connection.execute("SELECT day FROM dropping").fetchall()
        return [row[0] for row in rows]

    def begin_dropping(self, day: str, held: Sequence[Dropped]) -> None:
        """Keep what a day held; from now on its file is to be taken away."""
        with self._file.transaction() as connection:
            connection.executemany(
                "INSERT INTO dropped VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
                ((one.day, one.journal, one.first, one.last, one.records, packed_id(one.pruning)) for one in held),
            )
            connection.execute("INSERT INTO dropping VALUES (?) ON CONFLICT DO NOTHING", (day,))

    def end_dropping(self, day: str) -> None:
        """Note that the file of a day is gone."""
        with self._file.transaction() as connection:
            connection.execute("DELETE FROM dropping WHERE day = ?", (day,))

    def dropped(self) -> Sequence[Dropped]:
        """Return what was dropped, in order of day and journal."""
        with self._file.reader() as connection:
            rows: Any = connection.execute(
                "SELECT day, journal, first, last, records, pruning FROM dropped ORDER BY day, journal, first"
            ).fetchall()
        return [
            Dropped(day, journal, first, last, records, unpacked_id(pruning))
            for day, journal, first, last, records, pruning in rows
        ]

    def close(self) -> None:
        """Close the file. May be called again."""
        self._file.close()
