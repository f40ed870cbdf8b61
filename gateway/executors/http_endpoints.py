"""The URLs of a version behind HTTP: which one gets the next request, and which gets none because it is in trouble.

Belongs here: choosing among URLs, ejecting those that fail again and again, and leaving out those that health checks
find unhealthy. Never here: calling them, or trying a request again.

A URL is *ejected* after so many gateway errors in a row (no connection, a connection cut, an answer that is no HTTP,
the backend's whole time-out gone by, 502, 503 or 504) for a time that grows with each ejection and shrinks again while
it behaves. It comes back *on probation*, with one request at a time: the first that succeeds ends that, the first that
fails ejects it again. That is Envoy's outlier detection (consecutive gateway failures), with the trial of a circuit
breaker in place of its return at once.

The last URL that is left is never ejected. When it fails as often as would eject it, the others come back on probation
at once, since by now they may be better. If every URL is unhealthy or ejected, all of them get traffic ("panic", as
Envoy calls it): checks that are wrong must not stop what would work.

An ejection ends early when the health checks have seen the URL unhealthy and then healthy again. Checks that pass all
along do not end it: they cannot see what fails.
"""

import asyncio
from collections.abc import Sequence
from time import monotonic_ns

from gateway.catalog import Ejection
from gateway.logs import logger
from gateway.standings import Standings


class Endpoint:
    """One URL. `marked` says that a request that succeeds is to be told of (`Endpoints.succeeded`)."""

    __slots__ = (
        "ejected",
        "ejections",
        "failures",
        "healthy",
        "in_flight",
        "infer_url",
        "marked",
        "on_probation",
        "returned_ns",
        "timer",
        "url",
        "why",
    )

    def __init__(self, url: str, path: str) -> None:
        """Stand for `url`, and ask for predictions at `path` behind it."""
        self.url = url
        self.infer_url = url + path
        self.in_flight = 0
        self.failures = 0
        self.marked = False
        self.ejected = False
        self.ejections = 0
        self.on_probation = False
        self.returned_ns = 0
        self.healthy = True
        self.why = ""
        self.timer: asyncio.TimerHandle | None = None

    @property
    def standing(self) -> bool:
        """Whether it gets traffic as long as not all are in trouble."""
        return self.healthy and not self.ejected


class Endpoints:
    """The URLs of one version in one worker. While none is in trouble, all that this costs is the choice."""

    def __init__(
        self, model: str, version: str, urls: Sequence[str], *, path: str, ejection: Ejection, standings: Standings
    ) -> None:
        """Choose among `urls`, where predictions are asked for at `path`, and tell `standings` of those in trouble."""
        self.all = tuple(Endpoint(url, path) for url in urls)
        self._named = {"model": model, "version": version}
        self._ejection = ejection
        self._standings = standings
        self._calm = True
        self._panic = False
        self._next = 0

    @property
    def in_flight(self) -> int:
        """Requests under way at all URLs."""
        return sum(endpoint.in_flight for endpoint in self.all)

    # ── choosing ─────────────────────────────────────────────────────────────────────────────────────────────────

    def choose(self, avoid: tuple[str, ...] = ()) -> Endpoint:
        """Return the URL with the fewest requests in flight, among equals in turn; one to `avoid` only if need be."""
        among = self.all if self._calm and not avoid else self._eligible(avoid)
        count = len(among)
        if count == 1:
            return among[0]
        chosen = index = self._next % count
        least = among[chosen].in_flight
        if least:  # none can have fewer than none
            for _ in range(count - 1):
                index = index + 1 if index + 1 < count else 0
                if among[index].in_flight < least:
                    chosen, least = index, among[index].in_flight
        self._next = chosen + 1
        return among[chosen]

    def _eligible(self, avoid: tuple[str, ...]) -> Sequence[Endpoint]:
        standing = [endpoint for endpoint in self.all if endpoint.standing] or list(self.all)
        for wanted in (
            [one for one in standing if one.url not in avoid and not (one.on_probation and one.in_flight)],
            [one for one in standing if one.url not in avoid],
            [one for one in standing if not (one.on_probation and one.in_flight)],
        ):
            if wanted:
                return wanted
        return standing

    # ── what came of it ──────────────────────────────────────────────────────────────────────────────────────────

    def succeeded(self, endpoint: Endpoint, started_ns: int) -> None:
        """Take note of an answer that is no gateway error, to a request sent at `started_ns` (monotonic)."""
        if endpoint.ejected or started_ns < endpoint.returned_ns:
            return  # from before it was in trouble, which it says nothing about
        endpoint.failures = 0
        endpoint.marked = False
        if endpoint.on_probation:
            endpoint.on_probation = False
            logger().info("backend_back", **self._named, backend=endpoint.url)
            self._review()

    def failed(self, endpoint: Endpoint, started_ns: int, why: str) -> None:
        """Take note of a gateway error."""
        if endpoint.ejected or started_ns < endpoint.returned_ns or not self._ejection.after:
            return
        endpoint.failures += 1
        endpoint.marked = True
        if endpoint.on_probation or endpoint.failures >= self._ejection.after:
            self._eject(endpoint, why)

    def checked(self, endpoint: Endpoint, healthy: bool, why: str = "") -> None:
        """Take note of what health checks have found: `why` is what is wrong."""
        endpoint.why = why
        if endpoint.healthy == healthy:
            return
        endpoint.healthy = healthy
        self._standings.of(**self._named).unhealthy += -1 if healthy else 1
        if healthy:
            logger().info("backend_healthy", **self._named, backend=endpoint.url)
            if endpoint.ejected:
                self._return(endpoint)
        else:
            logger().warning("backend_unhealthy", **self._named, backend=endpoint.url, why=why)
        self._review()

    def release(self) -> None:
        """Forget every trouble; nothing comes back any more."""
        for endpoint in self.all:
            if endpoint.ejected:
                self._readmit(endpoint)
            if not endpoint.healthy:
                self._standings.of(**self._named).unhealthy -= 1
                endpoint.healthy = True
                self._standings.changed()

    # ── ejection ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _eject(self, endpoint: Endpoint, why: str) -> None:
        others = [other for other in self.all if other is not endpoint]
        if not any(other.standing for other in others):
            if endpoint.failures >= self._ejection.after:
                endpoint.failures = 0
                for other in others:
                    if other.ejected:
                        self._return(other)
            return
        for_ms = self._next_length(endpoint)
        endpoint.ejected = True
        endpoint.on_probation = False
        endpoint.timer = asyncio.get_running_loop().call_later(for_ms / 1e3, self._return, endpoint)
        standing = self._standings.of(**self._named)
        standing.ejected += 1
        standing.ejections += 1
        logger().warning("backend_ejected", **self._named, backend=endpoint.url, why=why, for_seconds=for_ms / 1e3)
        self._review()

    def _next_length(self, endpoint: Endpoint) -> int:
        """Count an ejection and return its length in ms; each `for_ms` since the last one ended takes one off."""
        one_ms, most_ms = self._ejection.for_ms, max(self._ejection.for_ms, self._ejection.most_ms)
        behaved = (monotonic_ns() - endpoint.returned_ns) // (one_ms * 1_000_000)
        endpoint.ejections = min(max(0, endpoint.ejections - behaved) + 1, -(-most_ms // one_ms))
        return min(one_ms * endpoint.ejections, most_ms)

    def _return(self, endpoint: Endpoint) -> None:
        """Let an ejected URL have traffic again, if it is healthy, on probation."""
        self._readmit(endpoint)
        endpoint.on_probation = endpoint.marked = True
        endpoint.failures = 0
        endpoint.returned_ns = monotonic_ns()
        logger().info("backend_on_probation", **self._named, backend=endpoint.url)
        self._review()

    def _readmit(self, endpoint: Endpoint) -> None:
        endpoint.ejected = False
        if endpoint.timer is not None:
            endpoint.timer.cancel()
        self._standings.of(**self._named).ejected -= 1
        self._standings.changed()

    def _review(self) -> None:
        """See whether all is well after a change, and raise the alarm when nothing is."""
        self._calm = all(endpoint.standing and not endpoint.on_probation for endpoint in self.all)
        panic = not any(endpoint.standing for endpoint in self.all)
        if panic and not self._panic:
            logger().error("backends_all_in_trouble", **self._named, what="every URL gets traffic all the same")
        self._panic = panic
        self._standings.changed()
