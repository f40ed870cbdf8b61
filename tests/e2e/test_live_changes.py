"""Weights moved under load: nobody fails, every answer is legal under the rules it names, and nothing goes back.

The suite makes few changes; `python -m loadtests.live_changes` makes a thousand and measures how fast they are.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic

import pytest

from tests.e2e.live_changes import LiveChanges
from tests.e2e.own_redis import OwnRedis, settings_file
from tests.e2e.raw_client import post, send_all
from tests.e2e.redis_proxy import RedisProxy
from tests.e2e.running_gateway import RunningGateway, wait_until
from tests.e2e.traffic import BODIES, Traffic, illegal


@pytest.fixture
def proxied(own_redis: OwnRedis) -> Iterator[RedisProxy]:
    """A proxy in front of the test's own rules store."""
    proxy = RedisProxy(own_redis.port)
    yield proxy
    proxy.close()


def _start(start_gateway: Callable[..., RunningGateway], folder: Path, port: int) -> RunningGateway:
    config = settings_file(folder, OwnRedis.url_at(port))
    gateway = start_gateway("gateway", "--config", str(config), "--examples")
    return gateway


@pytest.mark.parametrize("frozen", [False, True], ids=["as it is", "with frozen notices"])
def test_changes_under_load_fail_nobody_and_never_go_back(
    frozen: bool, proxied: RedisProxy, tmp_path: Path, start_gateway: Callable[..., RunningGateway]
) -> None:
    gateway = _start(start_gateway, tmp_path, proxied.port)
    wait_until(lambda: proxied.subscribed >= 2, "both workers listen to notices")
    proxied.flow(frozen_notices=frozen)
    with Traffic(gateway.data_url, tmp_path) as traffic:
        changes = LiveChanges(gateway)
        for number in range(25):
            changes.make(number)
    assert len(traffic.seen) > 100
    assert traffic.failed == []
    assert illegal(traffic.seen, changes.legal) == []
    assert traffic.gone_back() == []
    revisions = {seen.revision for seen in traffic.seen}
    assert len(revisions) > 10
    assert max(revisions) <= changes.revision


def test_requests_cost_no_redis_command(
    own_redis: OwnRedis, tmp_path: Path, start_gateway: Callable[..., RunningGateway]
) -> None:
    gateway = _start(start_gateway, tmp_path, own_redis.port)
    count = 10_000 if os.environ.get("FULL_COUNT") else 2_000
    requests = [post("/v2/models/digits/infer", BODIES[n % 50], x_routing_key=f"key-{n}") for n in range(count)]
    before, began = own_redis.calls(), monotonic()
    answers = send_all(gateway.data_url, requests, 16)
    calls, seconds = own_redis.calls() - before, monotonic() - began
    assert {answer.status for answer in answers} == {200}
    # Two workers ask for the head 20 times a second, the control process looks a few times, whatever the load.
    assert calls < 80 * seconds + count / 10
