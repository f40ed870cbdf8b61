"""What a record keeps of a body: the route's capture policy, applied before anything is written.

A body leaves two things: a `Payload`, which is sealed with the record, and a part, which is kept beside it and can be
erased without breaking the chain:

    part       = salt (16 random bytes) ‖ SHA-256 of the whole body (32 bytes; zeros: not all of it came) ‖ kept bytes
    commitment = SHA-256(salt ‖ SHA-256 of the whole body ‖ SHA-256 of the kept bytes; 32 zeros: none kept)

The salt makes the commitment worthless to whoever tries likely bodies once the part is erased.

Belongs here: cutting, redacting, committing. Never here: where the result is stored.
"""

import json
import os
import re
from hashlib import sha256
from typing import Any, Final, Literal

from msgspec import Struct

from gateway.errors import GatewayError, ModelFailed, RequestError
from gateway.record import Payload
from routing.types import Capture

REDACTED: Final = "[redacted]"
SALT_BYTES: Final = 16
_FIELD: Final = re.compile(r"[a-z_]+(\[\d+\]|\.[a-z_]+)*", re.ASCII)
_NO_DIGEST: Final = bytes(32)
_HEAD_BYTES: Final = SALT_BYTES + 32


class Contents(Struct, frozen=True):
    """What a part holds: the SHA-256 (hex) of the whole body, "" when not all of it came, and the bytes that were
    kept.
    """

    salt: bytes
    sha256: str
    body: bytes | None


def capture(
    body: bytes, mode: Literal["full", "digest", "none"], policy: Capture, salt: bytes | None = None
) -> tuple[Payload, bytes]:
    """Return the payload and the part of `body` under `policy`. Size (bytes) and digest are always of the whole body.

    `salt` is `SALT_BYTES` random bytes that are used for nothing else; without it they are drawn here.

    With `redact`, the fields named by its JSON pointers (RFC 6901) are replaced before the body is kept; a body that
    is not JSON is then not kept at all, because nobody can say where its secrets are.
    """
    digest = sha256(body).digest()
    if salt is None:
        salt = os.urandom(SALT_BYTES)
    head = salt + digest
    if mode == "full" and not policy.redact and len(body) <= policy.max_bytes:  # nearly always
        return Payload(len(body), sha256(head + digest).digest(), True), head + body
    if mode != "full":
        return Payload(len(body), sha256(head + _NO_DIGEST).digest()), head
    kept: bytes | None = body
    redacted = False
    if policy.redact:
        kept, redacted = redact(body, policy.redact)
    if kept is None:
        return Payload(len(body), sha256(head + _NO_DIGEST).digest(), redacted=True), head
    cut = kept if len(kept) <= policy.max_bytes else kept[: policy.max_bytes]
    kept_digest = digest if cut is body else sha256(cut).digest()
    commitment = sha256(head + kept_digest).digest()
    payload = Payload(len(body), commitment, True, len(cut) < len(kept), redacted)
    return payload, head + cut


def capture_passed(beginning: bytes, size: int, digest: bytes, policy: Capture, salt: bytes) -> tuple[Payload, bytes]:
    """Return what `capture` does of a response of which only the `beginning`, `policy.max_bytes` or all, is at hand.

    Fields cannot be replaced in what is not there, so with `redact`, nothing is kept of one that is longer.
    """
    if len(beginning) == size:
        return capture(beginning, policy.response, policy, salt)
    head = salt + digest
    if policy.response != "full" or policy.redact:
        return Payload(size, sha256(head + _NO_DIGEST).digest(), redacted=policy.response == "full"), head
    kept = beginning[: policy.max_bytes]
    return Payload(size, sha256(head + sha256(kept).digest()).digest(), True, True), head + kept


def told(error: GatewayError | None, policy: Capture) -> str | None:
    """Return what a record says of an error: its message, or where bodies are not to be kept, only what is wrong where.

    Messages about a body quote what stood there, which helps its sender and has no place in a record for ever.
    """
    if error is None:
        return None
    if not quotes_body(error, policy):
        return error.message
    field = error.message.partition(": ")[0]
    where = field if _FIELD.fullmatch(field) else "the body"
    return f"{where}: {error.code} (the route keeps what was sent out of its records)"


def quotes_body(error: GatewayError | None, policy: Capture) -> bool:
    """Tell whether an error may repeat parts of a body that the policy keeps out of records, wholly or in part."""
    return isinstance(error, RequestError | ModelFailed) and (bool(policy.redact) or policy.request != "full")


def capture_unseen(size: int) -> tuple[Payload, bytes]:
    """Return the payload and the part of a body of which not all came; `size` is what was announced, or had come."""
    salt = os.urandom(SALT_BYTES)
    commitment = sha256(salt + _NO_DIGEST + _NO_DIGEST).digest()
    return Payload(size, commitment, truncated=True), salt + _NO_DIGEST


def open_part(part: bytes, payload: Payload) -> Contents | None:
    """Return what a part holds; None when there is none, or it was erased."""
    if len(part) < _HEAD_BYTES or is_erased(part):
        return None
    digest = part[SALT_BYTES:_HEAD_BYTES]
    return Contents(
        salt=part[:SALT_BYTES],
        sha256=digest.hex() if digest != _NO_DIGEST else "",
        body=part[_HEAD_BYTES:] if payload.kept else None,
    )


def is_erased(part: bytes) -> bool:
    """Tell whether zeros were written over a part, which is how it is erased where it cannot be taken out."""
    return not part.strip(b"\0")


def fits(part: bytes, payload: Payload) -> bool:
    """Tell whether a part is the one that a sealed payload commits to."""
    if len(part) < _HEAD_BYTES:
        return False
    head, kept = part[:_HEAD_BYTES], part[_HEAD_BYTES:]
    if not payload.kept:
        return not kept and sha256(head + _NO_DIGEST).digest() == payload.commitment
    return sha256(head + sha256(kept).digest()).digest() == payload.commitment


def redact(body: bytes, pointers: tuple[str, ...]) -> tuple[bytes | None, bool]:
    """Return the JSON of `body` with each field that a pointer names replaced, and whether anything was changed.

    A body that is not JSON gives (None, True). Of a name that an object has twice the last counts, as for every reader
    of it; the ones before, in which a secret could stay, are then taken out.
    """
    repeated = False

    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        nonlocal repeated
        made = dict(pairs)
        repeated = repeated or len(made) < len(pairs)
        return made

    try:
        document = json.loads(body, object_pairs_hook=build)
    except (ValueError, RecursionError):
        return None, True
    found = [_replace(document, pointer) for pointer in pointers]
    if not any(found) and not repeated:
        return body, False
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace"), True


def _replace(document: Any, pointer: str) -> bool:
    *parents, last = (token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:])
    place = document
    for token in parents:
        place = _child(place, token)
    if isinstance(place, dict) and last in place:
        place[last] = REDACTED
        return True
    if isinstance(place, list) and last.isdecimal() and int(last) < len(place):
        place[int(last)] = REDACTED
        return True
    return False


def _child(place: Any, token: str) -> Any:
    if isinstance(place, dict):
        return place.get(token)
    if isinstance(place, list) and token.isdecimal() and int(token) < len(place):
        return place[int(token)]
    return None
