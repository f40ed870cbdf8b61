"""A proposed document beside the one it replaces: what becomes of it, and whether its proposer has seen that one.

Belongs here: one document of a change. Never here: what documents mean to each other (that is `checking`).
"""

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Literal

from msgspec import Struct

from gateway.controlplane.convergence import DocumentOutcome
from gateway.controlplane.documents import NAMES
from gateway.controlplane.proposal import Proposed
from gateway.errors import (
    ArtifactError,
    ChangeError,
    DocumentNotFound,
    RevisionConflict,
    RevisionRequired,
    RulesUnavailable,
)
from gateway.ports import DocumentName, RulesStore, StoredDocument, Write

_AT_ONCE = 64  # reads under way; more would wait for a free connection for as long as a call may take


class Pending(Struct, frozen=True):
    """One document of a change, beside the one in force."""

    proposed: Proposed
    present: StoredDocument | None

    @property
    def current(self) -> int:
        """The revision that the document has now; 0 if it does not exist."""
        return self.present.revision if self.present is not None else 0

    @property
    def outcome(self) -> Literal["made", "changed", "deleted", "unchanged"]:
        """What the change does to the document."""
        if self.present is None:
            return "made" if self.proposed.json is not None else "unchanged"
        if self.proposed.json is None:
            return "deleted"
        return "changed" if self.proposed.json != self.present.json else "unchanged"

    def report(self) -> DocumentOutcome:
        """Return what the change does to the document, for people."""
        was = self.present.revision if self.present is not None else None
        return DocumentOutcome(self.proposed.kind, self.proposed.name, self.outcome, was)

    def write(self) -> Write:
        """Return the write that makes it so, unless the document has changed since it was read."""
        return Write(self.proposed.kind, self.proposed.name, self.proposed.json, self.current)

    def check_expected(self, *, must_say: bool) -> None:
        """Refuse to replace what the proposer has not seen.

        Raises:
            RevisionRequired: `must_say` is set, it exists, and the proposer named no revision.
            RevisionConflict: it has not the revision that was named.
            DocumentNotFound: it is to be deleted and is not there.
        """
        expect, current = self.proposed.expect, self.current
        what = f"{NAMES[self.proposed.kind]} {self.proposed.name}"
        if self.proposed.json is None and self.present is None:
            raise DocumentNotFound(f"there is no {what}")
        if expect is None and self.present is not None:
            if must_say and self.proposed.kind != "version":  # versions are immutable: there is nothing to overwrite
                raise RevisionRequired(
                    f"{what} exists, at revision {current}; say that this is the revision you change (If-Match, or "
                    "`expect` in a change of many)",
                    current,
                )
            return
        if (expect or 0) != current:
            now = f"is at revision {current} now" if self.present is not None else "does not exist"
            raise RevisionConflict(f"{what} {now}, not at revision {expect}; read it again and retry", current)


async def read_documents(store: RulesStore, names: Sequence[DocumentName]) -> Mapping[DocumentName, StoredDocument]:
    """Return the documents that there are of these. Raises `RulesUnavailable`."""
    found: dict[DocumentName, StoredDocument] = {}
    for start in range(0, len(names), _AT_ONCE):
        portion = names[start : start + _AT_ONCE]
        read = await asyncio.gather(*(store.read(*name) for name in portion))
        found |= {name: stored for name, stored in zip(portion, read, strict=True) if stored is not None}
    return found


@contextmanager
def at_fault(pending: Pending, *, alone: bool) -> Iterator[None]:
    """Put the present revision of a document on whatever refuses it, and, unless it is alone, which document it is."""
    with named_at_fault(pending.current, "" if alone else label(pending.proposed.document)):
        yield


@contextmanager
def named_at_fault(current: int | None, name: str) -> Iterator[None]:
    """Put `current` on whatever refuses a change, and begin its message with `name` unless that is empty."""
    try:
        yield
    except RulesUnavailable:
        raise
    except (ChangeError, ArtifactError) as error:
        if error.current is None:
            error.current = current
        if name:
            error.message = f"{name}: {error.message}"
            error.args = (error.message,)
        raise


def label(document: DocumentName) -> str:
    """Return how messages call one document among many, such as `route digits`."""
    kind, name = document
    return f"{kind} {name}"
