"""The rows of a journal as they stand, nothing believed: every column is held against the sealed part.

Nothing that stands in a row makes reading fail. Where SQLite itself cannot read a stretch, its places are read one by
one, and those that cannot be read are told as damage.

Belongs here: reading rows and finding contradictions in them. Never here: hashes or chains.
"""

import heapq
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from itertools import pairwise
from typing import Any, Final

import apsw
import msgspec

from gateway.columns import unpacked_id
from gateway.ports import Row
from gateway.record import decode_record
from gateway.stores.audit_sqlite_day import COLUMNS, Word, row_of
from gateway.stores.audit_sqlite_files import DayFiles
from gateway.stores.audit_sqlite_index import Extent
from gateway.stores.audit_sqlite_lookups import chunk_of
from gateway.stores.sqlite_file import Damaged

_AT_ONCE: Final = 500
_NO_BYTES: Final = "what is not of bytes stands where bytes belong"
_NAMES: Final = COLUMNS.split(", ")
_ROWS: Final = f"""
SELECT journal, sequence, previous, sealed, request, response, erasure, {COLUMNS}
FROM records LEFT JOIN sealed USING (number) LEFT JOIN parts USING (number) LEFT JOIN erasures USING (number)
WHERE journal = ? AND sequence BETWEEN ? AND ? ORDER BY sequence LIMIT ?
"""  # noqa: S608 - names of ours
_STUBS: Final = """
SELECT journal, sequence, previous, chain, pruning FROM stubs
WHERE journal = ? AND sequence BETWEEN ? AND ? ORDER BY sequence
"""


def rows_of(files: DayFiles, extents: Mapping[str, Extent], journal: str, first: int, last: int) -> Iterator[Row]:
    """Yield what stands in the places from `first` to `last` of a journal, in order.

    Raises:
        Damaged: of a file of which nothing can be read nobody knows any more which places it held.
    """
    runs = []
    for day, extent in extents.items():
        if extent.unreadable:
            raise Damaged(extent.unreadable)
        begin, end = extent.journals.get(journal, (1, 0))
        if begin <= last and end >= first:
            runs.append((max(begin, first), min(end, last), day))
    runs.sort()
    if all(one[1] < other[0] for one, other in pairwise(runs)):
        for begin, end, day in runs:
            yield from _DayRows(files, day, journal).rows(begin, end)
    else:  # a journal's sequences go on from day to day, unless somebody has put a record elsewhere
        each = [_DayRows(files, day, journal).rows(begin, end) for begin, end, day in runs]
        yield from heapq.merge(*each, key=lambda row: row.sequence)


class _DayRows:
    """Reads the rows of a journal in one day's file."""

    def __init__(self, files: DayFiles, day: str, journal: str) -> None:
        self._files = files
        self._day = day
        self._journal = journal
        self._words = _Words()

    def rows(self, first: int, last: int) -> Iterator[Row]:
        """Yield them in order."""
        while first <= last:
            try:
                found = self._read(first, last, _AT_ONCE)
            except Damaged:
                upto = min(first + _AT_ONCE - 1, last)
                for sequence in range(first, upto + 1):
                    yield from self._read_alone(sequence)
                first = upto + 1
            else:
                yield from found
                first = found[-1].sequence + 1 if found else last + 1

    def _read_alone(self, sequence: int) -> list[Row]:
        try:
            return self._read(sequence, sequence, 1)
        except Damaged as error:
            return [Row(self._journal, sequence, b"", b"", b"", b"", damage=error.message)]

    def _read(self, first: int, last: int, limit: int) -> list[Row]:
        return self._files.ask(self._day, lambda connection: self._read_in(connection, first, last, limit)) or []

    def _read_in(self, connection: apsw.Connection, first: int, last: int, limit: int) -> list[Row]:
        journal = connection.execute("SELECT id FROM journals WHERE name = ?", (self._journal,)).get
        self._words.connection = connection
        with closing(connection.execute(_ROWS, (journal, first, last, limit))) as cursor:
            rows, whole = chunk_of(cursor, limit, slice(3, 6))
        astray = self._astray(rows, journal, first, last)
        found = [self._row(row, row[1] if not astray else first, astray) for row in rows]
        upto = last if whole or not found else found[-1].sequence
        stubs: list[Any] = connection.execute(_STUBS, (journal, first, upto)).fetchall()
        if stubs:
            astray = self._astray(stubs, journal, first, upto)
            found += [self._stub(row, row[1] if not astray else first, astray) for row in stubs]
            found.sort(key=lambda row: row.sequence)
        return found

    def _astray(self, rows: Sequence[Any], journal: int | None, first: int, last: int) -> str:
        """Return what is wrong when the index has led to rows that say they stand elsewhere; "" when it has not.

        Raises:
            Damaged: they do, and there is more than one; each has to be read alone then.
        """
        at = first - 1
        for row in rows:
            if row[0] != journal or type(row[1]) is not int or not at < row[1] <= last:
                if first < last:
                    raise Damaged("rows say that they stand elsewhere")
                return "its columns say that it stands elsewhere"
            at = row[1]
        return ""

    def _row(self, row: Any, sequence: int, astray: str) -> Row:
        previous, sealed, request, response, erasure = row[2:7]
        if erasure is not None:
            request, response, erasure = b"", b"", unpacked_id(erasure)
        elif request is None:
            request = response = b""
        damage = astray or _contradicting(sealed, row[7:], self._words.__getitem__)
        if not (type(previous) is type(sealed) is type(request) is type(response) is bytes):
            damage = damage or _NO_BYTES
            previous, sealed, request, response = map(_bytes, (previous, sealed, request, response))
        return Row(self._journal, sequence, previous, sealed, request, response, b"", erasure, None, damage)

    def _stub(self, row: Any, sequence: int, astray: str) -> Row:
        previous, chain, pruning = row[2:]
        damage = astray or ("" if type(previous) is type(chain) is bytes else _NO_BYTES)
        left = (_bytes(previous), None, b"", b"", _bytes(chain))
        return Row(self._journal, sequence, *left, pruning=unpacked_id(pruning), damage=damage)


class _Words(dict[str, int | None]):
    """The small integers of a day's names, asked of the connection that is lent when they are needed."""

    connection: apsw.Connection

    def __missing__(self, word: str) -> int | None:
        self[word] = found = self.connection.execute("SELECT id FROM words WHERE word = ?", (word,)).get
        return found  # type: ignore[no-any-return]


def _bytes(value: Any) -> bytes:
    return value if isinstance(value, bytes) else b""


def _contradicting(sealed: Any, columns: tuple[Any, ...], word: Word) -> str:
    """Return what contradicts the sealed part, "" if nothing does."""
    if sealed is None:
        return "its sealed part is not there"
    try:
        expected = row_of(decode_record(sealed), word)
    except (msgspec.DecodeError, TypeError, ValueError) as error:
        return f"its sealed part is no record: {error}"
    if expected == columns:
        return ""
    names = [name for name, wanted, found in zip(_NAMES, expected, columns, strict=True) if wanted != found]
    return f"contradicting its sealed part: {', '.join(names)}"
