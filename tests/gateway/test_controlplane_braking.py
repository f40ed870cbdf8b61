"""Brakes that tripped in workers become one revision: real rules store, real workers' boards and files."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.controlplane import ControlPlane, Terms
from gateway.controlplane.braking import without
from gateway.metrics import Slot
from gateway.trips import Trip, read_trips, trips_path, write_trips
from routing import BASIS_POINTS, parse_route
from tests.gateway.conftest import Bench, RunBench
from tests.gateway.control import Control, origin, route
from tests.routing.test_decision_properties import splits

BRAKE = {"failures": 3, "of": 5}
THREE = {"1": 6_000, "2": 2_000, "3": 2_000}


@asynccontextmanager
async def watched(*planes: ControlPlane) -> AsyncIterator[None]:
    running = [asyncio.create_task(plane.braking.run(), name="braking") for plane in planes]
    try:
        yield
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def with_route(bench: Bench, split: Mapping[str, int] = THREE, gateway: str = "gw", **fields: Any) -> Control:
    await bench.write(*(bench.version("fraud", version) for version in split))
    control = Control(bench, gateway=gateway)
    await control.plane.put_route("fraud", route(split, **{"brake": BRAKE} | fields), None, origin("begin"))
    return control


def trip(control: Control, worker: int, *versions: str, revision: int = 2) -> None:
    """Have a worker tell that these versions failed by the route of a revision."""
    board = control.board(worker)
    board[Slot.VERSIONS_BRAKED] = len(versions)
    told = [Trip("fraud", version, revision, 3, 4, at_ns) for at_ns, version in enumerate(versions)]
    write_trips(trips_path(control.run_folder, f"worker-{worker}"), told)


async def revision(bench: Bench, number: int) -> dict[str, int]:
    """Wait until the route is at a revision, and return its split."""
    deadline = monotonic() + 10
    while True:
        stored = await bench.store.read("route", "fraud")
        if stored is not None and stored.revision >= number:
            split: dict[str, int] = json.loads(stored.json)["split"]
            return split
        assert monotonic() < deadline
        await asyncio.sleep(0.01)


async def settle(control: Control, turns: int = 3) -> None:
    """Let the control plane look at what workers tell now, several times."""
    for _ in range(turns):
        await control.plane.braking.look()


def test_a_tripped_brake_becomes_a_revision_that_says_who_and_why(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        control = await with_route(bench)
        trip(control, 0, "2")
        async with watched(control.plane):
            assert await revision(bench, 3) == {"1": 7_500, "2": 0, "3": 2_500}
        (made,) = await bench.store.history(2, 10)
        assert made.actor == "pointsman"
        assert made.comment == ("brake: version 2 failed 3 of its last 4 requests in worker-0, its share was 20 %")

    run_bench(scenario)


def test_however_many_workers_and_gateways_trip_at_once_it_is_one_revision(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        control = await with_route(bench)
        others = [Control(bench, gateway=f"gw-{number}") for number in range(3)]
        for one in (control, *others):
            for worker in range(2):
                trip(one, worker, "2")
        async with watched(*(one.plane for one in (control, *others))):
            await revision(bench, 3)
            await asyncio.gather(*(settle(one) for one in (control, *others)))
        assert [made.revision for made in await bench.store.history(2, 10)] == [3]

    run_bench(scenario)


def test_versions_that_fail_together_are_braked_together(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        control = await with_route(bench)
        trip(control, 0, "2")
        trip(control, 1, "3")
        await settle(control)
        assert await revision(bench, 3) == {"1": BASIS_POINTS, "2": 0, "3": 0}
        assert len(await bench.store.history(2, 10)) == 1

    run_bench(scenario)


def test_the_last_version_of_a_split_keeps_its_share_whatever_workers_tell(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        control = await with_route(bench, {"1": 5_000, "2": 5_000})
        trip(control, 0, "2")
        trip(control, 1, "1")
        await settle(control)
        assert sorted((await revision(bench, 3)).values()) == [0, BASIS_POINTS]

    run_bench(scenario)


def test_a_trip_by_an_older_route_changes_nothing(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        control = await with_route(bench)
        await control.plane.put_route("fraud", route(THREE, brake=BRAKE, timeout_ms=5), 2, origin("newer"))
        trip(control, 0, "2")
        await settle(control)
        assert await revision(bench, 3) == THREE

    run_bench(scenario)


def test_a_worker_that_is_gone_tells_nothing_any_more(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        control = await with_route(bench)
        trip(control, 0, "2")
        control.board(0)  # a new process has taken the board over
        await settle(control)
        assert await revision(bench, 2) == THREE

    run_bench(scenario)


def test_a_change_that_waits_to_be_confirmed_is_left_to_its_author(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        control = await with_route(bench)
        shaky = Terms(confirm_within_ms=60_000)
        more = route({"1": 5_000, "2": 3_000, "3": 2_000}, brake=BRAKE)
        await control.plane.put_route("fraud", more, 2, origin("shaky"), shaky)
        trip(control, 0, "2", revision=3)
        await settle(control)
        assert (await revision(bench, 3))["2"] == 3_000
        await control.plane.confirm("fraud", origin("confirm"))
        await settle(control)
        assert (await revision(bench, 4))["2"] == 0

    run_bench(scenario)


def test_artifacts_that_are_gone_do_not_keep_a_failing_version_in_traffic(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        control = await with_route(bench)
        for version in THREE:
            bench.adding.artifact("fraud", version).unlink()
        trip(control, 0, "2")
        await settle(control)
        assert (await revision(bench, 3))["2"] == 0

    run_bench(scenario)


# ── shares ───────────────────────────────────────────────────────────────────────────────────────────────────────


@given(splits(least=2), st.data())
def test_what_the_failing_had_goes_to_the_others_in_proportion(split: dict[str, int], data: st.DataObject) -> None:
    failing = data.draw(st.lists(st.sampled_from(sorted(split)), max_size=6))
    before = parse_route({"model": "fraud", "split": split})
    after, braked = without(before, failing)
    assert sum(after.values()) == BASIS_POINTS
    assert after.keys() == split.keys()
    assert set(braked) <= {version for version in failing if split[version]}
    assert all(after[version] == 0 for version in braked)
    total = sum(weight for version, weight in split.items() if version not in braked)
    assert total > 0
    for version, weight in split.items():
        if version not in braked:
            assert abs(after[version] - weight * BASIS_POINTS / total) < 1
    left = {version for version, weight in split.items() if weight and version not in failing}
    assert not left or set(braked) == {version for version in failing if split[version]}


# ── what workers tell ────────────────────────────────────────────────────────────────────────────────────────────


def test_trips_are_read_as_they_were_told(tmp_path: Path) -> None:
    path = trips_path(tmp_path, "worker-0")
    told = (Trip("fraud", "2", 7, 3, 5, 1), Trip("spam", "1", 9, 1, 1, 2))
    write_trips(path, told)
    assert read_trips(path) == told
    write_trips(path, ())
    assert read_trips(path) == ()


@pytest.mark.parametrize("content", [b"", b"[", b'[{"model": 1}]', b"\xff"])
def test_a_file_that_makes_no_sense_tells_nothing(tmp_path: Path, content: bytes) -> None:
    path = trips_path(tmp_path, "worker-0")
    assert read_trips(path) == ()
    path.write_bytes(content)
    assert read_trips(path) == ()


def test_a_brake_that_cannot_be_told_holds_all_the_same(tmp_path: Path) -> None:
    write_trips(trips_path(tmp_path / "missing", "worker-0"), ())
    assert not (tmp_path / "missing").exists()
