"""Whether the store's rules follow ours, and what changed on the way: a lower revision is never a newer rule.

Belongs here: comparing our place in the history with the store's, and fetching what lies between. Never here: when to
ask, or putting anything in force.
"""

from collections.abc import Sequence

from msgspec import Struct

from gateway.errors import RulesUnavailable
from gateway.ports import Head, Revision, RulesSource, StoredDocument
from gateway.snapshot.documents import Changed, Documents
from gateway.snapshot.lastgood import Saved

_MOST_REVISIONS = 1000  # behind by more, everything is loaded instead


class Advance(Struct, frozen=True):
    """The way from our head to a newer one: what changed, and the operation that made the last of it."""

    head: Head
    operation_id: str
    changed: Changed


class History:
    """The store's history as one worker sees it. Everything here raises `RulesUnavailable` when it does not answer.

    A store that was restored from an old copy and then changed has the revisions that we know, with another content.
    The numbers do not tell, so the operation that made our revision is compared, too: whenever the rules advance, and
    when the head is looked at while `doubtful` is set, which the owner does after every silence.
    """

    def __init__(self, source: RulesSource) -> None:
        self._source = source
        self.doubtful = True

    async def trouble(self, head: Head | None, ours: Head | None, operation_id: str) -> str | None:
        """Return why rules at `head` cannot follow ours, or None when they do. `ours` None: nothing can be lost."""
        if head is None:
            return "the rules store has no rules: it is new, or it was emptied"
        if ours is None:
            return None
        if head.epoch != ours.epoch:
            return f"the rules store was emptied or replaced: its epoch is {head.epoch}, that in force is {ours.epoch}"
        if head.revision < ours.revision:
            return (
                f"the rules store went back to revision {head.revision}, while {ours.revision} is in force: it was "
                "restored from an older copy, or lost writes at a failover"
            )
        if self.doubtful and await self._operation_of(ours) not in ("", operation_id):
            return f"the rules store has another revision {ours.revision} than the one that is in force"
        return None

    async def first(self, saved: Saved | None) -> Saved:
        """Return the store's rules for a start. Raises `RulesUnavailable` also when they cannot follow the saved."""
        ours, operation_id = (saved.head, saved.operation_id) if saved is not None else (None, "")
        if trouble := await self.trouble(await self._source.head(), ours, operation_id):
            raise RulesUnavailable(trouble)
        return await self._load()

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
                    self.doubtful = True
                    return None
                return Advance(head, revisions[-1].operation_id, _last_of_each(revisions[known:]))
        rules = await self._load()
        self.doubtful = True
        if await self.trouble(rules.head, must_follow(documents), operation_id) is not None:
            return None
        return Advance(rules.head, rules.operation_id, documents.differences(rules.documents))

    async def _load(self) -> Saved:
        state = await self._source.load()
        return Saved(state.head, await self._operation_of(state.head), state.documents)

    async def _operation_of(self, head: Head) -> str:
        """Return the operation that made a revision; empty when the store no longer has it."""
        revisions = await self._source.revisions(head.revision - 1, head.revision) if head.revision else None
        return revisions[0].operation_id if revisions else ""


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
