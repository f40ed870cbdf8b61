"""Changes of routes and cohorts: what is refused and why, what is made, and where it is in force."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import pytest

from gateway.controlplane import DocumentOutcome, Question
from gateway.errors import (
    ArtifactMissing,
    CohortInUse,
    DigestMismatch,
    DocumentNotFound,
    InvalidDocument,
    RevisionConflict,
    RevisionRequired,
    RulesUnavailable,
)
from gateway.ports import Acknowledgement, ChangeSet, Head, Kind, StoredDocument
from gateway.stores.rules_redis import RedisRules
from tests.gateway.conftest import Bench, RunBench
from tests.gateway.control import HALVES, WHOLE, WORKERS_WAIT_S, origin, plane_of, route, told, two_versions

# ── what is made ─────────────────────────────────────────────────────────────────────────────────────────────────


def test_route_is_kept_with_its_defaults_and_with_who_why_and_when(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        made = await plane.put_route("fraud", route(WHOLE), None, origin("op-1", comment="first"))
        assert told(made) == (2, True, False, (), {})  # no worker is alive
        assert made.documents == (DocumentOutcome("route", "fraud", "made"),)
        stored = await plane.route("fraud")
        assert stored.revision == 2
        assert json.loads(stored.json)["timeout_ms"] == 30_000
        revision = await plane.revision(2)
        assert revision is not None
        assert (revision.actor, revision.comment, revision.operation_id) == ("ann", "first", "op-1")
        assert revision.at_ns > 1_700_000_000_000_000_000
        assert [(c.kind, c.name, c.before, c.after) for c in revision.changes] == [
            ("route", "fraud", None, stored.json)
        ]
        assert await plane.revision(3) is None
        assert await plane.revision(0) is None

    run_bench(scenario)


def test_same_document_makes_no_revision_however_it_is_written(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        await plane.put_route("fraud", route(HALVES), None, origin("op-1"))
        again = b'{ "split": {"2": 5000, "1": 5000},\n "client_versions": "allow", "model": "fraud" }'
        same = await plane.put_route("fraud", again, 2, origin("op-2"))
        assert told(same) == (2, False, False, (), {})
        assert same.documents == (DocumentOutcome("route", "fraud", "unchanged", was=2),)
        await plane.put_cohort("beta", b'{"name": "beta"}', 0, origin("op-3"))
        assert not (await plane.put_cohort("beta", b'{"name":"beta","keys":[]}', 3, origin("op-4"))).changed
        head = await bench.store.head()
        assert head is not None
        assert head.revision == 3

    run_bench(scenario)


# ── compare and set ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("expect", "refusal", "words"),
    [
        (None, RevisionRequired, "route of model fraud exists, at revision 2"),
        (0, RevisionConflict, "is at revision 2 now, not at revision 0"),
        (1, RevisionConflict, "is at revision 2 now, not at revision 1"),
    ],
)
def test_existing_route_is_changed_only_by_who_has_seen_it(
    run_bench: RunBench, expect: int | None, refusal: type[RevisionRequired] | type[RevisionConflict], words: str
) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        await plane.put_route("fraud", route(WHOLE), 0, origin("op-1"))
        with pytest.raises(refusal, match=words) as refused:
            await plane.put_route("fraud", route(HALVES), expect, origin("op-2"))
        assert getattr(refused.value, "current", None) == 2
        assert (await plane.put_route("fraud", route(HALVES), 2, origin("op-3"))).revision == 3

    run_bench(scenario)


def test_route_that_does_not_exist_cannot_be_changed_from_a_revision(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        with pytest.raises(RevisionConflict, match="does not exist") as refused:
            await plane.put_route("fraud", route(WHOLE), 7, origin("op-1"))
        assert refused.value.current == 0

    run_bench(scenario)


def test_change_sent_again_is_answered_with_the_revision_it_made(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        first = await plane.put_route("fraud", route(WHOLE), None, origin("op-1"))
        assert await plane.put_route("fraud", route(WHOLE), None, origin("op-1")) == first
        await plane.put_route("fraud", route(HALVES), 2, origin("op-2"))
        bench.adding.artifact("fraud", "1").unlink()  # no check stands in the way of an answer that was lost
        assert await plane.put_route("fraud", route(WHOLE), None, origin("op-1")) == first
        assert (await plane.route("fraud")).revision == 3
        twins = [plane.put_route("fraud", route({"2": 10_000}), 3, origin("op-3")) for _ in range(10)]
        assert {(made.revision, made.changed) for made in await asyncio.gather(*twins)} == {(4, True)}

    run_bench(scenario)


def test_operation_id_of_another_change_is_refused(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        await plane.put_route("fraud", route(WHOLE), None, origin("op-1"))
        for attempt in (
            plane.put_route("fraud", route(HALVES), 2, origin("op-1")),
            plane.put_cohort("beta", b'{"name": "beta"}', None, origin("op-1")),
            plane.delete_cohort("beta", 1, origin("op-1")),
        ):
            with pytest.raises(InvalidDocument, match="used for another change, revision 2") as refused:
                await attempt
            assert refused.value.path == "operation_id"

    run_bench(scenario)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("actor", "a" * 257),
        ("comment", "c" * 1025),
        ("operation_id", "o" * 129),
        ("operation_id", ""),
        ("actor", "\ud800"),
    ],
)
def test_origin_must_be_text_of_bounded_length(run_bench: RunBench, field: str, value: str) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        who = msgspec.structs.replace(origin("op-1"), **{field: value})
        with pytest.raises(InvalidDocument) as refused:
            await plane.put_route("fraud", route(WHOLE), None, who)
        assert refused.value.path == field
        with pytest.raises(InvalidDocument) as refused:
            await plane.delete_cohort("beta", None, who)
        assert refused.value.path == field

    run_bench(scenario)


# ── what a route may name ────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("document", "path"),
    [
        (route({"1": 9000, "7": 1000}), 'split["7"]'),
        (route({"1": 10_000, "7": 0}), 'split["7"]'),
        (
            route(WHOLE, pins=[{"cohort": "beta", "version": "1"}, {"cohort": "beta", "version": "7"}]),
            "pins[1].version",
        ),
        (
            route(WHOLE, pins=[{"cohort": "beta", "version": "1"}, {"cohort": "nobody", "version": "1"}]),
            "pins[1].cohort",
        ),
        (route(WHOLE, shadows=[{"version": "7", "sample": 1}]), "shadows[0].version"),
        (route(WHOLE, fallback=["2", "7"]), "fallback[1]"),
        (route(WHOLE, surprise=1), "surprise"),
        (b'{"model": "spam", "split": {"1": 10000}}', "model"),
        (b'{"model": "fraud", "split": {"1": 9999}}', "split"),
        (b"not json", ""),
    ],
)
def test_route_that_does_not_fit_is_refused_with_the_path_of_the_field(
    run_bench: RunBench, document: bytes, path: str
) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        await bench.write(bench.cohort("beta"))
        with pytest.raises(InvalidDocument) as refused:
            await plane.put_route("fraud", document, None, origin("op-1"))
        assert refused.value.path == path
        with pytest.raises(DocumentNotFound, match="no route of model fraud"):
            await plane.route("fraud")

    run_bench(scenario)


def test_artifact_of_a_newly_named_version_is_read_again(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        await plane.put_route("fraud", route(WHOLE), None, origin("op-1"))
        first, second = (bench.adding.artifact("fraud", version) for version in ("1", "2"))
        first.write_text("changed since, but already in force", encoding="utf-8")
        assert (await plane.put_route("fraud", route(WHOLE, timeout_ms=5), 2, origin("op-2"))).changed
        second.write_text("changed", encoding="utf-8")
        with pytest.raises(DigestMismatch, match=r"[0-9a-f]{64}.*[0-9a-f]{64}"):
            await plane.put_route("fraud", route(HALVES), 3, origin("op-3"))
        second.unlink()
        with pytest.raises(ArtifactMissing, match="No such file"):
            await plane.put_route("fraud", route(WHOLE, shadows=[{"version": "2", "sample": 1}]), 3, origin("op-4"))
        assert (await plane.route("fraud")).revision == 3

    run_bench(scenario)


def test_route_in_the_store_that_does_not_parse_can_be_replaced(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        await bench.write(("route", "fraud", b"{}"), bench.cohort("beta"))
        with pytest.raises(InvalidDocument, match="route of model fraud does not parse"):
            await plane.delete_cohort("beta", 2, origin("op-1"))
        assert (await plane.put_route("fraud", route(WHOLE), 2, origin("op-2"))).revision == 3

    run_bench(scenario)


# ── cohorts ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_cohort_is_made_changed_listed_and_deleted(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = plane_of(bench)
        assert (await plane.put_cohort("beta", b'{"name": "beta"}', None, origin("op-1"))).revision == 1
        assert (await plane.put_cohort("alpha", b'{"name": "alpha"}', 0, origin("op-2"))).revision == 2
        assert (await plane.put_cohort("beta", b'{"name": "beta", "keys": ["u-1"]}', 1, origin("op-3"))).revision == 3
        assert [(name, stored.revision) for name, stored in (await plane.cohorts()).items()] == [
            ("alpha", 2),
            ("beta", 3),
        ]
        with pytest.raises(RevisionRequired):
            await plane.delete_cohort("beta", None, origin("op-4"))
        with pytest.raises(RevisionConflict):
            await plane.delete_cohort("beta", 1, origin("op-4"))
        gone = await plane.delete_cohort("beta", 3, origin("op-4"))
        assert gone.revision == 4
        assert gone.documents == (DocumentOutcome("cohort", "beta", "deleted", was=3),)
        assert told(await plane.delete_cohort("beta", 3, origin("op-4"))) == told(gone)
        for attempt in (plane.cohort("beta"), plane.delete_cohort("beta", 3, origin("op-5")), plane.cohort("\ud800")):
            with pytest.raises(DocumentNotFound, match="there is no cohort"):
                await attempt

    run_bench(scenario)


def test_cohort_of_another_name_than_its_address_is_refused(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        with pytest.raises(InvalidDocument) as refused:
            await plane_of(bench).put_cohort("beta", b'{"name": "alpha"}', None, origin("op-1"))
        assert refused.value.path == "name"

    run_bench(scenario)


def test_cohort_that_routes_pin_is_not_deleted_and_they_are_named(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        await plane.put_cohort("beta", b'{"name": "beta"}', None, origin("op-1"))
        pinned = route(WHOLE, pins=[{"cohort": "beta", "version": "2"}])
        await plane.put_route("fraud", pinned, None, origin("op-2"))
        with pytest.raises(CohortInUse, match="pinned by the route of fraud; remove those pins first"):
            await plane.delete_cohort("beta", 2, origin("op-3"))
        await plane.put_route("fraud", route(WHOLE), 3, origin("op-4"))
        assert (await plane.delete_cohort("beta", 2, origin("op-5"))).revision == 5

    run_bench(scenario)


class Overtaken(RedisRules):
    """The real store, in which something else happens just before a call of ours: a race with its outcome decided."""

    def __init__(self, url: str, before: Callable[[], Awaitable[Any]], call: str = "apply") -> None:
        super().__init__(url)
        self._before: Callable[[], Awaitable[Any]] | None = before
        self._call = call

    async def apply(self, change: ChangeSet) -> int:
        await self._overtake("apply")
        return await super().apply(change)

    async def read(self, kind: Kind, name: str) -> StoredDocument | None:
        await self._overtake("read")
        return await super().read(kind, name)

    async def _overtake(self, call: str) -> None:
        if call == self._call and self._before is not None:
            before, self._before = self._before, None
            await before()


@pytest.mark.parametrize("call", ["read", "apply"])
def test_change_whose_twin_was_first_is_answered_as_the_twin(run_bench: RunBench, call: str) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        store = Overtaken(bench.valkey.url, lambda: plane.put_route("fraud", route(WHOLE), None, origin("op-1")), call)
        assert (await plane_of(bench, store).put_route("fraud", route(WHOLE), None, origin("op-1"))).revision == 2
        assert (await plane.route("fraud")).revision == 2
        await store.close()

    run_bench(scenario)


@pytest.mark.parametrize("call", ["read", "apply"])
def test_change_that_another_editor_overtakes_is_refused(run_bench: RunBench, call: str) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        store = Overtaken(bench.valkey.url, lambda: plane.put_route("fraud", route(WHOLE), None, origin("op-1")), call)
        with pytest.raises(RevisionConflict) as refused:
            await plane_of(bench, store).put_route("fraud", route(HALVES), 0, origin("op-2"))
        assert refused.value.current == 2
        await store.close()

    run_bench(scenario)


def test_deleting_loses_against_a_pin_that_is_made_at_the_same_time(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        await plane.put_cohort("beta", b'{"name": "beta"}', None, origin("op-1"))
        pinned = route(WHOLE, pins=[{"cohort": "beta", "version": "2"}])
        store = Overtaken(bench.valkey.url, lambda: plane.put_route("fraud", pinned, None, origin("op-2")))
        with pytest.raises(CohortInUse):
            await plane_of(bench, store).delete_cohort("beta", 2, origin("op-3"))
        await store.close()

    run_bench(scenario)


def test_deleting_is_made_though_unrelated_rules_change_at_the_same_time(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        await plane.put_cohort("beta", b'{"name": "beta"}', None, origin("op-1"))
        store = Overtaken(bench.valkey.url, lambda: plane.put_route("fraud", route(WHOLE), None, origin("op-2")))
        assert (await plane_of(bench, store).delete_cohort("beta", 2, origin("op-3"))).revision == 4
        await store.close()

    run_bench(scenario)


def test_pin_loses_against_a_deletion_of_its_cohort_at_the_same_time(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        await plane.put_cohort("beta", b'{"name": "beta"}', None, origin("op-1"))
        pinned = route(WHOLE, pins=[{"cohort": "beta", "version": "2"}])
        store = Overtaken(bench.valkey.url, lambda: plane.delete_cohort("beta", 2, origin("op-2")))
        with pytest.raises(InvalidDocument) as refused:
            await plane_of(bench, store).put_route("fraud", pinned, None, origin("op-3"))
        assert refused.value.path == "pins[0].cohort"
        await store.close()

    run_bench(scenario)


# ── where it is in force ─────────────────────────────────────────────────────────────────────────────────────────


def test_change_is_in_force_everywhere_when_it_is_answered(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench, WORKERS_WAIT_S)
        workers = [await bench.worker(name).follow() for name in ("w0", "w1")]
        for name in ("w0", "w1"):
            await bench.healthy(name, 1)
        for expect, split in ((None, WHOLE), (2, HALVES), (3, {"1": 1000, "2": 9000})):
            made = await plane.put_route("fraud", route(split), expect, origin(f"op-{expect}"))
            assert told(made) == (made.revision, True, True, ("w0", "w1"), {})
            assert all(worker.snapshot.routes["fraud"].route.split == split for worker in workers)
        assert (await plane.put_cohort("beta", b'{"name": "beta"}', None, origin("op-c"))).in_force
        assert all("beta" in worker.snapshot.cohorts for worker in workers)

    run_bench(scenario)


def test_worker_that_cannot_prepare_a_version_is_a_laggard_and_says_why(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.write(bench.version("fraud", "1"), bench.version("fraud", "2", "no number"))
        await bench.write(bench.route("fraud", WHOLE), bench.version("spam", "1"))
        await bench.worker().follow()
        await bench.healthy("w0", 2)
        plane = plane_of(bench, wait_s=0.5)
        made = await plane.put_route("fraud", route(HALVES), 2, origin("op-1"))
        assert (made.revision, made.changed, made.in_force, made.acknowledged) == (3, True, False, ())
        assert made.laggards["w0"].endswith("version 2 cannot be prepared: its artifact is no number")
        spam = json.dumps({"model": "spam", "split": WHOLE}).encode()
        assert (
            await plane.put_route("spam", spam, None, origin("op-2"))
        ).in_force  # another model's trouble is not its

    run_bench(scenario)


def test_worker_that_does_not_follow_is_a_laggard(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        await two_versions(bench)
        worker = await bench.worker().follow()
        await bench.healthy("w0", 1)
        await worker.pause()
        made = await plane_of(bench, wait_s=0.1).put_route("fraud", route(WHOLE), None, origin("op-1"))
        assert told(made) == (2, True, False, (), {"w0": "it has revision 1 so far"})

    run_bench(scenario)


def test_worker_that_was_silent_before_the_change_is_not_waited_for(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench, WORKERS_WAIT_S)
        said = '1700000000000 {"epoch": "e", "revision": 1, "problems": {}}'
        await bench.worker().follow()
        await bench.healthy("w0", 1)
        bench.valkey.command("HSET", "{pm}:acks", "long-dead", said)
        made = await plane.put_route("fraud", route(WHOLE), None, origin("op-1"))
        assert told(made) == (2, True, True, ("w0",), {})

    run_bench(scenario)


class Watched(RedisRules):
    """The real store, which says when the acknowledgements have been looked at."""

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.looked = asyncio.Event()

    async def acknowledgements(self) -> Sequence[Acknowledgement]:
        found = await super().acknowledgements()
        self.looked.set()
        return found


def test_worker_that_falls_silent_while_it_is_waited_for_stays_a_laggard(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench, WORKERS_WAIT_S)
        frozen = await bench.worker("frozen").follow()
        await bench.worker("quick").follow()
        await bench.healthy("frozen", 1)
        await frozen.pause()
        store = Watched(bench.valkey.url)
        publishing = asyncio.create_task(
            plane_of(bench, store, 0.5).put_route("fraud", route(WHOLE), None, origin("op-1"))
        )
        await store.looked.wait()
        said = '1700000000000 {"epoch": "e", "revision": 1, "problems": {}}'
        bench.valkey.command("HSET", "{pm}:acks", "frozen", said)
        made = await publishing
        await store.close()
        assert not made.in_force
        assert made.acknowledged == ("quick",)
        assert made.laggards["frozen"].startswith("it has revision 1 so far, and has been silent for")
        assert (await plane.put_route("fraud", route(HALVES), 2, origin("op-2"))).in_force

    run_bench(scenario)


def test_changes_and_look_ups_are_refused_when_the_store_is_down(run_private_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        bench.valkey.kill()
        for attempt in (
            plane.put_route("fraud", route(WHOLE), None, origin("op-1")),
            plane.put_cohort("beta", b'{"name": "beta"}', None, origin("op-1")),
            plane.delete_cohort("beta", 1, origin("op-1")),
            plane.route("fraud"),
            plane.cohorts(),
            plane.models(),
            plane.explain("fraud", Question("u-1")),
        ):
            with pytest.raises(RulesUnavailable, match="does not answer"):
                await attempt

    run_private_bench(scenario)


def test_worker_whose_alarm_keeps_it_on_old_rules_is_a_laggard_with_that_reason(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        head = await bench.store.head()
        assert head is not None
        for worker, has in (("behind", Head(head.epoch, 1)), ("elsewhere", Head("another", 70))):
            await bench.store.acknowledge(Acknowledgement(worker, has, alarms={"store": "it went back"}))
        made = await plane.put_route("fraud", route(WHOLE), None, origin("op-1"))
        assert not made.in_force
        assert made.laggards == {
            "behind": "it has revision 1 so far; it went back",
            "elsewhere": "it has revision 70 of another life of the rules store; it went back",
        }

    run_bench(scenario)
