"""Answers of the admin port in JSON, with stored documents going in byte for byte.

Belongs here: how an answer is written. Never here: errors (those are `problems`).
"""

from collections.abc import Mapping
from typing import Any

import msgspec
import orjson
from starlette.responses import Response

from gateway.admin.requests import etag
from gateway.catalog import parse_manifest
from gateway.controlplane import Published
from gateway.errors import InvalidDocument
from gateway.ports import StoredDocument


def answer(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer in JSON. Bytes that are JSON already go in as `orjson.Fragment`."""
    return Response(orjson.dumps(document), status, headers, "application/json")


def stored_document(stored: StoredDocument) -> Response:
    """Return a document as it is stored, its revision as the ETag."""
    return answer(orjson.Fragment(stored.json), headers={"etag": etag(stored.revision)})


def outcome(
    published: Published, *, new: bool, tagged: bool = True, headers: Mapping[str, str] | None = None
) -> Response:
    """Return what came of a change: 202 while a live worker does not have it, 201 for a new document, else 200."""
    document = msgspec.to_builtins(published)
    if published.dry_run:
        return answer(document)
    tags = {"etag": etag(published.revision)} if tagged else {}
    status = 202 if not published.in_force else 201 if new and published.changed else 200
    return answer(document, status, {**tags, **(headers or {})})


def with_revision(stored: StoredDocument) -> orjson.Fragment:
    """Return a document with its revision beside its fields."""
    return extended(stored.json, {"revision": stored.revision})


def extended(json: bytes, members: Mapping[str, Any]) -> orjson.Fragment:
    """Return the JSON text of an object with further members at its end.

    Not decoded on the way: a number of a document may be larger than what the encoder takes.
    """
    more = orjson.dumps(members)
    return orjson.Fragment(json[:-1] + b"," + more[1:])


def missing_of(manifest: bytes) -> list[str]:
    """Return the paths that a stored manifest lacks of its metadata contract; all of it if it cannot be read."""
    try:
        return list(parse_manifest(manifest).missing)
    except InvalidDocument as error:
        return [f"unreadable ({error.message})"]
