"""A record as a row of the audit store in PostgreSQL.

Ids that callers choose are found by 64 bits of their hash, so one of any length takes eight bytes of an index; who
finds something by them compares the record itself. A record id tells when the record was received, so it needs no index
of its own; only one that does not (a stray) has a key. PostgreSQL's text cannot hold NUL, and its indexes no long text,
so text stands in columns in a form of its own (`column_text`).

Belongs here: what goes into a row, and how text is written in one. Never here: SQL that reads, or connections.
"""

import re
from hashlib import blake2b
from typing import Any, Final

from gateway.columns import columns_of, made_in, packed_id, tells_its_time
from gateway.record import Frame, Record, decode_record

COLUMNS: Final = (
    "received_ns, record_id, primary_id, stray_key, stray_primary_key, request_key, oip_key, unit, decided, model, "
    "version, status, outcome, reason, role, caller, gateway, action"
)
"""The columns that repeat what the sealed part says."""
TYPES: Final = (
    "int8", "bytea", "bytea", "int8", "int8", "int8", "int8", "bytea", "bool", "text",
    "text", "int8", "text", "text", "text", "text", "text", "text",
)  # fmt: skip
_LONGEST: Final = 400
_CUT: Final = re.compile(r".{400}\\…[0-9a-f]{32}\Z", re.DOTALL)


def row_of(record: Record) -> tuple[Any, ...]:
    """Return the values of `COLUMNS` for a record.

    Raises:
        UnicodeEncodeError: there is text in it that is no Unicode.
    """
    said = columns_of(record)
    record_id = packed_id(said.record_id)
    primary_id = packed_id(said.primary_id) if said.primary_id is not None else None
    stray = not tells_its_time(record_id, said.received_ns) or (
        primary_id is not None and not tells_its_time(primary_id, said.received_ns)
    )
    return (
        said.received_ns,
        record_id if isinstance(record_id, bytes) else None,
        primary_id if isinstance(primary_id, bytes) else None,
        record_key(said.record_id) if stray else None,
        record_key(said.primary_id) if stray and said.primary_id is not None else None,
        request_key(said.request_id) if said.request_id is not None else None,
        oip_key(said.oip_id) if said.oip_id is not None else None,
        said.unit,
        said.keyed is not None,
        column_text(said.model),
        column_text(said.version) if said.version is not None else None,
        said.status,
        column_text(said.outcome),
        column_text(said.reason) if said.reason is not None else None,
        column_text(said.role),
        column_text(said.caller),
        column_text(said.gateway),
        column_text(said.action) if said.action is not None else None,
    )


def row_of_frame(frame: Frame) -> tuple[Any, ...]:
    """Return the values of `COLUMNS` for the record of a frame; text that is no Unicode as the sealed part has it."""
    try:
        return row_of(frame.record)
    except UnicodeEncodeError:
        return row_of(decode_record(frame.sealed))  # there it stands escaped


def request_key(request_id: str) -> int:
    """Return what a request id is found by."""
    return _key(b"q", request_id)


def oip_key(oip_id: str) -> int:
    """Return what an OIP id is found by."""
    return _key(b"o", oip_id)


def record_key(record_id: str) -> int:
    """Return what a stray's record id, or that of its primary, is found by."""
    return _key(b"r", record_id)


def made_ms(record_id: str) -> tuple[bytes, int] | None:
    """Return the 16 bytes of a record id and the millisecond (Unix time) that it tells; None if it tells none."""
    packed = packed_id(record_id)
    made = made_in(packed)
    return (packed, made) if isinstance(packed, bytes) and made is not None else None


def column_text(text: str) -> str:
    """Return a text as columns with an index have it: escaped, of bounded length, and never the same for two texts.

    A long one is cut, and told from others that begin like it by its hash.

    Raises:
        UnicodeEncodeError: it is no Unicode, so no record has it.
    """
    if len(text) > _LONGEST and _CUT.match(text):
        return text
    whole = escaped(text)
    if len(whole) <= _LONGEST:
        return whole
    return f"{whole[:_LONGEST]}\\…{blake2b(text.encode(), digest_size=16).hexdigest()}"


def escaped(text: str) -> str:
    """Return a text without NUL; `plain_text` turns it back. Raises as `column_text` does."""
    text.encode()
    if "\\" not in text and "\0" not in text:
        return text
    return text.replace("\\", "\\\\").replace("\0", "\\0")


def plain_text(column: str) -> str:
    """Return the text that a column stands for; one that was cut, as the column has it."""
    if "\\" not in column or _CUT.match(column):
        return column
    return "\\".join(piece.replace("\\0", "\0") for piece in column.split("\\\\"))


def _key(kind: bytes, text: str) -> int:
    return int.from_bytes(blake2b(kind + text.encode(), digest_size=8).digest(), "big", signed=True)
