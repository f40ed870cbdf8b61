"""A thousand changes of weights under load: how long until each is in force everywhere, and whether anybody notices.

    .venv/bin/python -m loadtests.live_changes [--changes 1000] [--rate 300]

Starts a gateway of two workers on a rules store of its own behind a proxy, sends steady traffic from another process,
and changes the route of the example model over and over: once as it is, once with every notice connection frozen, so
that only the poll of the head is left. Pass marks, checked here: p99 ≤ 100 ms, max ≤ 250 ms, no failed request, no
answer of a version that is illegal under the revision in its own header, on no connection a revision that goes back.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from tests.e2e.live_changes import LiveChanges
from tests.e2e.own_redis import OwnRedis, settings_file
from tests.e2e.redis_proxy import RedisProxy
from tests.e2e.running_gateway import RunningGateway, wait_until
from tests.e2e.traffic import Traffic, illegal


def run(folder: Path, changes: int, rate: int, *, frozen: bool) -> bool:
    """Make the changes, print what they took, and return whether every pass mark is met."""
    redis = OwnRedis(folder / "redis")
    proxy = RedisProxy(redis.port)
    config = settings_file(folder, OwnRedis.url_at(proxy.port))
    gateway = RunningGateway(folder / "gateway", "--config", str(config), "--examples")
    try:
        wait_until(lambda: proxy.subscribed >= 2, "both workers listen to notices")
        proxy.flow(frozen_notices=frozen)
        with Traffic(gateway.data_url, folder, rate=rate) as traffic:
            live = LiveChanges(gateway)
            for number in range(changes):
                live.make(number)
    finally:
        gateway.close()
        proxy.close()
        redis.stop()
    took = sorted(1000 * seconds for seconds in live.seconds)
    p50, p99, longest = took[len(took) // 2], took[int(len(took) * 0.99)], took[-1]
    wrong, back = illegal(traffic.seen, live.legal), traffic.gone_back()
    print(
        f"{'notices frozen' if frozen else 'as it is':>14}: {changes} changes, in force everywhere after "
        f"p50 {p50:.1f} ms, p99 {p99:.1f} ms, max {longest:.1f} ms; {len(traffic.seen)} requests, "
        f"{len(traffic.failed)} failed, {len(wrong)} illegal, {len(back)} went back; "
        f"request p50 {traffic.percentile(0.5):.2f} ms, p99 {traffic.percentile(0.99):.2f} ms",
        flush=True,
    )
    return p99 <= 100 and longest <= 250 and not traffic.failed and not wrong and not back


def main() -> None:
    """Run both and exit with 1 when a pass mark is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--changes", type=int, default=1000)
    parser.add_argument("--rate", type=int, default=300)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        passed = [
            run(Path(name) / str(frozen), options.changes, options.rate, frozen=frozen) for frozen in (False, True)
        ]
    sys.exit(0 if all(passed) else 1)


if __name__ == "__main__":
    main()
