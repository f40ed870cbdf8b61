"""Everything that can happen to a rules store, under load, and the same load in peace beside it.

    .venv/bin/python -m loadtests.redis_torture [--seconds 85] [--rate 300]

Each of the seven troubles of `tests/e2e/torture.py` lasts `--seconds` (85 makes ten minutes), and before each the same
gateway serves in peace for as long. Pass marks, checked here: no failed request, on no connection a revision that goes
back, p99 of the troubled times within 10 % of the calm times between them.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from tests.e2e.own_redis import OwnRedis, settings_file
from tests.e2e.redis_proxy import RedisProxy
from tests.e2e.running_gateway import RunningGateway
from tests.e2e.torture import Torture
from tests.e2e.traffic import Traffic


def run(folder: Path, seconds: float, rate: int) -> bool:
    """Torture the store, print what clients saw, and return whether every pass mark is met."""
    redis = OwnRedis(folder / "redis")
    proxy = RedisProxy(redis.port)
    config = settings_file(folder, OwnRedis.url_at(proxy.port))
    gateway = RunningGateway(folder / "gateway", "--config", str(config), "--examples")
    windows: list[tuple[str, int, int, int]] = []
    try:
        torture = Torture(gateway, redis, proxy, folder)
        torture.calm()
        with Traffic(gateway.data_url, folder, connections=4, rate=rate) as traffic:
            time.sleep(2)  # connections are open and caches warm
            for name, trouble in torture.troubles():
                calm = time.monotonic_ns()
                time.sleep(seconds)
                began = time.monotonic_ns()
                trouble(seconds)
                windows.append((name, calm, began, time.monotonic_ns()))
    finally:
        gateway.close()
        proxy.close()
        redis.stop()
    for name, calm, began, ended in windows:
        here = [traffic.percentile(share, began, ended) for share in (0.5, 0.99)]
        before = [traffic.percentile(share, calm, began) for share in (0.5, 0.99)]
        print(
            f"{name:>45}: p50 {here[0]:.2f} ms, p99 {here[1]:.2f} ms (calm before it: {before[0]:.2f}, {before[1]:.2f})"
        )
    troubled, peaceful = _joined(traffic, windows)
    ratio = troubled / peaceful
    print(
        f"{len(traffic.seen)} requests, {len(traffic.failed)} failed, {len(traffic.gone_back())} went back; "
        f"p99 troubled {troubled:.2f} ms ÷ calm {peaceful:.2f} ms = {ratio:.2f}"
    )
    return not traffic.failed and not traffic.gone_back() and ratio <= 1.1


def _joined(traffic: Traffic, windows: list[tuple[str, int, int, int]]) -> tuple[float, float]:
    """Return the p99 of all troubled and of all calm times, in ms."""
    troubled = [s.latency_us for s in traffic.seen if any(began <= s.at_ns < ended for _, _, began, ended in windows)]
    peaceful = [s.latency_us for s in traffic.seen if any(calm <= s.at_ns < began for _, calm, began, _ in windows)]
    return _p99(troubled), _p99(peaceful)


def _p99(latencies: list[int]) -> float:
    return sorted(latencies)[int(len(latencies) * 0.99)] / 1000


def main() -> None:
    """Run it and exit with 1 when a pass mark is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=85.0)
    parser.add_argument("--rate", type=int, default=300)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        sys.exit(0 if run(Path(name), options.seconds, options.rate) else 1)


if __name__ == "__main__":
    main()
