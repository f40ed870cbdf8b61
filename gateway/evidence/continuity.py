"""That a journal goes on without a break: from stretch to stretch, over what was pruned, to where it has been shipped.

Sequences that stand in no row are a hole; a hole must be told of by the journal's gaps (what could not be read) or by
the days that were dropped.

Belongs here: one journal's order as a whole. Never here: what stands in a row, or signatures.
"""

from collections.abc import Iterable

from gateway.chain import genesis
from gateway.evidence.findings import Finding, Findings
from gateway.evidence.statements import Stretch
from gateway.ports import Dropped, Gap, JournalPosition


class Continuity:
    """Follows one journal from its first record on; `last` and `chain` say how far it has come."""

    def __init__(self, journal: str, gaps: Iterable[Gap], dropped: Iterable[Dropped], findings: Findings) -> None:
        self.journal = journal
        self.last = 0
        self.chain = genesis(journal)
        self._findings = findings
        self._gaps = [(gap.first, gap.count) for gap in gaps if gap.journal == journal]
        self._dropped = sorted((one.first, one.last) for one in dropped if one.journal == journal)
        self._taken = 0

    def follow(self, stretch: Stretch, day: str) -> None:
        """Go on to the next stretch, which must follow on what came before it."""
        if stretch.first <= self.last:
            self._say("it is covered by two checkpoints", stretch.first, day)
            return
        self.go_to(stretch.first, bytes.fromhex(stretch.start), day)
        self.last, self.chain = stretch.last, bytes.fromhex(stretch.end)

    def go_to(self, sequence: int, previous: bytes, day: str) -> None:
        """Go on to a record, before which the chain is `previous`; it must follow, or a hole must be told of."""
        if sequence == self.last + 1:
            if previous != self.chain:
                self._say("it does not follow on the record before it", sequence, day)
        else:
            self._account(self.last + 1, sequence - 1, day)

    def end(self, before: JournalPosition | None, after: JournalPosition | None) -> None:
        """Compare the end with how far the journal has been shipped: as it stood before and after it was followed."""
        if after is None:
            if self.last:
                self._say("there are records of a journal that was never shipped", self.last, "")
            return
        if after.sequence < self.last:
            self._say(f"the journal has been shipped only up to {after.sequence}", self.last, "")
        for position in (before, after):
            if position is not None and position.sequence == self.last and position.chain != self.chain:
                self._say("how far the journal has been shipped does not agree with it", self.last, "")
                break
        if before is not None and before.sequence > self.last:
            self._account(self.last + 1, before.sequence, "")
        for first, last in self._dropped[self._taken :]:
            self._say(f"the records {first} to {last} are told to be dropped, but are no hole", first, "")

    def _account(self, first: int, last: int, day: str) -> None:
        """See that every sequence from `first` to `last` is told of."""
        at = first
        while at <= last:
            upto = self._told(at, last)
            if upto < at:
                what = "it is missing" if first == last else f"it is missing, with others up to {last}"
                self._say(f"{what}, and no gap and no pruning tells of that", at, day)
                return
            at = upto + 1

    def _told(self, at: int, last: int) -> int:
        if self._taken < len(self._dropped):
            first, end = self._dropped[self._taken]
            if first == at <= end <= last:
                self._taken += 1
                return end
        upto = at - 1
        for first, count in self._gaps:
            if first <= at and (at < first + count or (count == 0 and first == at)):
                # A gap of which nobody could tell how long it is reaches to where reading went on.
                upto = max(upto, first + count - 1 if count else self._before_next(at, last))
        return min(upto, last)

    def _before_next(self, at: int, last: int) -> int:
        following = [first for first, _ in self._dropped if first > at]
        return min([last, *(first - 1 for first in following)])

    def _say(self, what: str, sequence: int, day: str) -> None:
        self._findings.add(Finding(what, journal=self.journal, sequence=sequence, day=day))
