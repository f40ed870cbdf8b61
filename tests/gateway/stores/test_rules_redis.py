"""What is particular to Redis: servers that die, freeze, lose data or refuse us, and what is never said aloud."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest

from gateway.errors import RulesInDoubt, RulesUnavailable
from gateway.ports import Acknowledgement, ChangeSet, Head, Resettlement, StoredDocument, Write
from gateway.stores.rules_redis import RedisRules
from tests.conftest import RunningValkey, until
from tests.redis_servers import RedisServer, free_port

StartValkey = Callable[[], RunningValkey]


ROUTE = Write("route", "fraud", b"{}", 0)


def bus_port(server: RedisServer) -> int:
    """The port on which a node of a cluster talks to the others."""
    [node] = str(server.command("CLUSTER", "NODES")).splitlines()[:1]
    return int(node.split()[1].partition("@")[2].partition(",")[0])


def one_change(operation_id: str, expect: int = 0) -> ChangeSet:
    return ChangeSet(operation_id, "ann", "", 1, (Write("route", "fraud", b"{}", expect),))


def in_use(url: str, scenario: Callable[[RedisRules], object], timeout_s: float = 1.0) -> None:
    async def whole() -> None:
        store = RedisRules(url, timeout_s=timeout_s)
        try:
            await scenario(store)  # type: ignore[misc]
        finally:
            await store.close()

    asyncio.run(whole())


def test_every_call_fails_in_bounded_time_when_the_server_is_frozen(start_valkey: StartValkey) -> None:
    server = start_valkey()

    async def scenario(store: RedisRules) -> None:
        await store.initialise()
        server.freeze()
        begun = monotonic()
        calls = [
            store.head(),
            store.load(),
            store.read("route", "fraud"),
            store.apply(one_change("op")),
            store.acknowledge(Acknowledgement("w", Head("e", 0))),
            store.acknowledgements(),
            store.revisions(0, 1),
            store.history(0, 1),
            store.follows(),
            store.unconfirmed(),
            store.confirm(1),
            store.resettle(Resettlement("op-2", "ann", "", 1, "new", None, 0, {}, ())),
            anext(store.notices()),
        ]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert monotonic() - begun < 5.0  # a bound, not a measurement: 0.2 s would do
        assert [type(result) for result in results] == [RulesUnavailable] * len(calls)
        assert "does not answer within 0.2 s" in str(results[0])
        server.thaw()
        assert (await store.initialise()).revision == 0

    in_use(server.url, scenario, timeout_s=0.2)


def test_calls_work_again_at_once_when_the_server_was_killed_and_started_again(start_valkey: StartValkey) -> None:
    server = start_valkey()

    async def scenario(store: RedisRules) -> None:
        await store.initialise()
        await store.apply(one_change("op"))
        server.kill()
        with pytest.raises(RulesUnavailable, match=r"does not answer.*changes are refused"):
            await store.head()
        server.start()
        head = await store.head()
        assert head is not None
        assert head.revision == 1  # the change was acknowledged before the kill
        assert (await store.load()).head == head

    in_use(server.url, scenario)


def test_server_killed_while_a_connection_is_idle_costs_no_call(start_valkey: StartValkey) -> None:
    server = start_valkey()

    async def scenario(store: RedisRules) -> None:
        first = await store.initialise()
        server.kill()
        server.start()
        assert await store.head() == first
        assert await store.apply(one_change("op")) == 1

    in_use(server.url, scenario)


def test_every_acknowledged_change_survives_when_the_server_is_killed(start_valkey: StartValkey) -> None:
    server = start_valkey()
    acknowledged: list[int] = []

    async def scenario(store: RedisRules) -> None:
        await store.initialise()

        async def keep_changing() -> None:
            while True:
                revision = len(acknowledged)
                try:
                    acknowledged.append(await store.apply(one_change(f"op-{revision}", revision)))
                except RulesUnavailable:
                    return

        changing = asyncio.create_task(keep_changing())
        await until(lambda: len(acknowledged) >= 50)
        server.kill()
        await changing
        server.start()
        head = await store.head()
        assert head is not None
        assert head.revision in (len(acknowledged), len(acknowledged) + 1)  # one may have been made without its answer

    in_use(server.url, scenario)


def test_more_callers_than_connections_wait_for_their_turn(valkey: RunningValkey) -> None:
    async def scenario(store: RedisRules) -> None:
        await store.initialise()
        found = await asyncio.gather(*(store.read("route", "fraud") for _ in range(200)))
        assert found == [None] * 200

    in_use(valkey.url, scenario)


def test_password_is_nowhere_in_the_error_when_the_server_refuses_it(start_valkey: StartValkey) -> None:
    server = start_valkey()
    server.command("CONFIG", "SET", "requirepass", "the-right-one")
    url = server.url.replace("unix://", "unix://:swordfish-7@")

    async def scenario(store: RedisRules) -> None:
        for call in (store.head, store.load, store.initialise):
            with pytest.raises(RulesUnavailable, match="refuses the user or password") as refused:
                await call()
            error: BaseException | None = refused.value
            while error is not None:  # nor in what a traceback would show
                assert "swordfish" not in repr(error)
                assert error.__suppress_context__ or error.__context__ is None
                error = error.__cause__

    in_use(url, scenario)


def test_right_password_is_accepted(start_valkey: StartValkey) -> None:
    server = start_valkey()
    server.command("CONFIG", "SET", "requirepass", "swordfish/7")

    async def scenario(store: RedisRules) -> None:
        assert (await store.initialise()).revision == 0

    in_use(server.url.replace("unix://", "unix://:swordfish%2F7@"), scenario)


def test_server_that_is_not_there_is_named_without_its_password() -> None:
    async def scenario(store: RedisRules) -> None:
        with pytest.raises(RulesUnavailable, match=r"127\.0\.0\.1:1 does not answer") as refused:
            await store.head()
        assert "swordfish" not in str(refused.value)

    in_use("redis://ann:swordfish@127.0.0.1:1/0", scenario)


def test_password_is_masked_when_the_server_itself_repeats_it() -> None:
    """Redis does, where AUTH is renamed or disabled: unknown command 'AUTH', with args beginning with: …"""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"swordfish-7")
        writer.write(b"-ERR unknown command 'AUTH', with args beginning with: 'swordfish-7'\r\n")
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async def scenario() -> None:
        server = await asyncio.start_server(refuse, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        store = RedisRules(f"redis://:swordfish-7@127.0.0.1:{port}/0")
        try:
            with pytest.raises(RulesUnavailable, match=r"unknown command 'AUTH'.*'\*\*\*'") as refused:
                await store.head()
            assert "swordfish" not in str(refused.value)
        finally:
            await store.close()
            server.close()
            await server.wait_closed()

    asyncio.run(scenario())


def test_no_new_epoch_is_begun_when_the_head_is_lost_and_documents_are_not(valkey: RunningValkey) -> None:
    async def scenario(store: RedisRules) -> None:
        await store.initialise()
        await store.apply(one_change("op"))
        valkey.command("DEL", "{pm}:head")
        assert await store.head() is None
        for call in (store.initialise(), store.apply(one_change("op-2", 1))):
            with pytest.raises(RulesInDoubt, match="lost its head"):
                await call

    in_use(valkey.url, scenario)


def test_nothing_is_changed_when_the_history_is_ahead_of_the_head(valkey: RunningValkey) -> None:
    async def scenario(store: RedisRules) -> None:
        await store.initialise()
        await store.apply(one_change("op-1"))
        await store.apply(one_change("op-2", 1))
        valkey.command("HSET", "{pm}:head", "revision", "1")
        with pytest.raises(RulesUnavailable, match="refuses the command"):
            await store.apply(one_change("op-3", 2))
        stored = await store.read("route", "fraud")
        assert stored is not None
        assert stored.revision == 2
        assert await store.head() == Head((await store.initialise()).epoch, 1)

    in_use(valkey.url, scenario)


def test_value_that_no_change_has_written_can_be_replaced(valkey: RunningValkey) -> None:
    async def scenario(store: RedisRules) -> None:
        await store.initialise()
        valkey.command("HSET", "{pm}:routes", "fraud", "what is this")
        assert (await store.load()).documents["route", "fraud"].revision == 0
        assert await store.apply(one_change("op")) == 1
        assert await store.read("route", "fraud") == StoredDocument(1, b"{}")

    in_use(valkey.url, scenario)


def test_heartbeats_are_not_written_to_the_append_only_file(start_valkey: StartValkey) -> None:
    server = start_valkey()

    def written() -> bytes:
        information = server.command("INFO", "persistence")
        return next(line for line in information.splitlines() if line.startswith(b"aof_current_size:"))

    async def scenario(store: RedisRules) -> None:
        await store.initialise()
        before = written()
        for _ in range(20):
            await store.acknowledge(Acknowledgement("w", Head("e", 1), {"fraud": "x" * 100}))
        assert len(await store.acknowledgements()) == 1
        assert written() == before

    in_use(server.url, scenario)


def test_worker_silent_for_ten_minutes_is_forgotten_when_a_new_one_comes(valkey: RunningValkey) -> None:
    async def scenario(store: RedisRules) -> None:
        said = json.dumps({"epoch": "e", "revision": 1, "problems": {}})
        valkey.command("HSET", "{pm}:acks", "long-gone", f"1700000000000 {said}", "no-worker", "what is this")
        assert [one.worker for one in await store.acknowledgements()] == ["long-gone"]
        await store.acknowledge(Acknowledgement("w", Head("e", 1)))
        assert [one.worker for one in await store.acknowledgements()] == ["w"]

    in_use(valkey.url, scenario)


def test_new_life_begins_in_a_store_that_lost_its_head_and_goes_beyond_its_history(valkey: RunningValkey) -> None:
    async def scenario(store: RedisRules) -> None:
        await store.initialise()
        for number in range(4):
            await store.apply(one_change(f"op-{number}", number))
        for broken in (("DEL", "{pm}:head"), ("HSET", "{pm}:head", "epoch", "e", "revision", "what is this")):
            valkey.command(*broken)
            assert await store.head() is None
            last = (await store.history(0, 10))[-1].revision
            settled = Resettlement(f"after-{last}", "ann", "", 1, f"life-{last}", None, 0, {}, (ROUTE,))
            assert await store.resettle(settled) == Head(f"life-{last}", last + 1) == await store.head()
            assert await store.read("route", "fraud") == StoredDocument(last + 1, b"{}")

    in_use(valkey.url, scenario)


def test_new_life_goes_beyond_a_history_that_is_ahead_of_the_head(valkey: RunningValkey) -> None:
    async def scenario(store: RedisRules) -> None:
        head = await store.initialise()
        for number in range(4):
            await store.apply(one_change(f"op-{number}", number))
        valkey.command("HSET", "{pm}:head", "revision", "1")
        valkey.command("XDEL", "{pm}:changes", "4-0")  # what was deleted counts too
        settled = Resettlement("after", "ann", "", 1, "new", Head(head.epoch, 1), 0, {}, (ROUTE,))
        assert await store.resettle(settled) == Head("new", 5)
        assert await store.apply(one_change("op-5", 5)) == 6

    in_use(valkey.url, scenario)


@pytest.mark.parametrize("broken", ["what is this", "7", '{"a": 1}', '["a"]', '[["a", "b"]]', "null"])
def test_earlier_lives_that_are_not_to_be_understood_count_as_none(valkey: RunningValkey, broken: str) -> None:
    async def scenario(store: RedisRules) -> None:
        head = await store.initialise()
        valkey.command("HSET", "{pm}:head", "follows", broken)
        assert await store.follows() == {}
        settled = Resettlement("op", "ann", "", 1, "new", head, 0, {head.epoch: 0}, ())
        assert await store.resettle(settled) == Head("new", 1)
        assert await store.follows() == {head.epoch: 0}

    in_use(valkey.url, scenario)


def test_unconfirmed_changes_that_no_gateway_has_written_hold_nothing(valkey: RunningValkey) -> None:
    async def scenario(store: RedisRules) -> None:
        head = await store.initialise()
        await store.apply(one_change("op-1"))
        for field, value in (("1", "what is this"), ("2", "12 [7, [8, {}]]"), ("x", "1 []")):
            valkey.command("HSET", "{pm}:unconfirmed", field, value)
        valkey.command("HSET", "{pm}:held", "route fraud", "77")  # by a revision that does not wait
        assert await store.unconfirmed() == []
        assert await store.apply(one_change("op-2", 1)) == 2
        assert await store.confirm(1) is True
        settled = Resettlement("op", "ann", "", 1, "new", Head(head.epoch, 2), 0, {}, (ROUTE,))
        assert await store.resettle(settled) == Head("new", 3)

    in_use(valkey.url, scenario)


def test_acknowledgement_of_a_worker_of_another_release_is_read(valkey: RunningValkey) -> None:
    async def scenario(store: RedisRules) -> None:
        said = json.dumps({"epoch": "e", "revision": 1, "problems": {}})
        newer = said[:-1] + ', "more": 1}'
        valkey.command("HSET", "{pm}:acks", "older", f"1700000000000 {said}", "newer", f"1700000000000 {newer}")
        read = await store.acknowledgements()
        assert [one.worker for one in read] == ["newer", "older"]
        for one in read:
            assert (one.head, one.since_ms, dict(one.alarms), one.ready) == (Head("e", 1), 0, {}, True)

    in_use(valkey.url, scenario)


# ── notices ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_notices_end_with_an_error_when_the_server_is_killed_and_begin_again_with_the_next(
    start_valkey: StartValkey,
) -> None:
    server = start_valkey()

    async def scenario(store: RedisRules) -> None:
        await store.initialise()
        async with asyncio.timeout(20):
            listening = store.notices()
            await anext(listening)
            server.kill()
            with pytest.raises(RulesUnavailable, match="does not answer"):
                await anext(listening)
            with pytest.raises(RulesUnavailable):
                await anext(store.notices())
            server.start()
            again = store.notices()
            await anext(again)
            await store.apply(one_change("op"))
            await anext(again)
            await again.aclose()

    in_use(server.url, scenario)


@pytest.mark.parametrize("how", ["closed", "cancelled"])
def test_connection_of_notices_ends_with_them(valkey: RunningValkey, how: str) -> None:
    def subscribers() -> bytes:
        return valkey.command("PUBSUB", "NUMSUB", "{pm}:notice").splitlines()[-1]

    async def scenario(store: RedisRules) -> None:
        listening = store.notices()
        await anext(listening)
        assert subscribers() == b":1"
        if how == "closed":
            await listening.aclose()
        else:
            waiting = asyncio.create_task(anext(listening))
            await asyncio.sleep(0)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
        await until(lambda: subscribers() == b":0")

    in_use(valkey.url, scenario)


def test_server_that_refuses_the_password_ends_notices_at_once(start_valkey: StartValkey) -> None:
    server = start_valkey()
    server.command("CONFIG", "SET", "requirepass", "the-right-one")

    async def scenario(store: RedisRules) -> None:
        with pytest.raises(RulesUnavailable, match="refuses the user or password"):
            await anext(store.notices())

    in_use(server.url, scenario)


# ── replicas and clusters ────────────────────────────────────────────────────────────────────────────────────────


def test_change_is_refused_when_the_server_has_become_a_replica(start_valkey: StartValkey) -> None:
    server = start_valkey()

    async def scenario(store: RedisRules) -> None:
        await store.initialise()
        server.command("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(RulesUnavailable, match="is a replica and takes no changes"):
            await store.apply(one_change("op"))
        server.command("REPLICAOF", "NO", "ONE")
        assert await store.apply(one_change("op")) == 1

    in_use(server.url, scenario)


def test_node_of_a_cluster_without_the_rules_names_the_one_that_has_them(tmp_path: Path) -> None:
    nodes: list[RedisServer] = []
    try:
        for name in ("a", "b"):
            node = RedisServer(tmp_path / name, cluster_enabled="yes", cluster_port=free_port())
            nodes.append(node)
            node.wait_until("ECHO", "ready", says="ready")
        here, there = nodes
        here.command("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
        there.command("CLUSTER", "MEET", "127.0.0.1", here.port, bus_port(here))
        there.wait_until("CLUSTER", "INFO", says="cluster_state:ok")

        async def scenario(store: RedisRules) -> None:
            with pytest.raises(RulesUnavailable, match=f"name that one in redis_url: 127.0.0.1:{here.port}"):
                await store.initialise()

        in_use(there.url, scenario)
    finally:
        for node in nodes:
            node.kill()
