"""Look-ups in one day of the audit store: by id, page by page, sampled, and from end to end.

Belongs here: statements that read records, and rows made into what the port promises. Never here: several days.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import apsw
import msgspec

from gateway.columns import made_in, packed_id, unpacked_id
from gateway.errors import AuditUnavailable
from gateway.ports import Filter, Kept, Sampled
from gateway.record import Record
from gateway.sealing import frame_of
from gateway.stores.audit_sqlite_day import CHUNK_BITS, OUTCOMES, ROLES, oip_key, request_key

_MS = 1_000_000
_NO_HEADERS: Mapping[str, str] = {}
_headers = msgspec.msgpack.Decoder(dict[str, str])

_WHOLE: Final = """
SELECT number, name, records.sequence, previous, sealed, request, response, erasure
FROM records JOIN sealed USING (number) JOIN journals ON journals.id = records.journal
LEFT JOIN parts USING (number) LEFT JOIN erasures USING (number)
"""
_BY_TIME = "SELECT number FROM records WHERE received_ns >= ? AND received_ns < ? AND record_id = ?"
_STRAY = "SELECT number FROM records WHERE stray IS NOT NULL AND record_id = ?"
_SHADOWS = "SELECT number FROM records WHERE primary_id = ?"
_BY_KEY = "SELECT number FROM records WHERE (number >> 16) = ? AND {} = ? ORDER BY number DESC LIMIT ?"
_SAMPLE = """
SELECT record_id, received_ns, unit, keyed, headers, asked_version, intended, revision, cohort_revision
FROM records WHERE model = ? AND received_ns >= ? AND keyed IS NOT NULL ORDER BY received_ns DESC, number DESC LIMIT ?
"""


class Reading:
    """What one connection to a day's file reads. `day` is its name."""

    def __init__(self, day: str, connection: apsw.Connection) -> None:
        self.day = day
        self._connection = connection

    # ── by id ────────────────────────────────────────────────────────────────────────────────────────────────────

    def of_id(self, record_id: str) -> list[int]:
        """Return the numbers of the records of that record id."""
        packed = packed_id(record_id)
        made = made_in(packed)
        found = self._numbers(_STRAY, packed)
        if made is not None:
            found += self._numbers(_BY_TIME, made * _MS, (made + 1) * _MS, packed)
        return found

    def shadows_of(self, record_id: str) -> list[int]:
        """Return the numbers of the shadows of a primary."""
        return self._numbers(_SHADOWS, packed_id(record_id))

    def of_request(self, request_id: str, limit: int) -> list[Kept]:
        """Return the newest `limit` records of that request id, in no order."""
        found = self._of_key("request_key", request_key(request_id), limit)
        return [kept for kept in found if kept.frame.record.request_id == request_id]

    def of_oip(self, oip_id: str, limit: int) -> list[Kept]:
        """Return the newest `limit` records of that OIP id, in no order."""
        found = self._of_key("oip_key", oip_key(oip_id), limit)
        return [kept for kept in found if kept.frame.record.oip_id == oip_id]

    def kept(self, numbers: Sequence[int]) -> list[Kept]:
        """Return the records of these numbers, in their order.

        Raises:
            AuditUnavailable: one of them is damaged.
        """
        found = []
        for number in numbers:
            row: Any = self._connection.execute(f"{_WHOLE} WHERE number = ?", (number,)).fetchone()
            if row is not None:
                found.append(self._kept(row))
        return found

    def _of_key(self, column: str, key: int, limit: int) -> list[Kept]:
        numbers: list[int] = []
        last = self._connection.execute("SELECT max(number) FROM records").get
        for chunk in range((last or 0) >> CHUNK_BITS, -1, -1):
            numbers += self._numbers(_BY_KEY.format(column), chunk, key, limit - len(numbers))
            if len(numbers) >= limit:
                break
        return self.kept(numbers)

    def _numbers(self, statement: str, *values: Any) -> list[int]:
        rows: list[Any] = self._connection.execute(statement, values).fetchall()
        return [row[0] for row in rows]

    def _kept(self, row: Any) -> Kept:
        _, journal, sequence, previous, sealed, request, response, erasure = row
        if erasure is not None:
            request = response = b""
            erasure = unpacked_id(erasure)
        try:
            frame = frame_of(journal, sequence, previous, sealed, request or b"", response or b"")
        except (msgspec.DecodeError, TypeError) as error:
            raise AuditUnavailable(
                f"record {sequence} of journal {journal}, kept under {self.day}, is damaged ({error}); verify the log"
            ) from None
        return Kept(frame, self.day, erasure)

    # ── listings ─────────────────────────────────────────────────────────────────────────────────────────────────

    def conditions(self, wanted: Filter) -> tuple[str, tuple[Any, ...]] | None:
        """Return the condition of a filter and its values; None when the day cannot have such a record."""
        terms: list[str] = ["1"]
        values: list[Any] = []
        named = {
            "model": wanted.model,
            "version": wanted.version,
            "reason": wanted.reason,
            "caller": wanted.caller,
            "gateway": wanted.gateway,
            "action": wanted.action,
        }
        for column, name in named.items():
            if name is not None:
                terms.append(f"{column} = ?")
                values.append(self._word(name))
        for column, code in (
            ("role", ROLES.get(wanted.role) if wanted.role is not None else -1),
            ("outcome", OUTCOMES.get(wanted.outcome) if wanted.outcome is not None else -1),
            ("status", wanted.status if wanted.status is not None else -1),
        ):
            if code is None or code >= 0:
                # Written out, so that SQLite sees when an index of some records only is enough.
                terms.append(f"{column} = {code}" if code is not None else "0")
        if None in values:
            return None
        if wanted.since_ns is not None:
            terms.append("received_ns >= ?")
            values.append(wanted.since_ns)
        if wanted.until_ns is not None:
            terms.append("received_ns < ?")
            values.append(wanted.until_ns)
        return " AND ".join(terms), tuple(values)

    def page(self, wanted: Filter, after: tuple[int, int] | None, limit: int, budget: int) -> "Stretch":
        """Return the next records of a listing below the place `after` (received time, number), newest first."""
        found = self.conditions(wanted)
        if found is None:
            return Stretch([], 0, None)
        condition, values = found
        bound = "1"
        if after is not None:
            bound, values = "(received_ns, number) < (?, ?)", (*after, *values)
        order = "ORDER BY received_ns DESC, number DESC"
        # Which index: that of the model, of control records, of those not served, or of all.
        looked = f"SELECT * FROM records WHERE {bound} AND {condition} {order} LIMIT {limit}"  # noqa: S608 - names of ours
        rows: list[Any] = self._connection.execute(
            f"SELECT number, received_ns FROM ({looked}) {order}",  # noqa: S608 - names of ours
            values,
        ).fetchall()
        last = (rows[-1][1], rows[-1][0]) if len(rows) == limit else None
        return Stretch([kept.frame.record for kept in self.kept([row[0] for row in rows])], budget, last)

    def sample(self, model: str, since_ns: int, limit: int) -> list[Sampled]:
        """Return the newest primary records of a model that a rule decided, newest first."""
        known = self._word(model)
        if known is None:
            return []
        rows: list[Any] = self._connection.execute(_SAMPLE, (known, since_ns, limit)).fetchall()
        words = self._all_words()
        return [
            Sampled(
                record_id=unpacked_id(record_id),
                received_ns=received_ns,
                unit=unit,
                keyed=bool(keyed),
                headers=_headers.decode(headers) if headers is not None else _NO_HEADERS,
                asked_version=words.get(asked),
                intended=words.get(intended),
                revision=revision,
                cohort_revision=cohort_revision,
            )
            for record_id, received_ns, unit, keyed, headers, asked, intended, revision, cohort_revision in rows
        ]

    def count(self, wanted: Filter) -> int:
        """Return how many records fit a filter."""
        found = self.conditions(wanted)
        if found is None:
            return 0
        condition, values = found
        return int(self._connection.execute(f"SELECT count(*) FROM records WHERE {condition}", values).get)  # noqa: S608

    def scan(self, wanted: Filter, after: int, limit: int, *, contents: bool) -> tuple[list[Kept], int | None]:
        """Return the next records whose numbers are above `after`, and the last number; None: there are no more."""
        found = self.conditions(wanted)
        if found is None:
            return [], None
        condition, values = found
        chosen = _WHOLE if contents else _WHOLE.replace("request, response,", "x'', x'',")
        rows: list[Any] = self._connection.execute(
            f"{chosen} WHERE number > ? AND {condition.replace('received_ns', 'records.received_ns')} "
            "ORDER BY number LIMIT ?",
            (after, *values, limit),
        ).fetchall()
        return [self._kept(row) for row in rows], rows[-1][0] if len(rows) == limit else None

    def places_of(self, unit: bytes) -> list[tuple[str, int]]:
        """Return the places (journal, sequence) of the records of a caller."""
        rows: list[Any] = self._connection.execute(
            "SELECT name, sequence FROM records JOIN journals ON journals.id = journal WHERE unit = ? AND role <> 2",
            (unit,),
        ).fetchall()
        return [(name, sequence) for name, sequence in rows]

    def _word(self, word: str) -> int | None:
        try:
            return self._connection.execute("SELECT id FROM words WHERE word = ?", (word,)).get  # type: ignore[no-any-return]
        except UnicodeEncodeError:
            return None  # no record has it

    def _all_words(self) -> dict[int | None, str]:
        rows: list[Any] = self._connection.execute("SELECT id, word FROM words").fetchall()
        return dict(rows)


class Stretch(msgspec.Struct, frozen=True):
    """Part of a listing within one day: its records, how many were looked at, and where the next part begins."""

    records: Sequence[Record]
    looked_at: int
    next: tuple[int, int] | None
