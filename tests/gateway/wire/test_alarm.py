"""One timer for many deadlines: nobody is forgotten, and who is early is looked at early."""

import asyncio
from time import monotonic_ns

from gateway.wire.alarm import NEVER, Alarm
from tests.gateway.wire.conftest import Run

MS = 1_000_000


class Deadlines:
    """What a test has to be told of: deadlines that wait, and the ones that were found overdue, in order."""

    def __init__(self) -> None:
        self.waiting: set[int] = set()
        self.overdue: list[int] = []
        self.all_over = asyncio.Event()

    def look(self, now: int) -> int:
        over = sorted(due for due in self.waiting if due <= now)
        self.overdue += over
        self.waiting -= set(over)
        if not self.waiting:
            self.all_over.set()
        return min(self.waiting, default=NEVER)


def test_every_deadline_is_found_in_order_whatever_order_they_were_told_in(run: Run) -> None:
    async def work() -> None:
        deadlines = Deadlines()
        alarm = Alarm(deadlines.look)
        now = monotonic_ns()
        for after in (40, 5, 90, 60, 1, 61):
            deadlines.waiting.add(now + after * MS)
            alarm.by(now + after * MS)
        expected = sorted(deadlines.waiting)
        await deadlines.all_over.wait()
        assert deadlines.overdue == expected
        assert alarm.due_ns == NEVER

    run(work())


def test_nothing_is_looked_at_before_the_earliest_deadline_or_after_a_stop(run: Run) -> None:
    async def work() -> None:
        looked = Deadlines()
        alarm = Alarm(looked.look)
        first = monotonic_ns() + 20 * MS
        looked.waiting.add(first)
        alarm.by(first + 5 * MS)
        alarm.by(first)
        await looked.all_over.wait()
        assert monotonic_ns() >= first
        never = monotonic_ns() + MS
        looked.waiting.add(never)
        alarm.by(never)
        alarm.stop()
        later = Deadlines()
        later.waiting.add(due := never + 20 * MS)
        Alarm(later.look).by(due)
        await later.all_over.wait()
        assert looked.overdue == [first]

    run(work())


def test_deadline_that_has_passed_already_is_found_at_once(run: Run) -> None:
    async def work() -> None:
        deadlines = Deadlines()
        deadlines.waiting.add(1)
        Alarm(deadlines.look).by(1)
        await deadlines.all_over.wait()

    run(work())
