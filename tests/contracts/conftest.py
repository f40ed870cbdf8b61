"""Every implementation that the contracts run over."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.ports import AuditStore, RulesStore
from gateway.stores.rules_redis import RedisRules
from tests.conftest import RunningValkey
from tests.contracts.audit_store import STORES, OpenAudit
from tests.contracts.rules_store import OpenStore
from tests.redis_servers import RedisServer, free_port, make_cluster


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A real server in cluster mode: it refuses a script whose keys are not declared or lie in several slots."""
    server = RedisServer(tmp_path_factory.mktemp("cluster"), cluster_enabled="yes", cluster_port=free_port())
    try:
        make_cluster(server)
        yield server
    finally:
        server.kill()


@pytest.fixture(params=["redis", "redis cluster"])
def open_store(request: pytest.FixtureRequest, valkey: RunningValkey) -> OpenStore:
    """Open empty rules stores; add an implementation here."""
    url = valkey.url
    if request.param == "redis cluster":
        server: RedisServer = request.getfixturevalue("cluster")
        server.command("FLUSHALL")
        url = server.url

    def open_redis(history_kept: int = 1000) -> RulesStore:
        return RedisRules(url, history_kept=history_kept)

    return open_redis


@pytest.fixture(params=sorted(STORES))
def open_audit(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OpenAudit]:
    """Open the test's audit store, as often as the test likes; see `audit_store.STORES` for adding one."""
    open_it = STORES[request.param](request, tmp_path)
    opened: list[AuditStore] = []

    def open_one() -> AuditStore:
        opened.append(open_it())
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def audit(open_audit: OpenAudit) -> AuditStore:
    """The test's audit store, empty."""
    return open_audit()
