"""A real `pointsman serve`, started, watched and ended by its process id."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

CallableToWait = Callable[[], Any]


def wait_until(condition: CallableToWait, what: str, seconds: float = 20.0) -> Any:
    """Return the first true value of `condition`, asking every 10 ms; fail with `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.01)
    pytest.fail(f"not within {seconds} s: {what}")


class RunningGateway:
    """One gateway of real processes: a supervisor, workers, a control process and an embedded Valkey."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.data_dir = folder / "data"
        self.log_path = folder / "gateway.log"
        self.options = options if "--gateway" in options else (*options, "--gateway", "gateway")
        self.http = httpx2.Client(timeout=30.0, trust_env=False)
        self.start()

    def start(self, *, ready: bool = True) -> None:
        """Start it and wait until it is ready, or only until its ports are open."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._endpoints().unlink(missing_ok=True)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("POINTSMAN_")}
        command = [sys.executable, "-m", "gateway", "serve", "--port", "0", "--admin-port", "0"]
        self.ready_lines = len(self.log("ready"))
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--data-dir", str(self.data_dir), *self.options],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=self.folder,
            )
        begun = self._is_ready if ready else self._endpoints().exists
        wait_until(begun, f"the gateway is ready; its log: {self.tail()}", 40.0)
        endpoints = json.loads(self._endpoints().read_text())
        self.data_url: str = endpoints["data_url"]
        self.admin_url: str = endpoints["admin_url"]
        if "--examples" in self.options:
            wait_until(lambda: "curl" in self.log_path.read_text(encoding="utf-8"), "the examples are installed")

    def _endpoints(self) -> Path:
        return self.data_dir / "run" / "endpoints.json"

    def _is_ready(self) -> bool:
        if self.process.poll() is not None:
            pytest.fail(f"the gateway ended with {self.process.returncode}: {self.tail()}")
        return len(self.log("ready")) > self.ready_lines

    def stop(self, number: int = signal.SIGTERM) -> int:
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(timeout=30)

    def close(self) -> None:
        try:
            self.stop()
        finally:
            if self.process.poll() is None:
                self.process.kill()
                self.process.wait()
            self.http.close()

    def tail(self) -> str:
        return self.log_path.read_text()[-3000:] if self.log_path.exists() else ""

    def log(self, event: str | None = None) -> list[dict[str, Any]]:
        """Return the log lines, those of one event if it is given."""
        if not self.log_path.exists():
            return []
        lines = [line for line in self.log_path.read_bytes().splitlines() if line.startswith(b"{")]
        parsed = [json.loads(line) for line in lines if line.endswith(b"}")]
        return [line for line in parsed if event is None or line["event"] == event]

    def children(self) -> dict[int, str]:
        """Return the running processes below the supervisor: pid to command line."""
        return {pid: command for pid, (parent, command) in _processes().items() if parent == self.process.pid}

    def child_pid(self, mark: str) -> int:
        """Return the pid of the child whose command line holds `mark`."""
        return next(pid for pid, command in self.children().items() if mark in command)

    def cli(self, *arguments: str, code: int = 0) -> str:
        """Run `pointsman` as a person would and return what it printed; its exit code must be `code`."""
        done = subprocess.run(
            [sys.executable, "-m", "gateway", *arguments],
            env={**os.environ, "POINTSMAN_ADMIN_URL": self.admin_url, "COLUMNS": "200"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, (arguments, done.returncode, done.stdout, done.stderr)
        return done.stdout if code == 0 else done.stdout + done.stderr

    def infer(self, model: str, body: Any, headers: dict[str, str] | None = None, path: str = "") -> httpx2.Response:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.http.post(f"{self.data_url}/v2/models/{model}{path}/infer", content=content, headers=headers or {})

    def audit(self, any_id: str) -> list[dict[str, Any]]:
        """Return the primary records that the admin API finds for an id."""
        answer = self.http.get(f"{self.admin_url}/admin/v1/audit/requests/{any_id}")
        if answer.status_code == 404:
            return []
        assert answer.status_code == 200, answer.text
        records: list[dict[str, Any]] = answer.json()["records"]
        return records

    def metrics(self) -> dict[str, float]:
        """Return every sample of a scrape by its name with labels, as it is printed."""
        lines = self.http.get(f"{self.admin_url}/metrics").text.splitlines()
        samples = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}


def _processes() -> dict[int, tuple[int, str]]:
    found: dict[int, tuple[int, str]] = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        state, parent = stat.rpartition(")")[2].split()[:2]
        if state != "Z":
            found[int(entry.name)] = (int(parent), command)
    return found


def running(pids: list[int]) -> list[int]:
    """Return those of `pids` that are running processes (zombies are not)."""
    processes = _processes()
    return [pid for pid in pids if pid in processes]


def digit_request(pixels: tuple[int, ...] | list[int]) -> dict[str, Any]:
    """Return the body that asks the digits model about one image."""
    return {"inputs": [{"name": "pixels", "shape": [1, 64], "datatype": "FP32", "data": list(pixels)}]}


def manifest(model: str, version: str, backend: dict[str, Any]) -> dict[str, Any]:
    """Return a complete manifest of a version with the given backend."""
    return {
        "model": model,
        "version": version,
        "backend": backend,
        "code": {"git_commit": "0123abcd"},
        "data": {"version": "of the test"},
        "metrics": {"accuracy": 0.5},
        "owner": "tests",
    }


def register(gateway: RunningGateway, document: dict[str, Any]) -> None:
    """Register a version through the admin API."""
    url = f"{gateway.admin_url}/admin/v1/models/{document['model']}/versions"
    answer = gateway.http.post(url, json=document)
    assert answer.status_code in {200, 201, 202}, answer.text


def put_route(gateway: RunningGateway, route: dict[str, Any]) -> int:
    """Put a route in force everywhere and return its revision."""
    url = f"{gateway.admin_url}/admin/v1/routes/{route['model']}"
    present = gateway.http.get(url)
    headers = {"if-match": present.headers["etag"]} if present.status_code == 200 else {}
    answer = gateway.http.put(url, json=route, headers=headers)
    assert answer.status_code in {200, 201}, answer.text
    return int(answer.headers["etag"].strip('"'))
