"""The record of one request: what journal, audit store, metrics, log line and look-up all read.

A record is the part that is *sealed*: bound into the hash chain of its journal and never changed again. The contents
of the bodies are kept apart, in *parts* that can be erased (`capture` makes them); of each the record holds a
commitment.

Belongs here: the record's shape and its encoding. Never here: writing it anywhere, or making ids and times.
Fields are only ever added, each with a default, so a record of any age can be read.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

Outcome = Literal["served", "failed", "refused"]
Role = Literal["primary", "shadow", "control"]
Streamed = Literal["complete", "broken_off"]


class Payload(Struct, frozen=True, omit_defaults=True, gc=False):
    """What the record itself says of a body: its size in bytes as it came or left, and the commitment to its part.

    `commitment` (32 bytes) binds salt, digest and kept bytes of the part, and tells nothing about them. `kept` says
    that bytes of the body are in the part, cut after the policy's `max_bytes` (then `truncated`); `redacted` that
    fields were replaced first, or that nothing was kept because nobody could tell where they were. A shadow has the
    request of its primary, and no part of its own for it.
    """

    size: int
    commitment: bytes = b""
    kept: bool = False
    truncated: bool = False
    redacted: bool = False


class Attempt(Struct, frozen=True, omit_defaults=True, gc=False):
    """One try at having a version answer. `backend` is `onnx` or the URL it was forwarded to; times in µs."""

    version: str
    backend: str
    infer_us: int
    status: int | None = None
    error: str | None = None


class Record(Struct, frozen=True, omit_defaults=True, kw_only=True, gc=False):
    """Request X was served by version Y, because Z.

    Ids: `record_id` is ours, a UUIDv7; `request_id` is the caller's name for the request (else the record id);
    `oip_id` the `id` of the body. A shadow has its own record id, and `primary_id` names the primary it copies.

    Decision: `intended` is the version that the rules chose, `served` the one that answered (None if none did);
    `rule` the path of the deciding rule in the route of revision `revision`; `cohort_revision` the newest revision
    among the cohorts that the route names; `rules_revision` that of the whole snapshot. `unit` is the hex digest D
    of the routing key (of the record id when not `keyed`), `headers` the facts that the cohorts consulted and `braked`
    the versions that the worker's brake diverted from then; with the revisions they are all that `routing.resolve`
    needs. Where the brake diverted (reason `brake`), `intended` is the version that the split had drawn.

    Times: `received_ns` is Unix time in ns; the latencies are in µs and lie within `total_us`.

    An answer that was passed on piece by piece is `streamed`: `complete`, or `broken_off` when the caller got only the
    beginning of it, which is then what `response` is of. `status` and `served` are what its head said before anybody
    knew how it would end; `outcome` and `error_code` say that. `head_us` is the part of `infer_us` until the head.

    `kept_headers` are those that the settings allow to be kept (`audit.record_headers`).

    A record of the role `control` is of something that an auditor or SRE did: `action` (such as `audit.erase`) by
    `actor` with `comment`, and its `details` as JSON has them.
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
    kept_headers: Mapping[str, str] = {}
    action: str | None = None
    actor: str = ""
    comment: str = ""
    details: Mapping[str, Any] = {}
    braked: tuple[str, ...] = ()
    streamed: Streamed | None = None
    head_us: int = 0

    @property
    def tried_first(self) -> str | None:
        """The version that was to answer: the one intended, or where the brake diverted from it, the one instead."""
        return self.attempts[0].version if self.reason == "brake" and self.attempts else self.intended


class Frame(Struct, frozen=True, gc=False):
    """A record as it stands in a journal: its place in that journal's gapless sequence, its sealed bytes and its parts.

    `previous` is the chain before it and `chain` the one after it (`gateway.chain`, 32 bytes each), `sealed` the very
    bytes that the chain binds and `record` what they say. `request` and `response` are the parts, empty when there are
    none.
    """

    journal: str
    sequence: int
    previous: bytes
    chain: bytes
    sealed: bytes
    request: bytes
    response: bytes
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
    try:
        return _decoder.decode(data)
    except (UnicodeDecodeError, RecursionError) as error:  # the decoder lets these pass as they are
        raise msgspec.DecodeError(str(error)) from None
