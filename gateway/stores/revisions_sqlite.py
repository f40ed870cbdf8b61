"""Every revision of the rules for ever, in one SQLite file: `RevisionArchive`.

    revisions   one row for each, in the order of keeping (`kept`), with its documents before and after as JSON
    documents   which documents each revision changed, for looking them up by name
    stretches   where the chain of revisions is not simply "each follows on the row before it"

A stretch is a run of rows of which each follows on the one before. A store that lost changes goes on from an earlier
revision, so a new stretch begins, which `follows` that row (`kept`); the rows between them were in force once, and are
not the past of what came later. `whole` is 0 where nobody knows what lies before the stretch: the archive began later
than the rules, or was away for longer than the store keeps its history.

Belongs here: the schema, its statements, and that chain. Never here: asking the rules store, or making times.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import apsw
import msgspec
from msgspec import Struct

from gateway.ports import DocumentChange, DocumentName, Head, Kind, Revision, StoredDocument
from gateway.stores.sqlite_file import Schema, SqliteFile

_STATEMENTS = """
CREATE TABLE revisions (
  kept INTEGER PRIMARY KEY,
  epoch TEXT NOT NULL,
  revision INTEGER NOT NULL,
  operation_id TEXT NOT NULL,
  at_ns INTEGER NOT NULL,
  actor TEXT NOT NULL,
  comment TEXT NOT NULL,
  preview BLOB,
  changes BLOB NOT NULL,
  UNIQUE (revision, operation_id)
) STRICT;
CREATE INDEX revisions_by_number ON revisions (revision, kept);
CREATE INDEX revisions_by_time ON revisions (at_ns, kept);
CREATE TABLE documents (
  kind TEXT NOT NULL,
  name TEXT NOT NULL,
  revision INTEGER NOT NULL,
  kept INTEGER NOT NULL,
  PRIMARY KEY (kind, name, revision, kept)
) STRICT, WITHOUT ROWID;
CREATE TABLE stretches (
  kept INTEGER PRIMARY KEY,
  first INTEGER NOT NULL,
  follows INTEGER,
  whole INTEGER NOT NULL
) STRICT;
"""
SCHEMA: Final = Schema("archive of revisions", 0x506D5265, 1, _STATEMENTS)

_FIELDS = "revision, actor, comment, operation_id, at_ns, changes, preview"
_LAST = "SELECT kept, epoch, revision FROM revisions ORDER BY kept DESC LIMIT 1"
_KNOWN = "SELECT kept FROM revisions WHERE revision = ? AND operation_id = ?"
_INSERT = """
INSERT INTO revisions (epoch, revision, operation_id, at_ns, actor, comment, preview, changes)
VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING kept
"""
_NAMED = "INSERT INTO documents VALUES (?, ?, ?, ?)"
_STRETCH = "INSERT INTO stretches VALUES (?, ?, ?, ?)"
_STRETCHES = "SELECT kept, first, follows, whole FROM stretches WHERE kept <= ? ORDER BY kept DESC LIMIT 1"
_MEANT = f"SELECT {_FIELDS} FROM revisions WHERE revision = ? ORDER BY kept DESC LIMIT 1"  # noqa: S608 - names of ours
# Of two revisions of one number only the one that was kept last.
_ALL = f"""
SELECT {_FIELDS} FROM revisions AS one WHERE revision < ?
AND kept = (SELECT max(kept) FROM revisions WHERE revision = one.revision) ORDER BY revision DESC LIMIT ?
"""  # noqa: S608 - names of ours
_CHANGING = """
SELECT revision FROM documents AS one WHERE kind = ? AND name = ? AND revision < ?
AND kept = (SELECT max(kept) FROM revisions WHERE revision = one.revision) ORDER BY revision DESC LIMIT ?
"""
_PLACE = "SELECT kept, revision FROM revisions WHERE revision <= ? ORDER BY revision DESC, kept DESC LIMIT 1"
_NEXT = """
SELECT coalesce((SELECT whole FROM stretches WHERE stretches.kept = one.kept), 1) FROM revisions AS one WHERE kept =
(SELECT max(kept) FROM revisions WHERE revision = (SELECT min(revision) FROM revisions WHERE revision > ?))
"""
_LEFT_BY = """
SELECT revision, kept FROM documents WHERE kind = ? AND name = ? AND revision <= ? AND kept BETWEEN ? AND ?
ORDER BY revision DESC LIMIT 1
"""
_AT = "SELECT revision FROM revisions WHERE kept = (SELECT max(kept) FROM revisions WHERE at_ns <= ?)"
_BEYOND_ALL = 2**63 - 1


class _Change(Struct, omit_defaults=True):
    """A `DocumentChange` with its documents as text, which anybody can read with SQLite alone."""

    kind: Kind
    name: str
    before: str | None = None
    after: str | None = None


class _Stretch(Struct):
    """Rows from `kept` up to the one that was asked for (`last`)."""

    kept: int
    first: int
    follows: int | None
    whole: bool
    last: int


_changes = msgspec.json.Decoder(list[_Change])


class SqliteRevisions:
    """A `RevisionArchive` in the file at `path`, made if there is none. Every call may come from any thread.

    With `read_only` it is only read, while the control process may be writing it.

    Raises (construction and every call):
        AuditUnavailable: SQLite cannot do it; nothing is half done.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._file = SqliteFile(path, SCHEMA, read_only=read_only)

    def kept(self) -> Head | None:
        """Return the epoch and number of the revision that was kept last, or None."""
        with self._file.reader() as connection:
            row: Any = connection.execute(_LAST).fetchone()
        return Head(row[1], row[2]) if row is not None else None

    def keep(self, epoch: str, revisions: Sequence[Revision]) -> None:
        """Commit revisions in their order; those already there (by number and operation id) are left as they are."""
        with self._file.transaction() as connection:
            before: int | None = None
            for revision in revisions:
                known: Any = connection.execute(_KNOWN, (revision.revision, revision.operation_id)).fetchone()
                before = known[0] if known is not None else _add(connection, epoch, revision, before)

    def revision(self, number: int) -> Revision | None:
        """Return one revision, or None."""
        if not 0 <= number <= _BEYOND_ALL:
            return None
        with self._file.reader() as connection:
            row: Any = connection.execute(_MEANT, (number,)).fetchone()
        return _revision(row) if row is not None else None

    def history(self, documents: Collection[DocumentName] | None, before: int | None, limit: int) -> Sequence[Revision]:
        """Return up to `limit` revisions below `before` that changed one of `documents` (None: any), newest first."""
        below = _BEYOND_ALL if before is None else min(before, _BEYOND_ALL)
        with self._file.reader() as connection:
            if documents is None:
                rows: list[Any] = connection.execute(_ALL, (below, limit)).fetchall()
                return [_revision(row) for row in rows]
            numbers: set[int] = set()
            for kind, name in documents:
                numbers |= {row[0] for row in connection.execute(_CHANGING, (kind, name, below, limit))}
            newest = sorted(numbers, reverse=True)[:limit]
            meant: list[Any] = [connection.execute(_MEANT, (number,)).fetchone() for number in newest]
            return [_revision(row) for row in meant]

    def as_of(self, number: int, documents: Collection[DocumentName]) -> Mapping[DocumentName, StoredDocument]:
        """Return documents as they were at a revision; those that did not exist then are missing."""
        with self._file.reader() as connection:
            stretches = list(_past_of(connection, number))
            places = {name: place for name in documents if (place := _last_change(connection, stretches, number, name))}
            found: dict[DocumentName, StoredDocument] = {}
            for place in set(places.values()):
                revision, kept = place
                row: Any = connection.execute("SELECT changes FROM revisions WHERE kept = ?", (kept,)).fetchone()
                for change in _changes.decode(row[0]):
                    name = (change.kind, change.name)
                    if places.get(name) == place and change.after is not None:
                        found[name] = StoredDocument(revision, change.after.encode())
        return found

    def unbroken_since(self, number: int) -> int | None:
        """Return the first of the revisions kept without a gap up to a number (1: all); None: nothing is kept."""
        with self._file.reader() as connection:
            stretches = list(_past_of(connection, number))
        if not stretches:
            return None
        return 1 if stretches[-1].whole else stretches[-1].first

    def revision_at(self, at_ns: int) -> int | None:
        """Return the number of the newest revision made at or before a time (Unix ns), or None."""
        with self._file.reader() as connection:
            row: Any = connection.execute(_AT, (max(-_BEYOND_ALL, min(at_ns, _BEYOND_ALL)),)).fetchone()
        return row[0] if row is not None else None

    def close(self) -> None:
        """Close the archive; a look-up that is under way ends first in its own thread. May be called again."""
        self._file.close()


def _add(connection: apsw.Connection, epoch: str, revision: Revision, before: int | None) -> int:
    """Insert a revision that follows on the row `before` (None: that is not known), and return its own place."""
    last: Any = connection.execute(_LAST).fetchone()
    fields = (epoch, revision.revision, revision.operation_id, revision.at_ns, revision.actor, revision.comment)
    place: int = connection.execute(_INSERT, (*fields, revision.preview, _encoded(revision))).get
    connection.executemany(
        _NAMED, {(change.kind, change.name, revision.revision, place) for change in revision.changes}
    )
    if before is None and last is not None and (epoch, revision.revision) == (last[1], last[2] + 1):
        before = last[0]
    if before is None or before != last[0]:
        whole = before is not None or revision.revision == 1
        connection.execute(_STRETCH, (place, revision.revision, before, int(whole)))
    return place


def _past_of(connection: apsw.Connection, number: int) -> Iterator[_Stretch]:
    """Yield the stretches that lead to a revision, newest first, up to the first one of which the past is unknown.

    A number that was skipped means the revision before it; one in a gap, or beyond everything kept, has no past.
    """
    number = max(0, min(number, _BEYOND_ALL))
    row: Any = connection.execute(_PLACE, (number,)).fetchone()
    last = row[0] if row is not None else None
    if row is not None and row[1] != number:
        following: Any = connection.execute(_NEXT, (number,)).fetchone()
        if following is None or not following[0]:
            return
    while last is not None:
        kept, first, follows, whole = connection.execute(_STRETCHES, (last,)).fetchone()  # type: ignore[misc]
        yield _Stretch(kept, first, follows, bool(whole), last)
        last = follows


def _last_change(
    connection: apsw.Connection, stretches: Sequence[_Stretch], number: int, name: DocumentName
) -> tuple[int, int] | None:
    """Return number and place of the revision that last changed a document on the way to `number`."""
    for stretch in stretches:
        row: Any = connection.execute(_LEFT_BY, (*name, number, stretch.kept, stretch.last)).fetchone()
        if row is not None:
            return row[0], row[1]
    return None


def _encoded(revision: Revision) -> bytes:
    return msgspec.json.encode(
        [_Change(one.kind, one.name, _text(one.before), _text(one.after)) for one in revision.changes]
    )


def _revision(row: tuple[Any, ...]) -> Revision:
    number, actor, comment, operation_id, at_ns, changes, preview = row
    return Revision(
        revision=number,
        actor=actor,
        comment=comment,
        operation_id=operation_id,
        at_ns=at_ns,
        changes=tuple(
            DocumentChange(one.kind, one.name, _bytes(one.before), _bytes(one.after))
            for one in _changes.decode(changes)
        ),
        preview=preview,
    )


def _text(document: bytes | None) -> str | None:
    return document.decode() if document is not None else None


def _bytes(document: str | None) -> bytes | None:
    return document.encode() if document is not None else None
