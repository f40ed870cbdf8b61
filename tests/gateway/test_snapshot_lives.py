"""Lives of the store: what workers do when an operator has said which rules are right after the store lost some."""

import json
import shutil
from pathlib import Path

import pytest
import structlog

from gateway.metrics import Slot
from gateway.ports import Head
from gateway.snapshot import History, LastGood
from tests.conftest import RunningValkey, until
from tests.gateway.conftest import Bench, Document, RunBench, Worker, see_closed_connections

WHOLE = {"1": 10_000}


async def in_force(bench: Bench, changes: int = 3) -> Worker:
    """Return a worker that follows rules which were changed a few times."""
    await bench.write(bench.version("fraud", "1"), bench.route("fraud", WHOLE))
    for number in range(2, changes + 1):
        await bench.write(bench.route("fraud", WHOLE, timeout_ms=number))
    worker = await bench.worker().follow()
    await bench.healthy("w0", changes)
    return worker


def timeout_ms(worker: Worker) -> int:
    return worker.snapshot.routes["fraud"].route.timeout_ms


def documents_kept(folder: Path) -> list[Document]:
    """Return the last good documents, as `rules republish` writes them."""
    saved = LastGood(folder).newest()
    assert saved is not None
    return [(kind, name, stored.json) for (kind, name), stored in saved.documents.items()]


def restore_older_copy(valkey: RunningValkey, copy: Path) -> None:
    """Start the store again on a copy of its data, which is made when there is none yet."""
    data = valkey.prepared.folder / "appendonlydir"
    valkey.stop()
    if copy.exists():
        shutil.rmtree(data)
        copy.rename(data)
    else:
        shutil.copytree(data, copy)
    valkey.start()


# ── the store is resettled ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("begun", [False, True], ids=["emptied", "emptied and begun anew"])
def test_republished_rules_are_followed_by_every_worker_and_change_nothing(run_bench: RunBench, begun: bool) -> None:
    async def scenario(bench: Bench) -> None:
        worker, other = await in_force(bench), await bench.worker("w1").follow()
        await bench.healthy("w1", 3)
        ours = worker.snapshot.head
        executor = worker.executor("fraud", "1")
        bench.valkey.empty()
        republished = documents_kept(bench.folder)
        if begun:
            await bench.store.initialise()
            await bench.write(bench.cohort("published-meanwhile"))
            republished.append(("cohort", "published-meanwhile", None))
        await until(lambda: worker.alarm and other.alarm)
        head = await bench.resettle("second", {ours.epoch: 3}, *republished, beyond=3)
        assert head.revision > 3
        await until(lambda: not worker.alarm and not other.alarm and not worker.rules.stale)
        for one in (worker, other):
            await one.reach(head.revision)
            assert one.snapshot.head == head
            assert timeout_ms(one) == 3
            assert not one.snapshot.cohorts
        assert worker.executor("fraud", "1") is executor
        revision = await bench.write(bench.route("fraud", WHOLE, timeout_ms=99))
        for one in (worker, other):
            await bench.healthy(one.name, revision)
            assert timeout_ms(one) == 99

    run_bench(scenario)


def test_accepted_rules_take_the_place_of_newer_ones(run_private_bench: RunBench) -> None:
    """The store was restored from an older copy, took further changes, and an operator says that it is right."""

    async def scenario(bench: Bench) -> None:
        worker = await in_force(bench)
        copy = bench.folder.with_name("copy")
        restore_older_copy(bench.valkey, copy)
        await see_closed_connections()
        lost = [await bench.write(bench.route("fraud", WHOLE, timeout_ms=number)) for number in (44, 55)]
        await bench.healthy("w0", lost[-1])
        restore_older_copy(bench.valkey, copy)
        await see_closed_connections()
        await bench.write(bench.cohort("beta", keys=["u-1"]))
        await until(lambda: worker.alarm)
        assert timeout_ms(worker) == 55
        seen = await bench.store.head()
        assert seen is not None
        head = await bench.resettle("second", {seen.epoch: lost[-1]}, beyond=lost[-1])
        await until(lambda: not worker.alarm)
        await worker.reach(head.revision)
        assert timeout_ms(worker) == 3
        assert worker.snapshot.cohorts.keys() == {"beta"}
        await bench.healthy("w0", head.revision)
        saved = LastGood(bench.folder).newest()
        assert saved is not None
        assert saved.head == head
        assert json.loads(saved.documents["route", "fraud"].json)["timeout_ms"] == 3

    run_private_bench(scenario)


@pytest.mark.parametrize("known", [True, False], ids=["with a good one before", "unheard of before"])
def test_document_that_does_not_parse_is_complained_of_until_republished_rules_are_without_it(
    run_bench: RunBench, known: bool
) -> None:
    async def scenario(bench: Bench) -> None:
        worker = await in_force(bench)
        if known:
            await bench.write(bench.cohort("beta", keys=["u-1"]))
            await bench.healthy("w0", 4)
        ours = await bench.write(("cohort", "beta", b"{}"))
        await bench.acknowledgement("w0", ours, alarm="documents")
        epoch = worker.snapshot.head.epoch
        kept = [one for one in documents_kept(bench.folder) if one[1] != "beta"]
        bench.valkey.empty()
        await bench.resettle("second", {epoch: ours}, *kept, beyond=ours)
        await bench.acknowledgement("w0", ours + 1, lambda problems: not problems)
        await until(lambda: not worker.alarm)
        assert not worker.snapshot.cohorts

    run_bench(scenario)


def test_document_that_does_not_parse_is_complained_of_until_an_older_copy_is_accepted(
    run_private_bench: RunBench,
) -> None:
    async def scenario(bench: Bench) -> None:
        worker = await in_force(bench)
        await bench.write(bench.cohort("beta", keys=["u-1"]))
        await bench.healthy("w0", 4)
        copy = bench.folder.with_name("copy")
        restore_older_copy(bench.valkey, copy)
        await see_closed_connections()
        ours = await bench.write(("cohort", "beta", b"{}"))
        await bench.acknowledgement("w0", ours, alarm="documents")
        restore_older_copy(bench.valkey, copy)
        await see_closed_connections()
        await bench.resettle("second", {worker.snapshot.head.epoch: ours}, beyond=ours)
        await bench.acknowledgement("w0", ours + 1, lambda problems: not problems)
        await until(lambda: not worker.alarm)
        assert worker.snapshot.cohorts.keys() == {"beta"}

    run_private_bench(scenario)


def test_worker_with_changes_that_the_new_life_does_not_follow_on_keeps_its_rules(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        worker = await in_force(bench)
        ours = worker.snapshot.head
        with structlog.testing.capture_logs() as lines:
            await bench.resettle("second", {ours.epoch: 2}, bench.route("fraud", WHOLE, timeout_ms=2), beyond=9)
            await until(lambda: worker.alarm)
        (alarm,) = [line for line in lines if line["event"] == "rules_alarm"]
        assert "follow on revision 2, while 3 is in force" in alarm["why"]
        assert "pointsman rules republish" in alarm["hint"]
        assert "pointsman rules accept" in alarm["hint"]
        assert timeout_ms(worker) == 3
        head = await bench.resettle("third", {"second": 10, ours.epoch: 3}, bench.route("fraud", WHOLE, timeout_ms=5))
        await until(lambda: not worker.alarm)
        await worker.reach(head.revision)
        assert timeout_ms(worker) == 5

    run_bench(scenario)


@pytest.mark.parametrize("followed", [True, False])
def test_last_good_file_of_an_earlier_life_gives_way_only_to_one_that_follows_on_it(
    run_bench: RunBench, followed: bool
) -> None:
    async def scenario(bench: Bench) -> None:
        worker = await in_force(bench)
        ours = worker.snapshot.head
        await worker.stop()
        await bench.resettle(
            "second", {ours.epoch: 3 if followed else 2}, bench.route("fraud", WHOLE, timeout_ms=8), beyond=3
        )
        restarted = await bench.worker("w1").follow()
        assert timeout_ms(restarted) == (8 if followed else 3)
        await until(lambda: restarted.alarm is not followed)

    run_bench(scenario)


def test_lives_are_asked_for_only_when_the_epoch_differs(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        worker = await in_force(bench)
        bench.valkey.command("CONFIG", "RESETSTAT")
        checked = worker.board[Slot.RULES_CHECKED_NS]
        await until(lambda: worker.board[Slot.RULES_CHECKED_NS] > checked)
        assert b"cmdstat_hget:" not in bench.valkey.command("INFO", "commandstats")
        bench.valkey.empty()
        await bench.store.initialise()
        await until(lambda: worker.alarm)
        assert b"cmdstat_hget:calls=1," in bench.valkey.command("INFO", "commandstats")

    run_bench(scenario)


# ── the judgement itself, as the control plane asks for it ───────────────────────────────────────────────────────


def test_history_judges_a_head_for_whoever_asks(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        await in_force(bench)
        head = await bench.store.head()
        assert head is not None
        history = History(bench.store)
        assert await history.trouble(head, head, "bench-3") is None
        assert await history.trouble(head, Head(head.epoch, 1), "bench-1") is None
        assert await history.trouble(head, Head(head.epoch, 1), "") is None  # it is not known who made it
        assert await history.trouble(head, None, "") is None
        assert "another revision 1" in (await history.trouble(head, Head(head.epoch, 1), "somebody") or "")
        assert "went back to revision 3" in (await history.trouble(head, Head(head.epoch, 4), "") or "")
        assert "emptied or replaced" in (await history.trouble(head, Head("earlier", 1), "") or "")
        assert "no rules" in (await history.trouble(None, None, "") or "")

    run_bench(scenario)
