"""The rows of journals in PostgreSQL as they stand: nothing believed, each held against its sealed part.

Where a journal's rows are is told by the table of stretches, which is as fresh as they are, and by the partitions
themselves, asked now and then: a row where the table says that none can be was put there, and is shown like any other.

Belongs here: reading places in order. Never here: hashes, or a judgement.
"""

import heapq
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import date
from time import monotonic
from typing import Any, Final

import msgspec
from msgspec import Struct

from gateway.columns import bounded
from gateway.ports import Row
from gateway.record import decode_record
from gateway.stores.audit_postgres_days import days_of
from gateway.stores.audit_postgres_evidence import edges_of
from gateway.stores.audit_postgres_rows import COLUMNS, column_text, plain_text, row_of
from gateway.stores.postgres_connection import Lend

ASK_AGAIN_SECONDS: Final = 300.0
_CHUNK: Final = 250
_STRETCHES: Final = "SELECT day, first, last FROM stretches WHERE journal = %s"
_NAMES: Final = COLUMNS.split(", ")
_ROWS: Final = f"""
SELECT sequence, previous, sealed, request, response, chain, erasure, pruning, {COLUMNS}
FROM records LEFT JOIN parts ON parts.number = records.number AND parts.day = %(day)s
WHERE records.day = %(day)s AND journal = %(journal)s AND sequence BETWEEN %(first)s AND %(last)s
ORDER BY sequence LIMIT %(limit)s
"""  # noqa: S608 - names of ours


class _Run(Struct, frozen=True):
    """Where a journal's rows of a day begin and end."""

    day: date
    first: int
    last: int


class Rows:
    """Reads the rows of journals. Every call may come from any thread."""

    def __init__(self, lend: Lend) -> None:
        self._lend = lend
        self._asking = threading.Lock()
        self._asked_at = -ASK_AGAIN_SECONDS
        self._found: dict[str, list[_Run]] = {}

    def read(self, journal: str, first: int, last: int) -> Iterator[Row]:
        """Yield what stands in the places from `first` to `last` of a journal, in order."""
        try:
            name = column_text(journal)
        except UnicodeEncodeError:
            return
        first, last = bounded(first), bounded(last)
        runs = [run for run in self._runs(name) if run.first <= last and run.last >= first]
        # The days of a journal follow each other, so that one is read after the other, unless rows were put elsewhere.
        days = [self._of_day(run.day, name, max(first, run.first), min(last, run.last)) for run in runs]
        yield from heapq.merge(*days, key=lambda row: row.sequence)

    def _runs(self, name: str) -> Sequence[_Run]:
        with self._lend() as connection:
            told = [_Run(*row) for row in connection.rows(_STRETCHES, (name,))]
        runs: dict[date, _Run] = {}
        for run in (*told, *self._in_partitions().get(name, ())):
            known = runs.get(run.day, run)
            runs[run.day] = _Run(run.day, min(run.first, known.first), max(run.last, known.last))
        return sorted(runs.values(), key=lambda run: run.first)

    def _in_partitions(self) -> dict[str, list[_Run]]:
        with self._asking:
            if monotonic() - self._asked_at >= ASK_AGAIN_SECONDS:
                found: dict[str, list[_Run]] = defaultdict(list)
                with self._lend() as connection:
                    for day in days_of(connection):
                        for journal, first, last in edges_of(connection, day):
                            found[journal].append(_Run(day, first, last))
                self._found, self._asked_at = found, monotonic()
            return self._found

    def _of_day(self, day: date, name: str, first: int, last: int) -> Iterator[Row]:
        journal = plain_text(name)
        at = first
        while at <= last:
            values = {"day": day, "journal": name, "first": at, "last": last, "limit": _CHUNK}
            with self._lend() as connection:
                rows = connection.rows(_ROWS, values)
            yield from (_row(journal, row) for row in rows)
            if len(rows) < _CHUNK:
                return
            at = rows[-1][0] + 1


def _row(journal: str, row: Sequence[Any]) -> Row:
    sequence, previous, sealed, request, response, chain, erasure, pruning, *columns = row
    if pruning is not None:
        return Row(journal, sequence, previous, None, b"", b"", chain=chain or b"", pruning=plain_text(pruning))
    if sealed is None:
        return Row(journal, sequence, previous, b"", b"", b"", damage="its sealed part is not there")
    damage = _damage(sealed, columns)
    if erasure is not None:
        return Row(journal, sequence, previous, sealed, b"", b"", erasure=plain_text(erasure), damage=damage)
    return Row(journal, sequence, previous, sealed, request or b"", response or b"", damage=damage)


def _damage(sealed: bytes, columns: Sequence[Any]) -> str:
    try:
        expected = row_of(decode_record(sealed))
    except (msgspec.DecodeError, ValueError, TypeError) as error:
        return f"its sealed part is no record: {error}"
    wrong = [name for name, wanted, is_ in zip(_NAMES, expected, columns, strict=True) if wanted != is_]
    return f"not what its sealed part says: {', '.join(wrong)}" if wrong else ""
