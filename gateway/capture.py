"""What a record keeps of a body: the route's capture policy, applied before anything is written.

Belongs here: cutting and redacting. Never here: where the result is stored.
"""

import json
from hashlib import sha256
from typing import Any, Literal

from gateway.record import Payload
from routing.types import Capture

REDACTED = "[redacted]"


def capture(body: bytes, mode: Literal["full", "digest", "none"], policy: Capture) -> Payload:
    """Return `body` as a payload under `policy`. Size (bytes) and sha256 (hex) are always of the whole body.

    With `redact`, the fields named by its JSON pointers (RFC 6901) are replaced before the body is kept; a body that
    is not JSON is then not kept at all, because nobody can say where its secrets are.
    """
    digest = sha256(body).hexdigest()
    if mode != "full":
        return Payload(len(body), digest)
    kept: bytes | None = body
    redacted = False
    if policy.redact:
        kept, redacted = redact(body, policy.redact)
    if kept is None:
        return Payload(len(body), digest, redacted=True)
    cut = kept[: policy.max_bytes]
    return Payload(len(body), digest, cut, truncated=len(cut) < len(kept), redacted=redacted)


def redact(body: bytes, pointers: tuple[str, ...]) -> tuple[bytes | None, bool]:
    """Return the JSON of `body` with each field that a pointer names replaced, and whether any was there.

    A body that is not JSON gives (None, True).
    """
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return None, True
    found = [_replace(document, pointer) for pointer in pointers]
    if not any(found):
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
