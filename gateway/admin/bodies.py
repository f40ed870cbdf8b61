"""Bodies that are no documents themselves: the fields of each, and how they are read.

Belongs here: shapes and limits of what the admin API's own calls take. Never here: the documents of the rules, or
what a call does.
"""

import asyncio
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from msgspec import Meta, Struct
from starlette.requests import Request

from gateway.admin.parameters import LONGEST_CONFIRM_S
from gateway.admin.requests import body_of
from gateway.controlplane import Terms
from gateway.errors import InvalidDocument
from routing import DocumentError
from routing.codec import MAX_BYTES, parse_as, read_object
from routing.faults import member
from routing.types import HeaderName, ListedKey, VersionName

MANY_BYTES = 64 * 1024 * 1024
"""Size of a body of many documents."""
_IN_A_THREAD = 256 * 1024
"""Bodies larger than this are parsed beside the event loop, which goes on answering meanwhile."""

Count = Annotated[int, Meta(ge=0, le=10**12, description="a whole number of 0 or more")]
Seconds = Annotated[
    int, Meta(ge=1, le=LONGEST_CONFIRM_S, description=f"a whole number of seconds from 1 to {LONGEST_CONFIRM_S}")
]
Documents = Annotated[tuple[Mapping[str, Any], ...], Meta(min_length=1)]
T = TypeVar("T")


class _OnTerms(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fields by which a body says on which terms its change is made."""

    dry_run: bool = False
    preview: bool = False
    max_moves: Count | None = None
    confirm_within_s: Seconds | None = None

    def terms(self) -> Terms:
        """Return them as the control plane has them."""
        within = self.confirm_within_s * 1000 if self.confirm_within_s is not None else None
        return Terms(self.dry_run, self.preview, self.max_moves, within)


class ChangeBody(_OnTerms, frozen=True, kw_only=True):
    """Many documents to be put in force together; `expect` has the revisions they have: `"route/digits": 7`."""

    documents: Documents
    expect: Mapping[str, Count] = {}
    allow_incomplete: bool = False


class RollbackBody(_OnTerms, frozen=True, kw_only=True):
    """To which revision a route goes back (before its last change if none is named), and what becomes of cohorts."""

    to: Count | None = None
    cohorts: Literal["restore", "keep"] | None = None


class PreviewBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which documents to preview, and with whom: routing keys, or those of the last `window_s` seconds' records."""

    documents: Documents
    keys: Annotated[tuple[ListedKey, ...], Meta(min_length=1)] | None = None
    window_s: Annotated[int, Meta(ge=1, le=366 * 24 * 3600)] | None = None


class ResettleBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whether only to say what would change."""

    dry_run: bool = False


class ExplainBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """About which request `explain` is asked, and when: what its caller sent, or a request that was recorded.

    `at` is the number of a revision of the rules, or a time (RFC 3339).
    """

    key: str | None = None
    headers: Mapping[HeaderName, str] = {}
    version: VersionName | None = None
    record_id: str | None = None
    request_id: str | None = None
    at: Any = None


async def read_body(request: Request, kind: type[T], limit: int = MAX_BYTES) -> T:
    """Return the body of a request as a `kind`; no body at all is an empty one.

    Raises:
        InvalidDocument: with the path of the field that does not fit, or that nobody knows.
        BodyTooLarge, UnsupportedEncoding, ClientClosed
    """
    body = await body_of(request, limit) or b"{}"
    if len(body) > _IN_A_THREAD:
        return await asyncio.to_thread(_parsed, body, kind, limit)
    return _parsed(body, kind, limit)


async def read_nothing(request: Request) -> None:
    """Refuse a body with fields, of a call that takes none. Raises `InvalidDocument` with the first of them."""
    try:
        fields = read_object(await body_of(request) or b"{}")
    except DocumentError as error:
        raise InvalidDocument(error.path, error.message) from None
    if fields:
        raise InvalidDocument(member("", next(iter(fields))), "unknown field; this call takes none")


def _parsed(body: bytes, kind: type[T], limit: int) -> T:
    try:
        return parse_as(read_object(body, limit), kind)
    except DocumentError as error:
        raise InvalidDocument(error.path, error.message) from None


def texts_of(documents: Documents) -> list[bytes]:
    """Return documents as the JSON texts that they stood in a body as, each of its own."""
    return [json.dumps(document).encode() for document in documents]
