"""Every revision of the rules in the log of records, so that nobody can change the past rules to fit a decision.

The archive of revisions is what decisions are re-computed from, and it is a file like any other. Before a revision is
archived, a control record says what its documents hash to; that record is bound into the chain like a prediction.

Belongs here: those records, and holding the archive against them. Never here: the archive, or a decision.
"""

from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from typing import Any

from msgspec import Struct

from gateway.control_records import ControlRecords
from gateway.ports import AuditStore, Filter, Revision, RevisionArchive

ACTION = "rules.revision"
_PAGE = 500


class RulesLog:
    """Tells of revisions; `tell` is what the archivist calls."""

    def __init__(self, records: ControlRecords) -> None:
        self._records = records

    async def tell(self, epoch: str, revision: Revision) -> None:
        """Keep a control record of a revision. Raises `AuditUnavailable`: then it must not be archived yet."""
        await self._records.keep(ACTION, revision.actor, said_of(epoch, revision), comment=revision.comment)


def said_of(epoch: str, revision: Revision) -> Mapping[str, Any]:
    """Return what a control record says of a revision: its names, and the SHA-256 of every document after it."""
    return {
        "epoch": epoch,
        "revision": revision.revision,
        "operation_id": revision.operation_id,
        "at_ns": revision.at_ns,
        "documents": [{"kind": one.kind, "name": one.name, "sha256": _digest(one.after)} for one in revision.changes],
    }


class RuleDifference(Struct, frozen=True):
    """A revision that the log and the archive do not agree on, and how."""

    revision: int
    why: str


def compare_archive(store: AuditStore, archive: RevisionArchive, gateway: str) -> tuple[int, Sequence[RuleDifference]]:
    """Return how many revisions of the log a gateway's archive agrees with, and where it does not. Blocks."""
    agreed = 0
    differences: list[RuleDifference] = []
    for details in _logged(store, gateway):
        number = int(details["revision"])
        archived = archive.revision(number)
        if archived is None:
            differences.append(RuleDifference(number, "the log tells of it, the archive has none of that number"))
        elif archived.operation_id != details["operation_id"]:
            continue  # a store that lost changes made another one of that number, which the log tells of as well
        elif said_of(str(details["epoch"]), archived)["documents"] != details["documents"]:
            differences.append(RuleDifference(number, "its documents are not those that the log tells of"))
        else:
            agreed += 1
    return agreed, differences


def _logged(store: AuditStore, gateway: str) -> Iterator[Mapping[str, Any]]:
    after: str | None = None
    while True:
        page = store.page(Filter(role="control", action=ACTION, gateway=gateway), after, _PAGE)
        yield from (record.details for record in page.records)
        if (after := page.next) is None:
            return


def _digest(document: bytes | None) -> str | None:
    return sha256(document).hexdigest() if document is not None else None
