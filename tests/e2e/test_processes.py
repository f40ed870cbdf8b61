"""Life and death of the processes: what crashes comes back, what is told to stop drains, nothing is left behind."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import httpx2
import pytest

from gateway.examples import digit_samples
from tests.e2e import backends
from tests.e2e.running_gateway import (
    RunningGateway,
    digit_request,
    manifest,
    put_route,
    register,
    running,
    wait_until,
)

Start = Callable[..., RunningGateway]
PIXELS = digit_samples()[0].pixels


def _served(gateway: RunningGateway) -> bool:
    try:
        return gateway.infer("digits", digit_request(PIXELS)).status_code == 200
    except httpx2.TransportError:
        return False


def _with_examples(start_gateway: Start, *options: str) -> RunningGateway:
    gateway = start_gateway("gateway", "--examples", *options)
    return gateway


def test_every_child_that_crashes_is_started_again_and_figures_stay_right(start_gateway: Start) -> None:
    gateway = _with_examples(start_gateway, "--workers", "2")
    sent = 0
    for mark in ("app worker 0", "app worker 1", "app control", "valkey-server"):
        for _ in range(10):
            sent += _served(gateway)
        before = gateway.child_pid(mark)
        os.kill(before, signal.SIGKILL)
        wait_until(
            lambda mark=mark, before=before: any(  # type: ignore[misc]
                mark in command and pid != before for pid, command in gateway.children().items()
            ),
            f"{mark} is started again",
        )
        wait_until(lambda: _served(gateway), "requests are served")
        sent += 1
    wait_until(lambda: gateway.http.get(f"{gateway.admin_url}/readyz").status_code == 200, "the admin port is ready")
    before_metrics = _primaries(gateway)
    for _ in range(5):
        assert _served(gateway)
    assert _primaries(gateway) == before_metrics + 5
    wait_until(lambda: len(gateway.log("served")) >= sent, "every request has its line")
    os.kill(gateway.child_pid("app worker 0"), signal.SIGKILL)
    assert _primaries(gateway) == before_metrics + 5


def _primaries(gateway: RunningGateway) -> float:
    return sum(value for name, value in gateway.metrics().items() if name.startswith("pointsman_requests_total{"))


def test_a_change_of_rules_still_works_after_the_embedded_valkey_was_killed(start_gateway: Start) -> None:
    gateway = _with_examples(start_gateway, "--workers", "1")
    before = gateway.cli("routes", "show", "digits", "--json")
    os.kill(gateway.child_pid("valkey-server"), signal.SIGKILL)
    wait_until(lambda: len(gateway.log("died")) == 1, "the death of the embedded Valkey is noticed")
    assert _served(gateway)
    wait_until(lambda: any("valkey-server" in command for command in gateway.children().values()), "it is back")

    def shown() -> bool:
        answer = gateway.http.get(f"{gateway.admin_url}/admin/v1/routes/digits")
        return answer.status_code == 200

    wait_until(shown, "the rules can be read again")
    assert gateway.cli("routes", "show", "digits", "--json") == before
    gateway.cli("routes", "weights", "digits", "1=0", "2=100")
    assert gateway.infer("digits", digit_request(PIXELS)).headers["x-model-version"] == "2"


def test_sigterm_goes_not_ready_first_lets_requests_end_and_leaves_no_process(start_gateway: Start) -> None:
    gateway = start_gateway("gateway", "--workers", "2")
    with backends.backend(backends.holds) as slow:
        register(gateway, manifest("slow", "1", {"http": {"urls": [slow.url]}}))
        put_route(gateway, {"model": "slow", "split": {"1": 10_000}})
        answers: list[httpx2.Response] = []
        body = b'{"inputs": [{"name": "x", "shape": [1], "datatype": "FP32", "data": [1]}]}'
        with httpx2.Client(trust_env=False, timeout=30) as client:
            url = f"{gateway.data_url}/v2/models/slow/infer"
            request = threading.Thread(target=lambda: answers.append(client.post(url, content=body)))
            request.start()
            assert slow.arrived.wait(10)
            pids = [*gateway.children(), gateway.process.pid]
            with httpx2.Client(trust_env=False) as probe:
                assert probe.get(f"{gateway.data_url}/v2/health/ready").status_code == 200
                gateway.process.send_signal(signal.SIGTERM)
                wait_until(
                    lambda: probe.get(f"{gateway.data_url}/v2/health/ready").status_code == 503, "ready is false"
                )
                assert probe.get(f"{gateway.data_url}/v2/health/live").status_code == 200
            assert not answers
            slow.release.set()
            request.join(20)
        assert answers[0].status_code == 200
        assert answers[0].content == backends.ANSWER
    assert gateway.process.wait(20) == 0
    assert running(pids) == []
    gateway.start()
    (record,) = gateway.audit(answers[0].headers["x-record-id"])
    assert record["outcome"] == "served"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGHUP])
def test_ctrl_c_and_a_terminal_that_goes_away_end_everything(number: int, start_gateway: Start) -> None:
    gateway = start_gateway("gateway")
    pids = [*gateway.children(), gateway.process.pid]
    assert len(pids) == 5  # supervisor, control, two workers, embedded Valkey
    gateway.process.send_signal(number)
    assert gateway.process.wait(10) == 0
    assert running(pids) == []


def test_sigkill_of_the_supervisor_leaves_no_orphan(start_gateway: Start) -> None:
    gateway = _with_examples(start_gateway)
    pids = list(gateway.children())
    assert len(pids) == 4
    gateway.process.kill()
    gateway.process.wait(10)
    wait_until(lambda: running(pids) == [], "every child has ended")


def test_rules_and_records_live_through_a_restart(start_gateway: Start) -> None:
    gateway = _with_examples(start_gateway, "--workers", "1")
    gateway.cli("routes", "weights", "digits", "1=50", "2=50")
    keys = [f"caller-{number}" for number in range(40)]

    def versions() -> list[str]:
        return [
            gateway.infer("digits", digit_request(PIXELS), {"x-routing-key": key}).headers["x-model-version"]
            for key in keys
        ]

    before = versions()
    record_id = gateway.infer("digits", digit_request(PIXELS)).headers["x-record-id"]
    assert gateway.stop() == 0
    gateway.start()
    assert versions() == before
    assert set(before) == {"1", "2"}
    (record,) = gateway.audit(record_id)
    assert record["record_id"] == record_id


def test_a_second_gateway_on_the_same_data_folder_is_refused(start_gateway: Start) -> None:
    gateway = start_gateway("gateway", "--workers", "1")
    second = subprocess.run(
        [
            sys.executable,
            "-m",
            "gateway",
            "serve",
            "--port",
            "0",
            "--admin-port",
            "0",
            "--data-dir",
            str(gateway.data_dir),
        ],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert second.returncode == 2
    assert "data" in second.stderr


def test_a_port_in_use_is_refused_naming_the_setting(start_gateway: Start) -> None:
    gateway = start_gateway("gateway", "--workers", "1")
    port = gateway.data_url.rpartition(":")[2]
    second = subprocess.run(
        [sys.executable, "-m", "gateway", "serve", "--port", port, "--data-dir", str(gateway.folder / "other")],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert second.returncode == 2
    assert "port" in second.stderr
    assert "Traceback" not in second.stderr
