"""Whether the store's rules follow ours: a lower revision is never a newer rule.

Belongs here: comparing a place in the history with the store's. Never here: when to ask, or fetching anything.
"""

from collections.abc import Mapping

from gateway.ports import Head, RulesSource


class History:
    """The store's history as somebody who has rules sees it. Raises `RulesUnavailable` when it does not answer.

    A store that was restored from an old copy and then changed has the revisions that we know, with another content.
    The numbers do not tell, so the operation that made our revision is compared, too, while `doubtful` is set; a
    worker sets it after every silence, and whoever asks just once leaves it as it is.
    """

    def __init__(self, source: RulesSource) -> None:
        self._source = source
        self.doubtful = True
        self._lives: tuple[str, Mapping[str, int]] | None = None

    async def trouble(self, head: Head | None, ours: Head | None, operation_id: str) -> str | None:
        """Return why rules at `head` cannot follow ours, or None when they do. `ours` None: nothing can be lost.

        `operation_id` made ours; empty when that is not known. Rules of another epoch follow ours when an operator
        has said so for a revision that is not below ours; then nothing is known of what lies between.
        """
        if head is None:
            return "the rules store has no rules: it is new, or it was emptied"
        if ours is None:
            return None
        if head.epoch != ours.epoch:
            return await self._trouble_between_lives(head, ours)
        if head.revision < ours.revision:
            return (
                f"the rules store went back to revision {head.revision}, while {ours.revision} is in force: it was "
                "restored from an older copy, or lost writes at a failover"
            )
        if self.doubtful and operation_id and await self.operation_of(ours) not in ("", operation_id):
            return f"the rules store has another revision {ours.revision} than the one that is in force"
        return None

    async def _trouble_between_lives(self, head: Head, ours: Head) -> str | None:
        if self._lives is None or self._lives[0] != head.epoch:  # what an epoch follows on is settled when it begins
            self._lives = head.epoch, await self._source.follows()
        upto = self._lives[1].get(ours.epoch)
        if upto is not None and upto >= ours.revision:
            return None
        if upto is not None:
            return (
                f"the rules store was resettled to follow on revision {upto}, while {ours.revision} is in force: the "
                "changes between them are in neither"
            )
        return f"the rules store was emptied or replaced: its epoch is {head.epoch}, that in force is {ours.epoch}"

    async def operation_of(self, head: Head) -> str:
        """Return the operation that made a revision; empty when the store no longer has it."""
        revisions = await self._source.revisions(head.revision - 1, head.revision) if head.revision else None
        return revisions[0].operation_id if revisions else ""
