"""Who makes a change, on which terms: what of that can be refused before any document is looked at.

Belongs here: the fields beside the documents, checked. Never here: documents.
"""

from typing import Final

from msgspec import Struct

from gateway.controlplane.documents import is_text
from gateway.controlplane.proposal import Terms
from gateway.errors import InvalidDocument

NO_TERMS: Final = Terms()
"""The terms of a change that is simply made."""
_LIMITS = {"actor": 256, "comment": 1024, "operation_id": 128}
_SHORTEST_MS, _LONGEST_MS = 1_000, 7 * 86_400_000


class Origin(Struct, frozen=True):
    """Who makes a change, why, and the id under which a client may send it again without making it twice."""

    actor: str
    comment: str
    operation_id: str


def check_origin(origin: Origin) -> None:
    """Raise `InvalidDocument` with the name of the field that is too long, no text, or missing."""
    for name, limit in _LIMITS.items():
        value = getattr(origin, name)
        if len(value) > limit or not is_text(value):
            raise InvalidDocument(name, f"expected text of at most {limit} characters")
    if not origin.operation_id:
        raise InvalidDocument("operation_id", "expected text of 1 to 128 characters")


def check_terms(terms: Terms) -> None:
    """Raise `InvalidDocument` with the name of the field that is out of range."""
    if terms.max_moves is not None and terms.max_moves < 0:
        raise InvalidDocument("max_moves", f"expected a number of callers from 0, not {terms.max_moves}")
    within = terms.confirm_within_ms
    if within is not None and not _SHORTEST_MS <= within <= _LONGEST_MS:
        raise InvalidDocument("confirm_within", f"expected a time from 1 s to 7 days, not {within / 1000:g} s")
