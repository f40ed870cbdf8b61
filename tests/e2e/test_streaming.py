"""Server-sent events through a gateway of real processes, read by a client of the open world."""

import asyncio
import json
import os
import resource
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.e2e import backends
from tests.e2e.running_gateway import RunningGateway, manifest, put_route, register, wait_until

Start = Callable[..., RunningGateway]
BODY = b'{"id": "told", "inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]}'
INFER = "/v2/models/talk/infer"
EVENTS = [f"data: {number}" for number in range(20)]
WHOLE = "".join(f"{event}\n\n" for event in EVENTS).encode()


class Talk:
    """A backend that sends one event at once and one more for each `step`; after `stop_after` it hangs up instead."""

    def __init__(self, stop_after: int = len(EVENTS)) -> None:
        self._steps = threading.Semaphore(0)
        self._stop_after = stop_after
        self.hung_up = threading.Event()

    def step(self) -> None:
        self._steps.release()

    async def __call__(self, _: backends.Backend, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head.encode())
        for number, event in enumerate(EVENTS):
            while number and not self._steps.acquire(blocking=False):
                if reader.at_eof():
                    self.hung_up.set()
                    return
                await asyncio.sleep(0.005)
            if number == self._stop_after:
                writer.close()
                return
            data = f"{event}\n\n".encode()
            writer.write(b"%x\r\n%b\r\n" % (len(data), data))
        writer.write(b"0\r\n\r\n")


@contextmanager
def talking(gateway: RunningGateway, talk: Talk, model: str = "talk") -> Iterator[Talk]:
    """Route a model to a backend that does what `talk` says."""
    with backends.backend(talk) as backend:
        register(gateway, manifest(model, "1", {"http": {"urls": [backend.url]}}))
        put_route(gateway, {"model": model, "split": {"1": 10_000}})
        yield talk


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """One gateway for the tests that do it no harm."""
    running = RunningGateway(tmp_path_factory.mktemp("shared"), "--workers", "2")
    yield running
    running.close()


def test_a_client_reads_events_line_by_line_and_the_record_has_all_of_them(gateway: RunningGateway) -> None:
    async def read(talk: Talk) -> tuple[list[str], str]:
        lines: list[str] = []
        async with (
            httpx2.AsyncClient(timeout=20, trust_env=False) as client,
            client.stream("POST", f"{gateway.data_url}{INFER}", content=BODY) as answer,
        ):
            assert answer.status_code == 200
            assert answer.headers["content-type"] == "text/event-stream"
            assert answer.headers["x-model-version"] == "1"
            async for line in answer.aiter_lines():
                lines.append(line)
                if not line:
                    talk.step()  # only now, so whoever waited for more would wait for ever
        return lines, answer.headers["x-record-id"]

    with talking(gateway, Talk()) as talk:
        lines, record_id = asyncio.run(read(talk))
    assert [line for line in lines if line] == EVENTS
    (record,) = gateway.audit(record_id)
    assert (record["outcome"], record["status"], record["streamed"]) == ("served", 200, "complete")
    assert (record["oip_id"], record["served"], len(record["attempts"])) == ("told", "1", 1)
    assert 0 < record["head_us"] <= record["infer_us"] <= record["total_us"]
    assert record["response"]["body"].encode() == WHOLE
    assert (record["response"]["size"], record["response"]["sha256"]) == (len(WHOLE), sha256(WHOLE).hexdigest())
    assert "complete; its head came after" in gateway.cli("audit", "show", record_id)
    metrics = gateway.metrics()
    assert metrics['pointsman_requests_total{model="talk",outcome="served",version="1"}'] == 1
    gateway.cli("audit", "verify")
    gateway.cli("audit", "recompute")


def test_a_stream_that_its_backend_breaks_off_is_an_error_for_the_client(gateway: RunningGateway) -> None:
    with talking(gateway, Talk(stop_after=2), "broken") as talk:
        for _ in range(2):
            talk.step()
        with (
            pytest.raises(httpx2.RemoteProtocolError),
            gateway.http.stream("POST", f"{gateway.data_url}/v2/models/broken/infer", content=BODY) as answer,
        ):
            answer.read()
    (record,) = gateway.audit(answer.headers["x-record-id"])
    assert (record["outcome"], record["error_code"], record["streamed"]) == (
        "failed",
        "backend_unreachable",
        "broken_off",
    )
    assert record["response"]["body"] == "data: 0\n\ndata: 1\n\n"
    assert [line["status"] for line in gateway.log("failed")] == [record["status"]] == [200]
    assert "broken off after 18 bytes" in gateway.cli("audit", "show", record["record_id"])
    metrics = gateway.metrics()
    assert metrics['pointsman_errors_total{code="backend_unreachable",model="broken",version="1"}'] == 1
    gateway.cli("audit", "recompute")


def _begin(gateway: RunningGateway, name: str, http: str = "1.1") -> socket.socket:
    """Send a request whose answer streams, and wait until the first event is there."""
    parts = urlsplit(gateway.data_url)
    caller = socket.create_connection((parts.hostname or "", parts.port or 0), timeout=20)
    head = f"POST {INFER} HTTP/{http}\r\nHost: test\r\nX-Request-Id: {name}\r\nContent-Length: {len(BODY)}\r\n\r\n"
    caller.sendall(head.encode() + BODY)
    came = b""
    while b"data: 0" not in came:
        came += caller.recv(65_536)
    return caller


def _read_on(caller: socket.socket) -> bytes:
    data = b""
    try:
        while piece := caller.recv(65_536):
            data += piece
    except ConnectionResetError:
        pass
    caller.close()
    return data


def test_a_worker_that_is_killed_leaves_no_record_of_a_stream_that_nobody_got(start_gateway: Start) -> None:
    gateway = start_gateway("gateway", "--workers", "1")
    with talking(gateway, Talk()) as talk:
        caller = _begin(gateway, "killed-1")
        old = _begin(gateway, "killed-2", http="1.0")
        worker = gateway.child_pid("app worker")
        os.kill(worker, signal.SIGKILL)
        assert b"\r\n0\r\n" not in _read_on(caller)
        with pytest.raises(ConnectionResetError):  # whose body would end with the connection
            old.recv(65_536)
        old.close()
        wait_until(talk.hung_up.is_set, "the backend sees that nobody reads any more")
        wait_until(lambda: gateway.http.get(f"{gateway.data_url}/v2/health/ready").status_code == 200, "a new worker")
        assert gateway.audit("killed-1") == gateway.audit("killed-2") == []
        for _ in EVENTS:
            talk.step()
        answer = gateway.infer("talk", BODY, {"x-request-id": "after-1"})
        assert answer.content == WHOLE
    (record,) = gateway.audit("after-1")
    assert record["streamed"] == "complete"
    gateway.cli("audit", "verify")
    assert json.loads(gateway.cli("audit", "completeness", "--json"))


def test_a_gateway_that_is_told_to_stop_lets_a_stream_come_to_its_end(start_gateway: Start) -> None:
    gateway = start_gateway("gateway", "--workers", "1")
    with talking(gateway, Talk()) as talk:
        caller = _begin(gateway, "last-1")
        worker = gateway.child_pid("app worker")
        gateway.process.send_signal(signal.SIGTERM)
        wait_until(lambda: gateway.log("stopping") or not _accepts(gateway), "the gateway begins to stop")
        for _ in EVENTS:
            talk.step()
        assert _read_on(caller).endswith(b"data: 19\n\n\r\n0\r\n\r\n")
        assert gateway.process.wait(20) == 0
        assert worker not in gateway.children()
    gateway.start()
    (record,) = gateway.audit("last-1")
    assert (record["outcome"], record["streamed"]) == ("served", "complete")


def _accepts(gateway: RunningGateway) -> bool:
    parts = urlsplit(gateway.data_url)
    try:
        socket.create_connection((parts.hostname or "", parts.port or 0), timeout=1).close()
    except OSError:
        return False
    return True


def test_a_journal_that_refuses_the_record_of_a_stream_has_the_caller_cut_off(start_gateway: Start) -> None:
    gateway = start_gateway("gateway", "--workers", "1")
    with talking(gateway, Talk()) as talk:
        for _ in range(20 * (len(EVENTS) - 1)):
            talk.step()
        for _ in range(20):  # until the journal is longer than the log, which shall go on
            assert gateway.infer("talk", BODY).content == WHOLE
        (segment,) = (gateway.data_dir / "journal" / "w0").glob("*.journal")
        caller = _begin(gateway, "lost-1")
        worker = gateway.child_pid("app worker")
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (segment.stat().st_size + 100, resource.RLIM_INFINITY))
        for _ in EVENTS:
            talk.step()
        rest = _read_on(caller)
        assert rest.endswith(b"data: 19\n\n\r\n")
        wait_until(
            lambda: [pid for pid, command in gateway.children().items() if "app worker" in command and pid != worker],
            "another worker takes its place",
        )
        assert gateway.log("journal_failed")
        assert gateway.metrics()['pointsman_unrecorded_refusals_total{worker="worker-0"}'] == 1
        assert gateway.audit("lost-1") == []
