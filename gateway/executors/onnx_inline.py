"""Fast runs, on the event loop: those that come up in one of its turns, of whatever version, one after the other at its
end (why: `together`).

Belongs here: when they run, and telling who waits. Never here: which runs are fast (`onnx_pace`), or ONNX Runtime.
"""

from time import monotonic_ns, thread_time_ns
from typing import Any, Final, NamedTuple

from gateway.arrival import Arrival
from gateway.errors import DeadlineExceeded
from gateway.executors.onnx_runs import BACKEND, Feed, TimedRun, timed_run
from gateway.together import Together

Timed = tuple[TimedRun, int]
"""What `timed_run` returns, and how long the run took without what it waited for a processor, in ns."""
_CALM_NS: Final = 200_000
"""A run up to this long is what it is; a longer one may have had to wait for a processor."""


class _Wanted(NamedTuple):
    session: Any
    names: tuple[str, ...]
    feed: Feed
    deadline_ns: int
    outcome: Arrival[Timed]


class InlineRuns:
    """The fast runs of one worker. Belongs to the thread of its event loop."""

    def __init__(self) -> None:
        self._wanted: Together[_Wanted] = Together(_run_all)

    def submit(self, session: Any, names: tuple[str, ...], feed: Feed, deadline_ns: int) -> Arrival[Timed]:
        """Return what will come of a run at the end of this turn of the event loop, if somebody waits for it by then.

        Raises (when awaited):
            DeadlineExceeded: its turn came only after `deadline_ns` (monotonic clock).
            InvalidInput, ModelFailed: as `timed_run` does.
        """
        outcome: Arrival[Timed] = Arrival()
        self._wanted.add(_Wanted(session, names, feed, deadline_ns, outcome))
        return outcome


def _run_all(wanted: list[_Wanted]) -> None:
    """Run all that somebody still waits for, and only then tell any: what a request goes on with is other code."""
    done: list[tuple[Arrival[Timed], Timed | Exception]] = []
    # What the thread has had of its processor is asked for no more often than it has to be: that costs half a µs.
    busy, since = thread_time_ns(), 0
    for session, names, feed, deadline_ns, outcome in wanted:
        if not outcome.awaited:
            continue
        try:
            if monotonic_ns() >= deadline_ns:
                raise DeadlineExceeded("the time-out had passed before the model could run", BACKEND)
            ran = timed_run(session, names, feed, None)
            taken = ran[2] - ran[1]
            if taken > _CALM_NS:
                now = thread_time_ns()
                taken, busy, since = min(taken, max(0, now - busy - since)), now, 0
            else:
                since += taken
            done.append((outcome, (ran, taken)))
        except Exception as error:  # noqa: BLE001 - one that fails must not keep the others from their outcomes
            done.append((outcome, error))
    for outcome, told in done:
        if isinstance(told, Exception):
            outcome.fail(told)
        else:
            outcome.arrive(told)
