"""Look-ups in one day of the audit store: by id, sampled, and from end to end.

Each takes the connection to the day's file. Belongs here: statements that read records, and rows made into what the
port promises. Never here: several days.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any, Final

import apsw
import msgspec
import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from gateway.columns import bounded, made_in, packed_id, unpacked_id
from gateway.errors import AuditUnavailable
from gateway.logs import logger
from gateway.ports import Filter, Kept, Sampled
from gateway.record import Record
from gateway.sealing import frame_of
from gateway.stores.audit_sqlite_day import CHUNK_BITS, OUTCOMES, ROLES, oip_key, request_key, stray_key
from gateway.stores.sqlite_file import Damaged

_MS: Final = 1_000_000
_CHUNK_BYTES: Final = 4 * 2**20
_NO_HEADERS: Mapping[str, str] = {}
_headers = msgspec.msgpack.Decoder(dict[str, str])

_WHOLE: Final = """
SELECT number, name, records.sequence, previous, sealed, {}, erasure
FROM records JOIN journals ON journals.id = records.journal LEFT JOIN sealed USING (number)
LEFT JOIN parts USING (number) LEFT JOIN erasures USING (number)
"""
_WITH_PARTS: Final = _WHOLE.format("request, response")
_WITHOUT_PARTS: Final = _WHOLE.format("x'', x''").replace("LEFT JOIN parts USING (number)", "")
_OF_TIME: Final = "SELECT number FROM records WHERE received_ns >= ? AND received_ns < ? AND record_id = ?"
_STRAY: Final = "SELECT number FROM records WHERE stray IS NOT NULL AND record_id = ?"
_SHADOWS: Final = "SELECT number FROM records WHERE primary_id = ?"
_LAST: Final = "SELECT max(number) FROM records"
_BY_REQUEST: Final = (
    "SELECT number FROM records WHERE (number >> 16) = ? AND request_key = ? ORDER BY number DESC LIMIT ?"
)
_BY_OIP: Final = "SELECT number FROM records WHERE (number >> 16) = ? AND oip_key = ? ORDER BY number DESC LIMIT ?"
_REQUEST_KEYS: Final = "SELECT request_key FROM records WHERE (number >> 16) = ? AND request_key IS NOT NULL"
_OIP_KEYS: Final = "SELECT oip_key FROM records WHERE (number >> 16) = ? AND oip_key IS NOT NULL"
_STRAYS: Final = """
SELECT record_id, primary_id FROM records WHERE stray IS NOT NULL AND number >= ? AND number < ?
"""
_SAMPLE: Final = """
SELECT record_id, received_ns, unit, keyed, headers, asked_version, intended, revision, cohort_revision
FROM records WHERE model = ? AND received_ns >= ? AND keyed IS NOT NULL ORDER BY received_ns DESC LIMIT ?
"""
_OF_UNIT: Final = "SELECT name, sequence FROM records JOIN journals ON id = journal WHERE unit = ? AND role <> 2"


class ChunkKeys(Struct, frozen=True):
    """By what the records of a chunk are found across days, and whether some of them are strays."""

    keys: NDArray[np.int64]
    strays: bool


# ── by id ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def of_ids(connection: apsw.Connection, record_ids: Iterable[str]) -> list[int]:
    """Return the numbers of the records of these record ids."""
    found: list[int] = []
    for record_id in record_ids:
        packed = packed_id(record_id)
        made = made_in(packed)
        found += _numbers(connection, _STRAY, packed)
        if made is not None:
            found += _numbers(connection, _OF_TIME, bounded(made * _MS), bounded((made + 1) * _MS), packed)
    return found


def shadows_of(connection: apsw.Connection, record_ids: Iterable[str]) -> list[int]:
    """Return the numbers of the shadows of these primaries."""
    return [number for record_id in record_ids for number in _numbers(connection, _SHADOWS, packed_id(record_id))]


def of_request(connection: apsw.Connection, request_id: str, chunks: Iterable[int], limit: int) -> list[int]:
    """Return the numbers of the newest `limit` records of a request id in these chunks, the newest first."""
    return _of_key(connection, _BY_REQUEST, request_key(request_id), chunks, limit)


def of_oip(connection: apsw.Connection, oip_id: str, chunks: Iterable[int], limit: int) -> list[int]:
    """Return the numbers of the newest `limit` records of an OIP id in these chunks, the newest first."""
    return _of_key(connection, _BY_OIP, oip_key(oip_id), chunks, limit)


def _of_key(connection: apsw.Connection, statement: str, key: int, chunks: Iterable[int], limit: int) -> list[int]:
    found: list[int] = []
    for chunk in sorted(chunks, reverse=True):
        if len(found) < limit:
            found += _numbers(connection, statement, chunk, key, limit - len(found))
    return found


def _numbers(connection: apsw.Connection, statement: str, *values: Any) -> list[int]:
    rows: list[Any] = connection.execute(statement, values).fetchall()
    return [row[0] for row in rows]


def last_number(connection: apsw.Connection) -> int:
    """Return the number of the record that was recorded last; 0: there is none."""
    return connection.execute(_LAST).get or 0


def chunk_keys(connection: apsw.Connection, chunk: int) -> ChunkKeys:
    """Return the keys of a chunk: of request ids, OIP ids, and those of strays and of their primaries."""
    keys = _numbers(connection, _REQUEST_KEYS, chunk) + _numbers(connection, _OIP_KEYS, chunk)
    within = (chunk << CHUNK_BITS, (chunk + 1) << CHUNK_BITS)
    strays: list[Any] = connection.execute(_STRAYS, within).fetchall()
    keys += [stray_key(packed) for ids in strays for packed in ids if packed is not None]
    return ChunkKeys(np.array(keys, dtype=np.int64), bool(strays))


# ── whole records ────────────────────────────────────────────────────────────────────────────────────────────────────


def kept_in(connection: apsw.Connection, day: str, numbers: Iterable[int]) -> list[Kept]:
    """Return the records of these numbers, in their order.

    Raises:
        AuditUnavailable: one of them is damaged.
    """
    return [kept_of(day, row) for row in _whole(connection, _WITH_PARTS, numbers)]


def listed_in(connection: apsw.Connection, day: str, numbers: Iterable[int]) -> list[Record]:
    """Return the records of these numbers, in their order, but for those that are damaged."""
    return [kept.frame.record for kept in readable(day, _whole(connection, _WITHOUT_PARTS, numbers))]


def _whole(connection: apsw.Connection, statement: str, numbers: Iterable[int]) -> list[Any]:
    rows: list[Any] = [connection.execute(f"{statement} WHERE number = ?", (one,)).fetchone() for one in numbers]
    return [row for row in rows if row is not None]


def kept_of(day: str, row: Any) -> Kept:
    """Return the record of a row of `_WHOLE`.

    Raises:
        AuditUnavailable: it is damaged.
    """
    _, journal, sequence, previous, sealed, request, response, erasure = row
    if erasure is not None:
        request, response, erasure = b"", b"", unpacked_id(erasure)
    try:
        frame = frame_of(journal, sequence, previous, sealed, request or b"", response or b"")
    except (msgspec.DecodeError, TypeError) as error:
        raise AuditUnavailable(
            f"record {sequence} of journal {journal}, kept under {day}, is damaged: {error}; verify the records"
        ) from None
    return Kept(frame, day, erasure)


def readable(day: str, rows: Iterable[Any]) -> list[Kept]:
    """Return the records of rows of `_WHOLE`; for one that is damaged, raise the alarm and go on."""
    found = []
    for row in rows:
        try:
            found.append(kept_of(day, row))
        except AuditUnavailable as error:
            logger().error("record_unreadable", why=error.message)
    return found


def scan(
    connection: apsw.Connection, day: str, wanted: Filter, after: int, limit: int, *, contents: bool
) -> tuple[list[Kept], int | None]:
    """Return the next records whose numbers are above `after`, and the last number; None: there are no more."""
    found = conditions(connection, wanted)
    if found is None:
        return [], None
    condition, values = found
    statement = (
        f"{_WITH_PARTS if contents else _WITHOUT_PARTS} WHERE number > ? AND {condition} ORDER BY number LIMIT ?"
    )
    with closing(connection.execute(statement, (after, *values, limit))) as cursor:
        rows, whole = chunk_of(cursor, limit, slice(4, 7))
    if not whole and rows[-1][0] <= after:
        raise Damaged(f"the order of the records kept under {day} is broken; verify the records")
    return readable(day, rows), None if whole else rows[-1][0]


def chunk_of(cursor: Iterable[Any], limit: int, large: slice) -> tuple[list[Any], bool]:
    """Return the first rows, at most `limit` and of 4 MiB in the columns `large`, and whether that were all there are.

    (`limit` is also that of the statement, so as many rows as that need not be all.)
    """
    rows: list[Any] = []
    size = 0
    for row in cursor:
        rows.append(row)
        for value in row[large]:
            if isinstance(value, bytes):
                size += len(value)
        if size >= _CHUNK_BYTES:
            return rows, False
    return rows, len(rows) < limit


def count(connection: apsw.Connection, wanted: Filter) -> int:
    """Return how many records fit a filter."""
    found = conditions(connection, wanted)
    if found is None:
        return 0
    condition, values = found
    return int(connection.execute(f"SELECT count(*) FROM records WHERE {condition}", values).get)  # noqa: S608 - names of ours


def conditions(connection: apsw.Connection, wanted: Filter) -> tuple[str, Sequence[Any]] | None:
    """Return the condition of a filter and its values; None when the day cannot have such a record."""
    terms: list[str] = []
    values: list[int] = []
    for column in ("model", "version", "reason", "caller", "gateway", "action"):
        name = getattr(wanted, column)
        if name is not None:
            word = word_of(connection, name)
            if word is None:
                return None
            terms.append(f"{column} = ?")
            values.append(word)
    # Written out, so that SQLite sees when an index of some records only is enough.
    if wanted.role is not None:
        terms.append(f"role = {ROLES.get(wanted.role, -2)}")
    if wanted.outcome is not None:
        terms.append(f"outcome = {OUTCOMES.get(wanted.outcome, -2)}")
        if wanted.outcome != "served":
            terms.append("outcome <> 0")
    for condition, value in (
        ("status = ?", wanted.status),
        ("received_ns >= ?", wanted.since_ns),
        ("received_ns < ?", wanted.until_ns),
    ):
        if value is not None:
            terms.append(condition)
            values.append(bounded(value))
    return " AND ".join(terms) or "1", values


def word_of(connection: apsw.Connection, word: str) -> int | None:
    """Return the small integer of a name; None when no record of the day has it."""
    try:
        return connection.execute("SELECT id FROM words WHERE word = ?", (word,)).get  # type: ignore[no-any-return]
    except UnicodeEncodeError:
        return None


# ── samples and callers ──────────────────────────────────────────────────────────────────────────────────────────────


def sample(connection: apsw.Connection, model: str, since_ns: int, limit: int) -> list[Sampled]:
    """Return the newest primary records of a model that a rule decided, newest first."""
    known = word_of(connection, model)
    if known is None:
        return []
    rows: list[Any] = connection.execute(_SAMPLE, (known, bounded(since_ns), limit)).fetchall()
    versions = _words(connection, {row[5] for row in rows} | {row[6] for row in rows})
    return [
        Sampled(
            record_id=unpacked_id(record_id),
            received_ns=received_ns,
            unit=unit,
            keyed=bool(keyed),
            headers=_headers.decode(headers) if headers is not None else _NO_HEADERS,
            asked_version=versions[asked],
            intended=versions[intended],
            revision=revision,
            cohort_revision=cohort_revision,
        )
        for record_id, received_ns, unit, keyed, headers, asked, intended, revision, cohort_revision in rows
    ]


def _words(connection: apsw.Connection, ids: Iterable[int | None]) -> dict[int | None, str | None]:
    return {one: connection.execute("SELECT word FROM words WHERE id = ?", (one,)).get for one in ids}


def of_unit(connection: apsw.Connection, unit: bytes) -> list[tuple[str, int]]:
    """Return (journal, sequence) of the records of a caller; a shadow is its primary's caller's."""
    rows: list[Any] = connection.execute(_OF_UNIT, (unit,)).fetchall()
    return [(journal, sequence) for journal, sequence in rows]
