"""The HTTP executor against real backends on loopback: what arrives there, and what of their answers passes on."""

import asyncio
import json
import time
from collections.abc import Awaitable
from typing import Any

import pytest

from gateway.catalog import Signature, TensorSpec
from gateway.errors import BackendProtocolError, BackendUnreachable, DeadlineExceeded, GatewayError
from gateway.messages import Rendered, Result, Work
from tests.gateway.executors.http_parts import (
    ANSWER,
    BODY,
    Reply,
    backend,
    closed_url,
    execute,
    executor,
    http,
    never,
    run,
    work,
)


def answer_of(raw: bytes) -> Rendered:
    """Return what the gateway makes of a backend that answers `raw`."""
    results: list[Result] = []

    async def test() -> None:
        async with backend(lambda *_: raw) as url, executor(url) as version:
            results.append(await execute(version))

    run(test())
    return results[0].rendered


def request_seen(request: Work, **options: Any) -> tuple[str, list[str], bytes]:
    """Return the request line, the header lines (sorted, without those that only framing needs) and the body."""
    seen: list[tuple[str, list[str], bytes]] = []

    def reply(first: str, lines: list[str], body: bytes) -> bytes:
        seen.append((first, sorted(line for line in lines if not line.startswith(FRAMING)), body))
        return http()

    async def test() -> None:
        async with backend(reply) as url, executor(url, **options) as version:
            await execute(version, request)

    run(test())
    [one] = seen
    return one


FRAMING = ("host:", "content-length:", "user-agent: pointsman/", "accept-encoding: identity", "x-request-timeout-ms:")


def test_body_arrives_byte_for_byte_at_the_models_own_path() -> None:
    first, _, body = request_seen(work())
    assert first == "POST /v2/models/fraud/infer HTTP/1.1"
    assert body == BODY


@pytest.mark.parametrize(
    ("options", "path"),
    [
        ({"model": "fraud-v2"}, "/v2/models/fraud-v2/infer"),
        ({"version": "7"}, "/v2/models/fraud/versions/7/infer"),
        ({"model": "other", "version": "7.1_a"}, "/v2/models/other/versions/7.1_a/infer"),
    ],
)
def test_backend_is_asked_for_the_names_it_knows(options: dict[str, str], path: str) -> None:
    assert request_seen(work(), **options)[0] == f"POST {path} HTTP/1.1"


def test_path_is_put_behind_the_urls_own_when_it_has_one() -> None:
    paths: list[str] = []

    def reply(first: str, lines: list[str], body: bytes) -> bytes:
        paths.append(first.split()[1])
        return http()

    async def test() -> None:
        async with backend(reply) as url:
            for base in (url + "/", url + "/kserve", url + "/kserve/"):
                async with executor(base) as version:
                    assert (await execute(version)).backend == base.rstrip("/")

    run(test())
    assert paths == ["/v2/models/fraud/infer", "/kserve/v2/models/fraud/infer", "/kserve/v2/models/fraud/infer"]


def test_only_allowed_headers_pass_and_the_gateways_own_stand_above_them() -> None:
    headers = {
        "content-type": "application/json; charset=utf-8",
        "accept": "application/json",
        "accept-language": "sv",
        "tracestate": "a=b",
        "accept-encoding": "gzip",
        "authorization": "Bearer secret",
        "proxy-authorization": "Basic secret",
        "cookie": "session=secret",
        "host": "gateway.example",
        "content-length": "999",
        "transfer-encoding": "chunked",
        "connection": "keep-alive, X-Hop",
        "keep-alive": "timeout=5",
        "te": "trailers",
        "trailer": "x-sum",
        "upgrade": "websocket",
        "expect": "100-continue",
        "x-hop": "1",
        "x-forwarded-for": "10.1.2.3",
        "x-request-id": "forged",
        "x-user-id": "u-17",
        "x-anything": "else",
        "traceparent": "forged",
        "user-agent": "curl/8",
    }
    forward = (("x-request-id", "r-1"), ("traceparent", "00-aa-bb-01"))
    assert request_seen(work(headers, forward))[1] == [
        "accept-language: sv",
        "accept: application/json",
        "content-type: application/json; charset=utf-8",
        "traceparent: 00-aa-bb-01",
        "tracestate: a=b",
        "x-request-id: r-1",
    ]


def test_header_that_the_caller_names_in_connection_does_not_pass() -> None:
    headers = {"connection": "close , Accept-Language", "accept-language": "sv", "content-type": "a/b"}
    assert request_seen(work(headers))[1] == ["content-type: a/b"]


def test_gateways_header_replaces_the_callers_when_both_have_it() -> None:
    headers = {"tracestate": "caller=1", "content-type": "a/b"}
    assert request_seen(work(headers, (("Tracestate", "gateway=1"),)))[1] == [
        "content-type: a/b",
        "tracestate: gateway=1",
    ]


def test_content_type_is_json_when_the_caller_sent_none() -> None:
    assert request_seen(work({}))[1] == ["content-type: application/json"]


@pytest.mark.parametrize("status", [200, 204, 302, 400, 404, 429, 500, 503, 599])
def test_status_and_body_pass_on_as_they_are_when_the_status_is(status: int) -> None:
    body = b"" if status == 204 else b'{"error": "as it came"} \xff'
    answer = answer_of(http(body, f"{status} Whatever"))
    assert (answer.status, answer.body) == (status, body)


def test_only_allowed_headers_of_an_answer_pass() -> None:
    answer = answer_of(
        http(
            headers=(
                "Content-Type: application/json; charset=utf-8",
                "Content-Language: sv",
                "Content-Encoding: x-own",
                "Retry-After: 7",
                "Inference-Header-Content-Length: 12",
                "Set-Cookie: a=b",
                "Server: backend/1",
                "Date: Mon, 23 Nov 2026 10:00:00 GMT",
                "Connection: keep-alive, X-Hop",
                "Keep-Alive: timeout=5",
                "X-Hop: 1",
                "Location: http://inside.example/",
                "X-Request-Id: theirs",
                "X-Record-Id: theirs",
                "X-Model-Name: theirs",
                "X-Model-Version: theirs",
                "X-Model-Digest: theirs",
                "X-Route-Revision: 1",
                "X-Route-Reason: theirs",
                "Server-Timing: theirs",
                "X-Anything: else",
            )
        )
    )
    assert answer.content_type == "application/json; charset=utf-8"
    assert answer.headers == (
        ("content-language", "sv"),
        ("content-encoding", "x-own"),
        ("retry-after", "7"),
        ("inference-header-content-length", "12"),
    )


def test_header_that_the_backend_names_in_connection_does_not_pass() -> None:
    answer = answer_of(http(headers=("connection: Retry-After", "retry-after: 7", "content-language: sv")))
    assert answer.headers == (("content-language", "sv"),)


def test_content_type_is_json_when_the_backend_names_none() -> None:
    assert answer_of(http()).content_type == "application/json"


def test_result_says_which_url_answered_and_how_long_it_took() -> None:
    async def test() -> None:
        async with backend(lambda *_: http()) as url, executor(url) as version:
            before = time.monotonic_ns()
            result = await execute(version)
            assert result.backend == url
            assert 0 < result.infer_ns <= time.monotonic_ns() - before
            assert result.queue_ns == 0

    run(test())


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", BackendProtocolError),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n", BackendUnreachable),
    ],
)
def test_backend_that_breaks_off_or_speaks_no_http_is_an_error_that_names_its_url(
    raw: bytes, kind: type[GatewayError]
) -> None:
    async def test() -> None:
        async with backend(lambda *_: raw) as url, executor(url + "/base") as version:
            with pytest.raises(kind) as caught:
                await execute(version)
            assert isinstance(caught.value, BackendProtocolError | BackendUnreachable)
            assert caught.value.backend == url + "/base"

    run(test())


def test_backend_that_closes_in_the_middle_of_its_body_is_unreachable() -> None:
    async def half() -> bytes:
        return http()[:-1]

    async def test() -> None:
        async with backend(lambda *_: half()) as url, executor(url) as version:
            with pytest.raises(BackendUnreachable, match="before its whole answer"):
                await execute(version)

    run(test())


def test_backend_that_is_down_is_unreachable_and_counts_no_longer_as_busy() -> None:
    async def test() -> None:
        async with executor(closed_url()) as version:
            for _ in range(3):
                with pytest.raises(BackendUnreachable, match="Connection refused"):
                    await execute(version)
            assert version.active == 0

    run(test())


@pytest.mark.parametrize(
    ("seconds", "options"), [(0.05, {}), (60.0, {"timeout_ms": 50}), (0.05, {"timeout_ms": 60_000})]
)
def test_deadline_is_the_earlier_of_the_routes_and_the_versions_when_the_backend_hangs(
    seconds: float, options: dict[str, int]
) -> None:
    async def test() -> None:
        async with backend(lambda *_: never()) as url, executor(url, **options) as version:
            with pytest.raises(DeadlineExceeded) as caught:
                await execute(version, work(seconds=seconds))
            assert caught.value.backend == url
            assert version.active == 0

    run(test())


def test_urls_take_turns_when_none_is_busy() -> None:
    async def test() -> None:
        async with (
            backend(lambda *_: http()) as one,
            backend(lambda *_: http()) as two,
            backend(lambda *_: http()) as three,
            executor(one, two, three) as version,
        ):
            answered = [(await execute(version)).backend for _ in range(6)]
        assert answered == [one, two, three, one, two, three]

    run(test())


def test_requests_go_to_the_url_with_the_fewest_in_flight_when_one_is_slow() -> None:
    async def test() -> None:
        gate = asyncio.Event()
        arrived = asyncio.Event()

        async def slowly() -> bytes:
            arrived.set()
            await gate.wait()
            return http(b"slow")

        async with (
            backend(lambda *_: slowly()) as slow,
            backend(lambda *_: http()) as fast,
            executor(slow, fast) as version,
        ):
            stuck = asyncio.create_task(execute(version))
            await arrived.wait()
            assert [(await execute(version)).backend for _ in range(8)] == [fast] * 8
            gate.set()
            assert (await stuck).rendered.body == b"slow"
            assert {(await execute(version)).backend for _ in range(2)} == {slow, fast}

    run(test())


def test_url_is_free_again_when_its_request_was_cancelled() -> None:
    async def test() -> None:
        arrived = asyncio.Event()

        async def slowly() -> bytes:
            arrived.set()
            return await never()

        async with backend(lambda *_: slowly()) as url, executor(url) as version:
            request = asyncio.create_task(execute(version))
            await arrived.wait()
            assert version.active == 1
            request.cancel()
            await asyncio.wait([request])
            assert version.active == 0

    run(test())


def test_nothing_in_flight_is_cut_when_the_version_is_released() -> None:
    async def test() -> None:
        gate = asyncio.Event()
        arrived = asyncio.Event()

        async def slowly() -> bytes:
            arrived.set()
            await gate.wait()
            return http()

        async with backend(lambda *_: slowly()) as url, executor(url) as version:
            request = asyncio.create_task(execute(version))
            await arrived.wait()
            await version.release()
            gate.set()
            assert (await request).rendered.body == ANSWER

    run(test())


def test_version_can_be_prepared_when_its_backend_is_down() -> None:
    async def test() -> None:
        async with executor(closed_url(), "https://no-such-host.invalid/base") as version:
            await version.prepare()

    run(test())


METADATA: dict[str, Any] = {
    "name": "fraud",
    "versions": ["2"],
    "platform": "onnx_onnxv1",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4], "parameters": {"a": 1}}],
    "outputs": [{"name": "y", "datatype": "INT64", "shape": [-1]}],
    "ready": True,
}


def oip_backend(metadata: bytes, ready: bytes = b'{"ready": true}', status: str = "200 OK") -> Reply:
    def reply(first: str, lines: list[str], body: bytes) -> bytes:
        method, path, _ = first.split()
        assert method == "GET"
        assert body == b""
        if path.endswith("/v2/models/fraud/ready"):
            return http(ready, status)
        assert path.endswith("/v2/models/fraud")
        return http(metadata)

    return reply


def test_version_is_ready_with_its_signature_when_its_backend_is() -> None:
    async def test() -> None:
        async with backend(oip_backend(json.dumps(METADATA).encode())) as url, executor(url) as version:
            readiness = await version.ready()
        assert readiness.ready
        assert readiness.why == ""
        assert readiness.signature == Signature(
            "onnx_onnxv1", (TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "INT64", (-1,)),)
        )

    run(test())


def test_version_is_ready_when_one_of_its_urls_is() -> None:
    async def test() -> None:
        async with (
            backend(lambda *_: never()) as hanging,
            backend(oip_backend(json.dumps(METADATA).encode())) as good,
            executor(closed_url(), hanging, good) as version,
        ):
            readiness = await version.ready()
        assert readiness.ready
        assert readiness.signature is not None

    run(test())


@pytest.mark.parametrize(
    ("ready", "status", "why"),
    [
        (b"", "503 Unavailable", "answered 503 to the question whether it is ready"),
        (b'{"error": "no such model"}', "404 Not Found", "answered 404"),
        (b'{"name": "fraud", "ready": false}', "200 OK", "says that it is not ready"),
    ],
)
def test_version_is_not_ready_when_its_backend_says_so(ready: bytes, status: str, why: str) -> None:
    async def test() -> None:
        async with backend(oip_backend(b"{}", ready, status)) as url, executor(url) as version:
            readiness = await version.ready()
        assert not readiness.ready
        assert readiness.why.startswith(url)
        assert why in readiness.why

    run(test())


def test_version_is_not_ready_and_says_why_for_each_url_when_none_can_be_asked() -> None:
    async def test() -> None:
        down = closed_url()
        async with backend(lambda *_: never()) as hanging, executor(down, hanging, timeout_ms=100) as version:
            readiness = await version.ready()
        assert not readiness.ready
        assert f"no connection to {down}: Connection refused" in readiness.why
        assert f"{hanging} did not answer within" in readiness.why

    run(test())


@pytest.mark.parametrize("ready", [b"", b"OK", b'{"ready": "True"}'])
def test_status_alone_says_ready_when_the_body_is_of_another_form(ready: bytes) -> None:
    async def test() -> None:
        async with backend(oip_backend(json.dumps(METADATA).encode(), ready)) as url, executor(url) as version:
            assert (await version.ready()).ready

    run(test())


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        (b"[]", "Expected `object`"),
        (b"no json", "malformed"),
        (b"\xff\xfe", "Open Inference Protocol"),
        (json.dumps({**METADATA, "inputs": None}).encode(), "inputs"),
        (json.dumps({**METADATA, "outputs": [{"name": "y", "shape": [1]}]}).encode(), "datatype"),
        (json.dumps({**METADATA, "inputs": [{"name": "x", "datatype": "FP32", "shape": ["a"]}]}).encode(), "shape"),
    ],
)
def test_version_is_ready_without_signature_and_says_why_when_the_metadata_is_wrong(metadata: bytes, why: str) -> None:
    async def test() -> None:
        async with backend(oip_backend(metadata)) as url, executor(url) as version:
            readiness = await version.ready()
        assert readiness.ready
        assert readiness.signature is None
        assert readiness.why.startswith(url)
        assert why in readiness.why

    run(test())


def test_version_is_ready_without_signature_when_only_the_metadata_cannot_be_had() -> None:
    def reply(first: str, lines: list[str], body: bytes) -> bytes | Awaitable[bytes]:
        return http(b"{}") if first.split()[1].endswith("/ready") else never()

    async def test() -> None:
        async with backend(reply) as url, executor(url, timeout_ms=100) as version:
            readiness = await version.ready()
        assert readiness.ready
        assert readiness.signature is None
        assert "did not answer" in readiness.why

    run(test())
