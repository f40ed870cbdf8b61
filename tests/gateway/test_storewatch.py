"""Whether changes are possible: a new store is begun, one that lost rules is told about, left alone and not changed."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from gateway.controlplane import StoreWatch
from gateway.errors import RulesInDoubt, RulesUnavailable
from gateway.gauges import BoardFolder
from gateway.metrics import Slot
from gateway.ports import Head, Resettlement, StoredDocument
from gateway.snapshot import LastGood, Saved
from gateway.stores.rules_redis import RedisRules
from tests.conftest import RunningValkey, until
from tests.gateway.conftest import Bench, RunBench
from tests.gateway.control import WHOLE, Control, origin, plane_of, route


@asynccontextmanager
async def watching(url: str, folder: Path) -> AsyncIterator[StoreWatch]:
    store, boards = RedisRules(url), BoardFolder(folder / "run")
    watch = StoreWatch(store, folder, boards)
    running = asyncio.create_task(watch.run(), name="watch")
    try:
        yield watch
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        boards.close()
        await store.close()


async def looked_at(url: str, folder: Path) -> list[str]:
    """Return the troubles after the first look."""
    async with watching(url, folder) as watch:
        await until(lambda: watch.troubles() != ["the rules store has not answered yet"])
        return watch.troubles()


def test_a_new_store_is_begun(valkey: RunningValkey, tmp_path: Path) -> None:
    assert asyncio.run(looked_at(valkey.url, tmp_path)) == []
    assert b"epoch" in valkey.command("HKEYS", "{pm}:head")


def test_a_store_that_lost_rules_which_were_in_force_here_is_left_as_it_is_though_the_files_are_broken(
    valkey: RunningValkey, tmp_path: Path
) -> None:
    (tmp_path / "lkg-000000000007.json").write_text("{}")
    (trouble,) = asyncio.run(looked_at(valkey.url, tmp_path))
    assert "has no rules, but revision 7 was in force here before" in trouble
    assert "pointsman rules republish" in trouble
    assert b"epoch" not in valkey.command("HKEYS", "{pm}:head")


def test_a_store_that_does_not_answer_is_told_about(start_valkey: Callable[[], RunningValkey], tmp_path: Path) -> None:
    private = start_valkey()
    private.kill()
    (trouble,) = asyncio.run(looked_at(private.url, tmp_path))
    assert "rules store" in trouble


def test_a_store_that_lost_its_head_is_in_doubt_also_where_nothing_was_in_force(
    valkey: RunningValkey, tmp_path: Path
) -> None:
    valkey.command("HSET", "{pm}:routes", "fraud", "3 {}")
    (trouble,) = asyncio.run(looked_at(valkey.url, tmp_path))
    assert "lost its head" in trouble
    assert b"epoch" not in valkey.command("HKEYS", "{pm}:head")


# ── what is known ────────────────────────────────────────────────────────────────────────────────────────────────


def saved(folder: Path, head: Head, operation_id: str = "op") -> None:
    """Have rules in the last good files, as a worker that had them in force leaves them."""
    stored = StoredDocument(1, b'{"name":"beta","keys":[],"match":[]}')
    LastGood(folder).write(Saved(head, operation_id, {("cohort", "beta"): stored}))


def test_newest_head_is_known_from_files_looks_and_changes(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.write(bench.version("fraud", "1"))
        control = Control(bench)
        before = control.watch.known
        assert before is None
        await control.plane.put_route("fraud", route(WHOLE), None, origin("op-1"))
        head = await bench.store.head()
        assert head is not None
        assert control.watch.known == head
        await bench.write(bench.version("fraud", "2"))
        await control.watch.look()
        assert control.watch.known == Head(head.epoch, 3)
        saved(bench.folder, Head(head.epoch, 7), "lost")
        later = Control(bench).watch
        await later.look()
        assert later.known == Head(head.epoch, 7)
        assert later.doubt is not None
        assert "went back to revision 3, while 7" in later.doubt

    run_bench(scenario)


def test_change_is_refused_in_a_store_that_lost_what_was_made_through_this_gateway(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.write(bench.version("fraud", "1"))
        plane = plane_of(bench)
        await plane.put_route("fraud", route(WHOLE), None, origin("op-1"))
        bench.valkey.command("HSET", "{pm}:head", "revision", "1")  # before the next look, and nobody has seen it
        with pytest.raises(RulesInDoubt, match="rules republish"):
            await plane.put_route("fraud", route(WHOLE, timeout_ms=5), 2, origin("op-2"))
        with pytest.raises(RulesInDoubt, match=r"went back to revision 1.*rules accept"):
            await plane.put_route("fraud", route(WHOLE, timeout_ms=5), 2, origin("op-2"))
        assert (await plane.route("fraud")).revision == 2

    run_bench(scenario)


def test_store_that_got_other_changes_of_the_same_numbers_is_in_doubt(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.write(bench.version("fraud", "1"))
        head = await bench.store.head()
        assert head is not None
        saved(bench.folder, Head(head.epoch, 1), "another operation")
        watch = Control(bench).watch
        await watch.look()
        assert watch.doubt is not None
        assert "another revision 1" in watch.doubt

    run_bench(scenario)


def test_what_only_a_worker_of_this_gateway_had_counts_too(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.write(bench.version("fraud", "1"))
        control = Control(bench)
        board = control.board(0)
        board[Slot.RULES_REVISION] = 1
        await control.watch.look()
        assert control.watch.troubles() == []
        board[Slot.RULES_REVISION] = 5
        await control.watch.look()
        assert control.watch.doubt == "the rules store is at revision 1, but revision 5 was in force here before"
        board[Slot.PID] = 0  # a worker that is gone has no rules in force
        await control.watch.look()
        assert control.watch.doubt is None

    run_bench(scenario)


def test_store_that_was_emptied_is_not_begun_again_and_every_change_is_refused(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.write(bench.version("fraud", "1"))
        control = Control(bench)
        await control.watch.look()
        bench.valkey.empty()
        await control.watch.look()
        assert await bench.store.head() is None
        (trouble,) = control.watch.troubles()
        assert "has no rules" in trouble
        for attempt in (
            control.plane.put_cohort("beta", b'{"name": "beta"}', None, origin("op-1")),
            control.plane.delete_cohort("beta", 1, origin("op-2")),
            control.plane.register("fraud", bench.adding.manifest("fraud", "2"), False, origin("op-3")),
            control.plane.rollback("fraud", 1, None, None, origin("op-4")),
            control.plane.confirm("fraud", origin("op-5")),
        ):
            with pytest.raises(RulesUnavailable):
                await attempt
        assert await bench.store.head() is None

    run_bench(scenario)


def test_resettlement_through_another_gateway_is_followed(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.write(bench.version("fraud", "1"))
        known = await bench.store.head()
        assert known is not None
        async with watching(bench.valkey.url, bench.folder) as watch:
            await until(lambda: watch.known == known)
            bench.valkey.empty()
            await until(lambda: watch.doubt)
            follows = {known.epoch: known.revision}
            head = await bench.store.resettle(
                Resettlement("op", "ann", "", 1, "new", None, known.revision, follows, ())
            )
            await until(lambda: watch.known == head)
            assert watch.troubles() == []

    run_bench(scenario)


def test_one_that_does_not_follow_on_what_is_known_here_leaves_the_doubt(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.write(bench.version("fraud", "1"))
        control = Control(bench)
        await control.watch.look()
        bench.valkey.empty()
        await bench.store.resettle(Resettlement("op", "ann", "", 1, "new", None, 9, {"stranger": 9}, ()))
        await control.watch.look()
        assert control.watch.doubt is not None
        assert "its epoch is new" in control.watch.doubt

    run_bench(scenario)
