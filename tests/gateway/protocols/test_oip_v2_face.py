"""Requests of the wire to replies of the wire, through a real data plane that serves the example digits."""

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from time import monotonic_ns, time_ns
from typing import Any

import pytest

from gateway import __version__
from gateway.errors import BodyTooLarge, ClientClosed
from gateway.examples import digit_samples
from gateway.messages import WireReply, WireRequest
from gateway.protocols.oip_v2 import OipV2Face

SAMPLE = digit_samples()[0]
TENSOR = {"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": list(SAMPLE.pixels)}
BODY = json.dumps({"id": "é 1", "inputs": [TENSOR]}).encode()
INFER = "/v2/models/digits/infer"


def request(method: str, path: str, body: bytes = b"", **more: Any) -> WireRequest:
    headers = more.pop("headers", {})
    return WireRequest(method, path, headers, body, "127.0.0.1", time_ns(), monotonic_ns(), **more)


def on_face(open_face: Any, check: Callable[[OipV2Face, list[Any]], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        async with open_face(**options) as (face, records):
            await check(face, records)

    asyncio.run(main())


def headers_of(reply: WireReply) -> dict[str, str]:
    lines = (line.partition(": ") for line in reply.lines.removesuffix("\r\n").split("\r\n") if line)
    fields = [*((name, value) for name, _, value in lines), *reply.headers]
    names = [name for name, _ in fields]
    assert len(names) == len(set(names))
    assert all(name == name.lower() for name in names)
    return dict(fields)


def test_an_answer_says_which_version_gave_it_and_why(open_face: Any) -> None:
    async def check(face: OipV2Face, records: list[Any]) -> None:
        asked = request("POST", INFER, BODY, headers={"x-request-id": "r-1", "x-routing-key": "u-1"})
        reply = await face.handle(asked)
        assert reply.status == 200
        answer = json.loads(reply.body)
        assert (answer["id"], answer["model_name"], answer["model_version"]) == ("é 1", "digits", "2")
        headers = headers_of(reply)
        (record,) = records
        timing = headers.pop("server-timing")
        assert re.fullmatch(
            r"route;dur=\d+\.\d{3}, queue;dur=\d+\.\d{3}, infer;dur=\d+\.\d{3}, total;dur=\d+\.\d{3}", timing
        )
        assert headers == {
            "content-type": "application/json",
            "x-request-id": "r-1",
            "x-record-id": record.record_id,
            "x-model-name": "digits",
            "x-model-version": "2",
            "x-model-digest": f"sha-256={record.digest}",
            "x-route-revision": "4",
            "x-route-reason": "split",
        }
        assert timing.endswith(f"total;dur={record.total_us / 1000:.3f}")

    on_face(open_face, check)


def test_shadows_start_when_the_reply_has_left_and_not_before(open_face: Any) -> None:
    async def main() -> list[Any]:
        async with open_face() as (face, records):
            reply = await face.handle(request("POST", INFER, BODY))
            assert len(records) == 1
            reply.after_sent()
        return list(records)  # closing has waited for the shadow

    primary, shadow = asyncio.run(main())
    assert (primary.role, shadow.role) == ("primary", "shadow")
    assert shadow.primary_id == primary.record_id


def test_a_pinned_caller_is_told_its_cohort(open_face: Any) -> None:
    async def check(face: OipV2Face, _: list[Any]) -> None:
        headers = headers_of(await face.handle(request("POST", INFER, BODY, headers={"x-routing-key": "u-17"})))
        assert (headers["x-route-reason"], headers["x-route-cohort"]) == ("pin", "beta")
        assert headers["x-model-version"] == "1"

    on_face(open_face, check)


def test_a_version_in_the_path_is_the_one_that_answers(open_face: Any) -> None:
    async def check(face: OipV2Face, _: list[Any]) -> None:
        headers = headers_of(await face.handle(request("POST", "/v2/models/digits/versions/1/infer", BODY)))
        assert (headers["x-route-reason"], headers["x-model-version"]) == ("explicit", "1")

    on_face(open_face, check)


def test_a_refused_body_is_answered_with_the_route_as_far_as_it_came_and_recorded(open_face: Any) -> None:
    async def check(face: OipV2Face, records: list[Any]) -> None:
        reply = await face.handle(request("POST", INFER, b'{"inputs": []}', headers={"x-request-id": "bad"}))
        assert (reply.status, json.loads(reply.body)) == (400, {"error": 'inputs: missing input "pixels"'})
        headers = headers_of(reply)
        assert headers["content-type"] == "application/json"
        assert (headers["x-request-id"], headers["x-route-reason"]) == ("bad", "split")
        assert "x-model-version" not in headers
        assert "x-model-digest" not in headers
        assert [record.error_code for record in records] == ["invalid_input"]

    on_face(open_face, check)


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"])
def test_a_wrong_method_on_an_infer_path_is_refused_with_allow_and_recorded(method: str, open_face: Any) -> None:
    async def check(face: OipV2Face, records: list[Any]) -> None:
        reply = await face.handle(request(method, INFER))
        assert reply.status == 405
        assert headers_of(reply)["allow"] == "POST"
        (record,) = records
        assert (record.model, record.error_code, record.status) == ("digits", "method_not_allowed", 405)

    on_face(open_face, check)


def test_what_the_wire_refuses_is_recorded_with_the_size_announced(open_face: Any) -> None:
    async def check(face: OipV2Face, records: list[Any]) -> None:
        too_large = BodyTooLarge("body: too large")
        reply = await face.handle(request("POST", INFER, refused=too_large, declared_size=70_000_000))
        assert (reply.status, json.loads(reply.body)["error"]) == (413, "body: too large")
        gone = await face.handle(request("POST", INFER, refused=ClientClosed("gone")))
        assert gone.status == 499
        assert [(record.error_code, record.request.size) for record in records] == [
            ("body_too_large", 70_000_000),
            ("client_closed", 0),
        ]

    on_face(open_face, check)


@pytest.mark.parametrize(
    ("headers", "words"),
    [({"content-encoding": "gzip"}, "gzip"), ({"inference-header-content-length": "20"}, "binary_data=False")],
)
def test_an_encoding_that_is_not_spoken_is_415(headers: dict[str, str], words: str, open_face: Any) -> None:
    async def check(face: OipV2Face, _: list[Any]) -> None:
        reply = await face.handle(request("POST", INFER, BODY, headers=headers))
        assert reply.status == 415
        assert words in json.loads(reply.body)["error"]

    on_face(open_face, check)


@pytest.mark.parametrize("model", ["nobody", "a\r\nset-cookie: x=1", "é", "m" * 300])
def test_a_name_nobody_has_is_404_and_only_legal_names_come_back_in_headers(model: str, open_face: Any) -> None:
    async def check(face: OipV2Face, records: list[Any]) -> None:
        reply = await face.handle(request("POST", f"/v2/models/{model}/infer", BODY))
        assert reply.status == 404
        assert headers_of(reply).get("x-model-name") == ("nobody" if model == "nobody" else None)
        assert not any("\n" in value or "\r" in value for value in headers_of(reply).values())
        assert [record.error_code for record in records] == ["unknown_model"]

    on_face(open_face, check)


def test_health_and_server_metadata(open_face: Any) -> None:
    async def check(face: OipV2Face, records: list[Any]) -> None:
        for method in ("GET", "HEAD"):
            live, ready, server = [
                await face.handle(request(method, path)) for path in ("/v2/health/live", "/v2/health/ready", "/v2")
            ]
            assert (live.status, json.loads(live.body)) == (200, {"live": True})
            assert (ready.status, json.loads(ready.body)) == (200, {"ready": True})
            assert json.loads(server.body) == {"name": "pointsman", "version": __version__, "extensions": []}
            assert headers_of(server)["content-type"] == "application/json"
        assert list(records) == []

    on_face(open_face, check)


def test_without_rules_the_gateway_is_live_but_not_ready(open_face: Any) -> None:
    async def check(face: OipV2Face, _: list[Any]) -> None:
        assert (await face.handle(request("GET", "/v2/health/live"))).status == 200
        ready = await face.handle(request("GET", "/v2/health/ready"))
        assert (ready.status, json.loads(ready.body)) == (503, {"ready": False})
        for path in ("/v2/models/digits", "/v2/models/digits/ready"):
            assert (await face.handle(request("GET", path))).status == 503
        assert (await face.handle(request("POST", INFER, BODY))).status == 503

    on_face(open_face, check, rules=False)


@pytest.mark.parametrize("path", ["/v2/models/digits", "/v2/models/digits/versions/1"])
def test_model_metadata_is_that_of_the_real_model(path: str, open_face: Any) -> None:
    async def check(face: OipV2Face, _: list[Any]) -> None:
        reply = await face.handle(request("GET", path))
        assert reply.status == 200
        assert json.loads(reply.body) == {
            "name": "digits",
            "versions": ["1", "2"],
            "platform": "onnx_onnxv1",
            "inputs": [{"name": "pixels", "datatype": "FP32", "shape": [-1, 64]}],
            "outputs": [
                {"name": "label", "datatype": "INT64", "shape": [-1]},
                {"name": "probabilities", "datatype": "FP32", "shape": [-1, 10]},
            ],
        }

    on_face(open_face, check)


def test_a_version_that_cannot_be_prepared_says_so_and_why_only_in_its_record(open_face: Any) -> None:
    async def check(face: OipV2Face, records: list[Any]) -> None:
        for method, path in (("GET", ""), ("GET", "/ready"), ("POST", "/infer")):
            reply = await face.handle(request(method, f"/v2/models/digits/versions/2{path}", BODY))
            assert reply.status == 503
            assert "cannot serve now" in json.loads(reply.body)["error"]
            assert "0" * 64 not in reply.body.decode()
        assert "0" * 64 in records[-1].error
        assert (await face.handle(request("GET", "/v2/models/digits/versions/1"))).status == 200

    on_face(open_face, check, spoiled="2")


@pytest.mark.parametrize("path", ["/v2/models/digits/ready", "/v2/models/digits/versions/2/ready"])
def test_a_model_that_can_serve_says_so(path: str, open_face: Any) -> None:
    async def check(face: OipV2Face, _: list[Any]) -> None:
        reply = await face.handle(request("GET", path))
        assert (reply.status, json.loads(reply.body)) == (200, {"name": "digits", "ready": True})

    on_face(open_face, check)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/nobody", 404),
        ("GET", "/v2/models/nobody/ready", 404),
        ("GET", "/v2/models/digits/versions/9", 404),
        ("GET", "/v2/models/digits/versions/9/ready", 404),
        ("GET", "/v2/models/digits/config", 404),
        ("GET", "/nothing", 404),
        ("POST", "/v2", 405),
        ("DELETE", "/v2/models/digits", 405),
    ],
)
def test_other_mistakes_are_answered_in_words_without_a_record(
    method: str, path: str, status: int, open_face: Any
) -> None:
    async def check(face: OipV2Face, records: list[Any]) -> None:
        reply = await face.handle(request(method, path))
        assert reply.status == status
        assert json.loads(reply.body)["error"]
        assert headers_of(reply).get("allow") == ("GET, HEAD" if status == 405 else None)
        assert list(records) == []

    on_face(open_face, check)


def test_what_the_wire_refuses_on_another_path_is_answered_as_it_says(open_face: Any) -> None:
    async def check(face: OipV2Face, _: list[Any]) -> None:
        refused = BodyTooLarge("body: too large")
        assert (await face.handle(request("GET", "/v2/health/live", refused=refused))).status == 413

    on_face(open_face, check)
