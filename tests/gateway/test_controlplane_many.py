"""Changes of many documents: all or none, as one revision, checked against each other."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.catalog import encode_manifest, parse_manifest
from gateway.controlplane import ControlPlane, DocumentOutcome, Terms
from gateway.errors import (
    ArtifactMissing,
    ChangeError,
    IncompleteManifest,
    InvalidDocument,
    RevisionConflict,
    RevisionRequired,
    VersionExists,
)
from gateway.ports import DocumentName, Kind
from gateway.stores.rules_redis import RedisRules
from routing import encode_document, parse_cohort, parse_route
from tests.conftest import AddingVersions, RunningValkey
from tests.gateway.conftest import Bench, RunBench
from tests.gateway.control import HALVES, WHOLE, WORKERS_WAIT_S, cohort, origin, outcomes, plane_of, route, two_versions


async def head_of(bench: Bench) -> int:
    head = await bench.store.head()
    assert head is not None
    return head.revision


def test_route_its_versions_and_its_cohorts_come_together_in_one_revision(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = plane_of(bench, wait_s=WORKERS_WAIT_S)
        worker = await bench.worker().follow()
        await bench.healthy("w0", 0)
        documents = [
            route(HALVES, pins=[{"cohort": "beta", "version": "2"}]),
            cohort(),
            bench.adding.manifest("fraud", "1"),
            bench.adding.manifest("fraud", "2"),
        ]
        made = await plane.change(documents, {}, False, origin("op-1"))
        assert (made.revision, made.changed, made.in_force) == (1, True, True)
        assert outcomes(made.documents) == {
            "route fraud": "made",
            "cohort beta": "made",
            "version fraud/1": "made",
            "version fraud/2": "made",
        }
        assert worker.snapshot.routes["fraud"].route.split == HALVES
        revision = await plane.revision(1)
        assert revision is not None
        assert len(revision.changes) == 4
        again = await plane.change(documents, {}, False, origin("op-2"))
        assert (again.revision, again.changed) == (1, False)
        assert set(outcomes(again.documents).values()) == {"unchanged"}
        assert await head_of(bench) == 1

    run_bench(scenario)


def test_what_is_as_proposed_is_left_out_and_needs_no_revision(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        await plane.change([route(WHOLE), cohort()], {}, False, origin("op-1"))
        changed = [route(WHOLE), cohort(keys=["u-1"]), bench.adding.manifest("fraud", "1")]
        made = await plane.change(changed, {"cohort/beta": 2}, False, origin("op-2"))
        assert made.revision == 3
        assert made.documents[:2] == (
            DocumentOutcome("route", "fraud", "unchanged", 2),
            DocumentOutcome("cohort", "beta", "changed", 2),
        )
        assert (await plane.route("fraud")).revision == 2

    run_bench(scenario)


def test_existing_document_is_changed_only_by_who_has_seen_it(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        await plane.change([route(WHOLE), cohort()], {}, False, origin("op-1"))
        other = [route(HALVES), cohort(keys=["u-1"])]
        with pytest.raises(
            RevisionRequired, match=r"^route fraud: route of model fraud exists, at revision 2"
        ) as refused:
            await plane.change(other, {"cohort/beta": 2}, False, origin("op-2"))
        assert refused.value.current == 2
        with pytest.raises(
            RevisionConflict, match=r"^cohort beta: .* is at revision 2 now, not at revision 1"
        ) as stale:
            await plane.change(other, {"route/fraud": 2, "cohort/beta": 1}, False, origin("op-2"))
        assert stale.value.current == 2
        assert await head_of(bench) == 2
        seen = {"route/fraud": 2, "cohort/beta": 2}
        assert (await plane.change(other, seen, False, origin("op-2"))).revision == 3

    run_bench(scenario)


def test_dry_run_asks_for_no_revision_and_tells_those_that_there_are(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        await plane.change([route(WHOLE), cohort()], {}, False, origin("op-1"))
        documents = [route(HALVES), cohort("acme"), cohort()]
        tried = await plane.change(documents, {}, False, origin("op-2"), Terms(dry_run=True))
        assert (tried.revision, tried.changed, tried.in_force, tried.dry_run) == (2, True, False, True)
        assert tried.documents == (
            DocumentOutcome("route", "fraud", "changed", 2),
            DocumentOutcome("cohort", "acme", "made"),
            DocumentOutcome("cohort", "beta", "unchanged", 2),
        )
        assert await head_of(bench) == 2
        seen = {f"{one.kind}/{one.name}": one.was for one in tried.documents if one.was is not None}
        assert (await plane.change(documents, seen, False, origin("op-2"))).revision == 3
        with pytest.raises(InvalidDocument, match=r'^split\["9"\]'):
            await plane.change([route({"9": 10_000})], {}, False, origin("op-3"), Terms(dry_run=True))

    run_bench(scenario)


@pytest.mark.parametrize(
    ("documents", "message", "path", "current"),
    [
        (
            [route({"1": 9000, "9": 1000}), cohort()],
            'route fraud: split["9"]: version 9 of model fraud',
            'split["9"]',
            3,
        ),
        (
            [route(WHOLE, pins=[{"cohort": "nobody", "version": "1"}]), cohort()],
            "route fraud: pins[0].cohort: there is no cohort nobody",
            "pins[0].cohort",
            3,
        ),
        ([route({"1": 1}), cohort()], "route fraud: split: the weights sum to 1", "split", 3),
        ([cohort(), cohort("new", surprise=1)], "cohort new: surprise: ", "surprise", 0),
        ([cohort(), cohort()], "cohort beta: it stands twice", "", 3),
        ([cohort(), b"[]"], "documents[1]: expected a JSON object", "", None),
        ([cohort(), b"{}"], "documents[1]: expected a route (with split)", "", None),
        ([cohort(), b'{"name": 7}'], "documents[1]: name: expected a text", "name", None),
        ([cohort(), b'{"split": {}}'], "documents[1]: model: missing", "model", None),
        ([cohort(), b"not json"], "documents[1]: ", "", None),
        ([route({"1": 1})], "split: the weights sum to 1", "split", 3),
        ([], "documents: expected at least one", "documents", None),
    ],
)
def test_refusal_names_the_document_the_field_and_the_present_revision_and_nothing_is_made(
    run_bench: RunBench, documents: Sequence[bytes], message: str, path: str, current: int | None
) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        await bench.write(bench.cohort("other"))
        await bench.write(bench.route("fraud", WHOLE), bench.cohort("beta"))
        with pytest.raises(InvalidDocument) as refused:
            await plane.change(documents, {"cohort/beta": 3, "route/fraud": 3}, False, origin("op-1"))
        assert refused.value.message.startswith(message)
        assert str(refused.value) == refused.value.message
        assert (refused.value.path, refused.value.current) == (path, current)
        assert await head_of(bench) == 3

    run_bench(scenario)


def test_expected_revision_of_a_document_that_is_not_there_is_refused(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        with pytest.raises(InvalidDocument, match="route/spam is no document of this change") as refused:
            await plane_of(bench).change([cohort()], {"route/spam": 1}, False, origin("op-1"))
        assert refused.value.path == "expect"

    run_bench(scenario)


def test_version_of_a_change_must_be_complete_there_and_the_one_that_is_registered(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = plane_of(bench)
        incomplete = bench.adding.manifest("fraud", "1", owner=None)
        with pytest.raises(IncompleteManifest, match=r"^version fraud/1: owner: missing") as refused:
            await plane.change([incomplete, route(WHOLE)], {}, False, origin("op-1"))
        assert refused.value.current == 0
        assert (await plane.change([incomplete, route(WHOLE)], {}, True, origin("op-1"))).changed
        other = bench.adding.manifest("fraud", "1", "5")
        with pytest.raises(VersionExists, match=r"^version fraud/1: .*versions are immutable") as exists:
            await plane.change([other, cohort()], {}, False, origin("op-2"))
        assert exists.value.current == 1
        missing = bench.adding.manifest("fraud", "2")
        bench.adding.artifact("fraud", "2").unlink()
        with pytest.raises(ArtifactMissing, match=r"^version fraud/2: backend\.onnx\.path") as gone:
            await plane.change([missing, cohort()], {}, False, origin("op-3"))
        assert gone.value.current == 0
        assert await head_of(bench) == 1

    run_bench(scenario)


def test_change_of_many_sent_again_is_answered_with_the_revision_it_made(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        await plane.put_cohort("beta", cohort(), None, origin("op-0"))
        documents = [route(WHOLE), cohort(), cohort("acme")]
        twins = [plane.change(documents, {}, False, origin("op-1")) for _ in range(10)]
        assert {(made.revision, made.changed) for made in await asyncio.gather(*twins)} == {(3, True)}
        again = await plane.change(documents, {}, False, origin("op-1"))
        assert outcomes(again.documents) == {
            "route fraud": "made",
            "cohort beta": "unchanged",
            "cohort acme": "made",
        }
        await plane.put_route("fraud", route(HALVES), 3, origin("op-2"))
        assert (await plane.change(documents, {}, False, origin("op-1"))).revision == 3
        for others in (
            [route(WHOLE)],
            [route(HALVES), cohort(), cohort("acme")],
            [route(WHOLE), cohort(keys=["u-1"]), cohort("acme")],
        ):
            with pytest.raises(InvalidDocument, match="used for another change, revision 3") as refused:
                await plane.change(others, {}, False, origin("op-1"))
            assert refused.value.path == "operation_id"

    run_bench(scenario)


def test_of_two_editors_of_the_same_documents_one_wins_and_the_other_is_told(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        await plane.change([route(WHOLE), cohort()], {}, False, origin("op-1"))
        seen = {"route/fraud": 2, "cohort/beta": 2}
        edits = [[route(HALVES, timeout_ms=n), cohort(keys=[f"u-{n}"])] for n in range(1, 6)]
        tries = [plane.change(edit, seen, False, origin(f"edit-{n}")) for n, edit in enumerate(edits)]
        results = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(isinstance(result, RevisionConflict) and result.current == 3 for result in results) == 4
        assert await head_of(bench) == 3
        winner = next(n for n, result in enumerate(results) if not isinstance(result, BaseException))
        assert json.loads((await plane.route("fraud")).json)["timeout_ms"] == winner + 1
        assert json.loads((await plane.cohort("beta")).json)["keys"] == [f"u-{winner + 1}"]

    run_bench(scenario)


# ── any set of documents ─────────────────────────────────────────────────────────────────────────────────────────

VERSIONS, COHORTS, MODELS = ("1", "2"), ("beta", "acme"), ("fraud", "spam")


@st.composite
def routes(draw: st.DrawFn, model: str) -> dict[str, Any]:
    pins = draw(
        st.lists(st.fixed_dictionaries({"cohort": st.sampled_from(COHORTS), "version": st.sampled_from(VERSIONS)}))
    )
    return {"model": model, "split": {draw(st.sampled_from(VERSIONS)): 10_000}, "pins": pins[:2]}


@st.composite
def document_sets(draw: st.DrawFn) -> dict[DocumentName, dict[str, Any]]:
    """Return any documents of a small world: some name others that are among them, some do not."""
    found: dict[DocumentName, dict[str, Any]] = {}
    for name in draw(st.sets(st.sampled_from(COHORTS))):
        found["cohort", name] = {"name": name, "keys": draw(st.lists(st.sampled_from(["u-1", "u-2"]), unique=True))}
    for model in MODELS:
        for version in draw(st.sets(st.sampled_from(VERSIONS))):
            found["version", f"{model}/{version}"] = {"model": model, "version": version}
        if draw(st.booleans()):
            found["route", model] = draw(routes(model))
    return found


def needed(kind: Kind, document: Mapping[str, Any]) -> set[DocumentName]:
    """Return what a document names, worked out from its fields alone."""
    if kind != "route":
        return set()
    versions = {*document["split"], *(pin["version"] for pin in document["pins"])}
    return {("version", f"{document['model']}/{version}") for version in versions} | {
        ("cohort", pin["cohort"]) for pin in document["pins"]
    }


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=document_sets(), proposed=document_sets())
def test_any_set_of_documents_is_made_as_a_whole_when_all_that_it_names_is_there_then_and_else_not_at_all(
    valkey: RunningValkey,
    tmp_path_factory: pytest.TempPathFactory,
    before: dict[DocumentName, dict[str, Any]],
    proposed: dict[DocumentName, dict[str, Any]],
) -> None:
    folder: Path = tmp_path_factory.mktemp("any")
    bench = Bench(valkey, folder, AddingVersions(folder))
    store = RedisRules(valkey.url, timeout_s=10.0)  # on a busy machine a silence would look like a refusal
    manifests = {(model, version): bench.adding.manifest(model, version) for model in MODELS for version in VERSIONS}

    def text(name: DocumentName, document: Mapping[str, Any]) -> bytes:
        kind, _ = name
        return manifests[document["model"], document["version"]] if kind == "version" else json.dumps(document).encode()

    async def stored() -> dict[DocumentName, bytes]:
        kinds: tuple[Kind, ...] = ("route", "cohort", "version")
        return {(kind, name): one.json for kind in kinds for name, one in (await bench.store.read_all(kind)).items()}

    async def scenario(plane: ControlPlane) -> None:
        if before:
            await bench.write(*((kind, name, canonical((kind, name))) for kind, name in before))
        there = await stored()
        names = {name for name in proposed if there.get(name) != canonical(name, proposed)}
        whole = before.keys() | proposed.keys()
        legal = all(needed(kind, proposed[kind, name]) <= whole for kind, name in names)
        seen = {f"{kind}/{name}": 1 for kind, name in before.keys() & names}
        texts = [text(name, document) for name, document in proposed.items()]
        if not texts:
            return
        try:
            made = await plane.change(texts, seen, False, origin("op"))
        except ChangeError:
            assert not legal
            assert await stored() == there
            return
        assert legal
        assert made.changed == bool(names)
        assert await stored() == there | {name: canonical(name, proposed) for name in proposed}

    def canonical(name: DocumentName, among: Mapping[DocumentName, Mapping[str, Any]] = before) -> bytes:
        kind, _ = name
        if kind == "version":
            return encode_manifest(parse_manifest(text(name, among[name])))
        parse = parse_route if kind == "route" else parse_cohort
        return encode_document(parse(text(name, among[name])))

    async def whole_run() -> None:
        valkey.empty()
        try:
            await bench.store.initialise()
            await scenario(plane_of(bench, store))
        finally:
            await store.close()
            await bench.close()

    asyncio.run(whole_run())


def test_document_that_is_gone_since_it_was_seen_is_not_made_again(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = await two_versions(bench)
        await plane.put_cohort("beta", cohort(), None, origin("op-1"))
        await bench.write(("cohort", "beta", None))
        with pytest.raises(RevisionConflict, match="does not exist") as refused:
            await plane.change([cohort(keys=["u-1"])], {"cohort/beta": 2}, False, origin("op-2"))
        assert refused.value.current == 0

    run_bench(scenario)
