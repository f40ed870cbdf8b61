"""Which rows of a run are not the ones that were recorded, by the marks that were signed with them.

A mark is of a record's place, its sealed part and the chain before it, on which the chain after it depends. So every
row is judged by itself, and rows that were rewritten to follow on a forged one are told of with that one.

Belongs here: judging rows by their marks. Never here: reading rows, or whether a listing is the one that was signed.
"""

from collections.abc import Iterator

from gateway.chain import leaf
from gateway.evidence.joints import OTHER_CHAIN_BEFORE, Seen
from gateway.evidence.statements import MARK_BYTES, Stretch, marks_in

_OTHER = "it is not the record that was signed"


class Marks:
    """The marks of a stretch that has some."""

    def __init__(self, stretch: Stretch) -> None:
        self._stretch = stretch
        self._marks = marks_in(stretch)

    def faults(self, run: list[Seen], before: bytes | None) -> Iterator[tuple[Seen, str]]:
        """Yield the faulty rows of a run without a missing one; `before` it is the chain that is known."""
        at = 0
        while at < len(run):
            one, upto = run[at], at
            if not self._fits(one.sequence, one.after):
                upto = self._end_of_rewriting(run, at)
            if what := self._wrong(one, before, run[upto].sequence):
                yield one, what
            yield from ((other, other.fault) for other in run[at + 1 : upto + 1] if other.fault)
            before = self._chain_after(run[upto])
            at = upto + 1

    def _fits(self, sequence: int, chain: bytes) -> bool:
        found = leaf(self._stretch.journal, sequence, chain)
        return found[:MARK_BYTES] == self._marks[sequence - self._stretch.first]

    def _end_of_rewriting(self, run: list[Seen], at: int) -> int:
        """Return the last row of those that follow on each other from one that does not fit, none of them fitting."""
        while at + 1 < len(run) and run[at + 1].previous == run[at].after:
            if self._fits(run[at + 1].sequence, run[at + 1].after):
                break
            at += 1
        return at

    def _wrong(self, one: Seen, before: bytes | None, upto: int) -> str:
        if one.fault:
            return one.fault
        if self._fits(one.sequence, one.after):
            # Of a record that cannot be; what pruning left of one says by itself what came before it.
            return OTHER_CHAIN_BEFORE if before is not None and one.previous != before else ""
        if upto > one.sequence:
            return f"{_OTHER}, and all up to {upto} were rewritten to follow on it"
        return OTHER_CHAIN_BEFORE if self._fits(one.sequence, one.after_row_before) else _OTHER

    def _chain_after(self, one: Seen) -> bytes | None:
        """Return the chain after a row as it was recorded, None where that cannot be told."""
        return next((chain for chain in (one.after, one.after_row_before) if self._fits(one.sequence, chain)), None)
