"""The data port of a real gateway: callers that hang up or send nonsense leave records, and TLS is spoken."""

import shutil
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.certified import certified
from tests.e2e import backends
from tests.e2e.running_gateway import RunningGateway, manifest, put_route, register, wait_until

Start = Callable[..., RunningGateway]
BODY = b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]}'


def _call(gateway: RunningGateway, message: bytes) -> socket.socket:
    parts = urlsplit(gateway.data_url)
    caller = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20)
    caller.sendall(message)
    return caller


def _read_all(caller: socket.socket) -> bytes:
    data = b""
    while piece := caller.recv(65_536):
        data += piece
    caller.close()
    return data


def _request(model: str, *lines: str) -> bytes:
    head = [f"POST /v2/models/{model}/infer HTTP/1.1", "Host: test", f"Content-Length: {len(BODY)}", *lines, "", ""]
    return "\r\n".join(head).encode() + BODY


def test_a_caller_that_hangs_up_ends_the_work_on_its_request_and_leaves_a_record(start_gateway: Start) -> None:
    gateway = start_gateway("gateway", "--workers", "1")
    with backends.backend(backends.holds) as slow:
        register(gateway, manifest("slow", "1", {"http": {"urls": [slow.url]}}))
        put_route(gateway, {"model": "slow", "split": {"1": 10_000}})
        caller = _call(gateway, _request("slow", "X-Request-Id: gone-1"))
        assert slow.arrived.wait(10)
        caller.close()
        (record,) = wait_until(lambda: gateway.audit("gone-1"), "the record of the request")
        assert (record["outcome"], record["status"], record["error_code"]) == ("refused", 499, "client_closed")
        assert record["decision"]["reason"] == "split"
        in_flight = [value for name, value in gateway.metrics().items() if "in_flight_requests{" in name]
        assert in_flight == [0]


def test_a_request_that_outlives_the_drain_is_answered_503_and_recorded(start_gateway: Start, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("[shutdown]\nnotice_seconds = 0.1\ndrain_seconds = 0.5\n")
    gateway = start_gateway("gateway", "--workers", "1", "--config", str(config))
    with backends.backend(backends.holds) as slow:
        register(gateway, manifest("slow", "1", {"http": {"urls": [slow.url]}}))
        put_route(gateway, {"model": "slow", "split": {"1": 10_000}})
        caller = _call(gateway, _request("slow", "X-Request-Id: late-1"))
        assert slow.arrived.wait(10)
        assert gateway.stop() == 0
        reply = _read_all(caller)
        assert reply.startswith(b"HTTP/1.1 503 ")
        assert b"connection: close" in reply
        assert b"send it again" in reply
    gateway.start()
    (record,) = gateway.audit("late-1")
    assert (record["outcome"], record["status"], record["error_code"]) == ("failed", 503, "stopping")


def test_an_inference_that_is_refused_by_the_wire_leaves_a_record(digits_gateway: RunningGateway) -> None:
    for name, lines, status, code in (
        ("wire-1", ("A: b", "C: \0"), 400, "malformed_request"),
        ("wire-2", ("Transfer-Encoding: chunked", "A: b"), 400, "malformed_request"),
        ("wire-3", ("A: b",) * 100, 431, "head_too_large"),
        ("wire-4", ("Expect: everything",), 417, "unmet_expectation"),
    ):
        reply = _read_all(_call(digits_gateway, _request("digits", f"X-Request-Id: {name}", *lines)))
        assert reply.startswith(b"HTTP/1.1 %d " % status)
        assert b'{"error":"' in reply
        (record,) = digits_gateway.audit(name)
        assert (record["outcome"], record["status"], record["error_code"]) == ("refused", status, code)
        assert record["record_id"].encode() in reply


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command for certificates")
def test_the_data_port_speaks_tls_when_it_has_a_certificate(start_gateway: Start, tmp_path: Path) -> None:
    server, client = certified(tmp_path, "server"), certified(tmp_path, "client")
    config = tmp_path / "config.toml"
    files = f'cert = "{server.certificate}"\nkey = "{server.key}"\nclient_ca = "{client.certificate}"\n'
    config.write_text(f"[tls]\n{files}")
    gateway = start_gateway("gateway", "--workers", "1", "--config", str(config))
    assert gateway.data_url.startswith("https://")
    context = ssl.create_default_context(cafile=str(server.certificate))
    context.load_cert_chain(client.certificate, client.key)
    with httpx2.Client(verify=context, trust_env=False) as caller:
        assert caller.get(f"{gateway.data_url}/v2/health/ready").json() == {"ready": True}
        answer = caller.post(f"{gateway.data_url}/v2/models/nobody/infer", content=BODY)
        assert answer.status_code == 404
    (record,) = gateway.audit(answer.headers["x-record-id"])
    assert record["client"] == "127.0.0.1"


def test_a_certificate_that_cannot_be_used_is_named_and_nothing_is_started(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('[tls]\ncert = "/nowhere/server.crt"\nkey = "/nowhere/server.key"\n')
    options = ["--port", "0", "--admin-port", "0", "--data-dir", str(tmp_path / "data"), "--config", str(config)]
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "serve", *options], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2
    assert "tls.cert: cannot read /nowhere/server.crt" in done.stderr
    assert "Traceback" not in done.stderr
