"""Trying a request once more on the same version, where that cannot hurt and only as much as a budget allows.

Belongs here: which failures are worth another try, the pause before it, and the budget. Never here: which backend gets
it (the executor knows what is well), or another version (that is the route's `fallback`).

What is tried again:

- what no backend has seen, because no connection was to be had: on any route, if the version has another URL. gRPC
  calls that a transparent retry and does it for every call;
- what a backend may have seen, but answered nothing to, and 502, 503 and 504: only on routes that are `idempotent`.
  Envoy asks for the same with `retry_on: reset,gateway-error`. An answer that broke off in the middle is not among
  these.

No more than a fifth of a model's requests under way, but always three, may be such tries at any time, so that retries
do not finish off what is in trouble (Envoy's `retry_budget`, by the same figures). A backend that dies fails all that
it had at once, so who finds no room looks again a few times, for 175 ms at most, before the try is refused and counted.

The pause before a try is drawn from 0 to 25 ms, doubled for each further one, and counts as part of it.
"""

import asyncio
import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from time import monotonic_ns
from typing import Final

from gateway.attempt import FALLBACK_STATUSES, Tried, attempt
from gateway.errors import BackendUnreachable
from gateway.messages import Work
from gateway.metrics import Board, Slot
from gateway.ports import InferProtocol
from gateway.snapshot import PreparedVersion
from routing import Route, named_versions

_LEAST: Final = 3
_SHARE: Final = 5
_PAUSE_SECONDS: Final = 0.025
_LOOKS: Final = 4


class Retries:
    """The tries of one worker that are made again, and how many of them are under way by model."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._under_way: defaultdict[str, int] = defaultdict(int)

    async def run(
        self,
        tried: Tried,
        *,
        version: str,
        prepared: PreparedVersion,
        work: Work,
        protocol: InferProtocol,
        route: Route,
        versions: Mapping[tuple[str, str], PreparedVersion],
        note: Callable[[Tried], None],
    ) -> Tried:
        """Return what came in the end of a try that failed, which is the same when it is not worth another one.

        Each further try is given to `note`. `versions` are all there are, by (model, version); `work.avoid` is changed.
        """
        for turn in range(route.retries):
            if not _is_worth_it(tried, prepared, work, route) or not await self._has_room(route, work, versions):
                break
            self._under_way[route.model] += 1
            try:
                if not await _pause(0, turn, work):
                    break
                work.avoid += (tried.attempt.backend,)
                tried = await attempt(version, prepared, work, protocol)
            finally:
                self._under_way[route.model] -= 1
            note(tried)
        work.avoid = ()
        return tried

    async def _has_room(self, route: Route, work: Work, versions: Mapping[tuple[str, str], PreparedVersion]) -> bool:
        """Tell whether the budget has room for one more try, now or in a moment."""
        for look in range(_LOOKS):
            if self._under_way[route.model] < max(_LEAST, _active(route, versions) // _SHARE):
                return True
            if look == _LOOKS - 1 or not await _pause(0.5, look, work):
                break
        self._board.add(Slot.RETRIES_REFUSED)
        return False


async def _pause(least: float, turn: int, work: Work) -> bool:
    """Wait for a part, `least` or more, of the pause of this turn; tell whether there is time for it."""
    seconds = random.uniform(least, 1) * _PAUSE_SECONDS * 2**turn  # noqa: S311 - nobody gains by guessing it
    if monotonic_ns() + int(seconds * 1e9) >= work.deadline_ns:
        return False
    await asyncio.sleep(seconds)
    return True


def _is_worth_it(tried: Tried, prepared: PreparedVersion, work: Work, route: Route) -> bool:
    error = tried.error
    if error is None:
        return route.idempotent and tried.attempt.status in FALLBACK_STATUSES
    if not isinstance(error, BackendUnreachable):
        return False
    if error.progress == "nothing":
        return route.idempotent or _has_another(prepared, work)
    return route.idempotent and error.progress == "request"


def _has_another(prepared: PreparedVersion, work: Work) -> bool:
    """Tell whether the version has a URL beside those that failed, the one that just did included."""
    backend = prepared.manifest.backend.http
    return backend is not None and len(backend.urls) > len(work.avoid) + 1


def _active(route: Route, versions: Mapping[tuple[str, str], PreparedVersion]) -> int:
    """Return how many requests are under way at backends of the route's model."""
    named = (versions.get((route.model, name)) for name in named_versions(route))
    return sum(prepared.executor.active for prepared in named if prepared is not None)
