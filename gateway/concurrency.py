"""How many requests one version may have at once in this worker: as many as it answers without letting them wait long.

Nobody has to know the capacity of a backend. What is known is how long the version takes when it is not busy, and that
is what the present is held against. It is overloaded when, for a while, not even its fastest answer came within
`slowdown` times that (a route's field): a queue that never drains, as CoDel finds one, and no mere burst or slow
request. Then the limit is what Little's law gives for that time, rate × time allowed, which is requests in flight ×
time allowed ÷ time seen; from there it gropes upwards while requests are refused and the version keeps within its time,
and once nobody is refused any more it is lifted. What is over the limit is refused at once: nothing is queued here.

Sources, none of whose code is used: the minimum over an interval as the sign of a standing queue, RFC 8289 (CoDel),
sections 3.2 and 3.3; limit = rate × unhurried time × gain, BBR (draft-cardwell-iccrg-bbr-congestion-control-02, section
4.2); holding it against the unhurried latency and measuring that anew at one request at a time, Envoy's adaptive
concurrency filter (minRTT); growth by steps, Netflix concurrency-limits' Gradient2. Unlike these two it is not in force
at all until there is a standing queue: a version that answers in its time is never limited.

Belongs here: one limit and its arithmetic. Never here: clocks, timers, or what a refused request is told.
"""

from typing import Final

UNLIMITED: Final = 1 << 62
LEAST: Final = 2
"""No limit is lower but for a moment: with one request at a time a version stands idle between two of them."""
_SLACK_US: Final = 5_000
"""A wait shorter than this is nobody's overload, however fast the version is (CoDel's target is the same)."""
_ENOUGH: Final = 5
"""Answers that tell how a version is doing; fewer have to have come in `_LONGEST_US`."""
_LONGEST_US: Final = 1_000_000
_PATIENCE: Final = 2
"""Slow stretches in a row before a version counts as overloaded."""
_DOUBT: Final = 20
"""Slow stretches in a row at the least limit before it is asked whether the version has become slower by itself."""
_CALM: Final = 50
"""Stretches without a refusal after which a limit is lifted."""
_ALONE: Final = 1.2
"""Requests in flight on average up to which they hardly ever had company."""


class Limit:
    """The limit of one version. Times are in µs; a *stretch* is what lies between two calls of `look` that judge.

    A request may start while `in_flight` is below `most`, and has to be counted into and out of `in_flight`.
    """

    __slots__ = (
        "_at_least",
        "_calm",
        "_fastest_us",
        "_lasted_us",
        "_late",
        "_served",
        "_slow",
        "_total_us",
        "in_flight",
        "most",
        "refused",
        "slowdown",
        "unhurried_us",
        "watched",
    )

    def __init__(self) -> None:
        self.in_flight = 0
        self.most = UNLIMITED
        self.refused = 0
        self.slowdown: int | None = None
        self.unhurried_us = 0
        self.watched = False
        self._slow = self._at_least = self._calm = 0
        self._begin()

    def _begin(self) -> None:
        self._served = self._total_us = self._late = self._lasted_us = self.refused = 0
        self._fastest_us = UNLIMITED

    def served(self, took_us: int) -> None:
        """Note an answer. Not that of a failure, nor a refusal: those come sooner, or later, than any answer."""
        self._served += 1
        self._total_us += took_us
        if took_us < self._fastest_us:  # noqa: PLR1730 - a call of `min` costs more than all the rest
            self._fastest_us = took_us

    def late(self) -> None:
        """Note a request whose time was over before there was an answer."""
        self._late += 1

    @property
    def idle(self) -> bool:
        """Whether there is nothing to look at."""
        return not (self.in_flight or self._served or self._late) and self.most == UNLIMITED

    def look(self, passed_us: int) -> None:
        """Judge the time since the last look, `passed_us`, if enough has come to tell; else wait for more."""
        self._lasted_us += passed_us
        if self._served >= _ENOUGH or self._lasted_us >= _LONGEST_US:
            self._judge()
            self._begin()

    def _judge(self) -> None:
        if self.slowdown is None:
            self.most = UNLIMITED
            return
        if not self._served:
            if self._late:  # everything timed out
                self._slow += 1
                self._lower(max(self.in_flight, self._late) // 2)
            else:
                self._grow(self.most * 2)
            return
        if self.in_flight > self.most + 1:
            return  # those that came before the limit still have to drain, and their times tell of then
        fastest, together = self._fastest_us, self._total_us / self._lasted_us
        if self.most == 1 or together <= _ALONE or not self.unhurried_us:
            self._learn(fastest)
        self.unhurried_us = min(self.unhurried_us, fastest)
        allowed = max(self.slowdown * self.unhurried_us, self.unhurried_us + _SLACK_US)
        if fastest > allowed and together > _ALONE:
            self._slow += 1
            self._lower(int(together * allowed / fastest))
            return
        self._slow = self._at_least = 0
        if self.most == 1:
            self.most = LEAST
        elif fastest * 2 <= allowed:
            self._grow(self.most + max(1, self.most // 2))
        elif self.refused:
            self._grow(self.most + max(1, self.most // 20))
        else:
            self._grow(self.most)

    def _learn(self, fastest: int) -> None:
        """Take for unhurried what was answered without company: at once when asked for, else little by little."""
        known = self.unhurried_us
        self.unhurried_us = fastest if self.most == 1 or not known else known + (fastest - known) // 4

    def _lower(self, most: int) -> None:
        if self._slow < _PATIENCE and self.most == UNLIMITED:
            return
        self._calm = 0
        self.most = min(self.most, max(LEAST, most))
        self._at_least = self._at_least + 1 if self.most == LEAST else 0
        if self._at_least >= _DOUBT:  # limiting does not help; perhaps it has become slower by itself
            self._at_least, self.most = 0, 1

    def _grow(self, most: int) -> None:
        if self.most == UNLIMITED:
            return
        self._calm = 0 if self.refused else self._calm + 1
        self.most = most if self._calm < _CALM else UNLIMITED


class Limits:
    """The limits of the versions that were asked for lately."""

    def __init__(self) -> None:
        self._watched: list[Limit] = []

    def watch(self, limit: Limit) -> None:
        """Have a limit looked at, until it is idle."""
        limit.watched = True
        self._watched.append(limit)

    def look(self, passed_us: int) -> int:
        """Look at every limit and return how many are in force."""
        kept: list[Limit] = []
        for limit in self._watched:
            limit.look(passed_us)
            if limit.idle:
                limit.watched = False
            else:
                kept.append(limit)
        self._watched = kept
        return sum(limit.most != UNLIMITED for limit in kept)
