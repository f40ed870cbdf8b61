"""What went into a model and what came out, taken from a record, as far as it was kept whole.

Belongs here: opening the parts of a record and saying in words why they are not enough. Never here: running a version,
or comparing answers.
"""

from collections.abc import Sequence

from msgspec import Struct

from gateway.capture import fits, open_part
from gateway.errors import CannotReplay
from gateway.ports import Kept
from gateway.record import Payload, Record


class Answer(Struct, frozen=True):
    """What a record says of its answer: the body where it was kept whole, the SHA-256 (hex) of the whole where known.

    `why` says why there is no body, empty when there is one.
    """

    status: int
    body: bytes | None
    sha256: str
    why: str = ""


def pick(found: Sequence[Kept], any_id: str) -> Kept:
    """Return which of the records that an id names is meant: the one of that record id, else the newest primary.

    Raises:
        CannotReplay: none of them is of an inference, or there is none (any more).
    """
    if not found:
        raise CannotReplay("it is not in the store any more")
    inferences = [kept for kept in found if kept.frame.record.role != "control"]
    exact = [kept for kept in inferences if kept.frame.record.record_id == any_id]
    meant = exact or [kept for kept in inferences if kept.frame.record.role == "primary"] or inferences
    if not meant:
        raise CannotReplay("that record is of something that an operator or auditor did; only inferences are replayed")
    return meant[-1]


def input_of(kept: Kept, found: Sequence[Kept]) -> bytes:
    """Return the request body of a record, whole and as it came. A shadow's is that of its primary, among `found`.

    Raises:
        CannotReplay: it was not kept whole, is not there any more, or is not the one that was sealed.
    """
    record = kept.frame.record
    if record.role == "shadow":
        primaries = [one for one in found if one.frame.record.record_id == record.primary_id]
        if not primaries:
            raise CannotReplay(f"the request of a shadow is that of its primary {record.primary_id}, which is not kept")
        kept = primaries[0]
    why = why_no_input(kept.frame.record.request, kept.erasure)
    if why:
        raise CannotReplay(why)
    body, why = _whole(kept.frame.request, kept.frame.record.request)
    if body is None:
        raise CannotReplay(f"its request {why}")
    return body


def why_no_input(payload: Payload, erasure: str | None) -> str:
    """Return why a request cannot be run again, going by what its record says; empty when nothing speaks against it."""
    if erasure is not None:
        return f"its contents were erased for good (control record {erasure})"
    if payload.redacted:
        return "fields of its request were replaced before it was kept, so nobody knows what the model was given"
    if payload.truncated and payload.kept:
        return "only the beginning of its request was kept (the route's capture.max_bytes)"
    if payload.truncated:
        return "not all of its request had come when it was refused"
    if not payload.kept:
        return "its request was not kept (the route's capture.request)"
    return ""


def answer_of(kept: Kept) -> Answer:
    """Return what the record says of its answer."""
    record: Record = kept.frame.record
    payload, part = record.response, kept.frame.response
    contents = open_part(part, payload) if fits(part, payload) else None
    sha256 = contents.sha256 if contents is not None else ""
    if kept.erasure is not None:
        return Answer(record.status, None, "", f"it was erased for good (control record {kept.erasure})")
    if contents is None:
        return Answer(record.status, None, "", "it is missing from the store, or not the one that was sealed")
    if payload.redacted:
        return Answer(record.status, None, sha256, "fields of it were replaced before it was kept")
    if not payload.kept:
        return Answer(record.status, None, sha256, "it was not kept (the route's capture.response)")
    if payload.truncated:
        return Answer(record.status, None, sha256, "only its beginning was kept (the route's capture.max_bytes)")
    if record.streamed == "broken_off":
        return Answer(record.status, None, sha256, "only its beginning was sent: it broke off")
    return Answer(record.status, contents.body, sha256)


def _whole(part: bytes, payload: Payload) -> tuple[bytes | None, str]:
    contents = open_part(part, payload)
    if contents is None:
        return None, "is missing from the store"
    if not fits(part, payload):
        return None, "is not the one that was sealed with the record; `audit verify` tells more"
    return contents.body, ""
