"""Answers of the admin port in JSON, with stored documents going in byte for byte.

Belongs here: how an answer is written. Never here: errors (those are `problems`).
"""

from collections.abc import Mapping
from typing import Any

import orjson
from starlette.responses import Response

from gateway.catalog import parse_manifest
from gateway.errors import InvalidDocument


def answer(document: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return an answer in JSON. Bytes that are JSON already go in as `orjson.Fragment`."""
    return Response(orjson.dumps(document), status, headers, "application/json")


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
