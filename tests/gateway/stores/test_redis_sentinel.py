"""The rules store behind Sentinels: real ones that fail over, and listeners that answer as Sentinels in trouble do."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import monotonic

import pytest
from msgspec import Struct

from gateway.errors import RevisionConflict, RulesUnavailable
from gateway.ports import ChangeSet, Head, Write
from gateway.stores.rules_redis import RedisRules
from tests.gateway.stores.telling import Says, Telling
from tests.redis_servers import RedisServer

SERVICE = "rules"
SENTINELS = 3


def setting(operation_id: str, expect: int) -> ChangeSet:
    return ChangeSet(operation_id, "ann", "", 1, (Write("route", "fraud", b"{}", expect),))


# ── real Sentinels ───────────────────────────────────────────────────────────────────────────────────────────────


class Watched(Struct, frozen=True):
    """A primary, its replica, and the Sentinels that watch them."""

    primary: RedisServer
    replica: RedisServer
    sentinels: tuple[RedisServer, ...]

    @property
    def url(self) -> str:
        places = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{places}/{SERVICE}/0"


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    started: list[RedisServer] = []

    def start(name: str, **options: object) -> RedisServer:
        started.append(RedisServer(tmp_path / name, **options))  # type: ignore[arg-type] # `sentinel` among them
        return started[-1]

    try:
        primary = start("primary", repl_diskless_sync_delay=0)
        replica = start("replica", replicaof=f"127.0.0.1 {primary.port}")
        replica.wait_until("ROLE", says="connected")
        sentinels = [start(f"sentinel-{number}", sentinel=True) for number in range(SENTINELS)]
        for sentinel in sentinels:
            sentinel.wait_until("ROLE", says="sentinel")
            sentinel.command("SENTINEL", "MONITOR", SERVICE, "127.0.0.1", primary.port, 2)
            sentinel.command("SENTINEL", "SET", SERVICE, "down-after-milliseconds", 300)
            sentinel.command("SENTINEL", "SET", SERVICE, "failover-timeout", 2000)
        for sentinel in sentinels:
            sentinel.wait_until("SENTINEL", "MASTER", SERVICE, says="'num-other-sentinels', '2'")
            sentinel.wait_until("SENTINEL", "REPLICAS", SERVICE, says=str(replica.port))
        yield Watched(primary, replica, tuple(sentinels))
    finally:
        for server in started:
            server.kill()


def test_changes_go_on_after_the_primary_was_killed(watched: Watched) -> None:
    async def scenario() -> None:
        store = RedisRules(watched.url)
        try:
            head = await store.initialise()
            listening = store.notices()
            await anext(listening)
            for number in range(3):
                assert await store.apply(setting(f"op-{number}", number)) == number + 1
            assert watched.primary.command("WAIT", 1, 5000) == 1
            watched.primary.kill()
            with pytest.raises(RulesUnavailable, match=f"{SERVICE} .as told by the Sentinels at 127"):
                await store.apply(setting("op-3", 3))
            with pytest.raises(RulesUnavailable):
                async for _ in listening:
                    pass  # what was announced before the end
            deadline = monotonic() + 20
            while True:
                try:
                    assert await store.apply(setting("op-3", 3)) == 4
                    break
                except RulesUnavailable:
                    assert monotonic() < deadline
                    await asyncio.sleep(0.05)
            assert await store.head() == Head(head.epoch, 4)
            assert "fraud" in str(watched.replica.command("HKEYS", "{pm}:routes"))
            again = store.notices()
            await anext(again)
            assert await store.apply(setting("op-4", 4)) == 5
            await anext(again)
            await again.aclose()
        finally:
            await store.close()

    asyncio.run(scenario())


def test_changes_go_on_after_the_sentinels_have_moved_the_primary(watched: Watched) -> None:
    async def scenario() -> None:
        store = RedisRules(watched.url)
        try:
            await store.initialise()
            watched.primary.wait_until("WAIT", 1, 5000, says="1")
            watched.sentinels[0].command("SENTINEL", "FAILOVER", SERVICE)
            number, moved = 0, False
            deadline = monotonic() + 20
            while not moved or number < 20:
                assert monotonic() < deadline
                try:
                    number = await store.apply(setting(f"op-{number}", number))
                except RulesUnavailable:  # in between nobody takes changes
                    await asyncio.sleep(0.02)
                except RevisionConflict as lost:  # the old primary took one that the new one never got
                    number = lost.current or 0
                moved = "master" in str(watched.replica.command("ROLE"))
        finally:
            await store.close()

    asyncio.run(scenario())


# ── Sentinels in trouble ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A primary without Sentinels."""
    one = RedisServer(tmp_path / "server")
    try:
        one.wait_until("ROLE", says="master")
        yield one
    finally:
        one.kill()


@asynccontextmanager
async def told_by(*telling: Telling, options: str = "", timeout_s: float = 1.0) -> AsyncIterator[RedisRules]:
    """Open a store behind these Sentinels."""
    async with AsyncExitStack() as stack:
        for one in telling:
            await stack.enter_async_context(one.running())
        places = ",".join(f"127.0.0.1:{one.port}" for one in telling)
        store = RedisRules(f"redis+sentinel://{places}/{SERVICE}{options}", timeout_s=timeout_s)
        stack.push_async_callback(store.close)
        yield store


def test_sentinels_that_are_silent_or_gone_cost_nothing_when_most_of_them_answer(server: RedisServer) -> None:
    async def scenario() -> None:
        telling = [Telling("silence"), Telling(server.port), Telling(server.port)]
        async with told_by(*telling, timeout_s=5) as store:
            begun = monotonic()
            assert (await store.initialise()).revision == 0
            assert monotonic() - begun < 1.9  # a bound: waiting for the silent one would take 2 s

    asyncio.run(scenario())


def test_primary_is_whom_most_sentinels_name_when_one_of_them_is_cut_off(server: RedisServer) -> None:
    async def scenario() -> None:
        cut_off = Telling(1)  # and the first to answer
        async with told_by(cut_off, *(Telling(server.port, after=cut_off) for _ in range(2))) as store:
            assert (await store.initialise()).revision == 0

    asyncio.run(scenario())


def test_one_sentinel_is_enough_when_the_others_do_not_answer(server: RedisServer) -> None:
    async def scenario() -> None:
        async with told_by(Telling("silence"), Telling(None), Telling(server.port), timeout_s=0.5) as store:
            assert (await store.initialise()).revision == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("says", [None, "silence"], ids=["they do not know the service", "they do not answer"])
def test_store_is_unavailable_in_bounded_time_when_no_sentinel_names_a_primary(says: Says) -> None:
    async def scenario() -> None:
        async with told_by(Telling(says), Telling(says), timeout_s=0.3) as store:
            begun = monotonic()
            with pytest.raises(RulesUnavailable, match="no Sentinel names a primary of rules"):
                await store.head()
            assert monotonic() - begun < 5.0  # a bound, not a measurement

    asyncio.run(scenario())


def test_server_that_is_a_replica_is_not_taken_for_the_primary(server: RedisServer) -> None:
    async def scenario() -> None:
        server.command("REPLICAOF", "127.0.0.1", "1")
        async with told_by(Telling(server.port)) as store:
            with pytest.raises(RulesUnavailable, match="is a replica; no new primary is known yet"):
                await store.head()
            server.command("REPLICAOF", "NO", "ONE")
            assert await store.head() is None

    asyncio.run(scenario())


def test_password_of_the_sentinels_is_theirs_alone_and_is_not_repeated(server: RedisServer) -> None:
    async def scenario() -> None:
        server.command("ACL", "SETUSER", "ann", "on", ">data-7", "~*", "&*", "+@all", "-role", "-info")
        server.command("CONFIG", "SET", "requirepass", "data-6")
        telling = Telling(server.port, password="watch-7")
        async with told_by(telling, options="?sentinel_password=swordfish") as store:
            with pytest.raises(RulesUnavailable, match="refuses the user or password of redis_url") as refused:
                await store.head()
            assert "swordfish" not in str(refused.value)
        async with told_by(telling, options="?sentinel_password=watch-7") as store:
            with pytest.raises(RulesUnavailable, match="refuses the user or password"):
                await store.head()
            good = RedisRules(
                f"redis+sentinel://ann:data-7@127.0.0.1:{telling.port}/{SERVICE}?sentinel_password=watch-7"
            )
            try:
                assert (await good.initialise()).revision == 0
            finally:
                await good.close()

    asyncio.run(scenario())


def test_call_that_is_cancelled_while_the_sentinels_are_asked_ends_at_once() -> None:
    async def scenario() -> None:
        async with told_by(Telling("silence"), timeout_s=60) as store:
            calling = asyncio.create_task(store.head())
            await asyncio.sleep(0)
            calling.cancel()
            async with asyncio.timeout(10):
                with pytest.raises(asyncio.CancelledError):
                    await calling

    asyncio.run(scenario())
