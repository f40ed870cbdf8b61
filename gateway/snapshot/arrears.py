"""For how long a worker has been behind a store that answers.

Belongs here: counting that time. Never here: why, or what is done about it.
"""

from gateway.ports import Head


class Arrears:
    """Counts while the store has a newer head than ours and ours stays where it is.

    A silence of the store does not count: nobody can catch up with a store that does not answer. Nor does it start the
    count again, so a store that answers now and then, but never with what changed, is found out, too.
    """

    def __init__(self, limit_ns: int) -> None:
        self._limit_ns = limit_ns
        self._ours: Head | None = None
        self._counted_ns = 0
        self._looked_ns: int | None = None

    @property
    def exceeded(self) -> bool:
        """Whether the limit is passed, and the store still answers."""
        return self._looked_ns is not None and self._counted_ns > self._limit_ns

    def look(self, ours: Head | None, theirs: Head | None, now_ns: int) -> None:
        """Note our head and the store's, which ours could follow; `now_ns` is monotonic."""
        if ours == theirs or ours != self._ours:
            self._counted_ns = 0
        elif self._looked_ns is not None:
            self._counted_ns += now_ns - self._looked_ns
        self._ours, self._looked_ns = ours, now_ns

    def interrupt(self) -> None:
        """Note that the store is silent, or has nothing that ours could follow."""
        self._looked_ns = None
