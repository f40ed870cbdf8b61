"""Versions that are slow, broken or missing: nothing healthy waits for them, and nothing broken takes traffic."""

import asyncio

import pytest
import structlog

from gateway.catalog import Manifest
from gateway.errors import ArtifactInvalid, DigestMismatch
from gateway.metrics import Slot
from gateway.ports import Executor
from gateway.snapshot import preparation
from tests.conftest import AddingExecutor, until
from tests.gateway.conftest import Bench, RunBench

HALVES = {"1": 5000, "2": 5000}
WHOLE = {"1": 10_000}


def test_route_waits_for_its_new_version_and_other_models_do_not(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.write(bench.version("fraud", "1"), bench.version("fraud", "2"), bench.version("spam", "1"))
        await bench.write(bench.route("fraud", WHOLE), bench.route("spam", WHOLE))
        worker = await bench.worker().follow()
        hold = bench.adding.artifact("fraud", "2").with_suffix(".hold")
        hold.touch()
        await bench.write(bench.route("fraud", HALVES))
        await bench.acknowledgement("w0", 3, lambda problems: problems == {"fraud": "preparing version 2"})
        assert worker.snapshot.routes["fraud"].revision == 2
        await bench.write(bench.route("spam", WHOLE, timeout_ms=5))
        await bench.acknowledgement("w0", 4, lambda problems: problems.keys() == {"fraud"})
        assert worker.snapshot.routes["spam"].revision == 4
        assert worker.snapshot.routes["fraud"].revision == 2
        assert not worker.rules.stale
        hold.unlink()
        await until(lambda: worker.snapshot.routes["fraud"].revision == 3)
        await bench.healthy("w0", 4)

    run_bench(scenario)


def test_many_versions_are_prepared_a_few_at_a_time(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        names = [str(number) for number in range(1, 11)]
        holds = [bench.adding.artifact("fraud", name).with_suffix(".hold") for name in names]
        await bench.write(*(bench.version("fraud", name) for name in names))
        await bench.write(bench.route("fraud", dict.fromkeys(names, 1000)))
        for hold in holds:
            hold.touch()
        starting = asyncio.create_task(bench.worker().start())
        await until(lambda: len(bench.adding.made) == 4)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(bench.adding.made) == 4  # until one is done
        for hold in holds:
            hold.unlink()
        worker = await starting
        assert worker.board[Slot.VERSIONS_LOADED] == 10

    run_bench(scenario)


def test_broken_version_holds_its_route_back_and_no_other_model(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.write(bench.version("fraud", "1"), bench.version("fraud", "2"), bench.version("spam", "1"))
        await bench.write(bench.route("fraud", WHOLE), bench.route("spam", WHOLE))
        worker = await bench.worker().follow()
        bench.adding.artifact("fraud", "2").write_text("tampered", encoding="utf-8")
        await bench.write(bench.route("fraud", HALVES), bench.route("spam", WHOLE, timeout_ms=5))
        await until(lambda: worker.snapshot.routes["spam"].revision == 3)
        said = await bench.acknowledgement("w0", 3, lambda problems: "preparing" not in problems["fraud"])
        assert said.problems["fraud"].startswith("route revision 3 is not in force: version 2 cannot be prepared")
        assert "sha256" in said.problems["fraud"]
        assert worker.snapshot.routes["fraud"].revision == 2
        assert ("fraud", "2") not in worker.snapshot.versions
        assert not worker.alarm  # the rules are fine; it is the version that is not

    run_bench(scenario)


def test_cohort_change_reaches_a_route_whose_successor_is_held_back(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        pins = [{"cohort": "beta", "version": "1"}]
        await bench.write(bench.version("fraud", "1"), bench.version("fraud", "2", "no number"), bench.cohort("beta"))
        await bench.write(bench.route("fraud", WHOLE, pins=pins))
        worker = await bench.worker().follow()
        await bench.write(bench.route("fraud", HALVES, pins=pins))
        await bench.acknowledgement("w0", 3, lambda problems: "not in force" in problems["fraud"])
        await bench.write(bench.cohort("beta", match=[{"header": "x-tenant", "in": ["acme"]}]))
        await worker.reach(4)
        entry = worker.snapshot.routes["fraud"]
        assert (entry.revision, entry.consulted, entry.cohort_revision) == (2, ("x-tenant",), 4)

    run_bench(scenario)


def test_broken_version_is_tried_again_until_it_can_be_prepared(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.write(bench.version("fraud", "1"), bench.version("fraud", "2"), bench.route("fraud", WHOLE))
        worker = await bench.worker().follow()
        artifact = bench.adding.artifact("fraud", "2")
        artifact.unlink()
        await bench.write(bench.route("fraud", HALVES))
        await bench.acknowledgement("w0", 2, lambda problems: "not in force" in problems["fraud"])
        artifact.write_text("1", encoding="utf-8")
        await until(lambda: worker.snapshot.routes["fraud"].revision == 2)
        await until(lambda: bench.adding.made[1].releases == 1)  # what failed has given back what it took
        assert bench.adding.made[2].releases == 0

    run_bench(scenario)


def test_withdrawn_version_is_not_tried_again(run_bench: RunBench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "_FIRST_RETRY_SECONDS", 0.01)

    async def scenario(bench: Bench) -> None:
        def tries(model: str) -> int:
            return sum(e.manifest.model == model and e.manifest.version == "2" for e in bench.adding.made)

        for model in ("fraud", "spam"):
            await bench.write(bench.version(model, "1"), bench.version(model, "2", "no number"))
            await bench.write(bench.route(model, WHOLE))
        worker = await bench.worker().follow()
        await bench.write(bench.route("fraud", HALVES), bench.route("spam", HALVES))
        await until(lambda: tries("fraud") and tries("spam"))
        await bench.write(bench.route("fraud", WHOLE, timeout_ms=5))
        await worker.reach(6)
        withdrawn, kept = tries("fraud"), tries("spam")
        await until(lambda: tries("spam") >= kept + 3)
        assert tries("fraud") == withdrawn
        await bench.acknowledgement("w0", 6, lambda problems: problems.keys() == {"spam"})
        await until(
            lambda: all(e.releases == 1 for e in bench.adding.made if e.manifest.model == "fraud" and e.addend is None)
        )

    run_bench(scenario)


def test_cold_start_serves_the_healthy_versions_of_a_route(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.write(bench.version("fraud", "1"), bench.version("fraud", "2", "no number"))
        await bench.write(bench.route("fraud", HALVES))
        worker = await bench.worker().follow()
        assert worker.snapshot.versions["fraud", "1"].problem is None
        assert isinstance(worker.snapshot.versions["fraud", "2"].problem, ArtifactInvalid)
        assert worker.board[Slot.VERSIONS_LOADED] == 1
        told = {"fraud": "version 2 cannot be prepared: its artifact is no number"}
        await bench.acknowledgement("w0", 2, lambda problems: problems == told)
        # A change that takes the traffic off the broken version comes into force, though it still names it.
        await bench.write(bench.route("fraud", {"1": 10_000, "2": 0}))
        await worker.reach(3)
        assert worker.snapshot.routes["fraud"].revision == 3
        # One that names another broken version does not.
        await bench.write(bench.version("fraud", "3", "no number either"), bench.route("fraud", {"1": 9000, "3": 1000}))
        await bench.acknowledgement("w0", 4, lambda problems: "not in force" in problems["fraud"])
        assert worker.snapshot.routes["fraud"].revision == 3

    run_bench(scenario)


def test_cold_start_heals_when_the_artifact_is_put_right(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.write(bench.version("fraud", "1"), bench.version("fraud", "2", "5"), bench.route("fraud", HALVES))
        artifact = bench.adding.artifact("fraud", "2")
        artifact.write_text("6", encoding="utf-8")
        worker = await bench.worker().follow()
        assert isinstance(worker.snapshot.versions["fraud", "2"].problem, DigestMismatch)
        artifact.write_text("5", encoding="utf-8")
        await until(lambda: worker.snapshot.versions["fraud", "2"].problem is None)
        assert worker.board[Slot.VERSIONS_LOADED] == 2
        await bench.healthy("w0", 1)

    run_bench(scenario)


def test_version_that_nobody_registered_is_a_problem_of_its_route(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.write(bench.version("fraud", "1"), bench.route("fraud", HALVES))
        worker = await bench.worker().follow()
        assert worker.snapshot.versions.keys() == {("fraud", "1")}
        told = {"fraud": "version 2 is not registered, or its manifest cannot be read"}
        await bench.acknowledgement("w0", 1, lambda problems: problems == told)
        await bench.write(bench.version("fraud", "2"))
        await until(lambda: ("fraud", "2") in worker.snapshot.versions)
        await bench.healthy("w0", 2)

    run_bench(scenario)


def test_defects_of_executors_are_problems_of_their_versions(run_bench: RunBench) -> None:
    class Defective(AddingExecutor):
        async def prepare(self) -> None:
            raise ZeroDivisionError

    async def scenario(bench: Bench) -> None:
        await bench.write(*(bench.version("fraud", name) for name in ("1", "2", "3")))
        await bench.write(bench.route("fraud", {"1": 9000, "2": 500, "3": 500}))

        def make(manifest: Manifest) -> Executor:
            if manifest.version == "3":
                raise ArtifactInvalid("there is nothing here to run it")
            return Defective(manifest) if manifest.version == "2" else AddingExecutor(manifest)

        with structlog.testing.capture_logs() as lines:
            worker = await bench.worker(executor_for=make).start()
        problems = {version: prepared.problem for (_, version), prepared in worker.snapshot.versions.items()}
        assert problems["1"] is None
        assert "the log has the details" in str(problems["2"])
        assert str(problems["3"]) == "there is nothing here to run it"
        assert not (await worker.snapshot.versions["fraud", "3"].executor.ready()).ready
        defect = next(line for line in lines if line["event"] == "executor_defect")
        assert isinstance(defect["exc_info"], ZeroDivisionError)

    run_bench(scenario)
