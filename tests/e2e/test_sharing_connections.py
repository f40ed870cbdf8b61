"""Connections go to every worker alike, and none is lost or refused when the worker that it was dealt to is missing."""

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from gateway.examples import digit_samples
from tests.e2e.own_redis import OwnRedis, settings_file
from tests.e2e.raw_client import get, post, send_all
from tests.e2e.running_gateway import RunningGateway, digit_request, wait_until

Start = Callable[..., RunningGateway]
INFER = "/v2/models/digits/infer"
ASK = digit_request(digit_samples()[0].pixels)
OPEN = 'pointsman_open_connections{{worker="worker-{}"}}'
PATIENCE = 15.0  # of a caller; a connection that nobody accepts waits for ever


def statuses(gateway: RunningGateway, count: int) -> set[int]:
    """Ask on `count` new connections, one after the other."""
    found = set()
    for _ in range(count):
        with httpx2.Client(trust_env=False, timeout=PATIENCE) as client:
            found.add(client.post(gateway.data_url + INFER, json=ASK).status_code)
    return found


def worker(gateway: RunningGateway, index: int) -> int:
    return gateway.child_pid(f"app worker {index}")


def is_back(gateway: RunningGateway, index: int, before: int) -> bool:
    """Tell whether another process is there, and ready."""
    pids = [pid for pid, command in gateway.children().items() if f"app worker {index}" in command]
    ready = gateway.metrics()[f'pointsman_worker_ready{{worker="worker-{index}"}}']
    return bool(pids) and pids != [before] and ready == 1


def test_two_workers_share_keep_alive_connections_about_evenly(digits_gateway: RunningGateway) -> None:
    parts = urlsplit(digits_gateway.data_url)
    with ExitStack() as opened:
        for _ in range(200):
            opened.enter_context(socket.create_connection((parts.hostname, parts.port), 10))

        def shared_out() -> bool:
            metrics = digits_gateway.metrics()
            one, other = (metrics[OPEN.format(index)] for index in range(2))
            return one + other >= 200 and min(one, other) >= 50  # by chance fewer: once in 10¹² runs

        wait_until(shared_out, "both workers have their part of the connections")
        assert statuses(digits_gateway, 20) == {200}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_nobody_who_connects_while_a_worker_is_replaced_notices(start_gateway: Start, number: int) -> None:
    gateway = start_gateway("gateway", "--examples", "--workers", "2")
    assert statuses(gateway, 1) == {200}
    before = worker(gateway, 0)
    os.kill(before, number)
    found: set[int] = set()

    def replaced() -> bool:
        found.update(statuses(gateway, 5))
        return is_back(gateway, 0, before)

    wait_until(replaced, "the worker is back")
    assert found | statuses(gateway, 50) == {200}


def test_connections_of_a_worker_that_is_stuck_are_answered_by_the_other(digits_gateway: RunningGateway) -> None:
    stuck = worker(digits_gateway, 1)
    with stopped(stuck):
        assert statuses(digits_gateway, 50) == {200}
    assert statuses(digits_gateway, 10) == {200}


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_callers_are_told_that_nobody_is_ready_rather_than_left_waiting(
    own_redis: OwnRedis, tmp_path: Path, start_gateway: Start
) -> None:
    config = settings_file(tmp_path, own_redis.url)
    gateway = start_gateway("gateway", "--config", str(config), "--workers", "2")
    assert gateway.stop() == 0
    own_redis.stop()
    gateway.start(ready=False)
    url = gateway.data_url
    live, ready, infer = send_all(url, [get("/v2/health/live"), get("/v2/health/ready"), post(INFER, b"{}")], 3)
    assert (live.status, ready.status, infer.status) == (200, 503, 503)
    assert b"rules" in infer.body
    own_redis.start()
    wait_until(lambda: gateway.log("ready")[1:], "it is ready when the rules store is there")
    assert send_all(url, [get("/v2/health/ready")] * 10, 10)[0].status == 200
