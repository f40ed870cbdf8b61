"""Errors of the admin port as problem details (RFC 9457).

Belongs here: the one table of codes and statuses of this port. Never here: what is right or wrong, and never a stack
trace.

A problem has `type`, `title`, `status`, `code` (stable, from `gateway.errors`) and `detail` (for people), and where it
applies `path` (the field of the document) and `revision` (the one the document has now; 0 if it does not exist).
"""

from collections.abc import Collection, Mapping
from http import HTTPStatus
from typing import Any

import orjson
from starlette.responses import Response

from gateway.errors import ArtifactError, ChangeError, GatewayError, InvalidDocument, MethodNotAllowed

STATUSES: Mapping[str, int] = {
    "malformed_body": 400,
    "invalid_input": 400,
    "key_unusable": 400,
    "not_found": 404,
    "unknown_model": 404,
    "unknown_version": 404,
    "unknown_path": 404,
    "method_not_allowed": 405,
    "version_exists": 409,
    "cohort_in_use": 409,
    "unconfirmed_change": 409,
    "too_many_moves": 409,
    "cannot_replay": 409,
    "not_covered": 409,
    "not_proven": 409,
    "revision_conflict": 412,
    "body_too_large": 413,
    "unsupported_encoding": 415,
    "invalid_document": 422,
    "incomplete_manifest": 422,
    "artifact_missing": 422,
    "digest_mismatch": 422,
    "artifact_invalid": 422,
    "revision_required": 428,
    "client_closed": 499,
    "internal_error": 500,
    "overloaded": 503,
    "rules_unavailable": 503,
    "rules_in_doubt": 503,
    "audit_unavailable": 503,
    "stopping": 503,
    "deadline_exceeded": 504,
}
"""The status of every code that can leave this port; any other would be a defect, and is 500."""
_TITLES = {428: "Precondition Required", 499: "Client Closed Request"}


def problem(error: GatewayError, notes: Collection[str] = ()) -> Response:
    """Return an error as problem details; `notes` are what else the reader must know, at the end of `detail`."""
    status = STATUSES.get(error.code, 500)
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": _TITLES.get(status) or HTTPStatus(status).phrase,
        "status": status,
        "code": error.code,
        "detail": "; but note: ".join([error.message, *notes]),
    }
    headers = {}
    if isinstance(error, InvalidDocument) and error.path:
        document["path"] = error.path
    if isinstance(error, ChangeError | ArtifactError) and error.current is not None:
        document["revision"] = error.current
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = ", ".join(error.allowed)
    return Response(_dumped(document), status, headers, "application/problem+json")


def _dumped(document: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(document)
    except TypeError:  # a lone surrogate that a caller sent and a message repeats
        document["detail"] = document["detail"].encode("utf-8", "backslashreplace").decode()
        document.pop("path", None)
        return orjson.dumps(document)
