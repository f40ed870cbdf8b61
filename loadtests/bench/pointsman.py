"""One `pointsman serve`, driven from outside: its ports, its settings, its processes.

Belongs here: starting it, putting rules in force, waiting for its records, telling its processes apart. Never here:
which rules a measurement needs, or anything that only the code inside could know.
"""

import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx2

from loadtests.bench.asking import Ask, ask
from loadtests.bench.proctree import Process
from loadtests.bench.programs import Program, ProgramFailed, free_port

START_SECONDS = 60.0
SETTLE_SECONDS = 120.0
_WORKER = re.compile(r"\bgateway\S*\s+worker\s+\d+")
LOOK_UPS = 8
"""Requests that `settle` sends itself, over connections of their own, so that every worker gets some."""


class Pointsman:
    """A running gateway: embedded rules store, records in SQLite, metrics and log lines, all on, as by default."""

    def __init__(
        self,
        folder: Path,
        *,
        cores: Sequence[int],
        workers: int = 1,
        settings: Mapping[str, str] | None = None,
        tree: Path | None = None,
    ) -> None:
        """Start it with its files in `folder` and wait until it is ready; `settings` are environment variables.

        `tree` is a folder with other packages than those that are installed.
        """
        folder.mkdir(parents=True, exist_ok=True)
        port, admin_port = free_port(), free_port()
        self.data_url, self.admin_url = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{admin_port}"
        self._ports = ["--port", str(port), "--admin-port", str(admin_port)]
        self._folder, self._cores, self._workers = folder, cores, workers
        self._settings = settings or {}
        self._tree = tree
        self.http = httpx2.Client(timeout=120.0, trust_env=False)
        self.start()

    def start(self, *, control: bool = True) -> None:
        """Start it, for the first time or again on the data that it has, and wait until it is ready.

        Without `control` the data port is enough: while its rules store is down, the admin port takes no changes.
        """
        options = ["--workers", str(self._workers), "--gateway", "loadtests", "--data-dir", str(self._folder / "data")]
        self.program = Program(
            [sys.executable, "-m", "gateway", "serve", *self._ports, *options],
            log=self._folder / "gateway.log",
            cores=self._cores,
            variables=self._settings,
            folder=self._tree,  # where it is started is where Python looks first
        )
        try:
            self.program.wait_until(lambda: self._is_ready(control), "it is ready", START_SECONDS)
        except BaseException:
            self.program.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it with all its processes."""
        self.program.stop()
        self.http.close()

    def workers(self) -> list[Process]:
        """Return the data workers.

        Raises:
            ProgramFailed: not as many as there should be.
        """
        running = self.program.processes()
        found = [process for process in running if _WORKER.search(process.command)]
        if len(found) != self._workers:
            seen = "; ".join(process.command for process in running)
            raise ProgramFailed(f"{len(found)} data workers instead of {self._workers} among: {seen}")
        return found

    def change(self, documents: Sequence[Mapping[str, Any]]) -> None:
        """Put routes, cohorts and versions in force together, in every worker.

        Raises:
            ProgramFailed: the change was refused or is not in force everywhere.
        """
        answer = self.http.post(f"{self.admin_url}/admin/v1/changes", json={"documents": documents})
        if answer.status_code not in (200, 201):
            raise ProgramFailed(f"the change answered {answer.status_code}: {answer.text[:500]}")

    def put_route(self, route: Mapping[str, Any]) -> httpx2.Response:
        """Change an existing route and return the answer, whatever it is."""
        url = f"{self.admin_url}/admin/v1/routes/{route['model']}"
        present = self.http.get(url)
        return self.http.put(url, json=dict(route), headers={"if-match": present.headers.get("etag", "")})

    def records(self, any_id: str) -> list[dict[str, Any]]:
        """Return what is recorded under an id; nothing if no record is found."""
        answer = self.http.get(f"{self.admin_url}/admin/v1/audit/requests/{any_id}")
        if answer.status_code != 200:
            return []
        records: list[dict[str, Any]] = answer.json()["records"]
        return records

    def settle(self, one: Ask) -> None:
        """Wait until everything that was served is recorded, so that no cost of it is still to come.

        Raises:
            ProgramFailed: it was not within `SETTLE_SECONDS`.
        """
        last = [ask(self.data_url, one).headers["x-record-id"] for _ in range(LOOK_UPS)]
        self.program.wait_until(lambda: all(map(self.records, last)), "every record is found", SETTLE_SECONDS)

    def metrics(self) -> dict[str, float]:
        """Return every sample of a scrape by its name with labels, as it is printed."""
        lines = self.http.get(f"{self.admin_url}/metrics").text.splitlines()
        samples = (line.rpartition(" ") for line in lines if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    def _workers_ready(self) -> int:
        return int(sum(value for name, value in self.metrics().items() if name.startswith("pointsman_worker_ready{")))

    def _is_ready(self, control: bool) -> bool:
        asked = [f"{self.data_url}/v2/health/ready", *([f"{self.admin_url}/readyz"] if control else [])]
        try:
            if not all(self.http.get(url).status_code == 200 for url in asked):
                return False
            # One worker has said that it is ready; those beside it may still be on their way.
            return not control or self._workers_ready() == self._workers
        except httpx2.TransportError:
            return False


def manifest(model: str, version: str, backend: Mapping[str, Any]) -> dict[str, Any]:
    """Return a complete manifest of a version with the given backend."""
    return {
        "model": model,
        "version": version,
        "backend": backend,
        "code": {"git_commit": "0123abcd"},
        "data": {"version": "of the load test"},
        "metrics": {"accuracy": 0.5},
        "owner": "loadtests",
    }


def forwarded(model: str, version: str, urls: Iterable[str]) -> dict[str, Any]:
    """Return the manifest of a version that runs on servers."""
    return manifest(model, version, {"http": {"urls": list(urls), "model": model, "version": version}})


def from_folder(folder: Path) -> dict[str, Any]:
    """Return the manifest in a folder with its artifact's path made absolute."""
    document: dict[str, Any] = json.loads((folder / "manifest.json").read_bytes())
    document["backend"]["onnx"]["path"] = str(folder.resolve() / document["backend"]["onnx"]["path"])
    return document


def wait_for(condition: Callable[[], bool], what: str, seconds: float) -> float:
    """Wait for a condition and return the seconds that took.

    Raises:
        ProgramFailed: it did not come to hold within `seconds`.
    """
    began = time.monotonic()
    while not condition():
        if time.monotonic() - began > seconds:
            raise ProgramFailed(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.02)
    return time.monotonic() - began
