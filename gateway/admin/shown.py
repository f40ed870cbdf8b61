"""A record as the admin port shows it: every field, its bodies, and in words why this version answered.

Belongs here: records as JSON. Never here: fetching anything, or a judgement.
"""

import base64
from collections.abc import Mapping
from typing import Any

from gateway.capture import open_part
from gateway.ports import Kept
from gateway.record import Payload, Record
from gateway.times import moment


def shown_kept(kept: Kept) -> dict[str, Any]:
    """Return a record with its bodies, and where it stands in which chain."""
    frame = kept.frame
    return {
        **shown_record(frame.record),
        "request": shown_payload(frame.record.request, frame.request, kept.erasure),
        "response": shown_payload(frame.record.response, frame.response, kept.erasure),
        "journal": frame.journal,
        "sequence": frame.sequence,
        "chain": frame.chain.hex(),
        "day": kept.day,
        "erasure": kept.erasure,
    }


def shown_record(record: Record) -> dict[str, Any]:
    """Return every field of a record as JSON has it, also those of default value, and the time for people to read."""
    fields: dict[str, Any] = {name: getattr(record, name) for name in record.__struct_fields__}
    fields["received"] = moment(record.received_ns)
    fields["request"] = shown_payload(record.request, b"", None)
    fields["response"] = shown_payload(record.response, b"", None)
    fields["attempts"] = [{name: getattr(one, name) for name in one.__struct_fields__} for one in record.attempts]
    return fields


def shown_payload(payload: Payload, part: bytes, erasure: str | None) -> dict[str, Any]:
    """Return what is known of a body: as text if it is UTF-8, else in base64 and `encoding` saying so.

    `sha256` is empty where it is not known; `erased` says that both were taken for good.
    """
    contents = open_part(part, payload)
    fields: dict[str, Any] = {
        "size": payload.size,
        "sha256": contents.sha256 if contents is not None else "",
        "body": None,
        "truncated": payload.truncated,
        "redacted": payload.redacted,
        "commitment": payload.commitment.hex(),
    }
    if erasure is not None:
        fields["erased"] = True
    if contents is not None and contents.body is not None:
        try:
            fields["body"] = contents.body.decode()
        except UnicodeDecodeError:
            fields |= {"body": base64.b64encode(contents.body).decode(), "encoding": "base64"}
    return fields


def decision_of(record: Record) -> Mapping[str, Any]:
    """Return what decided, in fields and in words."""
    return {
        "reason": record.reason,
        "rule": record.rule,
        "cohort": record.cohort,
        "revision": record.revision,
        "explained": explained(record),
    }


def explained(record: Record) -> str:
    """Return in a sentence or two why this version answered, or why none did."""
    if record.role == "control":
        return f"{record.actor or 'somebody'} did {record.action}."
    sentences = [_chosen(record)]
    if record.served is not None and record.served != record.tried_first:
        sentences.append(f"Version {record.served} served in its place, because it failed.")
    elif record.served is None and record.error:
        sentences.append(f"No version answered: {record.error}")
    if record.streamed == "broken_off":
        sentences.append(f"Its answer broke off when the caller had been sent {record.response.size} bytes of it.")
    if record.stale:
        sentences.append("The rules were the last known ones, because the rules store did not answer then.")
    return " ".join(sentences)


def _chosen(record: Record) -> str:
    subject = "the caller's routing key" if record.keyed else "the record id (the request brought no routing key)"
    match record.reason:
        case "explicit":
            return f"The caller named version {record.intended}, and the route lets callers do that."
        case "pin":
            return f"The caller is in cohort {record.cohort}, which {record.rule} sends to version {record.intended}."
        case "split":
            return (
                "No pin held for the caller. Of the versions in the split, weighted rendezvous hashing of "
                f"{subject} gave version {record.intended}."
            )
        case "brake":
            return (
                f"Weighted rendezvous hashing of {subject} gave version {record.intended}, which failed so often that "
                f"the worker's brake diverted from it; among the others of the split it gave {record.tried_first}."
            )
        case "shadow":
            return (
                f"A copy of request {record.primary_id}, which the route's shadows send to version {record.intended}."
            )
        case _:
            return "The request was refused before a version was chosen."
