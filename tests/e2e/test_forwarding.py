"""Versions whose backend is a server: what it answers is passed on, what it does wrong is ours to say."""

import json
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from gateway.examples import digit_samples
from tests.e2e import backends
from tests.e2e.running_gateway import RunningGateway, digit_request, manifest, put_route, register, wait_until

Start = Callable[..., RunningGateway]
BODY = b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}], "id": "kept"}'


def test_a_second_gateway_as_backend_answers_the_same_as_in_process(
    start_gateway: Start, digits_gateway: RunningGateway
) -> None:
    front = start_gateway("front", "--workers", "1", "--gateway", "front")
    for version in ("1", "2", "3"):
        http = {"http": {"urls": [digits_gateway.data_url], "version": version}}
        register(front, manifest("digits", version, http))
    put_route(front, {"model": "digits", "split": {"1": 9000, "2": 1000, "3": 0}})
    for number, sample in enumerate(digit_samples()[:20]):
        headers = {"x-routing-key": f"caller-{number}", "x-request-id": f"through-{number}"}
        direct = digits_gateway.infer("digits", digit_request(sample.pixels), headers)
        forwarded = front.infer("digits", digit_request(sample.pixels), headers)
        assert forwarded.status_code == 200
        assert forwarded.json() == direct.json()
        assert forwarded.headers["x-model-version"] == direct.headers["x-model-version"]
        assert forwarded.headers["x-record-id"] != direct.headers["x-record-id"]
    behind = digits_gateway.audit("through-3")
    assert [record["reason"] for record in behind] == ["split", "explicit"]
    metadata = front.http.get(f"{front.data_url}/v2/models/digits").json()
    assert metadata["inputs"] == [{"name": "pixels", "datatype": "FP32", "shape": [-1, 64]}]


@pytest.fixture(scope="module")
def forwarding(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    """A gateway with one model per way a backend can behave."""
    behaviours = {
        "good": backends.answers,
        "hangs": backends.hangs,
        "garbage-body": backends.garbage_body,
        "garbage-protocol": backends.garbage_protocol,
        "teapot": backends.teapot,
        "overloaded": backends.overloaded,
    }
    with ExitStack() as stack:
        gateway = RunningGateway(tmp_path_factory.mktemp("forwarding"), "--workers", "1")
        stack.callback(gateway.close)
        running = {name: stack.enter_context(backends.backend(what)) for name, what in behaviours.items()}
        urls = {name: server.url for name, server in running.items()} | {"down": "http://127.0.0.1:9"}
        for model, url in urls.items():
            register(gateway, manifest(model, "1", {"http": {"urls": [url]}}))
            put_route(gateway, {"model": model, "split": {"1": 10_000}, "timeout_ms": 600})
        yield gateway, running


@pytest.mark.parametrize(
    ("model", "status", "outcome", "code"),
    [
        ("good", 200, "served", None),
        ("down", 502, "failed", "backend_unreachable"),
        ("hangs", 504, "failed", "deadline_exceeded"),
        ("garbage-protocol", 502, "failed", "backend_protocol_error"),
        ("garbage-body", 200, "served", None),
        ("teapot", 418, "refused", "backend_status"),
        ("overloaded", 503, "failed", "backend_status"),
    ],
)
def test_what_a_backend_does_is_answered_and_recorded(
    model: str,
    status: int,
    outcome: str,
    code: str | None,
    forwarding: tuple[RunningGateway, dict[str, backends.Backend]],
) -> None:
    gateway, _ = forwarding
    answer = gateway.infer(model, BODY)
    assert answer.status_code == status, answer.text
    (record,) = gateway.audit(answer.headers["x-record-id"])
    assert (record["status"], record["outcome"], record.get("error_code")) == (status, outcome, code)
    assert record["intended"] == "1"
    assert record["oip_id"] == "kept"
    if code in {"backend_unreachable", "backend_protocol_error"}:
        assert "127.0.0.1" in record["error"]
        assert "127.0.0.1" not in answer.text


def test_the_body_is_passed_on_untouched_in_both_directions(
    forwarding: tuple[RunningGateway, dict[str, backends.Backend]],
) -> None:
    gateway, running = forwarding
    answer = gateway.infer(
        "good", BODY, {"x-request-id": "ours", "authorization": "Bearer secret", "connection": "x-y", "x-y": "1"}
    )
    head, body = running["good"].requests[-1]
    assert body == BODY
    assert head.startswith(b"POST /v2/models/good/infer HTTP/1.1\r\n")
    assert b"x-request-id: ours" in head.lower()
    assert b"secret" not in head
    assert b"x-y:" not in head.lower()
    assert answer.content == backends.ANSWER
    garbage = gateway.infer("garbage-body", BODY)
    assert garbage.content == b"\x00<garbage>"
    assert garbage.headers["content-type"] == "text/plain"


def test_nothing_leaks_a_connection(forwarding: tuple[RunningGateway, dict[str, backends.Backend]]) -> None:
    gateway, running = forwarding
    for _ in range(5):
        gateway.infer("hangs", BODY)
        gateway.infer("garbage-protocol", BODY)
    for name in ("hangs", "garbage-protocol"):
        wait_until(lambda name=name: running[name].connections == 0, f"{name} has no connection left")  # type: ignore[misc]


def test_a_fallback_serves_when_the_version_chosen_fails_and_both_are_recorded(
    forwarding: tuple[RunningGateway, dict[str, backends.Backend]],
) -> None:
    gateway, running = forwarding
    register(gateway, manifest("safe", "1", {"http": {"urls": ["http://127.0.0.1:9"]}}))
    register(gateway, manifest("safe", "2", {"http": {"urls": [running["good"].url], "model": "good"}}))
    put_route(gateway, {"model": "safe", "split": {"1": 10_000}, "fallback": ["2"]})
    answer = gateway.infer("safe", BODY)
    assert answer.status_code == 200
    assert answer.headers["x-model-version"] == "2"
    (record,) = gateway.audit(answer.headers["x-record-id"])
    assert (record["intended"], record["served"], record["reason"]) == ("1", "2", "split")
    assert [attempt["version"] for attempt in record["attempts"]] == ["1", "2"]
    assert gateway.metrics()['pointsman_fallbacks_total{intended="1",model="safe",served="2"}'] == 1


def test_a_hanging_shadow_neither_slows_nor_fails_the_primary(
    forwarding: tuple[RunningGateway, dict[str, backends.Backend]],
) -> None:
    gateway, running = forwarding
    register(gateway, manifest("shaded", "1", {"http": {"urls": [running["good"].url], "model": "good"}}))
    register(gateway, manifest("shaded", "2", {"http": {"urls": [running["hangs"].url], "timeout_ms": 300}}))
    put_route(gateway, {"model": "shaded", "split": {"1": 10_000}, "shadows": [{"version": "2", "sample": 10_000}]})
    answers = [gateway.infer("shaded", BODY) for _ in range(20)]
    assert {answer.status_code for answer in answers} == {200}
    last = answers[-1].headers["x-record-id"]
    (shadow,) = wait_until(lambda: gateway.audit(last)[0]["shadows"], "the shadow's record")
    assert (shadow["outcome"], shadow["error_code"]) == ("failed", "deadline_exceeded")
    assert json.loads(gateway.audit(last)[0]["response"]["body"])["model_name"] == "m"
