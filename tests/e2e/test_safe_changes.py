"""An SRE moves a weight at 3 p.m. on a Friday: looks first, changes on condition, sees it everywhere, undoes it."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.examples import digit_samples
from tests.e2e.own_redis import OwnRedis, settings_file
from tests.e2e.raw_client import post, send_all
from tests.e2e.running_gateway import RunningGateway, digit_request, wait_until

BODY = json.dumps(digit_request(digit_samples()[0].pixels)).encode()
CALLERS = 400


def _versions(gateway: RunningGateway, callers: int = CALLERS) -> list[str]:
    """Return which version serves each of so many callers now."""
    path = "/v2/models/digits/infer"
    answers = send_all(gateway.data_url, [post(path, BODY, x_routing_key=f"caller-{n}") for n in range(callers)], 4)
    assert {answer.status for answer in answers} == {200}
    return [answer.headers["x-model-version"] for answer in answers]


def _route(gateway: RunningGateway) -> dict[str, Any]:
    route: dict[str, Any] = gateway.http.get(f"{gateway.admin_url}/admin/v1/routes/digits").json()
    return route


def _start(start_gateway: Callable[..., RunningGateway], *options: str) -> RunningGateway:
    gateway = start_gateway("gateway", "--examples", "--workers", "2", *options)
    return gateway


def test_preview_names_who_moves_and_a_rollback_brings_everybody_back(
    start_gateway: Callable[..., RunningGateway],
) -> None:
    gateway = _start(start_gateway)
    before = _versions(gateway)
    preview = json.loads(gateway.cli("routes", "weights", "digits", "1=50", "2=50", "--preview", "--json"))
    assert _versions(gateway) == before

    refused = gateway.cli("routes", "weights", "digits", "1=50", "2=50", "--max-moves", "3", code=1)
    assert str(preview["callers_moved"]) in refused
    gateway.cli("routes", "weights", "digits", "1=50", "2=50", "-m", "half", "--max-moves", str(CALLERS))
    after = _versions(gateway)
    moved = [pair for pair in zip(before, after, strict=True) if pair[0] != pair[1]]
    assert set(moved) == {("1", "2")}
    assert preview["callers_moved"] == len(moved)
    (model,) = preview["models"]
    assert [(move["before"], move["after"], move["callers"]) for move in model["moves"]] == [("1", "2", len(moved))]

    history = gateway.cli("routes", "history", "digits")
    assert "half" in history
    gateway.cli("routes", "rollback", "digits", "-m", "too many errors")
    assert _versions(gateway) == before
    newest, older, *_ = json.loads(gateway.cli("routes", "history", "digits", "--json"))["revisions"]
    assert (newest["comment"], older["comment"]) == ("too many errors", "half")
    assert older["preview"]["callers_moved"] == len(moved)
    difference = gateway.cli("routes", "diff", "digits", str(older["revision"]), str(newest["revision"]))
    assert 'split["1"]' in difference
    assert "5000" in difference
    shown = json.loads(gateway.cli("routes", "show", "digits", "--revision", str(older["revision"]), "--json"))
    assert shown["split"] == {"1": 5000, "2": 5000}


def test_unconfirmed_change_is_taken_back_though_the_process_that_made_it_died(
    start_gateway: Callable[..., RunningGateway],
) -> None:
    gateway = _start(start_gateway)
    before = _versions(gateway, 100)
    said = gateway.cli("routes", "weights", "digits", "2=100", "--confirm-within", "3s")
    os.kill(gateway.child_pid("app control"), signal.SIGKILL)
    assert gateway.log("change_reverted") == []
    assert "routes confirm digits" in said
    assert set(_versions(gateway, 100)) == {"2"}
    wait_until(lambda: _versions(gateway, 100) == before, "the change is taken back", 30)
    (reverted,) = wait_until(lambda: gateway.log("change_reverted"), "and the log says so")
    assert reverted["revision"] > 0


def test_unconfirmed_change_stands_in_the_way_of_others_until_it_is_confirmed(
    start_gateway: Callable[..., RunningGateway],
) -> None:
    gateway = _start(start_gateway)
    gateway.cli("routes", "weights", "digits", "2=100", "--confirm-within", "1h")
    assert "unless it is confirmed" in gateway.cli("routes", "weights", "digits", "1=100", code=1)
    gateway.cli("routes", "confirm", "digits")
    gateway.cli("routes", "promote", "digits", "1")
    assert set(_versions(gateway, 100)) == {"1"}
    assert gateway.log("change_reverted") == []


def test_explanation_of_a_past_request_is_that_of_its_time(start_gateway: Callable[..., RunningGateway]) -> None:
    gateway = _start(start_gateway)
    answer = gateway.infer("digits", BODY, {"x-routing-key": "ann", "x-request-id": "long-ago"})
    version, revision = answer.headers["x-model-version"], int(answer.headers["x-route-revision"])
    gateway.cli("routes", "promote", "digits", "3")
    then = json.loads(gateway.cli("routes", "explain", "digits", "--request-id", "long-ago", "--json"))
    assert then["agrees"] is True
    assert then["decision"]["version"] == version
    at = json.loads(gateway.cli("routes", "explain", "digits", "--key", "ann", "--at", str(revision), "--json"))
    assert at["decision"]["version"] == version
    now = json.loads(gateway.cli("routes", "explain", "digits", "--key", "ann", "--json"))
    assert now["decision"]["version"] == "3"


def test_many_documents_are_applied_all_or_none_and_once(
    tmp_path: Path, start_gateway: Callable[..., RunningGateway]
) -> None:
    gateway = _start(start_gateway)
    file = tmp_path / "rules.yaml"
    cohort = "name: staff\nkeys: [ann]\n"
    route = 'model: digits\nsplit: {"1": 8000, "2": 2000}\npins:\n- {cohort: staff, version: "3"}\n'
    file.write_text(f"{cohort}---\n{route}shadows: [{{version: nine, sample: 1}}]\n")
    refused = gateway.cli("routes", "apply", str(file), code=1)
    assert "shadows[0].version" in refused
    assert gateway.http.get(f"{gateway.admin_url}/admin/v1/cohorts/staff").status_code == 404
    file.write_text(f"{cohort}---\n{route}")
    dry = json.loads(gateway.cli("routes", "apply", str(file), "--dry-run", "--json"))
    assert [(one["kind"], one["outcome"]) for one in dry["documents"]] == [("cohort", "made"), ("route", "changed")]
    applied = json.loads(gateway.cli("routes", "apply", str(file), "--json"))
    assert applied["changed"] is True
    assert _route(gateway)["pins"][0]["cohort"] == "staff"
    assert gateway.infer("digits", BODY, {"x-routing-key": "ann"}).headers["x-model-version"] == "3"
    again = json.loads(gateway.cli("routes", "apply", str(file), "--json"))
    assert (again["changed"], again["revision"]) == (False, applied["revision"])


def test_change_waits_for_every_worker_of_every_gateway_and_names_the_one_that_lags(
    own_redis: OwnRedis, tmp_path: Path, start_gateway: Callable[..., RunningGateway]
) -> None:
    config = settings_file(tmp_path, own_redis.url, workers=1, publish_wait_ms=2000)
    one = start_gateway("one", "--config", str(config), "--examples", "--gateway", "north")
    other = start_gateway("other", "--config", str(config), "--gateway", "south")
    answer = json.loads(one.cli("routes", "weights", "digits", "1=70", "2=30", "--json"))
    assert sorted(answer["acknowledged"]) == ["north/w0", "south/w0"]
    assert _route(other)["split"] == {"1": 7000, "2": 3000}

    asleep = other.child_pid("app worker 0")
    os.kill(asleep, signal.SIGSTOP)
    try:
        said = one.cli("routes", "weights", "digits", "1=60", "2=40", code=1)
        assert "south/w0" in said
        assert "north/w0" not in said
        assert "south/w0" in one.cli("status", code=1)
    finally:
        os.kill(asleep, signal.SIGCONT)
    wait_until(lambda: _well(one), "the worker that slept has caught up")
    assert "south/w0" in one.cli("status")


def _well(gateway: RunningGateway) -> bool:
    return bool(gateway.http.get(f"{gateway.admin_url}/admin/v1/status").json()["ok"])
