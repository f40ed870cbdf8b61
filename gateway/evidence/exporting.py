"""Records in a form to take away: flat, typed JSON objects, one a line, between a line that says what they are and one
that says that all of them are there.

    {"export": {"format": 1, …, "records": N, "columns": [{"name": …, "type": …, "meaning": …}, …]}}
    {"record_id": …, "request_id": …, …}                 one record: every column, null where it has nothing
    …
    {"end": {"records": N}}                               an export without this line was cut

Belongs here: the columns, and the values of a record in them. Never here: reading the store, files, or Parquet.
"""

import base64
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
import orjson
from msgspec import Struct

from gateway.capture import open_part
from gateway.ports import Kept
from gateway.record import Payload
from gateway.times import moment

FORMAT: Final = 1
"""Grows when a column goes or means something else; a new column comes without that."""

Kind = Literal["text", "whole", "truth", "time", "day", "json"]
"""`whole` has 64 bits and a sign; `time` is RFC 3339 in UTC to the microsecond; `json` is any JSON value."""


class Column(Struct, frozen=True):
    """One column of an export. A `time` has its exact value in ns beside it, in the column of its name and `_ns`."""

    name: str
    type: Kind
    meaning: str


def _body_columns(side: str) -> tuple[Column, ...]:
    return (
        Column(f"{side}_size", "whole", f"bytes of the whole {side}"),
        Column(f"{side}_sha256", "text", "of the whole, in hex; null: erased, or not all of it came"),
        Column(f"{side}_body", "text", "what was kept of it"),
        Column(
            f"{side}_encoding", "text", "of the body column: utf-8 or base64; null: nothing was kept, or it was erased"
        ),
        Column(f"{side}_truncated", "truth", "only the beginning was kept, or came"),
        Column(
            f"{side}_redacted", "truth", "fields were replaced before it was kept, or nothing was kept for their sake"
        ),
        Column(f"{side}_commitment", "text", "what the sealed record holds of its part, in hex"),
    )


COLUMNS: Final = (
    Column("record_id", "text", "ours, unique"),
    Column("request_id", "text", "the caller's name for the request, else the record id"),
    Column("oip_id", "text", "the id of the body"),
    Column("primary_id", "text", "of a shadow: the record that it copies"),
    Column("role", "text", "primary, shadow or control"),
    Column("received", "time", "when the request came"),
    Column("received_ns", "whole", "the same in ns since 1970"),
    Column("model", "text", "the name that was called"),
    Column("known_model", "truth", "whether there was a route for it"),
    Column("protocol", "text", "how it was called"),
    Column("asked_version", "text", "the version that the caller named"),
    Column("intended", "text", "the version that the rules chose"),
    Column("served", "text", "the version that answered"),
    Column("digest", "text", "SHA-256 of the artifact that answered, in hex"),
    Column("outcome", "text", "served, refused or failed"),
    Column("status", "whole", "status of the answer"),
    Column("streamed", "text", "of an answer passed on piece by piece: complete or broken_off"),
    Column("error_code", "text", "what went wrong"),
    Column("error", "text", "the same in words"),
    Column("revision", "whole", "of the route that decided"),
    Column("cohort_revision", "whole", "the newest of the cohorts that it pins"),
    Column("rules_revision", "whole", "of all the rules in force"),
    Column("reason", "text", "explicit, pin, split, brake or shadow"),
    Column("rule", "text", "path of the rule in the route"),
    Column("cohort", "text", "of a pin"),
    Column("unit", "text", "digest of the routing key (of the record id when not keyed), in hex"),
    Column("keyed", "truth", "whether there was a routing key"),
    Column("headers", "json", "the headers that cohorts looked at"),
    Column("braked", "json", "the versions that the worker's brake diverted from"),
    Column("kept_headers", "json", "the headers that the settings keep"),
    Column("attempts", "json", "every version that was tried, with its backend, status, error and time"),
    Column("route_us", "whole", "time of the decision, in µs"),
    Column("queue_us", "whole", "time waited for a thread, in µs"),
    Column("infer_us", "whole", "time inside versions, in µs"),
    Column("head_us", "whole", "of a streamed answer: the part of it until its head had come, in µs"),
    Column("total_us", "whole", "time from arrival to answer, in µs"),
    Column("stale", "truth", "whether the rules could not be checked then"),
    Column("client", "text", "address of the caller"),
    Column("trace_id", "text", "of its traceparent"),
    Column("gateway", "text", "which gateway"),
    Column("worker", "text", "which process of it"),
    *_body_columns("request"),
    *_body_columns("response"),
    Column("erasure", "text", "record id of the control record by which the contents were erased"),
    Column("action", "text", "of a control record: what was done"),
    Column("actor", "text", "by whom"),
    Column("comment", "text", "why"),
    Column("details", "json", "and to what"),
    Column("journal", "text", "where the record stands"),
    Column("sequence", "whole", "its place there, without gaps"),
    Column("chain", "text", "hash chain of the journal after it, in hex"),
    Column("day", "day", "the UTC day under which it is kept"),
)
"""Every column of an export, in order."""


def heading(records: int, asked: Mapping[str, Any]) -> bytes:
    """Return the first line of an export of about so many records; `asked` is what it is of."""
    columns = [msgspec.to_builtins(column) for column in COLUMNS]
    return orjson.dumps({"export": {"format": FORMAT, **asked, "records": records, "columns": columns}}) + b"\n"


def lines_of(chunk: Sequence[Kept]) -> Iterator[bytes]:
    """Yield each record as a line of an export."""
    for kept in chunk:
        yield orjson.dumps(row_of(kept)) + b"\n"


def ending(records: int) -> bytes:
    """Return the last line of an export."""
    return orjson.dumps({"end": {"records": records}}) + b"\n"


def row_of(kept: Kept) -> dict[str, Any]:
    """Return a record's values, by column."""
    frame = kept.frame
    record = frame.record
    request, response = _body(record.request, frame.request), _body(record.response, frame.response)
    return {
        "record_id": record.record_id,
        "request_id": record.request_id,
        "oip_id": record.oip_id,
        "primary_id": record.primary_id,
        "role": record.role,
        "received": moment(record.received_ns),
        "received_ns": record.received_ns,
        "model": record.model or None,
        "known_model": record.known_model,
        "protocol": record.protocol,
        "asked_version": record.asked_version,
        "intended": record.intended,
        "served": record.served,
        "digest": record.digest,
        "outcome": record.outcome,
        "status": record.status,
        "streamed": record.streamed,
        "error_code": record.error_code,
        "error": record.error,
        "revision": record.revision,
        "cohort_revision": record.cohort_revision,
        "rules_revision": record.rules_revision,
        "reason": record.reason,
        "rule": record.rule,
        "cohort": record.cohort,
        "unit": record.unit,
        "keyed": record.keyed,
        "headers": record.headers,
        "braked": record.braked,
        "kept_headers": record.kept_headers,
        "attempts": [msgspec.structs.asdict(attempt) for attempt in record.attempts],
        "route_us": record.route_us,
        "queue_us": record.queue_us,
        "infer_us": record.infer_us,
        "head_us": record.head_us,
        "total_us": record.total_us,
        "stale": record.stale,
        "client": record.client or None,
        "trace_id": record.trace_id,
        "gateway": record.gateway or None,
        "worker": record.worker or None,
        **{f"request_{name}": value for name, value in request.items()},
        **{f"response_{name}": value for name, value in response.items()},
        "erasure": kept.erasure,
        "action": record.action,
        "actor": record.actor or None,
        "comment": record.comment or None,
        "details": record.details,
        "journal": frame.journal,
        "sequence": frame.sequence,
        "chain": frame.chain.hex(),
        "day": kept.day,
    }


def _body(payload: Payload, part: bytes) -> dict[str, Any]:
    contents = open_part(part, payload)
    body, encoding = text_of(contents.body) if contents is not None and contents.body is not None else (None, None)
    return {
        "size": payload.size,
        "sha256": (contents.sha256 or None) if contents is not None else None,
        "body": body,
        "encoding": encoding,
        "truncated": payload.truncated,
        "redacted": payload.redacted,
        "commitment": payload.commitment.hex() or None,
    }


def text_of(body: bytes) -> tuple[str, Literal["utf-8", "base64"]]:
    """Return bytes as text, and how to get them back."""
    try:
        return body.decode(), "utf-8"
    except UnicodeDecodeError:
        return base64.b64encode(body).decode(), "base64"
