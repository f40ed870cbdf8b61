"""The rules store is stopped, frozen, cut off, emptied and set back under load, and no client ever knows.

The suite gives each trouble a moment; with FULL_COUNT=1 (`make e2e`) the whole takes a minute, and
`python -m loadtests.redis_torture` goes on for as long as it is told.
"""

import os
from collections.abc import Callable
from pathlib import Path

from tests.e2e.own_redis import OwnRedis, settings_file
from tests.e2e.redis_proxy import RedisProxy
from tests.e2e.running_gateway import RunningGateway
from tests.e2e.torture import Torture
from tests.e2e.traffic import Traffic

SECONDS = 7.0 if os.environ.get("FULL_COUNT") else 1.2  # of each trouble; records are stale after one second


def test_clients_do_not_notice_what_happens_to_the_rules_store(
    own_redis: OwnRedis, tmp_path: Path, start_gateway: Callable[..., RunningGateway]
) -> None:
    proxy = RedisProxy(own_redis.port)
    config = settings_file(tmp_path, own_redis.url_at(proxy.port))
    try:
        gateway = start_gateway("gateway", "--config", str(config), "--examples")
        torture = Torture(gateway, own_redis, proxy, tmp_path)
        torture.calm()
        with Traffic(gateway.data_url, tmp_path, connections=4, rate=200) as traffic:
            for _, trouble in torture.troubles():
                trouble(SECONDS)
        assert traffic.failed == []
        assert traffic.gone_back() == []
        assert len(traffic.seen) > 500
        assert gateway.metrics()['pointsman_stale_requests_total{model="digits"}'] > 0
    finally:
        proxy.close()
