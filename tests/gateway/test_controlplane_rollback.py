"""Rollback: a route and the cohorts that it pinned come back as they were, and with them every caller's version."""

import asyncio
import json
from collections.abc import Mapping
from typing import Any

import pytest

from gateway.controlplane import ControlPlane, Terms
from gateway.errors import CohortInUse, DigestMismatch, DocumentNotFound, InvalidDocument, RevisionConflict
from routing import Facts, parse_cohort, parse_route, resolve, unit_digest
from tests.gateway.conftest import Bench, RunBench
from tests.gateway.control import HALVES, WHOLE, WORKERS_WAIT_S, cohort, origin, outcomes, route, two_versions

CALLERS = [f"u-{n}" for n in range(300)]
PINS = [{"cohort": "beta", "version": "2"}]


async def served(plane: ControlPlane, model: str = "fraud") -> Mapping[str, str]:
    """Return the version of every caller under the rules of now."""
    rules = parse_route((await plane.route(model)).json)
    cohorts = {name: parse_cohort(stored.json) for name, stored in (await plane.cohorts()).items()}
    return {caller: resolve(rules, cohorts, Facts(unit_digest(caller), "r", 0)).version for caller in CALLERS}


async def fields(plane: ControlPlane, model: str = "fraud") -> dict[str, Any]:
    document: dict[str, Any] = json.loads((await plane.route(model)).json)
    return document


def test_rollback_is_a_new_revision_that_gives_every_caller_the_version_they_had(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench, WORKERS_WAIT_S)
        worker = await bench.worker().follow()
        await bench.healthy("w0", 1)
        await plane.change([cohort(keys=["u-1", "u-2"]), route(HALVES, pins=PINS)], {}, False, origin("op-1"))
        before = await served(plane)
        await plane.put_cohort("beta", cohort(keys=["u-3"]), 2, origin("op-2"))
        await plane.put_route("fraud", route(WHOLE, salt="another", timeout_ms=5), 2, origin("op-3"))
        assert await served(plane) != before
        back = await plane.rollback("fraud", 2, None, None, origin("op-4"))
        assert (back.revision, back.changed, back.in_force) == (5, True, True)
        assert outcomes(back.documents) == {"route fraud": "changed", "cohort beta": "changed"}
        assert await served(plane) == before
        assert worker.snapshot.routes["fraud"].route.timeout_ms == 30_000
        again = await plane.rollback("fraud", 2, None, None, origin("op-5"))
        assert (again.revision, again.changed) == (5, False)

    run_bench(scenario)


def test_without_a_revision_the_last_change_of_the_route_is_undone_whatever_else_has_changed_since(
    run_bench: RunBench,
) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        await plane.put_route("fraud", route(WHOLE), None, origin("op-1"))
        await plane.put_route("fraud", route(HALVES), 2, origin("op-2"))
        await plane.put_route("fraud", route({"2": 10_000}), 3, origin("op-3"))
        await plane.put_cohort("beta", cohort(), None, origin("op-4"))
        assert (await plane.rollback("fraud", None, None, None, origin("op-5"))).revision == 6
        assert (await fields(plane))["split"] == HALVES
        await plane.rollback("fraud", None, None, None, origin("op-6"))
        assert (await fields(plane))["split"] == {"2": 10_000}  # the last change was the rollback

    run_bench(scenario)


def test_cohort_that_changed_between_two_changes_of_the_route_keeps_that_change(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        await plane.change([cohort(), route(WHOLE, pins=PINS)], {}, False, origin("op-1"))
        await plane.put_cohort("beta", cohort(keys=["u-1"]), 2, origin("op-2"))
        await plane.put_route("fraud", route(HALVES, pins=PINS), 2, origin("op-3"))
        back = await plane.rollback("fraud", None, None, None, origin("op-4"))
        assert outcomes(back.documents) == {"route fraud": "changed"}
        assert json.loads((await plane.cohort("beta")).json)["keys"] == ["u-1"]

    run_bench(scenario)


def test_shared_cohort_is_restored_or_kept_as_the_caller_says_and_not_without(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        await bench.write(bench.version("spam", "1"), bench.version("spam", "2"))
        pinned = [cohort(), route(WHOLE, pins=PINS), route(WHOLE, model="spam", pins=PINS)]
        await plane.change(pinned, {}, False, origin("op-1"))
        await plane.put_cohort("beta", cohort(keys=["u-1"]), 3, origin("op-2"))
        await plane.put_route("fraud", route(HALVES), 3, origin("op-3"))
        with pytest.raises(CohortInUse, match=r"beta by the route of spam.*--cohorts restore.*--cohorts keep"):
            await plane.rollback("fraud", 3, None, None, origin("op-4"))
        kept = await plane.rollback("fraud", 3, "keep", None, origin("op-4"))
        assert outcomes(kept.documents) == {"route fraud": "changed"}
        assert json.loads((await plane.cohort("beta")).json)["keys"] == ["u-1"]
        restored = await plane.rollback("fraud", 3, "restore", None, origin("op-5"))
        assert outcomes(restored.documents) == {"route fraud": "unchanged", "cohort beta": "changed"}
        assert json.loads((await plane.cohort("beta")).json)["keys"] == []

    run_bench(scenario)


def test_cohort_that_was_deleted_since_is_made_again(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        await plane.change([cohort(keys=["u-1"]), route(WHOLE, pins=PINS)], {}, False, origin("op-1"))
        await plane.put_route("fraud", route(WHOLE), 2, origin("op-2"))
        await plane.delete_cohort("beta", 2, origin("op-3"))
        back = await plane.rollback("fraud", 2, "keep", None, origin("op-4"))
        assert outcomes(back.documents) == {"route fraud": "changed", "cohort beta": "made"}
        assert json.loads((await plane.cohort("beta")).json)["keys"] == ["u-1"]

    run_bench(scenario)


def test_rollback_sent_again_is_answered_with_the_revision_it_made(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        await plane.put_route("fraud", route(WHOLE), None, origin("op-1"))
        await plane.put_route("fraud", route(HALVES), 2, origin("op-2"))
        twins = [plane.rollback("fraud", None, None, None, origin("op-3")) for _ in range(5)]
        assert {made.revision for made in await asyncio.gather(*twins)} == {4}
        again = await plane.rollback("fraud", None, None, None, origin("op-3"))
        assert (again.revision, again.changed) == (4, True)
        assert (await fields(plane))["split"] == WHOLE
        with pytest.raises(InvalidDocument, match="used for another change, revision 4"):
            await plane.rollback("spam", None, None, None, origin("op-3"))

    run_bench(scenario)


def test_rollback_is_compared_and_set_when_the_caller_says_what_they_saw(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        await plane.put_route("fraud", route(WHOLE), None, origin("op-1"))
        await plane.put_route("fraud", route(HALVES), 2, origin("op-2"))
        with pytest.raises(RevisionConflict) as refused:
            await plane.rollback("fraud", 2, None, 2, origin("op-3"))
        assert refused.value.current == 3
        assert (await plane.rollback("fraud", 2, None, 3, origin("op-3"))).changed

    run_bench(scenario)


def test_rollback_to_where_there_was_nothing_is_refused_with_the_reason(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        await plane.put_route("fraud", route(WHOLE), None, origin("op-1"))
        for model, to, why in (
            ("fraud", None, "has never been otherwise than it is now, at revision 2"),
            ("fraud", 1, "there was no route of model fraud at revision 1"),
            ("fraud", 99, "revision 99"),
            ("spam", None, "there is no route of model spam"),
            ("spam", 2, "there was no route of model spam at revision 2"),
            ("\ud800", None, "there is no route"),
        ):
            with pytest.raises(DocumentNotFound, match=why):
                await plane.rollback(model, to, None, None, origin("op-2"))

    run_bench(scenario)


def test_dry_run_of_a_rollback_says_what_would_come_back(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        await plane.put_route("fraud", route(WHOLE), None, origin("op-1"))
        await plane.put_route("fraud", route(HALVES), 2, origin("op-2"))
        tried = await plane.rollback("fraud", None, None, None, origin("op-3"), Terms(dry_run=True))
        assert (tried.dry_run, outcomes(tried.documents)) == (True, {"route fraud": "changed"})
        assert (await plane.route("fraud")).revision == 3

    run_bench(scenario)


def test_version_whose_artifact_is_another_by_now_does_not_come_back(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        await plane.put_route("fraud", route({"2": 10_000}), None, origin("op-1"))
        await plane.put_route("fraud", route(WHOLE), 2, origin("op-2"))
        bench.adding.artifact("fraud", "2").write_text("another", encoding="utf-8")
        with pytest.raises(DigestMismatch) as refused:
            await plane.rollback("fraud", None, None, None, origin("op-3"))
        assert refused.value.current == 3

    run_bench(scenario)


def test_route_that_was_written_again_as_it_was_has_been_otherwise_before_that(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        await plane.put_route("fraud", route(WHOLE), None, origin("op-1"))
        await plane.put_route("fraud", route(HALVES), 2, origin("op-2"))
        stored = await plane.route("fraud")
        await bench.write(("route", "fraud", stored.json))
        await plane.rollback("fraud", None, None, None, origin("op-3"))
        assert (await fields(plane))["split"] == WHOLE

    run_bench(scenario)
