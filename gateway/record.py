"""The record of one request: what journal, audit store, metrics, log line and look-up all read.

Belongs here: the record's shape and its encoding. Never here: writing it anywhere, or making ids and times.
Fields are only ever added, each with a default, so a journal of any age can be read.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

Outcome = Literal["served", "failed", "refused"]
Role = Literal["primary", "shadow"]


class Payload(Struct, frozen=True, omit_defaults=True):
    """A body as the capture policy keeps it. `size` and `sha256` (hex) are of the whole body, as it came or left.

    `body` is None when the policy keeps none; it is cut after `max_bytes` (then `truncated`), and `redacted` says
    that fields were replaced before anything was written.
    """

    size: int
    sha256: str
    body: bytes | None = None
    truncated: bool = False
    redacted: bool = False


class Attempt(Struct, frozen=True, omit_defaults=True):
    """One try at having a version answer. `backend` is `onnx` or the URL it was forwarded to; times in µs."""

    version: str
    backend: str
    infer_us: int
    status: int | None = None
    error: str | None = None


class Record(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Request X was served by version Y, because Z.

    Ids: `record_id` is ours, a UUIDv7; `request_id` is the caller's name for the request (else the record id);
    `oip_id` the `id` of the body. A shadow has its own record id, and `primary_id` names the primary it copies.

    Decision: `intended` is the version that the rules chose, `served` the one that answered (None if none did);
    `rule` the path of the deciding rule in the route of revision `revision`; `cohort_revision` the newest revision
    among the cohorts that the route names; `rules_revision` that of the whole snapshot. `unit` is the hex digest D
    of the routing key (of the record id when not `keyed`) and `headers` the facts that the cohorts consulted; with
    the revisions they are all that `routing.resolve` needs.

    Times: `received_ns` is Unix time in ns; the latencies are in µs and lie within `total_us`.
    """

    record_id: str
    request_id: str
    role: Role
    received_ns: int
    model: str
    protocol: str
    outcome: Outcome
    status: int
    request: Payload
    response: Payload
    oip_id: str | None = None
    primary_id: str | None = None
    asked_version: str | None = None
    intended: str | None = None
    served: str | None = None
    digest: str | None = None
    revision: int | None = None
    cohort_revision: int | None = None
    rules_revision: int | None = None
    reason: str | None = None
    rule: str | None = None
    cohort: str | None = None
    unit: str | None = None
    keyed: bool = False
    headers: Mapping[str, str] = {}
    known_model: bool = True
    error_code: str | None = None
    error: str | None = None
    attempts: tuple[Attempt, ...] = ()
    route_us: int = 0
    queue_us: int = 0
    infer_us: int = 0
    total_us: int = 0
    client: str = ""
    gateway: str = ""
    worker: str = ""
    trace_id: str | None = None
    stale: bool = False


class Frame(Struct, frozen=True):
    """A record as it stands in a journal: which worker's journal, and its place in that journal's gapless sequence."""

    journal: str
    sequence: int
    record: Record


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Record)


def encode_record(record: Record) -> bytes:
    """Return the msgpack map of a record, fields of default value left out.

    Text that is no Unicode (a lone surrogate, as a path of stray bytes decodes to) is kept in escaped form, since
    also the strangest request leaves a record.
    """
    try:
        return _encoder.encode(record)
    except UnicodeEncodeError:
        return _encoder.encode(_escaped(msgspec.to_builtins(record, builtin_types=(bytes,))))


def _escaped(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, dict):
        return {_escaped(key): _escaped(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_escaped(inner) for inner in value]
    return value


def decode_record(data: bytes | memoryview) -> Record:
    """Return the record of a msgpack map; fields that this version does not know are ignored.

    Raises:
        msgspec.DecodeError: not a record.
    """
    return _decoder.decode(data)
