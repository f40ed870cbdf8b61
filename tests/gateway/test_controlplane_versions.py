"""Registering versions, and the look-ups: what there is, and how a caller would be decided about."""

import asyncio
import json
from typing import Any

import pytest

from gateway.controlplane import Question
from gateway.errors import (
    ArtifactInvalid,
    ArtifactMissing,
    DigestMismatch,
    DocumentNotFound,
    IncompleteManifest,
    InvalidDocument,
    VersionExists,
)
from tests.gateway.conftest import Bench, RunBench
from tests.gateway.control import WORKERS_WAIT_S, origin, plane_of

# ── registering ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_version_is_registered_and_known_to_every_worker_when_it_is_answered(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = plane_of(bench, wait_s=WORKERS_WAIT_S)
        worker = await bench.worker().follow()
        await bench.healthy("w0", 0)
        made = await plane.register("fraud", bench.adding.manifest("fraud", "2"), False, origin("op-1"))
        assert (made.revision, made.changed, made.in_force, made.acknowledged) == (1, True, True, ("w0",))
        assert worker.snapshot.registered == {("fraud", "2")}
        stored = await plane.version("fraud", "2")
        assert json.loads(stored.json)["owner"] == "risk-ml"
        assert [executor.releases for executor in bench.adding.made] == [1]  # it was only looked at

    run_bench(scenario)


def test_same_version_again_changes_nothing(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = plane_of(bench)
        manifest = bench.adding.manifest("fraud", "2")
        await plane.register("fraud", manifest, False, origin("op-1"))
        again = await plane.register("fraud", manifest, False, origin("op-2"))
        assert (again.revision, again.changed) == (1, False)
        resent = await plane.register("fraud", manifest, False, origin("op-1"))
        assert (resent.revision, resent.changed) == (1, True)

    run_bench(scenario)


def test_same_content_at_another_path_updates_the_path(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = plane_of(bench)
        manifest = json.loads(bench.adding.manifest("fraud", "2"))
        await plane.register("fraud", json.dumps(manifest).encode(), False, origin("op-1"))
        moved = bench.adding.artifact("fraud", "2").rename(bench.adding.folder / "moved.number")
        manifest["backend"]["onnx"]["path"] = str(moved)
        made = await plane.register("fraud", json.dumps(manifest).encode(), False, origin("op-2"))
        assert (made.revision, made.changed) == (2, True)
        assert json.loads((await plane.version("fraud", "2")).json)["backend"]["onnx"]["path"] == str(moved)

    run_bench(scenario)


def test_other_content_under_the_same_name_is_refused_with_the_fields_that_differ(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = plane_of(bench)
        await plane.register("fraud", bench.adding.manifest("fraud", "2", "1"), False, origin("op-1"))
        other = bench.adding.manifest("fraud", "2", "5", metrics={"accuracy": 0.97, "auc": 0.9}, description="new")
        with pytest.raises(VersionExists) as refused:
            await plane.register("fraud", other, False, origin("op-2"))
        for field in ("backend.onnx.sha256", "metrics.accuracy", "metrics.auc", "description"):
            assert field in refused.value.message
        assert "backend.onnx.path" not in refused.value.message
        assert (await plane.version("fraud", "2")).revision == 1

    run_bench(scenario)


def test_of_two_that_register_one_name_at_once_one_wins_and_the_other_is_told(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = plane_of(bench)
        contents = [bench.adding.manifest("fraud", "2", description=str(n)) for n in range(5)]
        tries = [plane.register("fraud", one, False, origin(f"op-{n}")) for n, one in enumerate(contents)]
        results = await asyncio.gather(*tries, return_exceptions=True)
        assert sum(isinstance(result, VersionExists) for result in results) == 4
        same = [plane.register("fraud", contents[0], False, origin(f"again-{n}")) for n in range(5)]
        outcomes = await asyncio.gather(*same, return_exceptions=True)
        assert len({type(outcome) for outcome in outcomes}) == 1

    run_bench(scenario)


def test_incomplete_manifest_is_refused_with_every_missing_path_unless_allowed(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = plane_of(bench)
        incomplete = bench.adding.manifest("fraud", "2", owner=None, metrics={}, code={}, data={})
        with pytest.raises(IncompleteManifest) as refused:
            await plane.register("fraud", incomplete, False, origin("op-1"))
        assert refused.value.path == "code.git_commit, data.version, metrics, owner"
        assert "--allow-incomplete" in refused.value.message
        assert (await plane.register("fraud", incomplete, True, origin("op-1"))).changed

    run_bench(scenario)


def test_artifact_must_be_there_be_the_one_and_run(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = plane_of(bench)
        artifact = bench.adding.artifact("fraud", "2")
        manifest = bench.adding.manifest("fraud", "2")
        artifact.write_text("another", encoding="utf-8")
        with pytest.raises(DigestMismatch, match=r"[0-9a-f]{64}.*[0-9a-f]{64}"):
            await plane.register("fraud", manifest, False, origin("op-1"))
        artifact.unlink()
        with pytest.raises(ArtifactMissing, match="No such file"):
            await plane.register("fraud", manifest, False, origin("op-1"))
        artifact.mkdir()
        with pytest.raises(ArtifactMissing, match="Is a directory"):
            await plane.register("fraud", manifest, False, origin("op-1"))
        artifact.rmdir()
        with pytest.raises(ArtifactInvalid, match="no number"):
            await plane.register("fraud", bench.adding.manifest("fraud", "2", "no number"), False, origin("op-1"))
        assert all(executor.releases == 1 for executor in bench.adding.made)
        with pytest.raises(DocumentNotFound, match="no version fraud/2"):
            await plane.version("fraud", "2")

    run_bench(scenario)


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"backend": {"onnx": {"path": "model.onnx", "sha256": "0" * 64}}}, "backend.onnx.path"),
        ({"backend": {}}, "backend"),
        ({"model": "spam"}, "model"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_manifest_that_does_not_fit_is_refused_with_the_path_of_the_field(
    run_bench: RunBench, fields: dict[str, Any], path: str
) -> None:
    async def scenario(bench: Bench) -> None:
        with pytest.raises(InvalidDocument) as refused:
            await plane_of(bench).register(
                "fraud", bench.adding.manifest("fraud", "2", **fields), False, origin("op-1")
            )
        assert refused.value.path == path

    run_bench(scenario)


def test_version_with_an_http_backend_needs_no_artifact(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        plane = plane_of(bench)
        backend = {"http": {"urls": ["http://127.0.0.1:9"]}}
        manifest = bench.adding.manifest("fraud", "2", backend=backend)
        bench.adding.artifact("fraud", "2").unlink()
        assert (await plane.register("fraud", manifest, False, origin("op-1"))).changed
        route = b'{"model": "fraud", "split": {"2": 10000}}'
        assert (await plane.put_route("fraud", route, None, origin("op-2"))).changed

    run_bench(scenario)


# ── looking ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_models_have_their_versions_and_their_route_in_order(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.write(bench.version("spam", "b"), bench.version("spam", "a"), bench.version("fraud", "1"))
        await bench.write(bench.route("fraud", {"1": 10_000}), bench.version("spam-2", "1"))
        plane = plane_of(bench)
        models = await plane.models()
        assert [(one.model, list(one.versions), one.route is not None) for one in models] == [
            ("fraud", ["1"], True),
            ("spam", ["a", "b"], False),
            ("spam-2", ["1"], False),
        ]
        assert list(await plane.versions("spam")) == ["a", "b"]
        assert await plane.versions("nothing") == {}
        assert await plane.versions("\ud800") == {}
        for attempt in (plane.version("fraud", "9"), plane.version("\ud800", "1"), plane.route("n" * 100_000)):
            with pytest.raises(DocumentNotFound) as refused:
                await attempt
            assert len(refused.value.message) < 300

    run_bench(scenario)


def test_explain_decides_as_the_route_says_with_the_present_documents(run_bench: RunBench) -> None:
    async def scenario(bench: Bench) -> None:
        await bench.write(bench.version("fraud", "1"), bench.version("fraud", "2"))
        await bench.write(
            bench.cohort("beta", keys=["u-17"]),
            bench.cohort("acme", match=[{"header": "X-Tenant", "in": ["acme"]}]),
            bench.route(
                "fraud",
                {"1": 10_000, "2": 0},
                key=[{"header": "X-User"}],
                pins=[{"cohort": "beta", "version": "2"}, {"cohort": "acme", "version": "2"}],
            ),
        )
        plane = plane_of(bench)

        async def reason(
            key: str | None = None, asked: str | None = None, record_id: str | None = None, **headers: str
        ) -> tuple[str, str, str | None]:
            names = {name.replace("_", "-"): value for name, value in headers.items()}
            explained = await plane.explain("fraud", Question(key, names, asked, record_id))
            assert explained.revision == 2
            decision = explained.explanation.decision
            assert decision is not None
            return decision.reason, decision.version, decision.cohort

        assert await reason("u-17") == ("pin", "2", "beta")
        assert await reason(X_User="u-17") == ("pin", "2", "beta")
        assert await reason("u-18", X_User="u-17") == ("split", "1", None)  # the key that was asked about wins
        assert await reason("u-18", X_Tenant="acme") == ("pin", "2", "acme")
        assert await reason("u-18") == ("split", "1", None)
        assert await reason("u-17", asked="1") == ("explicit", "1", None)
        assert await reason() == ("split", "1", None)
        assert await reason(record_id="u-17") == ("split", "1", None)  # a record id is no routing key
        question = Question(record_id="some record")
        first, second = await plane.explain("fraud", question), await plane.explain("fraud", question)
        assert first.explanation.scores == second.explanation.scores
        with pytest.raises(DocumentNotFound, match="no route of model spam"):
            await plane.explain("spam", Question())

    run_bench(scenario)
