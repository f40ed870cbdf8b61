"""Every command that changes something, against a real gateway."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gateway.cli.client import AdminClient
from gateway.cli.edits import edit_field
from gateway.cli.failures import Refusal
from tests.e2e.running_gateway import RunningGateway, wait_until

Pointsman = Any
Manifests = Callable[[str], list[Path]]


def test_a_version_is_registered_once_and_may_be_registered_again_only_unchanged(
    pointsman: Pointsman, manifests: Manifests
) -> None:
    folder = str(manifests("once")[0])
    assert "version 1 of once registered: in force everywhere" in pointsman("versions", "register", folder)
    assert "nothing to change" in pointsman("versions", "register", folder)
    file = Path(folder, "manifest.json")
    file.write_text(json.dumps({**json.loads(file.read_text()), "owner": "somebody else"}))
    refused = pointsman("versions", "register", folder, code=1)
    assert "it differs in owner" in refused
    assert "under a new version name" in refused


def test_a_manifest_in_yaml_is_registered_from_any_folder_when_it_names_its_artifact_beside_itself(
    pointsman: Pointsman, manifests: Manifests, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = manifests("yaml")[1]
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").unlink()
    sha256 = manifest["backend"]["onnx"]["sha256"]
    (folder / "manifest.yaml").write_text(
        "model: yaml\nversion: '2'\ncreated: 2026-10-02T09:00:00Z\nowner: risk\nmetrics: {accuracy: 0.96}\n"
        f"backend: {{onnx: {{path: ./model.onnx, sha256: {sha256}}}}}\n"
        "code: {git_commit: 9e12345}\ndata: {version: 2026-10-01}\n"
    )
    monkeypatch.chdir(folder.parent)
    pointsman("versions", "register", folder.name)
    shown = pointsman.json("versions", "show", "yaml", "2")
    assert (shown["created"], shown["data"]["version"]) == ("2026-10-02T09:00:00Z", "2026-10-01")
    assert Path(shown["backend"]["onnx"]["path"]) == folder / "model.onnx"


def test_an_incomplete_manifest_is_refused_naming_what_it_lacks_and_shown_as_incomplete_when_allowed(
    pointsman: Pointsman, manifests: Manifests
) -> None:
    folder = manifests("gaps")[0]
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["owner"], manifest["code"]
    (folder / "manifest.json").write_text(json.dumps(manifest))
    refused = pointsman("versions", "register", str(folder), code=1)
    assert "code.git_commit, owner" in refused
    assert "--allow-incomplete" in refused
    pointsman("versions", "register", str(folder), "--allow-incomplete")
    assert "incomplete: code.git_commit, owner" in pointsman("versions", "list", "gaps")
    assert pointsman.json("versions", "show", "gaps", "1")["incomplete"] == ["code.git_commit", "owner"]


def test_the_versions_before_a_refused_one_stay_registered(pointsman: Pointsman, manifests: Manifests) -> None:
    folders = manifests("part")
    (folders[1] / "model.onnx").write_bytes(b"another file")
    refused = pointsman("versions", "register", *map(str, folders), code=1)
    assert "sha256" in refused or "digest" in refused
    assert [version["version"] for version in pointsman.json("versions", "list", "part")["versions"]] == ["1"]


def test_weights_change_the_split_and_nothing_else(pointsman: Pointsman, model: str) -> None:
    pointsman("routes", "shadow", model, "3=12.5")
    before = pointsman.json("routes", "show", model)
    said = pointsman("routes", "weights", model, "1=87.25", "2=12.75", "-m", "a little – more")
    assert f"split of {model} 1=87.25 2=12.75: in force everywhere, revision" in said
    assert pointsman.json("routes", "show", model) == {**before, "split": {"1": 8725, "2": 1275}}
    assert "nothing to change" in pointsman("routes", "weights", model, "1=87.25", "2=12.75")
    pointsman("routes", "weights", model, "3=100")
    assert pointsman.json("routes", "show", model)["split"] == {"3": 10_000}


def test_weights_are_refused_naming_the_version_when_it_is_not_registered(pointsman: Pointsman, model: str) -> None:
    refused = pointsman("routes", "weights", model, "1=90", "9=10", code=1)
    assert 'split["9"]: version 9' in refused
    assert "register it first" in refused
    assert pointsman.json("routes", "show", model)["split"] == {"1": 9000, "2": 1000}


def test_a_change_is_refused_when_the_revision_is_no_longer_the_one_that_was_looked_at(
    pointsman: Pointsman, model: str
) -> None:
    made = json.loads(pointsman("routes", "weights", model, "1=80", "2=20", "--json"))
    pointsman("routes", "weights", model, "1=70", "2=30", "--if-revision", str(made["revision"]))
    for command in (["weights", model, "1=60", "2=40"], ["shadow", model, "3=1"]):
        refused = pointsman("routes", *command, "--if-revision", str(made["revision"]), code=1)
        assert f"{model} is at revision" in refused
        assert "nothing was changed" in refused
    route = json.dumps({"model": model, "split": {"1": 10_000}})
    assert "is at revision" in pointsman("routes", "apply", "-", "--if-revision", "1", text=route, code=1)
    assert pointsman.json("routes", "show", model)["split"] == {"1": 7000, "2": 3000}


def test_an_edit_is_made_on_top_when_another_change_left_its_field_alone(
    gateway: RunningGateway, pointsman: Pointsman, model: str
) -> None:
    others = iter([["shadow", model, "3=5"], ["shadow", model, "3=6"]])

    def overtaken(_: Any) -> dict[str, int]:
        if command := next(others, None):
            pointsman("routes", *command)
        return {"1": 10_000}

    with AdminClient(gateway.admin_url, actor="anna") as client:
        assert edit_field(client, model, "split", overtaken).in_force
    route = pointsman.json("routes", "show", model)
    assert (route["split"], route["shadows"]) == ({"1": 10_000}, [{"version": "3", "sample": 600}])


def test_an_edit_is_refused_when_another_change_set_the_same_field_first(
    gateway: RunningGateway, pointsman: Pointsman, model: str
) -> None:
    def overtaken(_: Any) -> dict[str, int]:
        pointsman("routes", "weights", model, "2=100")
        return {"1": 10_000}

    with (
        AdminClient(gateway.admin_url, actor="anna") as client,
        pytest.raises(Refusal, match="somebody else changed the split") as caught,
    ):
        edit_field(client, model, "split", overtaken)
    assert f"pointsman routes show {model}" in caught.value.advice
    assert pointsman.json("routes", "show", model)["split"] == {"2": 10_000}


def test_an_edit_gives_up_and_says_so_when_others_are_always_faster(
    gateway: RunningGateway, pointsman: Pointsman, model: str
) -> None:
    samples = iter(range(1, 100))

    def overtaken(_: Any) -> dict[str, int]:
        pointsman("routes", "shadow", model, f"3={next(samples)}")
        return {"1": 10_000}

    with (
        AdminClient(gateway.admin_url, actor="anna") as client,
        pytest.raises(Refusal, match=r"other changes came first 5 times; nothing was changed"),
    ):
        edit_field(client, model, "split", overtaken)


def test_a_route_is_made_replaced_and_left_alone_by_apply(pointsman: Pointsman, manifests: Manifests) -> None:
    pointsman("versions", "register", *map(str, manifests("applied")))
    route = "model: applied\nsplit:\n  '1': 9000\n  '2': 1000\ntimeout_ms: 500\n"
    file = manifests("elsewhere")[0] / "route.yaml"
    file.write_text(route)
    assert "route of applied made: in force everywhere" in pointsman("routes", "apply", str(file))
    assert "nothing to change" in pointsman("routes", "apply", str(file))
    replaced = pointsman("routes", "apply", "-", text='{"model": "applied", "split": {"2": 10000}}')
    assert "route of applied applied: in force everywhere" in replaced
    shown = pointsman.json("routes", "show", "applied")
    assert (shown["split"], shown["timeout_ms"]) == ({"2": 10_000}, 30_000)


@pytest.mark.parametrize(
    ("field", "value", "path"),
    [
        ("split", {"1": 9000}, "split: the weights sum to 9000"),
        ("split", {"1": 10_000.5}, 'split["1"]'),
        ("spilt", {}, "spilt: unknown field"),
        ("timeout_ms", 0, "timeout_ms: "),
        ("pins", [{"cohort": "nobody", "version": "1"}], "pins[0].cohort: there is no cohort nobody"),
        ("shadows", [{"version": "9", "sample": 1}], "shadows[0].version: version 9"),
    ],
)
def test_a_route_is_refused_with_the_path_of_the_field_and_nothing_is_changed(
    pointsman: Pointsman, model: str, field: str, value: Any, path: str
) -> None:
    before = pointsman.json("routes", "show", model)
    refused = pointsman("routes", "apply", "-", text=json.dumps({**before, field: value}), code=1)
    assert path in refused
    assert "nothing was changed" in refused
    assert pointsman.json("routes", "show", model) == before


def test_a_pin_serves_its_cohort_until_it_is_taken_away(pointsman: Pointsman, model: str) -> None:
    pointsman("cohorts", "set", f"{model}-a", "--key", "u-1", "--key", "u-2")
    pointsman("cohorts", "set", f"{model}-b", "--match", "x-tenant=acme,other")
    said = pointsman("routes", "pin", model, f"{model}-a=3", "--expires", "30d", "--owner", "risk", "--reason", "trial")
    assert f"cohort {model}-a of {model} pinned to version 3 until 2" in said
    pointsman("routes", "pin", model, f"{model}-b=2", "--first")
    pins = pointsman.json("routes", "show", model)["pins"]
    assert [pin["cohort"] for pin in pins] == [f"{model}-b", f"{model}-a"]
    assert (pins[1]["owner"], pins[1]["reason"]) == ("risk", "trial")
    explained = pointsman("routes", "explain", model, "--key", "u-1")
    assert f"version 3, reason pin, rule pins[1] (cohort {model}-a)" in explained
    assert "rule pins[0]" in pointsman("routes", "explain", model, "--key", "u-1", "--header", "X-Tenant: acme")
    pointsman("routes", "unpin", model, f"{model}-b")
    assert "reason split" in pointsman("routes", "explain", model, "--key", "u-9", "--header", "x-tenant:acme")
    assert "has no pin for cohort" in pointsman("routes", "unpin", model, f"{model}-b", code=1)


def test_a_pin_is_refused_when_its_cohort_or_version_is_unknown(pointsman: Pointsman, model: str) -> None:
    assert "there is no cohort ghosts; set it first" in pointsman("routes", "pin", model, "ghosts=2", code=1)
    pointsman("cohorts", "set", f"{model}-c", "--key", "u-1")
    assert "pins[0].version: version 9" in pointsman("routes", "pin", model, f"{model}-c=9", code=1)


def test_a_shadow_is_added_changed_and_taken_away(pointsman: Pointsman, model: str) -> None:
    assert "shadows 10 % of requests" in pointsman("routes", "shadow", model, "3=10")
    pointsman("routes", "shadow", model, "3=0.01")
    assert pointsman.json("routes", "show", model)["shadows"] == [{"version": "3", "sample": 1}]
    pointsman("routes", "unshadow", model, "3")
    assert pointsman.json("routes", "show", model)["shadows"] == []
    assert "is no shadow" in pointsman("routes", "unshadow", model, "3", code=1)


def test_a_cohort_is_set_from_options_or_a_file_and_deleted_only_when_no_route_pins_it(
    pointsman: Pointsman, model: str, tmp_path: Path
) -> None:
    name = f"{model}-d"
    (tmp_path / "keys.txt").write_text("u-1\n\nu-2\n")
    assert f"cohort {name} made" in pointsman("cohorts", "set", name, "--keys-file", str(tmp_path / "keys.txt"))
    assert pointsman.json("cohorts", "show", name)["keys"] == ["u-1", "u-2"]
    (tmp_path / "cohort.yaml").write_text(f"name: {name}\nmatch: [{{header: x-tenant, in: [acme]}}]\n")
    assert f"cohort {name} set" in pointsman("cohorts", "set", str(tmp_path / "cohort.yaml"))
    assert pointsman.json("cohorts", "show", name)["keys"] == []
    assert "keys[1]" in pointsman("cohorts", "set", name, "--key", "u-1", "--key", "u-1", code=1)
    pointsman("routes", "pin", model, f"{name}=2")
    refused = pointsman("cohorts", "delete", name, code=1)
    assert f"pinned by the route of {model}" in refused
    assert "pointsman routes unpin" in refused
    pointsman("routes", "unpin", model, name)
    assert "is at revision" in pointsman("cohorts", "delete", name, "--if-revision", "1", code=1)
    assert f"cohort {name} deleted" in pointsman("cohorts", "delete", name)
    assert "pointsman cohorts list" in pointsman("cohorts", "show", name, code=1)


def test_a_change_ends_with_1_and_names_the_worker_when_it_is_not_in_force_there(
    gateway: RunningGateway, pointsman: Pointsman, manifests: Manifests
) -> None:
    """A worker that starts after an artifact was lost cannot prepare it; its fellow still has it in memory."""
    folders = manifests("lost")
    pointsman("versions", "register", *map(str, folders))
    pointsman("routes", "apply", "-", text='{"model": "lost", "split": {"1": 5000, "2": 5000}}')
    (folders[1] / "model.onnx").unlink()
    restarts = len(gateway.log("started"))
    os.kill(gateway.child_pid("app worker 0"), signal.SIGKILL)
    wait_until(lambda: len(gateway.log("started")) > restarts, "the worker is started again")
    wait_until(lambda: _lacks(gateway, "lost"), "the new worker says that it lacks a version")
    late = pointsman("routes", "weights", "lost", "1=40", "2=60", code=1)
    assert "not in force everywhere yet" in late
    assert "gateway/w0: " in late
    assert "gateway/w1: " not in late
    assert "Mend the cause, or change the route back." in late
    assert "in force everywhere" in pointsman("routes", "weights", "lost", "1=100")


def _lacks(gateway: RunningGateway, model: str) -> bool:
    lines = [line for line in gateway.log("rules_in_force") if line["worker"] == "w0"]
    return bool(lines) and model in lines[-1]["not_in_force"]
