"""The way from a worker's rules to the store's: what changed between two heads, or everything when that is not known.

Belongs here: asking the store for what lies between. Never here: judging whether its rules follow ours (`history`),
when to ask, or putting anything in force.
"""

from collections.abc import Sequence

from msgspec import Struct

from gateway.errors import RulesUnavailable
from gateway.ports import Head, Revision, RulesSource, StoredDocument
from gateway.snapshot.documents import Changed, Documents
from gateway.snapshot.history import History

_MOST_REVISIONS = 1000  # behind by more, everything is loaded instead


class Advance(Struct, frozen=True):
    """The way to a newer head: what changed, and the operation that made the last of it.

    `by_difference` says that the documents were compared, because nothing is known of what lies between: then it leads
    to `head` from the very documents that were compared only, and not from any on the way.
    """

    head: Head
    operation_id: str
    changed: Changed
    by_difference: bool = False


class Fetching:
    """Fetches what one worker needs. Everything here raises `RulesUnavailable` when the store does not answer."""

    def __init__(self, source: RulesSource, history: History) -> None:
        self._source = source
        self._history = history

    async def everything(self, documents: Documents) -> Advance:
        """Return the way to the store's rules for a start. Raises `RulesUnavailable` also when they cannot follow."""
        head = await self._source.head()
        if trouble := await self._history.trouble(head, must_follow(documents), documents.operation_id):
            raise RulesUnavailable(trouble)
        advance = await self._difference(documents)
        if advance is None:
            raise RulesUnavailable("the rules store changed its history while it was read")
        return advance

    async def changes(self, documents: Documents, head: Head) -> Advance | None:
        """Return the way from `documents` to `head` or beyond; None when there is none."""
        ours, operation_id = documents.head, documents.operation_id
        assert ours is not None
        if head.epoch == ours.epoch and head.revision <= ours.revision:
            return None
        if head.epoch == ours.epoch and head.revision - ours.revision <= _MOST_REVISIONS:
            known = min(ours.revision, 1)  # our own revision comes along, to be compared
            revisions = await self._source.revisions(ours.revision - known, head.revision)
            if revisions:
                if known and operation_id not in ("", revisions[0].operation_id):
                    self._history.doubtful = True
                    return None
                return Advance(head, revisions[-1].operation_id, _last_of_each(revisions[known:]))
        return await self._difference(documents)

    async def _difference(self, documents: Documents) -> Advance | None:
        """Return the way to the store's rules by comparing all of them; None when they cannot follow."""
        state = await self._source.load()
        operation_id = await self._history.operation_of(state.head)
        self._history.doubtful = True
        if await self._history.trouble(state.head, must_follow(documents), documents.operation_id) is not None:
            return None
        return Advance(state.head, operation_id, documents.differences(state.documents), by_difference=True)


def must_follow(documents: Documents) -> Head | None:
    """Return the head that the store must not fall behind; None while there is nothing that could be lost."""
    return documents.head if documents.stored else None


def _last_of_each(revisions: Sequence[Revision]) -> Changed:
    """Return every document that the revisions changed as the last of them left it."""
    return {
        (change.kind, change.name): StoredDocument(revision.revision, change.after)
        if change.after is not None
        else None
        for revision in revisions
        for change in revision.changes
    }
