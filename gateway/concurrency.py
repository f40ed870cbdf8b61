"""How many requests one version may have at once in this worker: as many as it answers without letting them wait long.

Nobody has to know the capacity of a backend. What is known is how long the version takes when it is not busy, and that
is what the present is held against. It is overloaded when for 100 ms not even its fastest answer came within `slowdown`
times that (a route's field): a queue that never drains, as CoDel finds one, and no mere burst or slow request. The
limit is what Little's law gives: its rate × the time allowed. It is known, and in force, as soon as more than half of
the time to spare is used for 100 ms, when nobody is refused by it yet. From there it gropes upwards while requests are
refused and the version keeps within its time, but never beyond what its present rate gives: the fastest of many answers
may be in time when most are not. A minute after the last refusal it is lifted. What is over the limit is refused at
once: nothing is queued here. A version that answers in its time is never limited.

Sources, none of whose code is used: the minimum over an interval as the sign of a standing queue, RFC 8289 (CoDel),
sections 3.2 and 3.3; rate × unhurried time × gain, BBR (draft-cardwell-iccrg-bbr-congestion-control-02, section 4.2);
holding the present against the unhurried latency, and measuring that anew at one request at a time, Envoy's adaptive
concurrency filter (minRTT); growth by steps, Netflix concurrency-limits' Gradient2.

Belongs here: one limit and its arithmetic. Never here: clocks, timers, or what a refused request is told.
"""

from collections.abc import Callable, Mapping
from typing import Final

UNLIMITED: Final = 1 << 62
LEAST: Final = 2
"""No limit is lower but for a moment: with one request at a time a version stands idle between two of them."""
_SLACK_US: Final = 5_000
"""A wait shorter than this is nobody's overload, however fast the version is (CoDel's target is the same)."""
_ENOUGH: Final = 5
"""Answers that tell how a version is doing; after `_LONG_US` fewer have to do."""
_LONG_US: Final = 1_000_000
_INTERVAL_US: Final = 100_000
"""How long it has to be slow before that counts (CoDel's interval), and how long between two steps upwards."""
_DOUBT_US: Final = 2_000_000
"""Slow for so long at the least limit, a version has perhaps become slower by itself, and is measured anew."""
_CALM_US: Final = 60_000_000
"""Without a refusal for so long, a limit is lifted: the next burst may come before anybody sees that it is one."""
_ALONE: Final = 1.2
"""Requests in flight on average up to which they hardly ever had company."""


class Limit:
    """The limit of one version. Times are in µs; a *stretch* is as long as it takes to see how the version is doing.

    A request may start while `in_flight` is below `most`, and has to be counted into and out of `in_flight`.
    """

    __slots__ = (
        "_calm_us",
        "_doubt_us",
        "_fastest_us",
        "_held",
        "_lasted_us",
        "_late",
        "_served",
        "_slow_served",
        "_slow_us",
        "_steady_served",
        "_steady_us",
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
        self._held = False
        self._slow_us = self._slow_served = self._doubt_us = 0
        self._steady_us = self._steady_served = self._calm_us = 0
        self._begin()

    def _begin(self) -> None:
        self._served = self._total_us = self._late = self._lasted_us = self.refused = 0
        self._fastest_us = UNLIMITED

    def served(self, took_us: int) -> None:
        """Note an answer. Not a failure or a refusal, which come sooner, or later, than any answer."""
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
        """Judge what has come since the last stretch, if it is enough to tell; `passed_us` is since the last look."""
        self._lasted_us += passed_us
        if self._served >= _ENOUGH or self._lasted_us >= _LONG_US:
            self._judge()
            self._begin()

    def _judge(self) -> None:
        if self.slowdown is None:
            self.most = UNLIMITED
        elif not self._served:
            if self._late:  # nothing was answered in time, however long that is
                self._lower(max(LEAST, self.in_flight // 2))
            else:
                self._keep_up()
        else:
            self._learn()
            waits_us = self._fastest_us if self._total_us > _ALONE * self._lasted_us else 0
            if waits_us > self._allowed_us():
                self._slow()
            elif waits_us * 2 > self._allowed_us() + self.unhurried_us and (self.most == UNLIMITED or self._held):
                self._strained()
            else:
                self._keep_up()

    def _learn(self) -> None:
        """Learn how long it takes unhurried: from the fastest answer ever, and slowly from those without company."""
        fastest = self._fastest_us
        if self.most < LEAST:
            self.unhurried_us = fastest
        elif self._total_us <= _ALONE * self._lasted_us:
            self.unhurried_us += (fastest - self.unhurried_us) // 4
        self.unhurried_us = min(self.unhurried_us or fastest, fastest)

    def _allowed_us(self) -> int:
        """Return how long the fastest answer may take."""
        assert self.slowdown is not None  # without it nothing is judged
        return max(self.slowdown * self.unhurried_us, self.unhurried_us + _SLACK_US)

    # ── slow ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _slow(self) -> None:
        self._steady_us = self._steady_served = self._calm_us = 0
        if self.most == UNLIMITED:  # until it is clear, it shall at least not become worse
            self._held, self.most = True, max(LEAST, self.in_flight)
        self._slow_us += self._lasted_us
        self._slow_served += self._served
        if self._slow_us >= _INTERVAL_US:
            # In one step where there was no limit. Later a rate may be low because everything stood still for a moment.
            least = LEAST if self._held else max(LEAST, self.most * 3 // 4)
            self._lower(max(least, self._slow_served * self._allowed_us() // self._slow_us))
            self._doubt(self._slow_us)
            self._slow_us = self._slow_served = 0

    def _strained(self) -> None:
        """Know the limit before it is reached: with half of the time to spare used up, this rate is all there is."""
        self._slow_us += self._lasted_us
        self._slow_served += self._served
        if self._slow_us >= _INTERVAL_US:
            self._lower(max(LEAST, self.in_flight, self._slow_served * self._allowed_us() // self._slow_us))
            self._slow_us = self._slow_served = 0

    def _lower(self, most: int) -> None:
        self.most = most if self._held else min(self.most, most)
        self._held = False

    def _doubt(self, passed_us: int) -> None:
        """Have the version answer one request at a time for a stretch, when limiting has not helped for long."""
        self._doubt_us = self._doubt_us + passed_us if self.most == LEAST else 0
        if self._doubt_us >= _DOUBT_US:
            self._doubt_us, self.most = 0, 1

    # ── not slow ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _keep_up(self) -> None:
        self._slow_us = self._slow_served = self._doubt_us = 0
        if self.most == UNLIMITED:
            return
        if self._held:
            self._held, self.most = False, UNLIMITED
            return
        self._calm_us = 0 if self.refused else self._calm_us + self._lasted_us
        if self._calm_us >= _CALM_US:
            self.most = UNLIMITED
            return
        self.most = max(self.most, LEAST)
        self._steady_us += self._lasted_us
        self._steady_served += self._served
        allowed_us = self._allowed_us()
        if self.refused and self._steady_us >= _INTERVAL_US and self._fastest_us <= allowed_us * 3 // 4:
            step = max(1, self.most // (2 if self._fastest_us <= allowed_us // 2 else 20))
            enough = self._steady_served * allowed_us // self._steady_us
            self.most = max(self.most, min(self.most + step, enough))
            self._steady_us = self._steady_served = 0


Name = tuple[str, str]
"""A model and a version."""


class Limits:
    """The limits of the versions that were asked for lately. `tell` is told those in force whenever they change."""

    def __init__(self, tell: Callable[[Mapping[Name, int]], None] = lambda _: None) -> None:
        self._tell = tell
        self._watched: list[tuple[Name, Limit]] = []
        self._told: Mapping[Name, int] = {}

    def watch(self, name: Name, limit: Limit) -> None:
        """Have the limit of a version looked at, until it is idle."""
        limit.watched = True
        self._watched.append((name, limit))

    def look(self, passed_us: int) -> int:
        """Look at every limit and return how many versions have one in force."""
        kept: list[tuple[Name, Limit]] = []
        in_force: dict[Name, int] = {}
        for name, limit in self._watched:
            limit.look(passed_us)
            if limit.idle:
                limit.watched = False
                continue
            kept.append((name, limit))
            if limit.most != UNLIMITED:
                in_force[name] = limit.most
        self._watched = kept
        if in_force != self._told:
            self._told = in_force
            self._tell(in_force)
        return len(in_force)
