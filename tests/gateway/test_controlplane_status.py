"""Status: the store, every worker of every gateway and what waits to be confirmed, also while the store is silent."""

import asyncio
import os
import time

from gateway.controlplane import Braked, Terms, WorkerStatus
from gateway.metrics import Slot
from gateway.ports import Acknowledgement, Head
from gateway.standings import Standings, standings_path
from gateway.trips import Trip, trips_path, write_trips
from tests.conftest import until
from tests.gateway.conftest import Bench, RunBench
from tests.gateway.control import HALVES, WHOLE, Control, origin, route


async def in_force(bench: Bench) -> Control:
    await bench.write(bench.version("fraud", "1"), bench.version("fraud", "2"))
    control = Control(bench)
    await control.plane.put_route("fraud", route(WHOLE), None, origin("begin"))
    return control


async def workers(control: Control) -> dict[str, WorkerStatus]:
    return {one.worker: one for one in (await control.plane.status()).workers}


def test_every_gateway_and_worker_is_shown_with_what_it_has_since_when_and_what_is_wrong(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        control = await in_force(bench)
        began_ns = time.time_ns()
        follower = await bench.worker("other-w0").follow()
        follower.board[Slot.READY] = 1  # as its data plane does
        await bench.healthy("other-w0", 2)
        bench.adding.artifact("fraud", "2").write_text("no longer that", encoding="utf-8")
        await bench.write(bench.route("fraud", HALVES))
        await bench.acknowledgement("other-w0", 3, lambda problems: problems)
        status = await control.plane.status()
        head = await bench.store.head()
        assert (status.gateway, status.store.answering, status.store.head) == ("gw", True, head)
        assert (status.store.why, status.store.in_doubt) == (None, None)
        (worker,) = status.workers
        assert (worker.worker, worker.own, worker.alive, worker.ready) == ("other-w0", False, True, True)
        assert (worker.revision, worker.epoch) == (3, head.epoch if head else None)
        assert "version 2 cannot be prepared" in worker.problems["fraud"]
        assert worker.since_ns is not None
        assert began_ns - 10**9 < worker.since_ns <= time.time_ns()
        assert worker.rules_age_ms is not None

    run_bench(scenario)


def test_worker_that_fell_silent_is_shown_as_not_alive_with_its_last_word(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        control = await in_force(bench)
        said = '1700000000000 {"epoch": "e", "revision": 1, "problems": {}}'
        bench.valkey.command("HSET", "{pm}:acks", "elsewhere/w0", said)
        worker = (await workers(control))["elsewhere/w0"]
        assert (worker.alive, worker.ready, worker.revision) == (False, False, 1)
        assert worker.said_ms is not None
        assert worker.said_ms > 10**9

    run_bench(scenario)


def test_worker_that_refuses_newer_rules_is_shown_with_its_alarm(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        control = await in_force(bench)
        follower = await bench.worker("other-w0").follow()
        await bench.healthy("other-w0", 2)
        bench.valkey.command("HSET", "{pm}:head", "revision", "1")
        await until(lambda: follower.alarm)
        async with asyncio.timeout(10):
            while True:
                if (await workers(control))["other-w0"].alarms:
                    break
                await asyncio.sleep(0.01)
        await control.watch.look()
        status = await control.plane.status()
        assert "went back to revision 1" in status.workers[0].alarms["store"]
        assert status.workers[0].rules_age_ms is None
        assert status.store.in_doubt is not None
        assert (status.store.head, status.store.known) == (
            Head(follower.snapshot.head.epoch, 1),
            follower.snapshot.head,
        )

    run_bench(scenario)


def test_unconfirmed_changes_are_shown_with_the_time_that_is_left(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        control = await in_force(bench)
        await control.plane.put_route("fraud", route(HALVES), 2, origin("op-1"), Terms(confirm_within_ms=60_000))
        (waiting,) = (await control.plane.status()).unconfirmed
        assert (waiting.revision, waiting.documents) == (3, (("route", "fraud"),))
        assert 0 < waiting.remaining_ms <= 60_000

    run_bench(scenario)


def test_workers_of_this_gateway_are_shown_by_their_boards_while_the_store_is_frozen(
    run_private_bench: RunBench,
) -> None:
    async def scenario(bench: Bench) -> None:
        control = await in_force(bench)
        now_ns = time.time_ns()
        board, gone = control.board(0), control.board(1)
        for slot, value in (
            (Slot.READY, 1),
            (Slot.RULES_REVISION, 2),
            (Slot.RULES_SINCE_NS, now_ns - 5 * 10**9),
            (Slot.RULES_CHECKED_NS, now_ns - 3 * 10**9),
            (Slot.RULES_ALARM, 1),
        ):
            board[slot] = gone[slot] = value
        gone[Slot.PID] = 0
        bench.valkey.freeze()
        async with asyncio.timeout(1.5):
            status = await control.plane.status()
        assert (status.store.answering, status.store.head, status.unconfirmed) == (False, None, ())
        assert "does not answer" in (status.store.why or "")
        assert status.store.known is not None
        assert status.store.known.revision == 2
        first, second = status.workers
        assert (first.worker, first.own, first.alive, first.ready) == ("gw/w0", True, True, True)
        assert (first.revision, first.since_ns, first.said_ms) == (2, now_ns - 5 * 10**9, None)
        assert first.rules_age_ms is not None
        assert 3_000 <= first.rules_age_ms < 10_000
        assert "log of the gateway" in first.alarms["rules"]
        assert (second.worker, second.alive, second.ready, second.revision) == ("gw/w1", False, False, None)
        bench.valkey.thaw()

    run_private_bench(scenario)


def test_what_a_worker_of_this_gateway_said_and_what_its_board_says_come_together(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        control = await in_force(bench)
        board = control.board(0)
        board[Slot.READY], board[Slot.RULES_REVISION], board[Slot.RULES_SINCE_NS] = 1, 2, time.time_ns()
        assert board[Slot.PID] == os.getpid()
        head = await bench.store.head()
        assert head is not None
        await bench.store.acknowledge(Acknowledgement("gw/w0", head, {"fraud": "why not"}, alarms={"store": "what"}))
        worker = (await workers(control))["gw/w0"]
        assert (worker.own, worker.alive, worker.ready, worker.epoch) == (True, True, True, head.epoch)
        assert (worker.problems, worker.alarms) == ({"fraud": "why not"}, {"store": "what"})
        assert worker.said_ms is not None

    run_bench(scenario)


def test_versions_in_trouble_are_shown_with_what_every_living_worker_tells_of_them(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        control = await in_force(bench)
        assert (await control.plane.status()).impaired == ()
        for index in range(3):
            tell(control, index)
        control.board(2)[Slot.PID] = 0
        one, two = (await control.plane.status()).impaired
        assert (one.model, one.version, one.limited) == ("fraud", "1", {"gw/w0": 9, "gw/w1": 8})
        assert (one.braked, one.ejected, one.unhealthy) == ({}, {}, {})
        assert (two.model, two.version, two.limited) == ("fraud", "2", {})
        assert two.braked == {"gw/w0": Braked(5, 8, 77), "gw/w1": Braked(5, 8, 77)}
        assert (two.ejected, two.unhealthy) == ({"gw/w1": 1}, {"gw/w0": 2, "gw/w1": 2})

    run_bench(scenario)


def tell(control: Control, index: int) -> None:
    """Have a worker tell of its versions; the first has no backend left out, and one that was."""
    control.board(index)
    standings = Standings(standings_path(control.run_folder, index))
    standing = standings.of("fraud", "2")
    standing.ejected, standing.unhealthy, standing.ejections = min(index, 1), 2, 4
    standings.of("fraud", "3").ejections = 1
    standings.limit({("fraud", "1"): 9 - index})
    standings.close()
    write_trips(trips_path(control.run_folder, f"worker-{index}"), [Trip("fraud", "2", 2, 5, 8, 77)])
