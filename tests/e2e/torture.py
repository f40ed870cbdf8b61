"""Everything that can happen to a rules store, one thing after the other, for tests and load runs.

Each trouble begins and ends with a healthy store. What an operator has to decide is decided here with the command line,
as the README says.
"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.e2e.own_redis import OwnRedis
from tests.e2e.redis_proxy import RedisProxy
from tests.e2e.running_gateway import RunningGateway, wait_until


class Torture:
    """Troubles for the store behind `proxy`, of which `gateway` must let no client know."""

    def __init__(self, gateway: RunningGateway, redis: OwnRedis, proxy: RedisProxy, folder: Path) -> None:
        self._gateway = gateway
        self._redis = redis
        self._proxy = proxy
        self._folder = folder
        self._copies = 0

    def troubles(self) -> Iterator[tuple[str, Callable[[float], None]]]:
        """Yield every trouble with what it does for so many seconds."""
        yield "stopped", self.stopped
        yield "frozen", self.frozen
        yield "black-holed", self.black_holed
        yield "flapping", self.flapping
        yield "restarted empty, then republished", self.emptied
        yield "restored from an old copy, then republished", self.restored_and_republished
        yield "restored from an old copy, then accepted", self.restored_and_accepted

    def stopped(self, seconds: float) -> None:
        """Stopped and started again."""
        self._redis.stop()
        self._refused("rules_unavailable")
        time.sleep(seconds)
        self._redis.start()
        self.calm()

    def frozen(self, seconds: float) -> None:
        """SIGSTOP: connections stay open and nothing answers."""
        self._redis.freeze()
        self._refused("rules_unavailable")
        time.sleep(seconds)
        self._redis.thaw()
        self.calm()

    def black_holed(self, seconds: float) -> None:
        """A network that takes everything and brings nothing."""
        self._proxy.flow(black_hole=True)
        self._refused("rules_unavailable")
        time.sleep(seconds)
        self._proxy.flow()
        self.calm()

    def flapping(self, seconds: float) -> None:
        """Every connection is cut again and again."""
        ended = time.monotonic() + seconds
        while time.monotonic() < ended:
            self._proxy.cut()
            time.sleep(0.1)
        self.calm()

    def emptied(self, seconds: float) -> None:
        """Everything is lost; the operator brings back what was in force."""
        before = self._split()
        self._redis.restart(empty=True)
        self._in_doubt()
        time.sleep(seconds)
        self._gateway.cli("rules", "republish", "--yes", "-m", "it came back empty")
        self.calm()
        assert self._split() == before

    def restored_and_republished(self, seconds: float) -> None:
        """Restored from a copy that lacks the last change; the operator brings back what was in force."""
        self._restored(seconds)
        self._gateway.cli("rules", "republish", "--yes", "-m", "the backup was old")
        self.calm()
        assert self._split() == {"1": 2500, "2": 7500}

    def restored_and_accepted(self, seconds: float) -> None:
        """Restored from a copy that lacks the last change; the operator takes the copy."""
        self._restored(seconds)
        self._gateway.cli("rules", "accept", "--yes", "-m", "the backup is right")
        self.calm()
        assert self._split() == {"1": 5000, "2": 5000}

    def _restored(self, seconds: float) -> None:
        self._gateway.cli("routes", "weights", "digits", "1=50", "2=50")
        self._copies += 1
        old = self._redis.copy(self._folder / f"copy-{self._copies}")
        self._gateway.cli("routes", "weights", "digits", "1=25", "2=75")
        self._redis.restart(restored=old)
        self._in_doubt()
        time.sleep(seconds)

    def calm(self) -> None:
        """Wait until everything is well: no alarm, every worker at the store's revision, and changes are possible."""
        wait_until(lambda: self._status()["ok"], f"the gateway is well again: {json.dumps(self._status())}", 30)

    def _in_doubt(self) -> None:
        wait_until(lambda: self._alarms() == 2, "both workers raise the alarm")
        self._refused("rules_in_doubt")
        answer = self._gateway.http.get(f"{self._gateway.data_url}/v2/health/ready")
        assert (answer.status_code, answer.json()) == (200, {"ready": True})
        self._gateway.cli("status", code=1)

    def _refused(self, code: str) -> None:
        """See that a change is refused, with words, and in bounded time."""

        def tried() -> bool:
            answer = self._gateway.http.put(
                f"{self._gateway.admin_url}/admin/v1/routes/digits",
                json={"model": "digits", "split": {"1": 10_000}},
                headers={"if-match": '"999999"'},
            )
            return answer.status_code == 503 and answer.json()["code"] == code

        wait_until(tried, f"changes are refused with {code}")

    def _alarms(self) -> int:
        metrics = self._gateway.metrics()
        return int(sum(value for name, value in metrics.items() if name.startswith("pointsman_rules_alarm{")))

    def _status(self) -> dict[str, Any]:
        status: dict[str, Any] = self._gateway.http.get(f"{self._gateway.admin_url}/admin/v1/status").json()
        return status

    def _split(self) -> dict[str, int]:
        route = self._gateway.http.get(f"{self._gateway.admin_url}/admin/v1/routes/digits").json()
        split: dict[str, int] = {version: weight for version, weight in route["split"].items() if weight}
        return split
