"""Terms of a change: trying it, saying beforehand who would move, and refusing to move too many."""

import json
import time

import apsw
import pytest

from gateway.controlplane import Terms
from gateway.errors import AuditUnavailable, InvalidDocument, TooManyMoves
from gateway.record import Payload, Record
from routing import Facts, parse_route, resolve, unit_digest
from tests.gateway.conftest import Bench, RunBench
from tests.gateway.control import HALVES, WHOLE, Control, cohort, origin, route, two_versions
from tests.records import DAY, ChainedJournal, batch

CALLERS = [f"u-{n}" for n in range(200)]


async def with_traffic(bench: Bench) -> Control:
    """Return a control process that has records of one request of each caller under a route that has 1 serve all."""
    await two_versions(bench)
    control = Control(bench)
    await control.plane.put_route("fraud", route(WHOLE), None, origin("begin"))
    received = time.time_ns() - 60 * 10**9
    records = [
        Record(
            record_id=f"r-{index}",
            request_id=f"r-{index}",
            role="primary",
            received_ns=received + index,
            model="fraud",
            protocol="oip-v2",
            outcome="served",
            status=200,
            request=Payload(2),
            response=Payload(2),
            intended="1",
            served="1",
            reason="split",
            rule="split",
            revision=2,
            rules_revision=2,
            unit=unit_digest(caller).hex(),
            keyed=True,
        )
        for index, caller in enumerate(CALLERS)
    ]
    control.audit.write(batch(ChainedJournal().frames(*records)))
    return control


def moving(document: bytes) -> int:
    """Return how many of the callers a route gives to version 2."""
    rules = parse_route(document)
    facts = [Facts(unit_digest(caller), "r", 0) for caller in CALLERS]
    return sum(resolve(rules, {}, one).version == "2" for one in facts)


@pytest.mark.parametrize(
    ("terms", "field"),
    [
        (Terms(max_moves=-1), "max_moves"),
        (Terms(confirm_within_ms=999), "confirm_within"),
        (Terms(confirm_within_ms=7 * 86_400_000 + 1), "confirm_within"),
    ],
)
def test_terms_out_of_range_are_refused_with_the_name_of_the_field(
    run_bench: RunBench, terms: Terms, field: str
) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        with pytest.raises(InvalidDocument) as refused:
            await plane.put_route("fraud", route(WHOLE), None, origin("op-1"), terms)
        assert refused.value.path == field

    run_bench(scenario)


def test_dry_run_of_one_document_checks_everything_and_makes_nothing(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        tried = await plane.put_route("fraud", route(WHOLE), None, origin("op-1"), Terms(dry_run=True))
        assert (tried.revision, tried.changed, tried.dry_run, tried.in_force) == (1, True, True, False)
        with pytest.raises(InvalidDocument, match="version 9 of model fraud is not registered"):
            await plane.put_route("fraud", route({"9": 10_000}), None, origin("op-1"), Terms(dry_run=True))
        made = await plane.put_route("fraud", route(WHOLE), None, origin("op-1"))
        assert (made.revision, made.dry_run) == (2, False)  # its operation id is as good as new

    run_bench(scenario)


def test_preview_is_answered_with_the_change_and_kept_with_its_revision_without_the_list_of_callers(
    run_bench: RunBench,
) -> None:
    async def scenario(bench: Bench) -> None:
        control = await with_traffic(bench)
        expected = moving(route(HALVES))
        made = await control.plane.put_route("fraud", route(HALVES), 2, origin("op-1"), Terms(preview=True))
        assert made.preview is not None
        assert made.preview.callers_moved == expected
        assert len(made.preview.models[0].moved) == expected
        revision = await control.plane.revision(made.revision)
        assert revision is not None
        assert revision.preview is not None
        kept = json.loads(revision.preview)
        assert kept["callers_moved"] == expected
        assert (kept["models"][0]["moved"], kept["models"][0]["moved_left_out"]) == ([], expected)
        plain = await control.plane.put_route("fraud", route(WHOLE), made.revision, origin("op-2"))
        assert plain.preview is None
        assert (await control.store.history(made.revision, 1))[0].preview is None

    run_bench(scenario)


def test_change_that_moves_more_callers_than_allowed_refuses_itself_with_both_numbers(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        control = await with_traffic(bench)
        moves = moving(route(HALVES))
        with pytest.raises(TooManyMoves, match=f"max_moves: {moves} of the 200 callers") as refused:
            await control.plane.put_route("fraud", route(HALVES), 2, origin("op-1"), Terms(max_moves=moves - 1))
        assert refused.value.current == 2
        assert (await control.plane.route("fraud")).revision == 2
        made = await control.plane.put_route("fraud", route(HALVES), 2, origin("op-1"), Terms(max_moves=moves))
        assert made.preview is not None
        assert made.preview.callers_moved == moves

    run_bench(scenario)


def test_many_documents_are_previewed_together(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        control = await with_traffic(bench)
        pinned = route(WHOLE, pins=[{"cohort": "beta", "version": "2"}])
        documents = [pinned, cohort(keys=CALLERS[:7])]
        made = await control.plane.change(
            documents, {"route/fraud": 2}, False, origin("op-1"), Terms(dry_run=True, max_moves=7)
        )
        assert made.preview is not None
        assert (made.preview.callers_moved, made.preview.models[0].pins.gained) == (7, 7)

    run_bench(scenario)


def test_without_the_records_a_preview_is_left_out_but_a_limit_of_moves_refuses_the_change(
    run_bench: RunBench,
) -> None:
    async def scenario(bench: Bench) -> None:
        control = await with_traffic(bench)
        broken = apsw.Connection(str(control.folder / "audit" / f"{DAY}.db"))
        broken.execute("ALTER TABLE records RENAME TO elsewhere")
        broken.close()
        with pytest.raises(AuditUnavailable):
            await control.plane.put_route("fraud", route(HALVES), 2, origin("op-1"), Terms(max_moves=200))
        assert (await control.plane.route("fraud")).revision == 2
        made = await control.plane.put_route("fraud", route(HALVES), 2, origin("op-1"), Terms(preview=True))
        assert (made.revision, made.preview) == (3, None)

    run_bench(scenario)
