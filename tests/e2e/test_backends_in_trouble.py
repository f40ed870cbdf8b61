"""Backends that die, fill up or fall ill behind a real gateway: what callers see of it, and what is recorded."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.e2e import backends
from tests.e2e.backend_process import BackendProcess
from tests.e2e.running_gateway import RunningGateway, manifest, put_route, register, wait_until
from tests.e2e.traffic import Traffic

Start = Callable[..., RunningGateway]
BODY = b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]}'
CALLERS = 5


def test_callers_of_an_idempotent_route_see_no_error_when_one_of_two_backends_is_killed(
    start_gateway: Start, tmp_path: Path
) -> None:
    gateway = start_gateway("gateway", "--workers", "1")
    with BackendProcess() as victim, BackendProcess() as other:
        quick = {"ejection": {"for_ms": 1_000}}
        register(gateway, manifest("fraud", "1", {"http": {"urls": [victim.url, other.url], **quick}}))
        put_route(gateway, {"model": "fraud", "split": {"1": 10_000}, "idempotent": True, "retries": 2})
        with Traffic(gateway.data_url, tmp_path, model="fraud", connections=CALLERS, rate=150) as traffic:
            for _ in range(3):
                _wait_for_more(lambda: gateway.metrics().get(_asked(victim), 0), 20, "it serves")
                ejected = len(gateway.log("backend_ejected"))
                victim.kill()
                wait_until(lambda ejected=ejected: len(gateway.log("backend_ejected")) > ejected, "it is left out")  # type: ignore[misc]
                back = len(gateway.log("backend_back"))
                victim.start()
                wait_until(lambda back=back: len(gateway.log("backend_back")) > back, "it is back")  # type: ignore[misc]
    assert traffic.seen
    assert traffic.failed == []
    retried = [seen.record_id for seen in traffic.seen if len(gateway.audit(seen.record_id)[0]["attempts"]) > 1]
    assert retried
    for record_id in retried:
        (record,) = gateway.audit(record_id)
        tries = record["attempts"]
        assert (record["status"], record["outcome"], record["served"], record["intended"]) == (200, "served", "1", "1")
        assert {one["version"] for one in tries} == {"1"}
        assert [one.get("error") for one in tries] == ["backend_unreachable"] * (len(tries) - 1) + [None]
        assert (tries[0]["backend"], tries[-1]["backend"]) == (victim.url, other.url)
    metrics = gateway.metrics()
    again = sum(len(gateway.audit(record_id)[0]["attempts"]) - 1 for record_id in retried)
    assert metrics['pointsman_retries_total{model="fraud",version="1"}'] == again
    assert metrics['pointsman_backend_ejections_total{model="fraud",version="1",worker="worker-0"}'] >= 3
    assert metrics['pointsman_retries_refused_total{worker="worker-0"}'] == 0


def _wait_for_more(figure: Callable[[], float], much: float, what: str) -> None:
    before = figure()
    wait_until(lambda: figure() > before + much, what)


def _asked(backend: BackendProcess) -> str:
    return f'pointsman_backend_latency_seconds_count{{backend="{backend.url}",model="fraud",version="1"}}'


@pytest.mark.parametrize("checked", [False, True])
def test_a_backend_that_is_dead_from_the_beginning_costs_nobody_an_answer_and_is_told_of(
    start_gateway: Start, checked: bool
) -> None:
    gateway = start_gateway("gateway", "--workers", "1")
    with backends.backend(backends.answers) as good:
        health = {"health": {"interval_ms": 20, "unhealthy_after": 2}} if checked else {}
        urls = ["http://127.0.0.1:9", good.url]
        register(gateway, manifest("m", "1", {"http": {"urls": urls, **health}}))
        put_route(gateway, {"model": "m", "split": {"1": 10_000}})
        labels = '{model="m",version="1",worker="worker-0"}'
        if checked:
            wait_until(lambda: gateway.metrics().get(f"pointsman_backends_unhealthy{labels}") == 1, "it is ill")
        assert {gateway.infer("m", BODY).status_code for _ in range(30)} == {200}
        ready = gateway.http.get(f"{gateway.data_url}/v2/models/m/ready")
        assert (ready.status_code, ready.json()["ready"]) == (200, True)
        metrics = gateway.metrics()
        assert metrics.get('pointsman_retries_total{model="m",version="1"}', 0) == (0 if checked else 5)
        if not checked:
            wait_until(lambda: gateway.metrics().get(f"pointsman_backends_ejected{labels}") == 1, "it is left out")
        (line,) = gateway.log("backend_unhealthy" if checked else "backend_ejected")
        assert (line["model"], line["version"], line["backend"]) == ("m", "1", urls[0])
        (shown,) = json.loads(gateway.cli("status", "--json"))["impaired"]
        assert shown["unhealthy" if checked else "ejected"] == {"gateway/w0": 1}
        assert "versions in trouble" in gateway.cli("status")


def test_another_version_is_only_tried_as_the_fallback_when_the_same_version_failed_again(
    start_gateway: Start,
) -> None:
    gateway = start_gateway("gateway", "--workers", "1")
    with (
        backends.backend(backends.overloaded) as busy,
        backends.backend(backends.overloaded) as busy_too,
        backends.backend(backends.answers) as good,
    ):
        register(gateway, manifest("m", "1", {"http": {"urls": [busy.url, busy_too.url]}}))
        register(gateway, manifest("m", "2", {"http": {"urls": [good.url]}}))
        put_route(gateway, {"model": "m", "split": {"1": 10_000}, "fallback": ["2"], "idempotent": True})
        answer = gateway.infer("m", BODY)
        assert (answer.status_code, answer.headers["x-model-version"]) == (200, "2")
        (record,) = gateway.audit(answer.headers["x-record-id"])
        assert (record["intended"], record["served"]) == ("1", "2")
        tries = [(one["version"], one["backend"], one["status"]) for one in record["attempts"]]
        assert tries == [("1", busy.url, 503), ("1", busy_too.url, 503), ("2", good.url, 200)]
        metrics = gateway.metrics()
        assert metrics['pointsman_retries_total{model="m",version="1"}'] == 1
        assert metrics['pointsman_fallbacks_total{intended="1",model="m",served="2"}'] == 1


def test_a_caller_beyond_the_queue_is_told_at_once_when_to_come_again(start_gateway: Start, tmp_path: Path) -> None:
    config = tmp_path / "settings.toml"
    config.write_text("[upstream]\nmax_connections = 1\nqueue_depth = 2\n")
    gateway = start_gateway("gateway", "--workers", "1", "--config", str(config))
    with backends.backend(backends.holds) as slow, ThreadPoolExecutor(3) as callers:
        register(gateway, manifest("m", "1", {"http": {"urls": [slow.url]}}))
        put_route(gateway, {"model": "m", "split": {"1": 10_000}})
        admitted = [callers.submit(gateway.infer, "m", BODY) for _ in range(3)]
        in_flight = 'pointsman_in_flight_requests{worker="worker-0"}'
        wait_until(lambda: gateway.metrics()[in_flight] == 3 and slow.arrived.is_set(), "one is sent and two wait")
        refused = gateway.infer("m", BODY)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert not any(one.done() for one in admitted)
        (record,) = gateway.audit(refused.headers["x-record-id"])
        assert (record["outcome"], record["error_code"]) == ("failed", "overloaded")
        assert [one["error"] for one in record["attempts"]] == ["overloaded"]
        slow.release.set()
        assert {one.result(20).status_code for one in admitted} == {200}


def test_a_backend_is_told_the_time_that_its_caller_has(start_gateway: Start) -> None:
    gateway = start_gateway("gateway", "--workers", "1")
    with backends.backend(backends.answers) as good:
        for version, more in (("1", {}), ("2", {"timeout_ms": 700})):
            register(gateway, manifest("m", version, {"http": {"urls": [good.url], **more}}))
        put_route(gateway, {"model": "m", "split": {"1": 10_000, "2": 0}, "timeout_ms": 5_000})
        for headers, path, most in (
            ({}, "", 5_000),
            ({}, "/versions/2", 700),
            ({"x-request-timeout-ms": "300"}, "/versions/2", 300),
            ({"x-request-timeout-ms": "60000"}, "", 5_000),
        ):
            assert gateway.infer("m", BODY, headers, path).status_code == 200
            head, _ = good.requests[-1]
            (line,) = [line for line in head.lower().split(b"\r\n") if line.startswith(b"x-request-timeout-ms:")]
            assert most * 0.5 <= int(line.split(b":")[1]) <= most
        refused = gateway.infer("m", BODY, {"x-request-timeout-ms": "soon"})
        assert refused.status_code == 400
        assert "X-Request-Timeout-Ms" in refused.json()["error"]
        (record,) = gateway.audit(refused.headers["x-record-id"])
        assert (record["outcome"], record["error_code"]) == ("refused", "invalid_header")
