"""How a worker follows the rules: what comes into force, when, and what is released afterwards."""

import asyncio
import gc
import json

from gateway.messages import Work
from gateway.metrics import Slot
from gateway.ports import Head
from gateway.snapshot import LastGood, PreparedVersion
from routing import parse_route
from tests.conftest import until
from tests.gateway.conftest import Bench, RunBench, Worker

HALVES = {"1": 5000, "2": 5000}


async def answer(prepared: PreparedVersion, number: int) -> int:
    """Run one request on a version."""
    result = await prepared.executor.execute(Work(b"%d" % number, {}, (), 0), None)  # type: ignore[arg-type]
    return int(result.rendered.body)


# ── the first rules ──────────────────────────────────────────────────────────────────────────────────────────────


def test_first_snapshot_has_everything_that_requests_need(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.write(*(bench.version("fraud", name, name) for name in ("1", "2", "3")))
        await bench.write(bench.cohort("beta", match=[{"header": "X-Tenant", "in": ["acme"]}]), bench.cohort("vip"))
        await bench.write(bench.cohort("vip", keys=["u-1"]))
        pins = [{"cohort": "beta", "version": "2"}, {"cohort": "vip", "version": "2"}]
        await bench.write(bench.route("fraud", {"1": 9000, "2": 1000}, pins=pins))
        worker = await bench.worker().start()
        snapshot = worker.snapshot
        assert snapshot.head == await bench.store.head()
        entry = snapshot.routes["fraud"]
        assert entry.route == parse_route(bench.route("fraud", {"1": 9000, "2": 1000}, pins=pins)[2] or b"")
        assert (entry.revision, entry.consulted, entry.cohort_revision) == (4, ("x-tenant",), 3)
        assert snapshot.cohorts["vip"].keys == ("u-1",)
        assert snapshot.cohort_revisions == {"beta": 2, "vip": 3}
        assert snapshot.registered == {("fraud", "1"), ("fraud", "2"), ("fraud", "3")}
        assert snapshot.versions.keys() == {("fraud", "1"), ("fraud", "2")}  # nobody names 3, so it is not loaded
        assert await answer(snapshot.versions["fraud", "2"], 40) == 42
        assert worker.board[Slot.RULES_REVISION] == 4
        assert worker.board[Slot.VERSIONS_LOADED] == 2
        assert worker.board[Slot.RULES_CHECKED_NS] > 0
        assert not worker.alarm
        assert not worker.rules.stale

    run_bench(scenario)


def test_route_without_pins_consults_no_headers_and_no_cohorts(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.write(bench.version("fraud", "1"), bench.route("fraud", {"1": 10_000}))
        entry = (await bench.worker().start()).snapshot.routes["fraud"]
        assert (entry.consulted, entry.cohort_revision) == ((), None)

    run_bench(scenario)


# ── changes ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_change_comes_into_force_is_kept_on_disk_and_is_acknowledged(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.write(bench.version("fraud", "1"), bench.version("fraud", "2"), bench.route("fraud", {"1": 10_000}))
        worker = await bench.worker().follow()
        assert (await bench.acknowledgement("w0", 1)).head == Head(worker.snapshot.head.epoch, 1)
        before = worker.snapshot
        await bench.write(bench.route("fraud", HALVES))
        await bench.healthy("w0", 2)
        assert worker.snapshot.routes["fraud"].route.split == HALVES
        assert worker.board[Slot.RULES_REVISION] == 2
        saved = LastGood(bench.folder).newest()
        assert saved is not None
        assert saved.head == worker.snapshot.head
        assert json.loads(saved.documents["route", "fraud"].json)["split"] == HALVES
        assert before.routes["fraud"].route.split == {"1": 10_000}  # a request that holds it goes on as it began

    run_bench(scenario)


def test_model_comes_and_goes_with_its_route(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        worker = await bench.worker().follow()
        assert worker.snapshot.routes == {}
        await bench.write(bench.version("fraud", "1"), bench.route("fraud", {"1": 10_000}))
        await until(lambda: "fraud" in worker.snapshot.routes)
        executor = worker.executor("fraud", "1")
        await bench.write(("route", "fraud", None))
        await until(lambda: worker.snapshot.head.revision == 2)
        assert worker.snapshot.routes == {}
        assert worker.snapshot.versions == {}
        assert worker.snapshot.registered == {("fraud", "1")}
        assert worker.board[Slot.VERSIONS_LOADED] == 0
        await until(lambda: executor.releases == 1)

    run_bench(scenario)


def test_registered_versions_come_and_go_without_any_route(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.write(bench.version("fraud", "1"))
        worker = await bench.worker().follow()
        await bench.write(bench.version("fraud", "2"), bench.version("spam", "1"))
        await worker.reach(2)
        assert worker.snapshot.registered == {("fraud", "1"), ("fraud", "2"), ("spam", "1")}
        await bench.write(("version", "fraud/1", None))
        await worker.reach(3)
        assert worker.snapshot.registered == {("fraud", "2"), ("spam", "1")}
        assert bench.adding.made == []

    run_bench(scenario)


def test_cohort_change_reaches_every_route_that_pins_it(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        pins = [{"cohort": "beta", "version": "1"}]
        for model in ("fraud", "spam"):
            await bench.write(bench.version(model, "1"))
        await bench.write(bench.cohort("beta", keys=["u-1"]), bench.cohort("other"))
        await bench.write(bench.route("fraud", {"1": 10_000}, pins=pins), bench.route("spam", {"1": 10_000}))
        worker = await bench.worker().follow()
        untouched = worker.snapshot.routes["spam"]
        await bench.write(bench.cohort("beta", match=[{"header": "X-Tenant", "in": ["acme"]}]))
        await worker.reach(5)
        entry = worker.snapshot.routes["fraud"]
        assert (entry.revision, entry.consulted, entry.cohort_revision) == (4, ("x-tenant",), 5)
        assert worker.snapshot.cohort_revisions["beta"] == 5
        assert worker.snapshot.routes["spam"] is untouched
        await bench.write(bench.cohort("other", keys=["u-2"]))
        await worker.reach(6)
        assert worker.snapshot.routes["fraud"] is entry

    run_bench(scenario)


def test_documents_of_one_change_come_into_force_together(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.write(bench.version("fraud", "1"), bench.version("spam", "1"))
        pins = [{"cohort": "beta", "version": "1"}]
        seen = set()

        def together(worker: Worker) -> bool:
            snapshot = worker.snapshot
            routes = snapshot.routes
            revisions = {routes["fraud"].revision, routes["spam"].revision, snapshot.cohort_revisions["beta"]}
            assert revisions == {snapshot.head.revision}
            seen.add(snapshot.head.revision)
            return snapshot.head.revision >= 40

        async def change(number: int) -> None:
            await bench.write(
                bench.route("fraud", {"1": 10_000}, pins=pins, timeout_ms=number + 1),
                bench.cohort("beta", keys=[f"u-{number}"]),
                bench.route("spam", {"1": 10_000}, timeout_ms=number + 1),
            )

        async def keep_changing() -> None:
            for number in range(1, 40):
                await change(number)

        await change(0)
        worker = await bench.worker(poll_ms=1).follow()
        changing = asyncio.create_task(keep_changing())
        await until(lambda: together(worker))
        await changing
        assert len(seen) > 3

    run_bench(scenario)


def test_worker_that_is_behind_the_history_loads_everything(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.write(bench.version("fraud", "1"), bench.cohort("gone"), bench.route("fraud", {"1": 10_000}))
        await bench.write(bench.cohort("kept"))
        worker = await bench.worker().start()
        kept = worker.executor("fraud", "1")
        await bench.write(bench.route("fraud", {"1": 10_000}, timeout_ms=5))
        await bench.write(("cohort", "gone", None))
        await bench.write(bench.cohort("new"))
        bench.valkey.command("XTRIM", "{pm}:changes", "MAXLEN", "1")
        worker.run()
        await worker.reach(5)
        assert worker.snapshot.routes["fraud"].route.timeout_ms == 5
        assert worker.snapshot.cohorts.keys() == {"kept", "new"}
        assert worker.executor("fraud", "1") is kept
        assert not worker.alarm

    run_bench(scenario)


def test_workers_of_one_gateway_share_one_log_that_each_revision_is_in_once(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.write(bench.version("fraud", "1"))
        for name in ("w0", "w1", "w2"):
            await bench.worker(name).follow()
        for number in range(1, 8):
            revision = await bench.write(bench.route("fraud", {"1": 10_000}, timeout_ms=number))
            for name in ("w0", "w1", "w2"):
                await bench.acknowledgement(name, revision)
        names = sorted(path.name for path in bench.folder.iterdir())
        assert names == ["lkg-000000000001.json", "lkg-000000000001.log", "lkg.base.lock", "lkg.lock"]
        lines = (bench.folder / "lkg-000000000001.log").read_text().splitlines()
        assert [json.loads(line[65:])["revision"] for line in lines] == list(range(2, 9))

    run_bench(scenario)


# ── the life of executors ────────────────────────────────────────────────────────────────────────────────────────


def test_executor_stays_the_same_while_its_manifest_does(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.write(bench.version("fraud", "1"), bench.version("fraud", "2"), bench.route("fraud", HALVES))
        worker = await bench.worker().follow()
        first, second = worker.executor("fraud", "1"), worker.executor("fraud", "2")
        for weight in (1000, 2000, 3000):
            await bench.write(bench.route("fraud", {"1": 10_000 - weight, "2": weight}))
        await worker.reach(4)
        assert (worker.executor("fraud", "1"), worker.executor("fraud", "2")) == (first, second)
        assert set(bench.adding.made) == {first, second}
        assert (first.releases, second.releases) == (0, 0)

    run_bench(scenario)


def test_version_is_released_only_when_the_last_request_on_old_rules_is_done(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.write(bench.version("fraud", "1"), bench.version("fraud", "2", "2"), bench.route("fraud", HALVES))
        worker = await bench.worker().follow()
        executor = worker.executor("fraud", "2")
        first_request = worker.snapshot
        await bench.write(bench.route("fraud", HALVES, timeout_ms=5))
        await worker.reach(2)
        second_request = worker.snapshot
        shadow = worker.snapshot.versions["fraud", "2"]  # a shadow holds its version, and not the snapshot
        await bench.write(bench.route("fraud", {"1": 10_000}))
        await worker.reach(3)
        assert ("fraud", "2") not in worker.snapshot.versions
        for _ in range(2):
            assert await answer(shadow, 40) == 42
            await bench.write(bench.cohort("beta", keys=[str(_)]))
            await worker.reach(4 + _)
        del first_request
        await _settle()
        assert executor.releases == 0
        del second_request
        await _settle()
        assert executor.releases == 0
        assert await answer(shadow, 40) == 42
        del shadow
        await until(lambda: executor.releases == 1)

    run_bench(scenario)


async def _settle() -> None:
    """Let everything that a dropped reference could have started take its turn."""
    gc.collect()
    for _ in range(5):
        await asyncio.sleep(0)


def test_version_named_again_while_old_rules_still_hold_it_is_prepared_anew(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.write(bench.version("fraud", "1"), bench.version("fraud", "2", "2"), bench.route("fraud", HALVES))
        worker = await bench.worker().follow()
        request = worker.snapshot
        old = worker.executor("fraud", "2")
        await bench.write(bench.route("fraud", {"1": 10_000}))
        await worker.reach(2)
        await bench.write(bench.route("fraud", HALVES))
        await until(lambda: ("fraud", "2") in worker.snapshot.versions)
        new = worker.executor("fraud", "2")
        del request
        await until(lambda: old.releases == 1)
        assert new is not old
        assert new.releases == 0
        assert await answer(worker.snapshot.versions["fraud", "2"], 1) == 3

    run_bench(scenario)


def test_artifact_that_moved_is_prepared_at_its_new_place_before_the_old_is_given_up(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.write(bench.version("fraud", "1", "7"), bench.route("fraud", {"1": 10_000}))
        worker = await bench.worker().follow()
        old = worker.executor("fraud", "1")
        manifest = json.loads(bench.adding.manifest("fraud", "1", "7"))
        moved = bench.adding.folder / "elsewhere.number"
        moved.write_text("7", encoding="utf-8")
        manifest["backend"]["onnx"]["path"] = str(moved)
        await bench.write(("version", "fraud/1", json.dumps(manifest).encode()))
        await until(lambda: worker.executor("fraud", "1") is not old)
        assert await answer(worker.snapshot.versions["fraud", "1"], 1) == 8
        await until(lambda: old.releases == 1)

    run_bench(scenario)


def test_closing_releases_every_executor_once_and_takes_the_worker_off_the_list(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.write(bench.version("fraud", "1"), bench.version("fraud", "2", "no number"))
        await bench.write(bench.route("fraud", HALVES))
        worker = await bench.worker().follow()
        await bench.acknowledgement("w0", 2)
        held = worker.snapshot  # by a request that never ends
        await worker.stop()
        assert await bench.store.acknowledgements() == []
        assert worker.rules.snapshot is None
        assert [executor.releases for executor in bench.adding.made] == [1] * len(bench.adding.made)
        assert held.routes

    run_bench(scenario)


def test_worker_stops_at_once_whatever_it_is_doing(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.write(bench.version("fraud", "1"), bench.route("fraud", {"1": 10_000}))
        for number in range(40):
            worker = await bench.worker(f"w{number}", poll_ms=1).follow()
            changing = asyncio.create_task(bench.write(bench.route("fraud", {"1": 10_000}, timeout_ms=number + 1)))
            for _ in range(number):
                await asyncio.sleep(0)
            async with asyncio.timeout(5):
                await worker.stop()
            await changing

    run_bench(scenario)
