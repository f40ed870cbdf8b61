"""Changes of one route, one after the other, each in force everywhere before the next; for tests and load runs."""

from itertools import cycle
from time import perf_counter

from tests.e2e.running_gateway import RunningGateway

_SPLITS = [{"1": 10_000, "2": 0, "3": 0}, {"1": 0, "2": 10_000, "3": 0}, {"1": 0, "2": 5_000, "3": 5_000}]


class LiveChanges:
    """Moves the weights of `digits` so that each next split makes versions illegal that were legal before.

    `legal` maps every revision there was to the versions that may serve under it, `seconds` has how long each change
    took from being sent until it was in force in every worker.
    """

    def __init__(self, gateway: RunningGateway) -> None:
        self._gateway = gateway
        self._url = f"{gateway.admin_url}/admin/v1/routes/digits"
        present = gateway.http.get(self._url)
        self.revision = int(present.headers["etag"].strip('"'))
        self.legal = {self.revision: {v for v, weight in present.json()["split"].items() if weight}}
        self.seconds: list[float] = []
        self._splits = cycle(_SPLITS)

    def make(self, number: int) -> None:
        """Make the next change and wait until every worker has it."""
        split = next(self._splits)
        route = {"model": "digits", "split": split, "timeout_ms": 30_000 + number}
        started = perf_counter()
        answer = self._gateway.http.put(self._url, json=route, headers={"if-match": f'"{self.revision}"'})
        self.seconds.append(perf_counter() - started)
        assert answer.status_code == 200, answer.text
        self.revision = int(answer.headers["etag"].strip('"'))
        self.legal[self.revision] = {version for version, weight in split.items() if weight}
