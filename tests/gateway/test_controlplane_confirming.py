"""Changes on condition that somebody confirms them: confirmed, rolled back, or taken back when their time is over."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from gateway.controlplane import ControlPlane, Terms
from gateway.errors import DocumentNotFound, RevisionConflict, RulesUnavailable, UnconfirmedChange
from gateway.ports import ChangeSet, Kind, Write
from tests.gateway.conftest import Bench, RunBench
from tests.gateway.control import (
    HALVES,
    WHOLE,
    WORKERS_WAIT_S,
    Control,
    cohort,
    origin,
    outcomes,
    plane_of,
    route,
    two_versions,
)

SECOND, LONG = Terms(confirm_within_ms=1_000), Terms(confirm_within_ms=60_000)


async def with_route(bench: Bench) -> ControlPlane:
    plane = await two_versions(bench)
    await plane.put_route("fraud", route(WHOLE), None, origin("begin"))
    return plane


async def split_of(plane: ControlPlane) -> dict[str, int]:
    split: dict[str, int] = json.loads((await plane.route("fraud")).json)["split"]
    return split


async def write_due(bench: Bench, kind: Kind, name: str, document: bytes) -> int:
    """Write a document past the plane, to be taken back at once; the shortest time that the plane gives is a second."""
    present = await bench.store.read(kind, name)
    write = Write(kind, name, document, present.revision if present is not None else 0)
    return await bench.store.apply(ChangeSet("due", "bench", "", 1, (write,), confirm_within_ms=1))


@asynccontextmanager
async def watched(*planes: ControlPlane) -> AsyncIterator[None]:
    """Run the watchers of several control processes."""
    running = [asyncio.create_task(plane.confirmations.run(), name="confirmations") for plane in planes]
    try:
        yield
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


async def settled(bench: Bench, beyond: int) -> None:
    """Wait until nothing is unconfirmed and the head is beyond a revision."""
    async with asyncio.timeout(10):
        while True:
            with suppress(RulesUnavailable):
                head = await bench.store.head()
                if head is not None and head.revision > beyond and not await bench.store.unconfirmed():
                    return
            await asyncio.sleep(0.01)


def test_unconfirmed_change_is_in_force_at_once_and_reverts_itself_once_however_many_watch(
    run_bench: RunBench,
) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await with_route(bench)
        worker = await bench.worker().follow()
        await bench.healthy("w0", 2)
        plane = plane_of(bench, wait_s=WORKERS_WAIT_S)
        others = [Control(bench, gateway=f"gw-{n}").plane for n in range(2)]
        made = await plane.put_route("fraud", route(HALVES), 2, origin("op-1"), SECOND)
        assert (made.in_force, made.confirm_within_ms) == (True, 1_000)
        assert worker.snapshot.routes["fraud"].route.split == HALVES
        async with watched(plane, *others):
            await settled(bench, made.revision)
        assert await split_of(plane) == WHOLE
        (reverted,) = await bench.store.history(made.revision, 10)
        assert (reverted.actor, reverted.comment) == (
            "pointsman",
            f"revision {made.revision} was not confirmed in time",
        )
        await worker.reach(reverted.revision)
        assert worker.snapshot.routes["fraud"].route.split == WHOLE

    run_bench(scenario)


def test_process_that_made_the_change_may_die(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await with_route(bench)
        made = await write_due(bench, "route", "fraud", route(HALVES))
        assert await split_of(plane) == HALVES
        successor = Control(bench, gateway="another").plane
        async with watched(successor):
            await settled(bench, made)
        assert await split_of(successor) == WHOLE

    run_bench(scenario)


def test_confirmed_change_stands(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await with_route(bench)
        made = await plane.put_route("fraud", route(HALVES), 2, origin("op-1"), SECOND)
        assert await plane.confirm("fraud", origin("op-2")) == made.revision
        assert await bench.store.unconfirmed() == []
        with pytest.raises(DocumentNotFound, match="no change of model fraud waits to be confirmed"):
            await plane.confirm("fraud", origin("op-3"))
        assert (await plane.put_route("fraud", route(WHOLE), 3, origin("op-4"))).revision == 4

    run_bench(scenario)


def test_nobody_builds_upon_an_unconfirmed_change_and_is_told_what_to_do(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await with_route(bench)
        await plane.put_route("fraud", route(HALVES), 2, origin("op-1"), LONG)
        for terms in (Terms(), Terms(dry_run=True)):
            with pytest.raises(UnconfirmedChange, match=r"revision 3, .*pointsman routes confirm fraud") as refused:
                await plane.put_route("fraud", route(WHOLE), 3, origin("op-2"), terms)
            assert refused.value.current == 3
        with pytest.raises(UnconfirmedChange, match=r"^route fraud: "):
            await plane.change([cohort(), route(WHOLE)], {"route/fraud": 3}, False, origin("op-2"))
        same = await plane.put_route("fraud", route(HALVES), 3, origin("op-3"))  # nothing would be changed
        assert (same.revision, same.changed) == (3, False)
        again = await plane.put_route("fraud", route(HALVES), 2, origin("op-1"), LONG)  # sent again
        assert (again.revision, again.changed) == (3, True)
        assert (await plane.put_cohort("beta", cohort(), None, origin("op-4"))).changed  # another document

    run_bench(scenario)


def test_rolling_back_an_unconfirmed_change_takes_all_of_it_back_early(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await with_route(bench)
        await plane.change([cohort(keys=["u-1"]), cohort("old")], {}, False, origin("op-1"))
        documents = [
            route(HALVES, pins=[{"cohort": "new", "version": "2"}]),
            cohort(keys=["u-2"]),
            cohort("new"),
            bench.adding.manifest("fraud", "3"),
            route({"3": 10_000}, model="spam"),
            bench.adding.manifest("spam", "3"),
        ]
        made = await plane.change(documents, {"route/fraud": 2, "cohort/beta": 3}, False, origin("op-2"), LONG)
        back = await plane.rollback("fraud", None, None, made.revision, origin("op-3"))
        assert outcomes(back.documents) == {
            "route fraud": "changed",
            "cohort beta": "changed",
            "route spam": "deleted",
        }
        assert await split_of(plane) == WHOLE
        assert json.loads((await plane.cohort("beta")).json)["keys"] == ["u-1"]
        assert await bench.store.unconfirmed() == []
        # What it registered, and the cohort that it made, others may name by now; so they stay.
        assert (await plane.cohort("new")).revision == made.revision
        assert list(await plane.versions("fraud")) == ["1", "2", "3"]
        with pytest.raises(DocumentNotFound):
            await plane.route("spam")

    run_bench(scenario)


def test_rolling_back_beyond_an_unconfirmed_change_takes_the_rest_of_it_back_too(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await with_route(bench)
        await plane.put_route("fraud", route({"2": 10_000}), 2, origin("op-1"))
        await plane.put_cohort("beta", cohort(keys=["u-1"]), None, origin("op-2"))
        seen = {"route/fraud": 3, "cohort/beta": 4}
        await plane.change([route(HALVES), cohort(keys=["u-2"])], seen, False, origin("op-3"), LONG)
        back = await plane.rollback("fraud", 2, None, None, origin("op-4"))
        assert outcomes(back.documents) == {"route fraud": "changed", "cohort beta": "changed"}
        assert await split_of(plane) == WHOLE
        assert json.loads((await plane.cohort("beta")).json)["keys"] == ["u-1"]
        assert await bench.store.unconfirmed() == []

    run_bench(scenario)


def test_rollback_of_an_unconfirmed_change_is_compared_and_set_like_any_other(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await with_route(bench)
        await plane.put_route("fraud", route(HALVES), 2, origin("op-1"), LONG)
        with pytest.raises(RevisionConflict) as refused:
            await plane.rollback("fraud", None, None, 2, origin("op-2"))
        assert refused.value.current == 3
        assert len(await bench.store.unconfirmed()) == 1

    run_bench(scenario)


def test_unconfirmed_change_of_a_cohort_is_confirmed_by_a_model_whose_route_pins_it(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await with_route(bench)
        await plane.put_cohort("beta", cohort(), None, origin("op-1"))
        await plane.put_route("fraud", route(WHOLE, pins=[{"cohort": "beta", "version": "2"}]), 2, origin("op-2"))
        made = await plane.put_cohort("beta", cohort(keys=["u-1"]), 3, origin("op-3"), LONG)
        with pytest.raises(DocumentNotFound):
            await plane.confirm("spam", origin("op-4"))
        assert await plane.confirm("fraud", origin("op-4")) == made.revision

    run_bench(scenario)


def test_change_that_only_adds_what_stays_is_settled_without_a_revision(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        await write_due(bench, "cohort", "beta", cohort())
        async with watched(plane):
            await settled(bench, 1)
        head = await bench.store.head()
        assert head is not None
        assert head.revision == 2
        assert (await plane.cohort("beta")).revision == 2

    run_bench(scenario)


def test_revert_that_is_refused_is_told_once_and_tried_again_until_it_can_be_made(
    run_bench: RunBench, capfd: pytest.CaptureFixture[str]
) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        await plane.put_cohort("beta", cohort(), None, origin("op-1"))
        await plane.put_route("fraud", route(WHOLE, pins=[{"cohort": "beta", "version": "2"}]), None, origin("op-2"))
        made = await write_due(bench, "route", "fraud", route(HALVES))
        await plane.delete_cohort("beta", 2, origin("op-4"))  # what was before pins it
        async with watched(plane):
            said = ""
            async with asyncio.timeout(10):
                while "change_not_reverted" not in said:
                    said += capfd.readouterr().out
                    await asyncio.sleep(0.01)
            assert "there is no cohort beta" in said
            assert [one.revision for one in await bench.store.unconfirmed()] == [made]
            await plane.put_cohort("beta", cohort(), None, origin("op-5"))
            await settled(bench, 6)
        assert json.loads((await plane.route("fraud")).json)["pins"]
        assert (said + capfd.readouterr().out).count("change_not_reverted") == 1

    run_bench(scenario)


def test_revert_is_made_when_the_store_is_back_from_an_outage(run_private_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await with_route(bench)
        made = await plane.put_route("fraud", route(HALVES), 2, origin("op-1"), SECOND)
        async with watched(plane):
            bench.valkey.kill()
            with pytest.raises(RulesUnavailable):
                await plane.route("fraud")
            bench.valkey.start()
            await settled(bench, made.revision)
        assert await split_of(plane) == WHOLE

    run_private_bench(scenario)
