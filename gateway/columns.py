"""What a store keeps of a record beside its sealed bytes, so that it can be looked up, listed and sampled.

The sealed bytes are the record; columns only repeat what they say, bounded to what every kind of store takes. A row
whose columns are not those of its sealed bytes was edited.

Belongs here: which columns there are, and how a value of any size or kind fits in. Never here: SQL, or a file.
"""

from typing import Final

import msgspec
from msgspec import Struct

from gateway.record import Record, Role

LARGEST: Final = 2**63 - 1
"""What integers are bounded by, in both directions: the widest integer that stores have."""
_MS: Final = 1_000_000
_headers: Final = msgspec.msgpack.Encoder()


class Columns(Struct, frozen=True):
    """What is kept of one record. None where the record says nothing.

    `request_id` is None where the caller named none (then it is the record id). `version` is the one that served, or
    that should have when none did. `unit` is the digest of the routing key, None if that is no hex. `keyed`, `headers`
    (msgpack map, None when empty), `asked_version`, `intended`, `revision` and `cohort_revision` are what a decision
    looked at; they stand only with primaries for which a rule chose a version, and `keyed` with all of those.
    """

    record_id: str
    request_id: str | None
    oip_id: str | None
    primary_id: str | None
    role: Role
    model: str
    version: str | None
    status: int
    outcome: str
    reason: str | None
    caller: str
    gateway: str
    action: str | None
    received_ns: int
    unit: bytes | None
    keyed: bool | None = None
    headers: bytes | None = None
    asked_version: str | None = None
    intended: str | None = None
    revision: int | None = None
    cohort_revision: int | None = None


def columns_of(record: Record) -> Columns:
    """Return the columns of a record. Its text has to be Unicode, as that of every decoded record is."""
    unit = unit_of(record)
    said = (
        record.record_id,
        record.request_id if record.request_id != record.record_id else None,
        record.oip_id,
        record.primary_id,
        record.role,
        record.model,
        record.served if record.served is not None else record.tried_first,
        bounded(record.status),
        record.outcome,
        record.reason,
        record.client,
        record.gateway,
        record.action,
        bounded(record.received_ns),
        unit,
    )
    if record.role != "primary" or unit is None or record.intended is None or record.reason is None:
        return Columns(*said)
    return Columns(
        *said,
        record.keyed,
        headers_of(record),
        record.asked_version,
        record.intended,
        bounded(record.revision) if record.revision is not None else None,
        bounded(record.cohort_revision) if record.cohort_revision is not None else None,
    )


def unit_of(record: Record) -> bytes | None:
    """Return the digest of the routing key; None of a record that has none, or one that is no hex."""
    if record.unit is None:
        return None
    try:
        return bytes.fromhex(record.unit)
    except ValueError:
        return None  # damaged facts are no reason to lose the record


def headers_of(record: Record) -> bytes | None:
    """Return the msgpack map of the headers that the cohorts consulted, None when there are none."""
    return _headers.encode(record.headers) if record.headers else None


def bounded(number: int) -> int:
    """Return a number as near to it as 64 bits with a sign allow."""
    return number if -LARGEST <= number <= LARGEST else max(-LARGEST, min(number, LARGEST))


def packed_id(text: str) -> bytes | str:
    """Return the 16 bytes of a UUID in its canonical form (RFC 9562 §4), any other id as it is."""
    digits = text.replace("-", "")
    if len(text) != 36 or len(digits) != 32 or not text[8] == text[13] == text[18] == text[23] == "-":
        return text
    try:
        packed = bytes.fromhex(digits)
    except ValueError:
        return text
    return packed if packed.hex() == digits else text  # it takes capitals and spaces, too


def unpacked_id(packed: object) -> str:
    """Return the id that `packed_id` packed; of anything else that a damaged row may hold, what it looks like."""
    if not isinstance(packed, bytes) or len(packed) != 16:
        return str(packed)
    digits = packed.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def made_in(packed: object) -> int | None:
    """Return the millisecond (Unix time) in which a packed UUIDv7 was made (RFC 9562 §5.7), None of any other id."""
    if isinstance(packed, bytes) and len(packed) == 16 and packed[6] >> 4 == 7:
        return int.from_bytes(packed[:6], "big")
    return None


def tells_its_time(packed: object, received_ns: int) -> bool:
    """Tell whether a packed record id was made in the millisecond in which the record was received."""
    return made_in(packed) == received_ns // _MS
