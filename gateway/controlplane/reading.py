"""Bare documents as proposals: what kind each is of, what it is called, and its canonical JSON.

Belongs here: telling documents apart by their fields, and the revisions that their proposer has seen. Never here:
whether they fit those that are there.
"""

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from gateway.catalog import encode_manifest, parse_manifest
from gateway.controlplane.documents import is_text, parsed, shown
from gateway.controlplane.pending import label, named_at_fault
from gateway.controlplane.proposal import Proposed
from gateway.errors import InvalidDocument, RulesUnavailable
from gateway.ports import DocumentName, Kind, RulesStore
from routing import DocumentError, encode_document, parse_cohort, parse_route
from routing.codec import read_object

_FIELDS: Mapping[str, Kind] = {"backend": "version", "split": "route", "name": "cohort"}
"""The field that tells what kind a document is of, in the order they are looked for."""

_AT_ONCE = 50  # documents parsed between two turns of the event loop: about 5 ms


class Reader:
    """Reads proposals from documents. What does not fit is refused with the present revision of its document."""

    def __init__(self, store: RulesStore) -> None:
        self._store = store

    async def one(self, kind: Kind, address: str, document: bytes, expect: int | None) -> Proposed:
        """Return the proposal of a document that was sent to an address: the model's, or the cohort's name.

        Raises:
            InvalidDocument: it does not fit, or it is of another name.
        """
        try:
            proposed = _read(kind, document, expect)
            found = proposed.name.partition("/")[0]
            if found != address:
                field = "name" if kind == "cohort" else "model"
                raise InvalidDocument(field, f"the document is of {shown(found)}, its address of {shown(address)}")
        except InvalidDocument as error:
            # Of a version that cannot be read the name is not known, and so neither is its revision.
            error.current = await self._current((kind, address)) if kind != "version" else None
            raise
        return proposed

    async def many(self, documents: Sequence[bytes], expect: Mapping[str, int]) -> Sequence[Proposed]:
        """Return the proposals of bare documents. `expect` maps kind/name to the revision that each has now.

        Raises:
            InvalidDocument: there are none, one does not fit or stands twice, or `expect` names another.
        """
        if not documents:
            raise InvalidDocument("documents", "expected at least one document")
        proposed: dict[DocumentName, Proposed] = {}
        for index, document in enumerate(documents):
            with named_at_fault(None, f"documents[{index}]" if len(documents) > 1 else ""):
                kind, name = _named(document)
            try:
                one = _read(kind, document, expect.get(f"{kind}/{name}"))
                if one.document in proposed:
                    raise InvalidDocument("", "it stands twice in this change; remove one of them")
            except InvalidDocument as error:
                current = await self._current((kind, name))
                with named_at_fault(current, label((kind, shown(name))) if len(documents) > 1 else ""):
                    raise error from None
            proposed[one.document] = one
            if index % _AT_ONCE == 0:
                await asyncio.sleep(0)
        if unknown := sorted(expect.keys() - {"/".join(name) for name in proposed}):
            raise InvalidDocument(
                "expect", f"{shown(unknown[0])} is no document of this change; expected kind/name, such as route/digits"
            )
        return list(proposed.values())

    async def _current(self, document: DocumentName) -> int | None:
        """Return the revision that a document has now, 0 if it does not exist; None while the store is silent."""
        if not is_text(document[1]):
            return 0
        with suppress(RulesUnavailable):
            stored = await self._store.read(*document)
            return stored.revision if stored is not None else 0
        return None


def _read(kind: Kind, document: bytes, expect: int | None) -> Proposed:
    """Return the proposal of a document of a kind. Raises `InvalidDocument` with the path of the field."""
    match kind:
        case "route":
            route = parsed(parse_route, document)
            return Proposed(kind, route.model, encode_document(route), expect)
        case "cohort":
            cohort = parsed(parse_cohort, document)
            return Proposed(kind, cohort.name, encode_document(cohort), expect)
        case "version":
            manifest = parse_manifest(document)
            return Proposed(kind, f"{manifest.model}/{manifest.version}", encode_manifest(manifest), expect)


def _named(document: bytes) -> DocumentName:
    """Return kind and name of a bare document, by the fields that tell them; whether it fits is not looked at.

    Raises:
        InvalidDocument: it is no JSON object, or of no kind that there is, or has no name.
    """
    try:
        fields = read_object(document)
    except DocumentError as error:
        raise InvalidDocument(error.path, error.message) from None
    kind = next((kind for field, kind in _FIELDS.items() if field in fields), None)
    if kind is None:
        raise InvalidDocument("", "expected a route (with split), a cohort (with name) or a version (with backend)")
    if kind == "version":
        return kind, f"{_text(fields, 'model')}/{_text(fields, 'version')}"
    return kind, _text(fields, "model" if kind == "route" else "name")


def _text(fields: Mapping[str, Any], field: str) -> str:
    value = fields.get(field)
    if not isinstance(value, str):
        raise InvalidDocument(field, "missing" if field not in fields else "expected a text")
    return value
