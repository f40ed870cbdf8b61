"""What a decision goes by.

Belongs here: that shape. Never here: documents (`types`), or choosing (`resolve`).
"""

from collections.abc import Mapping

from msgspec import Struct


class Facts(Struct, frozen=True):
    """Everything about one request that a decision may look at.

    `unit` is the 16-byte digest of the routing key, or of the record id when the request has none (then `keyed` is
    False and no cohort lists it). `headers` has lower-case names; a name in upper case is never found.
    `received_ns` is Unix time in nanoseconds. `braked` are the versions that the worker's brake diverts from, sorted.
    """

    unit: bytes
    record_id: str
    received_ns: int
    keyed: bool = True
    asked_version: str | None = None
    headers: Mapping[str, str] = {}
    braked: tuple[str, ...] = ()
