"""Paths, statuses and errors of the Open Inference Protocol v2."""

import inspect
import json

import pytest

from gateway import errors
from gateway.errors import GatewayError, MethodNotAllowed, Overloaded, RequestError, ServingError, UnknownPath
from gateway.messages import Answer, Rendered
from gateway.protocols.oip_v2 import ROUTES, STATUS, OipV2, Target, parse, passed_on, reply_lines


@pytest.mark.parametrize(
    ("method", "path", "target"),
    [
        ("POST", "/v2/models/fraud/infer", Target("infer", "fraud")),
        ("POST", "/v2/models/fraud/versions/2.1-b/infer", Target("infer", "fraud", "2.1-b")),
        ("POST", "/v2/models/not a name/infer", Target("infer", "not a name")),
        ("GET", "/v2", Target("server")),
        ("HEAD", "/v2", Target("server")),
        ("GET", "/v2/health/live", Target("live")),
        ("GET", "/v2/health/ready", Target("ready")),
        ("GET", "/v2/models/fraud", Target("model", "fraud")),
        ("GET", "/v2/models/ready", Target("model", "ready")),
        ("GET", "/v2/models/fraud/versions/2", Target("model", "fraud", "2")),
        ("GET", "/v2/models/fraud/ready", Target("model_ready", "fraud")),
        ("HEAD", "/v2/models/fraud/versions/2/ready", Target("model_ready", "fraud", "2")),
    ],
)
def test_each_path_asks_for_one_thing(method: str, path: str, target: Target) -> None:
    assert parse(method, path) == target


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "/v1",
        "/V2",
        "/v2/",
        "/v2/models",
        "/v2/models/",
        "/v2/models//infer",
        "/v2/models/m/infer/",
        "/v2/models/m/infer\n",
        "/v2/models/m/n",
        "/v2/models/m/versions//infer",
        "/v2/models/a/b/infer",
        "/x/v2/models/m/infer",
    ],
)
def test_a_path_that_is_not_in_the_table_is_unknown(path: str) -> None:
    with pytest.raises(UnknownPath):
        parse("POST", path)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v2/models/m/infer", ("POST",)),
        ("HEAD", "/v2/models/m/versions/1/infer", ("POST",)),
        ("post", "/v2/models/m/infer", ("POST",)),
        ("POST", "/v2/models/m/ready", ("GET", "HEAD")),
        ("DELETE", "/v2/models/m", ("GET", "HEAD")),
        ("OPTIONS", "/v2", ("GET", "HEAD")),
    ],
)
def test_a_method_that_a_path_does_not_have_is_refused_with_those_it_has(
    method: str, path: str, allowed: tuple[str, ...]
) -> None:
    with pytest.raises(MethodNotAllowed) as caught:
        parse(method, path)
    assert caught.value.allowed == allowed
    rendered = OipV2().render_error(caught.value)
    assert rendered.status == 405
    assert rendered.headers == (("allow", ", ".join(allowed)),)


def test_every_line_of_the_table_is_reachable() -> None:
    for row in ROUTES:
        path = row.path.format(model="m", version="v")
        assert parse(row.method, path).endpoint == row.endpoint


REACHABLE = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, (RequestError, ServingError)) and kind not in {RequestError, ServingError}
]


def test_the_list_of_errors_is_not_empty() -> None:
    assert len(REACHABLE) >= 20


@pytest.mark.parametrize("kind", REACHABLE)
def test_every_error_that_can_reach_the_data_port_has_a_status_of_its_side(kind: type[GatewayError]) -> None:
    status = STATUS[kind.code]
    assert (400 <= status < 500) == issubclass(kind, RequestError)
    assert (500 <= status < 600) == issubclass(kind, ServingError)


def test_a_full_queue_says_when_to_come_again_and_names_no_backend() -> None:
    rendered = OipV2().render_error(Overloaded("3 requests wait for http://10.0.0.7:8080", "http://10.0.0.7:8080"))
    assert (rendered.status, rendered.headers) == (503, (("retry-after", "1"),))
    assert b"10.0.0.7" not in rendered.body


def test_the_table_of_statuses_has_no_code_that_no_error_has() -> None:
    assert set(STATUS) == {kind.code for kind in REACHABLE}


def test_an_error_is_one_sentence_in_json() -> None:
    rendered = OipV2().render_error(UnknownPath('no "such" päth'))
    assert (rendered.status, rendered.content_type) == (404, "application/json")
    assert json.loads(rendered.body) == {"error": 'no "such" päth'}
    assert rendered.headers == ()


def test_a_backends_headers_are_passed_on_but_never_in_place_of_ours() -> None:
    theirs = (("retry-after", "3"), ("X-Model-Version", "theirs"), ("x-record-id", "theirs"))
    assert passed_on(theirs) == (("retry-after", "3"),)


def test_an_answer_says_which_version_gave_it_and_why() -> None:
    rendered = Rendered(503, b"{}", "text/plain")
    answer = Answer(rendered, "r", "q", "failed", "m", "2", None, 7, "split", None, 21, 0, 1_500, 2_000_000)
    assert dict(line.split(": ", 1) for line in reply_lines(answer).splitlines()) == {
        "content-type": "text/plain",
        "x-request-id": "q",
        "x-record-id": "r",
        "server-timing": "route;dur=0.021, queue;dur=0.000, infer;dur=1.500, total;dur=2000.000",
        "x-model-name": "m",
        "x-model-version": "2",
        "x-route-revision": "7",
        "x-route-reason": "split",
    }
