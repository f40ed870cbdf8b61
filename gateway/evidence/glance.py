"""As much of a sealed record as verification needs, read in a microsecond, and whether the parts beside it are its own.

Belongs here: one record's sealed part and its parts. Never here: its neighbours, or hashes over several records.
"""

from typing import Final

import msgspec
from msgspec import Struct

from gateway.capture import fits
from gateway.ports import Row
from gateway.record import Payload, Role


class Glance(Struct, frozen=True):
    """The fields of a `Record` that say what stands beside it and what it accounts for."""

    record_id: str
    role: Role
    received_ns: int
    request: Payload
    response: Payload
    action: str | None = None


decode_glance = msgspec.msgpack.Decoder(Glance).decode
UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)
"""What decoding a sealed part raises when it is no record: also text that is no UTF-8, and nesting without end."""


def read_record_id(sealed: bytes | None) -> str:
    """Return the record id of a sealed part; "" when it cannot be read."""
    try:
        return decode_glance(sealed).record_id if sealed is not None else ""
    except UNREADABLE:
        return ""


def wrong_parts(row: Row, record: Glance) -> str:
    """Say what is wrong with the parts of a row whose sealed part says `record`; "" when nothing is."""
    for name, part, payload in (("request", row.request, record.request), ("response", row.response, record.response)):
        if part:
            if row.erasure is not None:
                return f"it is marked as erased, but its {name} is there"
            if not fits(part, payload):
                return f"its {name} is not the one that was recorded"
        elif payload.commitment and row.erasure is None and not (name == "request" and record.role == "shadow"):
            return f"its {name} is gone, and no erasure took it"
    return ""
