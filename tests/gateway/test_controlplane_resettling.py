"""The operator's word after the store lost rules: the last good ones again, or those of the store; workers follow."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from gateway.controlplane import ControlPlane, Resettled
from gateway.errors import DocumentNotFound, InvalidDocument, RevisionConflict, RulesInDoubt, RulesUnavailable
from gateway.ports import Head, Resettlement
from gateway.stores.rules_redis import RedisRules
from tests.conftest import until
from tests.gateway.conftest import Bench, RunBench, Worker
from tests.gateway.control import HALVES, WHOLE, Control, cohort, origin, outcomes, route


async def in_force(bench: Bench) -> tuple[Control, Worker]:
    """Return a gateway that has a route in force at revision 3, known to its control process and kept on its disk."""
    await bench.write(bench.version("fraud", "1"), bench.version("fraud", "2"))
    control = Control(bench, wait_s=5.0)
    worker = await bench.worker().follow()
    await control.plane.put_route("fraud", route(WHOLE), None, origin("begin-1"))
    await control.plane.put_cohort("beta", cohort(), None, origin("begin-2"))
    return control, worker


async def loses_everything(bench: Bench) -> None:
    bench.valkey.empty()


async def goes_back(bench: Bench) -> None:
    """Be as a copy from before revision 3, which made the cohort."""
    bench.valkey.command("HDEL", "{pm}:cohorts", "beta")
    bench.valkey.command("XDEL", "{pm}:changes", "3-0")
    bench.valkey.command("HSET", "{pm}:head", "revision", "2")


async def loses_its_head(bench: Bench) -> None:
    bench.valkey.command("DEL", "{pm}:head")


LOSSES = [loses_everything, goes_back, loses_its_head]
Verb = Callable[[ControlPlane, str, bool], Awaitable[Resettled]]


def republish(plane: ControlPlane, operation_id: str, dry_run: bool) -> Awaitable[Resettled]:
    return plane.republish(origin(operation_id), dry_run)


def accept(plane: ControlPlane, operation_id: str, dry_run: bool) -> Awaitable[Resettled]:
    return plane.accept(origin(operation_id), dry_run)


@pytest.mark.parametrize("lose", LOSSES)
def test_republish_gives_the_store_the_rules_in_force_and_every_worker_follows(
    run_bench: RunBench, lose: Callable[[Bench], Awaitable[None]]
) -> None:
    async def scenario(bench: Bench) -> None:
        control, worker = await in_force(bench)
        known = worker.snapshot.head
        await lose(bench)
        await until(lambda: worker.alarm)
        assert worker.snapshot.head == known
        settled = await republish(control.plane, "op-1", False)
        assert settled.head is not None
        assert settled.head.epoch != known.epoch
        assert settled.head.revision > known.revision
        assert settled.published is not None
        assert (settled.published.in_force, settled.published.acknowledged) == (True, ("w0",))
        assert worker.snapshot.head == settled.head
        assert worker.snapshot.routes["fraud"].route.split == WHOLE
        assert set(worker.snapshot.cohorts) == {"beta"}
        assert control.watch.troubles() == []
        after = await control.plane.put_route(
            "fraud", route(HALVES), (await control.plane.route("fraud")).revision, origin("op-2")
        )
        assert (after.revision, after.in_force) == (settled.head.revision + 1, True)
        await until(lambda: not worker.alarm)

    run_bench(scenario)


def test_accept_takes_the_rules_of_the_store_and_a_route_never_goes_back_in_its_revision(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        control, worker = await in_force(bench)
        await control.plane.put_route("fraud", route(HALVES), 2, origin("lost"))
        stamped = worker.snapshot.routes["fraud"].revision
        old = (await control.plane.as_of(2, [("route", "fraud")]))["route", "fraud"]
        bench.valkey.command("HSET", "{pm}:routes", "fraud", b"2 " + old.json)
        await goes_back(bench)
        await until(lambda: worker.alarm)
        tried = await accept(control.plane, "op-1", True)
        assert (tried.head, tried.published) == (None, None)
        assert outcomes(tried.changes) == {"route fraud": "changed", "cohort beta": "deleted"}
        settled = await accept(control.plane, "op-1", False)
        assert outcomes(settled.changes) == outcomes(tried.changes)
        assert settled.head is not None
        assert worker.snapshot.head == settled.head
        assert worker.snapshot.routes["fraud"].route.split == WHOLE
        assert worker.snapshot.routes["fraud"].revision == settled.head.revision > stamped
        assert not worker.snapshot.cohorts
        now = await control.plane.as_of(settled.head.revision, [("cohort", "beta"), ("route", "fraud")])
        assert list(now) == [("route", "fraud")]  # history tells one story, though two lives had a revision 3

    run_bench(scenario)


@pytest.mark.parametrize("verb", [republish, accept])
def test_dry_run_lists_what_would_change_and_writes_nothing(run_bench: RunBench, verb: Verb) -> None:
    async def scenario(bench: Bench) -> None:
        control, _ = await in_force(bench)
        bench.valkey.empty()
        tried = await verb(control.plane, "op-1", True)
        expected = "made" if verb is republish else "deleted"
        assert outcomes(tried.changes) == {
            "cohort beta": expected,
            "route fraud": expected,
            "version fraud/1": expected,
            "version fraud/2": expected,
        }
        assert await bench.store.head() is None
        with pytest.raises(RulesInDoubt):
            await control.plane.put_cohort("beta", cohort(), None, origin("op-2"))

    run_bench(scenario)


@pytest.mark.parametrize("verb", [republish, accept])
def test_store_that_is_not_in_doubt_is_left_alone_but_a_word_sent_again_is_answered(
    run_bench: RunBench, verb: Verb
) -> None:
    async def scenario(bench: Bench) -> None:
        control, _ = await in_force(bench)
        with pytest.raises(RevisionConflict, match="is not in doubt: its rules, at revision 3") as refused:
            await verb(control.plane, "op-1", False)
        assert refused.value.current == 3
        await goes_back(bench)
        first = await verb(control.plane, "op-1", False)
        again = await verb(control.plane, "op-1", False)
        assert again.head == first.head
        assert again.published is not None
        assert again.published.in_force
        with pytest.raises(RevisionConflict, match="not in doubt"):
            await verb(control.plane, "op-2", False)
        with pytest.raises(InvalidDocument):
            await verb(control.plane, "", False)

    run_bench(scenario)


def test_twins_of_a_word_and_of_two_gateways_begin_one_life(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        control, worker = await in_force(bench)
        other = Control(bench, gateway="other", wait_s=5.0)
        await other.watch.look()
        await loses_everything(bench)
        results = await asyncio.gather(
            republish(control.plane, "op-1", False),
            republish(control.plane, "op-1", False),
            accept(other.plane, "op-2", False),
            return_exceptions=True,
        )
        heads = {result.head for result in results if isinstance(result, Resettled)}
        refused = [result for result in results if not isinstance(result, Resettled)]
        assert all(isinstance(one, RevisionConflict) for one in refused)
        assert len(heads) == 1
        await until(lambda: worker.snapshot.head in heads)
        for each in (control, other):
            await each.watch.look()
            assert each.watch.troubles() == []

    run_bench(scenario)


def test_without_last_good_rules_nothing_can_be_republished_but_the_stores_can_be_accepted(
    run_bench: RunBench,
) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.write(bench.version("fraud", "1"))
        await bench.write(bench.route("fraud", WHOLE))
        control = Control(bench, gateway="new")
        await control.watch.look()
        await loses_its_head(bench)
        with pytest.raises(DocumentNotFound, match=r"no last good rules.*pointsman rules accept"):
            await republish(control.plane, "op-1", False)
        settled = await accept(control.plane, "op-2", False)
        assert settled.head is not None
        assert settled.head.revision == 3
        assert (await control.plane.route("fraud")).revision == 3

    run_bench(scenario)


def test_new_life_is_beyond_what_any_worker_of_any_gateway_had(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        control, worker = await in_force(bench)
        epoch = worker.snapshot.head.epoch
        said: dict[str, Any] = {"epoch": epoch, "revision": 40, "problems": {}}
        await loses_everything(bench)
        bench.valkey.command("HSET", "{pm}:acks", "elsewhere/w0", f"1 {json.dumps(said)}")
        settled = await republish(control.plane, "op-1", False)
        assert settled.head is not None
        assert settled.head.revision > 40
        assert (await bench.store.follows())[epoch] == 40

    run_bench(scenario)


class Overtaken(RedisRules):
    """The real store, of which somebody else says first which rules are right: a race with its outcome decided."""

    other: Resettlement | None = None

    async def resettle(self, resettlement: Resettlement) -> Head:
        if (other := self.other) is not None:
            self.other = None
            await super().resettle(other)
        return await super().resettle(resettlement)


def test_word_that_comes_second_is_refused_and_the_first_stands(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        _, worker = await in_force(bench)
        known = worker.snapshot.head
        store = Overtaken(bench.valkey.url)
        control = Control(bench, store)
        await control.watch.look()
        await loses_everything(bench)
        store.other = Resettlement("first", "bob", "", 1, "first", None, 3, {known.epoch: 3}, ())
        with pytest.raises(RevisionConflict, match="not in doubt"):
            await republish(control.plane, "op-1", False)
        head = await bench.store.head()
        assert head is not None
        assert head.epoch == "first"
        await store.close()

    run_bench(scenario)


def test_nothing_is_decided_about_a_store_that_does_not_answer(run_private_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        control, _ = await in_force(bench)
        bench.valkey.kill()
        for verb in (republish, accept):
            with pytest.raises(RulesUnavailable):
                await verb(control.plane, "op-1", False)

    run_private_bench(scenario)
