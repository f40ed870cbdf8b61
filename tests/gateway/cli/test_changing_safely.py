"""Looking before a change, changing on condition, going back and looking back, against a real gateway."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.examples import digit_samples
from tests.e2e.running_gateway import RunningGateway, digit_request, wait_until

Pointsman = Any
Manifests = Callable[[str], list[Path]]
KEYS = [f"caller-{number}" for number in range(100)]


def version_of(pointsman: Pointsman, model: str, key: str) -> str:
    return str(pointsman.json("routes", "explain", model, "--key", key)["decision"]["version"])


@pytest.fixture
def callers(tmp_path: Path) -> str:
    path = tmp_path / "callers.txt"
    path.write_text("\n".join(KEYS), encoding="utf-8")
    return str(path)


# ── preview ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_preview_names_exactly_the_callers_whose_version_the_change_then_changes(
    pointsman: Pointsman, model: str, tmp_path: Path, callers: str
) -> None:
    file = tmp_path / "route.json"
    file.write_text(json.dumps({"model": model, "split": {"1": 6000, "2": 4000}}), encoding="utf-8")
    before = {key: version_of(pointsman, model, key) for key in KEYS[:20]}
    preview = pointsman.json("routes", "preview", str(file), "--keys", callers)
    moved = {one["key"]: one["after"] for one in preview["models"][0]["moved"]}
    shown = pointsman("routes", "preview", str(file), "--keys", callers)
    assert f"callers that would move   {len(moved)} of 100" in shown
    assert re.search(rf"1 +2 +{len(moved)} +{len(moved)}", shown)
    assert "looked at                 100 routing keys that were given" in shown
    assert pointsman.json("routes", "show", model)["split"] == {"1": 9000, "2": 1000}
    pointsman("routes", "apply", str(file))
    assert {key: version_of(pointsman, model, key) for key in before} == before | {
        key: version for key, version in moved.items() if key in before
    }


def test_a_preview_goes_by_the_requests_of_late_and_a_change_is_refused_when_too_many_would_move(
    pointsman: Pointsman, gateway: RunningGateway
) -> None:
    route = pointsman.json("routes", "show", "digits")
    for key in KEYS[:30]:
        gateway.infer("digits", digit_request(digit_samples()[0].pixels), {"x-routing-key": key, "x-request-id": key})
    gateway.audit(KEYS[29])  # the recorder has caught up
    preview = pointsman.json("routes", "weights", "digits", "2=100", "--preview")
    moved = preview["callers_moved"]
    assert moved > 10
    shown = pointsman("routes", "weights", "digits", "2=100", "--preview")
    assert "split of digits 2=100: not done, only previewed" in shown
    assert re.search(rf"1 +2 +{moved} ", shown)
    assert re.search(r"looked at +\d+ recorded requests since 2", shown)
    assert pointsman.json("routes", "show", "digits") == route
    for command in (["weights", "digits", "2=100"], ["promote", "digits", "2"]):
        refused = pointsman("routes", *command, "--max-moves", str(moved - 1), code=1)
        assert f"max_moves: {moved} of the" in refused
        assert "--preview" in refused
    pointsman("cohorts", "set", "everybody", *(part for key in KEYS for part in ("--key", key)))
    pinned = pointsman.json("routes", "pin", "digits", "everybody=2", "--preview")
    assert pinned["models"][0]["pins"]["gained"] >= 30
    made = pointsman("routes", "weights", "digits", "2=100", "--max-moves", str(moved))
    assert f"moves {moved} of" in made
    try:
        (newest,) = pointsman.json("routes", "history", "digits", "--limit", "1")["revisions"]
        assert newest["preview"]["callers_moved"] == moved
        assert re.search(rf"route digits changed +{moved} ", pointsman("routes", "history", "digits", "--limit", "1"))
    finally:
        pointsman("routes", "rollback", "digits")
    assert pointsman.json("routes", "show", "digits") == route


# ── conditions ───────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_change_on_condition_says_until_when_and_what_to_type_and_stands_when_it_is_confirmed(
    pointsman: Pointsman, gateway: RunningGateway, model: str
) -> None:
    said = pointsman("routes", "weights", model, "1=50", "2=50", "--confirm-within", "15m")
    assert re.search(r"taken back by itself at 20\d\d-\S+Z, in 15 min, unless it is confirmed", said)
    command = f"pointsman --admin-url {gateway.admin_url} routes"
    assert f"{command} confirm {model}\n" in said
    assert f"{command} rollback {model}\n" in said
    status = pointsman("status")
    assert re.search(rf"route {model} +in 1[45] min", status)
    refused = pointsman("routes", "weights", model, "1=10", "2=90", code=1)
    assert f"pointsman routes confirm {model}" in refused
    assert re.search(rf"route of {model}: confirmed, revision \d+ stands", pointsman("routes", "confirm", model))
    assert "`pointsman status` shows what waits" in pointsman("routes", "confirm", model, code=1)
    pointsman("routes", "weights", model, "1=10", "2=90")


def test_a_change_on_condition_is_taken_back_at_once_by_a_rollback_and_by_itself_in_time(
    pointsman: Pointsman, model: str
) -> None:
    pointsman("routes", "promote", model, "2", "--confirm-within", "1h")
    assert pointsman.json("routes", "show", model)["split"] == {"2": 10_000}
    pointsman("routes", "rollback", model)
    assert pointsman.json("routes", "show", model)["split"] == {"1": 9000, "2": 1000}
    made = pointsman.json("routes", "weights", model, "1=100", "--confirm-within", "1s")
    assert made["confirm_within_ms"] == 1000
    wait_until(
        lambda: pointsman.json("routes", "show", model)["split"] == {"1": 9000, "2": 1000}, "it is taken back", 10
    )
    assert "was not confirmed in time" in pointsman("routes", "history", model, "--limit", "1")


# ── going back and looking back ──────────────────────────────────────────────────────────────────────────────────


def test_a_route_goes_back_to_any_revision_and_the_same_callers_to_their_versions(
    pointsman: Pointsman, model: str
) -> None:
    before = [version_of(pointsman, model, key) for key in KEYS[:10]]
    (first,) = pointsman.json("routes", "history", model, "--limit", "1")["revisions"]
    pointsman("routes", "weights", model, "1=50", "2=50", "-m", "half")
    pointsman("routes", "promote", model, "3", "-m", "all")
    tried = pointsman("routes", "rollback", model, "--to", str(first["revision"]), "--dry-run")
    assert re.search(rf"route +{model} +changed", tried)
    assert pointsman.json("routes", "show", model)["split"] == {"3": 10_000}
    stale = pointsman("routes", "rollback", model, "--if-revision", str(first["revision"]), code=1)
    assert "is at revision" in stale
    said = pointsman("routes", "rollback", model, "--to", str(first["revision"]), "-m", "errors went up")
    assert f"rolled back to revision {first['revision']}: in force everywhere" in said
    assert [version_of(pointsman, model, key) for key in KEYS[:10]] == before

    history = pointsman("routes", "history", model, "--limit", "3")
    assert [line.split()[-1] for line in history.splitlines()[2:5]] == ["up", "all", "half"]
    newest, _, half = pointsman.json("routes", "history", model, "--limit", "3")["revisions"]
    older = f"older: pointsman routes history {model} --before {half['revision']}"
    assert older in history
    assert pointsman.json(*older.split()[2:])["revisions"][0]["revision"] == first["revision"]

    difference = pointsman("routes", "diff", model, str(half["revision"]), str(newest["revision"]))
    assert re.search(r'split\["1"\] +5000 +9000', difference)
    assert "is the same" in pointsman("routes", "diff", model, str(first["revision"]))
    assert pointsman.json("routes", "diff", model, str(half["revision"]))["differences"]
    shown = pointsman("routes", "show", model, "--revision", str(half["revision"]))
    assert re.search(r"1 +50 %\n2 +50 %", shown)
    future = pointsman("routes", "show", model, "--revision", "999999", code=1)
    assert "pointsman routes history MODEL" in future
    then = pointsman("routes", "explain", model, "--key", "u-1", "--at", str(half["revision"]))
    assert f"rules of {model} at revision {half['revision']} (rules revision {half['revision']}, at 2" in then


def test_a_shared_cohort_is_brought_back_only_when_the_operator_says_so(pointsman: Pointsman, model: str) -> None:
    pointsman("cohorts", "set", "shared", "--key", "u-1")
    pointsman("routes", "pin", model, "shared=3")
    (pinned,) = pointsman.json("routes", "history", model, "--limit", "1")["revisions"]
    pointsman("routes", "pin", "digits", "shared=3")
    try:
        pointsman("cohorts", "set", "shared", "--key", "u-2")
        to = ["routes", "rollback", model, "--to", str(pinned["revision"])]
        refused = pointsman(*to, code=1)
        assert "--cohorts restore" in refused
        assert "--cohorts keep" in refused
        pointsman(*to, "--cohorts", "restore")
        assert pointsman.json("cohorts", "show", "shared")["keys"] == ["u-1"]
    finally:
        pointsman("routes", "unpin", "digits", "shared")


def test_a_recorded_request_is_explained_by_the_rules_of_its_time(
    pointsman: Pointsman, gateway: RunningGateway, model: str
) -> None:
    body = digit_request(digit_samples()[0].pixels)
    answer = gateway.infer(model, body, {"x-routing-key": "u-1", "x-request-id": f"then-{model}"})
    version = answer.headers["x-model-version"]
    gateway.audit(f"then-{model}")
    pointsman("routes", "promote", model, "3")
    explained = pointsman("routes", "explain", model, "--request-id", f"then-{model}")
    assert f"version {version}, reason split, rule split\n" in explained
    assert f"says: version {version}, reason split; the same" in explained
    found = pointsman.json("routes", "explain", model, "--request-id", f"then-{model}")
    assert found["agrees"] is True


# ── many documents ───────────────────────────────────────────────────────────────────────────────────────────────


def test_a_folder_of_documents_is_applied_as_one_revision_and_once(
    pointsman: Pointsman, manifests: Manifests, tmp_path: Path
) -> None:
    folder = manifests("many")[0].parent
    names = sorted(manifest.parent.name for manifest in folder.glob("*/manifest.json"))
    rules = tmp_path / "rules"
    rules.mkdir()
    for name in names:
        manifest = json.loads((folder / name / "manifest.json").read_text(encoding="utf-8"))
        manifest["backend"]["onnx"]["path"] = f"models/{name}/model.onnx"
        (rules / f"version-{name}.json").write_text(json.dumps([manifest]), encoding="utf-8")
        (rules / "models" / name).mkdir(parents=True)
        (rules / "models" / name / "model.onnx").write_bytes((folder / name / "model.onnx").read_bytes())
    (rules / "a-route.yaml").write_text(
        "model: many\nsplit: {'1': 10000}\npins: [{cohort: many-beta, version: '1'}]\n---\n"
        "name: many-beta\nkeys: [u-1]\n---\n",
        encoding="utf-8",
    )
    (rules / "notes.txt").write_text("no document", encoding="utf-8")
    tried = pointsman("routes", "apply", str(rules), "--dry-run")
    assert re.search(r"route +many +made", tried)
    assert "nothing was changed" in tried
    assert "there is no" in pointsman("routes", "show", "many", code=1)
    said = pointsman("routes", "apply", str(rules))
    made = pointsman.json("routes", "history", "many")["revisions"]
    assert len(made) == 1
    count = len(names) + 2
    assert f"{count} documents applied: in force everywhere, revision {made[0]['revision']}" in said
    again = pointsman("routes", "apply", str(rules))
    assert f"{count} documents applied: nothing to change" in again
    assert len(pointsman.json("routes", "history", "many")["revisions"]) == 1
    (rules / "a-route.yaml").write_text("model: many\nsplit: {'9': 10000}\n", encoding="utf-8")
    refused = pointsman("routes", "apply", str(rules), code=1)
    assert 'split["9"]: version 9 of model many is not registered' in refused


def test_the_revision_that_was_looked_at_is_of_one_route_alone(
    pointsman: Pointsman, model: str, tmp_path: Path
) -> None:
    file = tmp_path / "two.yaml"
    file.write_text(f"model: {model}\nsplit: {{'1': 10000}}\n---\nname: beta\nkeys: [u-1]\n", encoding="utf-8")
    assert "--if-revision" in pointsman("routes", "apply", str(file), "--if-revision", "7", code=2)


# ── the whole ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_status_names_store_workers_and_revisions(pointsman: Pointsman, model: str) -> None:
    revision = pointsman.json("routes", "weights", model, "1=80", "2=20")["revision"]
    status = wait_until(lambda: _status_at(pointsman, revision), "both workers have it")
    assert "all is well" in status
    assert re.search(r"rules store +answering", status)
    found = pointsman.json("status")
    assert (found["ok"], found["troubles"]) == (True, [])
    assert {worker["worker"] for worker in found["workers"]} == {"gateway/w0", "gateway/w1"}


def _status_at(pointsman: Pointsman, revision: int) -> str | None:
    status: str = pointsman("status")
    return status if len(re.findall(rf"gateway/w[01] +ready +{revision} ", status)) == 2 else None


def test_nothing_is_resettled_when_the_rules_are_not_in_doubt(pointsman: Pointsman) -> None:
    for verb in ("republish", "accept"):
        refused = pointsman("rules", verb, "--yes", code=1)
        assert "is not in doubt" in refused
        assert "Somebody else" not in refused
