"""What a request to the admin port says beside its path: body, preconditions, who and why.

Belongs here: HTTP's own fields, parsed at the door. Never here: documents, or whether a change may be made.
"""

import re
import uuid
from collections.abc import Awaitable, Callable

from starlette.requests import ClientDisconnect, Request

from gateway.controlplane import Origin
from gateway.errors import (
    BodyTooLarge,
    ClientClosed,
    DocumentNotFound,
    InvalidInput,
    RevisionConflict,
    UnsupportedEncoding,
)
from gateway.ports import StoredDocument
from routing.codec import MAX_BYTES

ACTOR_LIMIT = 256
COMMENT_LIMIT = 1024
_UNNAMED = "unnamed"
_OPERATION_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_TAGS = re.compile(r'(?:W/)?"[\x21\x23-\x7e\x80-\xff]*"(?:[ \t]*,[ \t]*(?:W/)?"[\x21\x23-\x7e\x80-\xff]*")*')
_REVISION_TAG = re.compile(r'(?<!W/)"(\d{1,18})"')


async def body_of(request: Request, limit: int = MAX_BYTES) -> bytes:
    """Return the body, which may have `limit` bytes: as many as the largest document, if nothing else is said.

    Raises:
        BodyTooLarge: it announces or brings more.
        UnsupportedEncoding: it is compressed.
        ClientClosed: the caller hung up before all of it had come.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.strip().lower() != "identity":
        raise UnsupportedEncoding("Content-Encoding: send the document as it is, without compression")
    if _announced(request) > limit:
        raise _too_large(limit)
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise _too_large(limit)
            chunks.append(chunk)
    except ClientDisconnect:
        raise ClientClosed("the connection was closed before the whole document had come") from None
    return b"".join(chunks)


def _announced(request: Request) -> int:
    length = request.headers.get("content-length", "")
    return int(length) if length.isdecimal() and len(length) < 19 else 0


def _too_large(limit: int) -> BodyTooLarge:
    largest = "the size of the largest document" if limit == MAX_BYTES else "as much as one call takes; send fewer"
    return BodyTooLarge(f"the body is larger than {limit} bytes, {largest}")


def origin_of(request: Request) -> Origin:
    """Return who makes a change and why (`X-Actor`, `X-Comment`: one line of UTF-8), and the id to know it again by.

    Raises:
        InvalidInput: a header is too long, or holds what cannot be printed.
    """
    key = request.headers.get("idempotency-key")
    if key is None:
        operation_id = str(uuid.uuid4())
    else:
        operation_id = key.removeprefix('"').removesuffix('"')  # in the IETF draft the key is a quoted string
        if not _OPERATION_ID.fullmatch(operation_id):
            raise InvalidInput("Idempotency-Key: expected 1 to 128 characters from A-Z a-z 0-9 . _ : -, such as a UUID")
    return Origin(actor_of(request), comment_of(request), operation_id)


def actor_of(request: Request) -> str:
    """Return who asks (`X-Actor`: one line of UTF-8). Raises `InvalidInput`."""
    return _text(request, "X-Actor", ACTOR_LIMIT) or _UNNAMED


def comment_of(request: Request) -> str:
    """Return why (`X-Comment`: one line of UTF-8). Raises `InvalidInput`."""
    return _text(request, "X-Comment", COMMENT_LIMIT)


def _text(request: Request, header: str, limit: int) -> str:
    value = request.headers.get(header, "").strip()
    try:
        text = value.encode("latin-1").decode()
    except UnicodeDecodeError:
        raise InvalidInput(f"{header}: expected UTF-8") from None
    if len(text) > limit or not text.isprintable():
        raise InvalidInput(f"{header}: expected at most {limit} printable characters on one line")
    return text


def etag(revision: int) -> str:
    """Return a revision as a strong entity tag (RFC 9110, section 8.8.3)."""
    return f'"{revision}"'


async def expected_revision(request: Request, read: Callable[[], Awaitable[StoredDocument]]) -> int | None:
    """Return the revision that a write expects its document to have; 0 if it must not exist, None if it does not say.

    `If-Match` compares strongly (RFC 9110, section 13.1.1), so a weak tag matches nothing; `*` and a list of tags are
    compared with what `read` returns, and the write still happens only if that is so when it is made.

    Raises:
        InvalidInput: the header is not of its form.
        RevisionConflict: no tag matches, or nothing exists for `*` to match.
    """
    none_match = ", ".join(request.headers.getlist("if-none-match")).strip()
    match = ", ".join(request.headers.getlist("if-match")).strip()
    if none_match:
        if none_match != "*" or match:
            raise InvalidInput("If-None-Match: on a write only * is understood, and not together with If-Match")
        return 0
    if not match:
        return None
    if match == "*":
        return await _present(read)
    if not _TAGS.fullmatch(match):
        raise InvalidInput('If-Match: expected the ETag as it came, in double quotes, such as "7", or *')
    revisions = [int(digits) for digits in _REVISION_TAG.findall(match)]
    if len(revisions) == 1:
        return revisions[0]
    current = await _present(read)
    if current in revisions:
        return current
    if revisions:
        return max(revisions)  # not the present one, unless this is a change sent again: the control plane knows
    raise RevisionConflict(f"If-Match: only a strong tag matches, and the document is at {etag(current)} now", current)


async def _present(read: Callable[[], Awaitable[StoredDocument]]) -> int:
    try:
        return (await read()).revision
    except DocumentNotFound as error:
        raise RevisionConflict(f"If-Match: {error.message}", 0) from None
