"""What keeps one worker standing, as the data plane meets it: limits of versions, overload, brakes.

Belongs here: what each of them is told of a request. Never here: what any of them makes of it.
"""

from collections.abc import Callable, Collection, Mapping

from gateway.attempt import Tried
from gateway.brake import Brakes
from gateway.concurrency import Limit, Limits
from gateway.config import OverloadSettings
from gateway.errors import DeadlineExceeded
from gateway.messages import InferRequest, Work
from gateway.metrics import Board
from gateway.overload import Overload
from gateway.snapshot import RouteEntry, Snapshot
from gateway.timeouts import TIMEOUT_HEADER
from gateway.trips import Trip
from routing import Route, routing_key


class Guards:
    """The guards of one worker. Until `overload.start` nothing is limited or shed; brakes need no start."""

    def __init__(
        self,
        board: Board,
        settings: OverloadSettings | None = None,
        tell: Callable[[Collection[Trip]], None] = lambda _: None,
        tell_limits: Callable[[Mapping[tuple[str, str], int]], None] = lambda _: None,
    ) -> None:
        """`tell` is told the trips that hold, and `tell_limits` the limits in force, whenever they change."""
        self.limits = Limits(tell_limits)
        self.overload = Overload(board, settings if settings is not None else OverloadSettings(), self.limits)
        self.brakes = Brakes(board, tell)

    def sheds(self, request: InferRequest, snapshot: Snapshot | None) -> bool:
        """Tell whether a request has to be let go of. To be asked only while the overload is `pressed`."""
        entry = snapshot.routes.get(request.model) if snapshot is not None else None
        key = routing_key(entry.route, request.headers) if entry is not None else None
        return not self.overload.admits(key, request.client)

    def tried(self, entry: RouteEntry, snapshot: Snapshot, limit: Limit, tried: Tried, work: Work) -> None:
        """Note what a version made of a request in the end, with its limit."""
        route = entry.route
        limited = route.slowdown is not None or limit.watched
        if not limited and route.brake is None:
            return
        late = tried.error_code == DeadlineExceeded.code
        if late and TIMEOUT_HEADER in work.headers:
            return  # whose haste that was is not for the version to answer for
        if limited:
            self._limit(limit, route, tried, late=late)
        if route.brake is not None:
            self.brakes.note(entry, snapshot, tried)

    def _limit(self, limit: Limit, route: Route, tried: Tried, *, late: bool) -> None:
        if tried.outcome == "served":
            limit.served(tried.took_us)
        elif late:
            limit.late()
        limit.slowdown = route.slowdown
        if not limit.watched:
            self.limits.watch((route.model, tried.attempt.version), limit)
