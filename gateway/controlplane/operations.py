"""What an operation has made already: a client that got no answer sends it again, and is answered, not obeyed twice.

Belongs here: knowing a change again. Never here: making one.
"""

from collections.abc import Mapping, Sequence

from msgspec import Struct

from gateway.controlplane.convergence import DocumentOutcome
from gateway.controlplane.pending import read_documents
from gateway.controlplane.previewing import ChangePreview
from gateway.controlplane.proposal import Proposed
from gateway.controlplane.terms import Origin, check_origin
from gateway.errors import InvalidDocument
from gateway.ports import DocumentChange, DocumentName, RulesStore


class Made(Struct, frozen=True):
    """A change that is made, or, with `changed` False, one that was not needed; of a dry run, what would be made."""

    revision: int
    changed: bool
    documents: tuple[DocumentOutcome, ...]
    preview: ChangePreview | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """The models whose routes it is about."""
        return tuple(one.name for one in self.documents if one.kind == "route")


class Operations:
    """Looks for what operations made, as long as the store remembers: a day. Raises `RulesUnavailable`."""

    def __init__(self, store: RulesStore) -> None:
        self._store = store

    async def made(self, proposed: Sequence[Proposed], origin: Origin) -> Made | None:
        """Return what this very operation has made already, or None.

        Raises:
            InvalidDocument: its operation made another change.
        """
        number = await self._store.applied(origin.operation_id)
        if number is None:
            return None
        made = await self._changes_of(number)
        if made is None:
            return Made(number, True, ())
        asked = {one.document: one.json for one in proposed}
        if any(name not in asked or asked[name] != change.after for name, change in made.items()):
            raise _another_change(number)
        # The others were as proposed then. One that is not, and has not changed since, was not.
        others = {name: json for name, json in asked.items() if name not in made}
        present = await read_documents(self._store, list(others))
        for name, json in others.items():
            stored = present.get(name)
            if stored is not None and stored.json != json and stored.revision < number:
                raise _another_change(number)
        return Made(number, True, tuple(made_outcome(made[name]) if name in made else _same(name) for name in asked))

    async def made_of(self, document: DocumentName, origin: Origin) -> Made | None:
        """Return what this very operation has made already of this document and others, or None.

        Raises:
            InvalidDocument: the origin does not fit, or its operation made another change.
        """
        check_origin(origin)
        number = await self._store.applied(origin.operation_id)
        if number is None:
            return None
        made = await self._changes_of(number)
        if made is not None and document not in made:
            raise _another_change(number)
        return Made(number, True, tuple(made_outcome(change) for change in (made or {}).values()))

    async def _changes_of(self, number: int) -> Mapping[DocumentName, DocumentChange] | None:
        """Return what a revision did, or None when the store no longer has it."""
        revisions = await self._store.revisions(number - 1, number)
        return {(change.kind, change.name): change for change in revisions[0].changes} if revisions else None


def _another_change(number: int) -> InvalidDocument:
    """Return the error for an operation id that made something else."""
    return InvalidDocument(
        "operation_id", f"it was used for another change, revision {number}; use a new one for each change"
    )


def made_outcome(change: DocumentChange) -> DocumentOutcome:
    """Return what a change of the history did to one document."""
    if change.after is None:
        return DocumentOutcome(change.kind, change.name, "deleted")
    if change.after == change.before:
        return DocumentOutcome(change.kind, change.name, "unchanged")
    return DocumentOutcome(change.kind, change.name, "made" if change.before is None else "changed")


def _same(name: DocumentName) -> DocumentOutcome:
    return DocumentOutcome(*name, "unchanged")
