"""Fixtures of the end-to-end tests: gateways of real processes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.own_redis import OwnRedis
from tests.e2e.running_gateway import RunningGateway


@pytest.fixture
def start_gateway(tmp_path: Path) -> Iterator[Callable[..., RunningGateway]]:
    """Start gateways by name; all of them are ended after the test."""
    started: list[RunningGateway] = []

    def start(name: str = "gateway", *options: str) -> RunningGateway:
        gateway = RunningGateway(tmp_path / name, *options)
        started.append(gateway)
        return gateway

    yield start
    for gateway in started:
        gateway.close()


@pytest.fixture(scope="module")
def digits_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """One gateway with the example models, shared by the tests of a file that do not change its rules."""
    gateway = RunningGateway(tmp_path_factory.mktemp("shared"), "--examples", "--workers", "2")
    yield gateway
    gateway.close()


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[OwnRedis]:
    """A rules store that a test may do anything to."""
    server = OwnRedis(tmp_path / "redis")
    yield server
    server.stop()
