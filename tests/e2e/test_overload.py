"""One caller asks far more than its share of a worker that has too much to do: it is refused, the other is served."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import httpx2

from tests.e2e.backends import ANSWER, Backend, reply
from tests.e2e.running_gateway import RunningGateway, manifest, put_route, register, wait_until

CONNECTIONS = 60
MOST = 30


async def takes_its_time(_: Backend, __: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(0.1)  # whatever it is asked
    writer.write(reply("200 OK", ANSWER))


class Greedy:
    """A caller that asks over many connections at once, and again as soon as it has an answer."""

    def __init__(self, gateway: RunningGateway) -> None:
        self.statuses: Counter[int] = Counter()
        self.without_retry_after = 0
        self._url = f"{gateway.data_url}/v2/models/fraud/infer"
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask, daemon=True) for _ in range(CONNECTIONS)]

    def __enter__(self) -> "Greedy":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)

    def _ask(self) -> None:
        with httpx2.Client(timeout=20, trust_env=False) as http:
            while not self._stop.is_set():
                answer = http.post(self._url, content=ANSWER, headers={"x-routing-key": "greedy"})
                self.statuses[answer.status_code] += 1
                if answer.status_code == 503:
                    self.without_retry_after += "retry-after" not in answer.headers
                    self._stop.wait(0.01)  # else it would mostly measure its own threads


def test_a_greedy_caller_is_refused_before_a_modest_one_and_health_answers(
    start_gateway: Callable[..., RunningGateway], tmp_path: Path
) -> None:
    config = tmp_path / "overload.toml"
    config.write_text(f"[overload]\nmax_in_flight = {MOST}\n")
    gateway = start_gateway("gateway", "--workers", "1", "--config", str(config))
    with Backend(takes_its_time) as backend:
        register(gateway, manifest("fraud", "1", {"http": {"urls": [backend.url]}}))
        put_route(gateway, {"model": "fraud", "split": {"1": 10_000}, "slowdown": None})
        with Greedy(gateway) as greedy:
            wait_until(lambda: greedy.statuses[503] > 50, "the worker sheds")
            modest = [gateway.infer("fraud", ANSWER, {"x-routing-key": "modest"}).status_code for _ in range(20)]
            for path in ("live", "ready"):
                assert gateway.http.get(f"{gateway.data_url}/v2/health/{path}").status_code == 200
            assert gateway.http.get(f"{gateway.admin_url}/healthz").status_code == 200
        assert modest == [200] * 20
        assert greedy.statuses[200] > 0
        assert set(greedy.statuses) == {200, 503}
        assert greedy.without_retry_after == 0
        assert gateway.metrics()['pointsman_shed_requests_total{worker="worker-0"}'] == greedy.statuses[503]
        assert gateway.log("requests_shed")
        deadline = time.monotonic() + 20
        while gateway.infer("fraud", ANSWER, {"x-routing-key": "greedy"}).status_code != 200:
            assert time.monotonic() < deadline
