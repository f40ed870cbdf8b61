"""What tests share: a real rules store, waiting for a condition, and the smallest version that really runs.

    valkey          one embedded Valkey for the whole session, emptied before each test; never stop this one
    start_valkey    starts private ones that a test may kill, freeze and start again
    postgres, database, start_postgres    the same for PostgreSQL; see `tests/postgres_server.py`
    until           waits for a condition, with a deadline

Both Valkeys are a `RunningValkey` with `.url` (for `RedisRules` or `--redis-url`) and `.socket`. For annotations and
for `until`: `from tests.conftest import RunningValkey, until`.
"""

import asyncio
import hashlib
import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from hypothesis import settings

from gateway.catalog import Manifest, Signature, TensorSpec
from gateway.controlplane.artifact import check_artifact
from gateway.errors import ArtifactInvalid
from gateway.messages import Readiness, Rendered, Result, Work
from gateway.ports import InferProtocol
from gateway.stores.embedded_valkey import EmbeddedValkey
from tests.postgres_server import database, postgres, postgres_binaries, start_postgres

__all__ = ["database", "postgres", "postgres_binaries", "start_postgres"]  # fixtures of all tests

settings.register_profile("suite", deadline=None)  # of one example: how fast it is depends on the machine
settings.load_profile("suite")

READY_SECONDS = 10.0


async def until(condition: Callable[[], object], seconds: float = READY_SECONDS) -> None:
    """Wait until a condition holds; fail when it does not within `seconds`."""
    deadline = monotonic() + seconds
    while not condition():
        assert monotonic() < deadline, "the condition did not come to hold"
        await asyncio.sleep(0.002)


class RunningValkey:
    """A real server of its own, and the signals a test may send it."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.start()

    def start(self) -> None:
        """Start the server on what its folder holds, and wait until it answers."""
        self.prepared = EmbeddedValkey.prepare(self.data_dir)
        self.process = subprocess.Popen(self.prepared.argv, stdin=subprocess.DEVNULL)
        self.prepared.wait_until_ready(READY_SECONDS)

    @property
    def url(self) -> str:
        return self.prepared.url

    @property
    def socket(self) -> Path:
        return self.prepared.socket_path

    def command(self, *words: str | bytes) -> bytes:
        """Send one command and return the start of the raw reply; enough for FLUSHALL, DEL, HSET, CONFIG."""
        parts = [word.encode() if isinstance(word, str) else word for word in words]
        packed = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(READY_SECONDS)
            connection.connect(os.fsencode(self.socket))
            connection.sendall(packed)
            return connection.recv(65_536)

    def empty(self) -> None:
        """Lose everything, as a server that was restarted without its data."""
        self.command("FLUSHALL")
        self.command("SCRIPT", "FLUSH")

    def freeze(self) -> None:
        """Stop answering without closing a connection (SIGSTOP)."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it without a chance to tidy up (SIGKILL)."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it in order, also when it is frozen or has ended before."""
        self.process.terminate()
        self.thaw()
        self.process.wait()
        if not self.socket.is_relative_to(self.data_dir.resolve()):
            self.socket.parent.rmdir()


@pytest.fixture(scope="session")
def _session_valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningValkey]:
    running = RunningValkey(tmp_path_factory.mktemp("valkey"))
    yield running
    running.stop()


@pytest.fixture
def valkey(_session_valkey: RunningValkey) -> RunningValkey:
    """The session's server, empty."""
    _session_valkey.empty()
    return _session_valkey


@pytest.fixture
def start_valkey(tmp_path: Path) -> Iterator[Callable[[], RunningValkey]]:
    """Start private servers, each in a folder of its own; they end with the test."""
    started: list[RunningValkey] = []

    def start() -> RunningValkey:
        started.append(RunningValkey(tmp_path / f"private-{len(started)}"))
        return started[-1]

    yield start
    for running in started:
        running.stop()


class AddingExecutor:
    """A version that adds the number in its artifact to the number in a request; a real `ports.Executor`.

    While a file `<artifact>.hold` is there, preparing waits, as it does for a large model.
    """

    def __init__(self, manifest: Manifest) -> None:
        self.manifest = manifest
        self.addend: int | None = None
        self.releases = 0

    @property
    def active(self) -> int:
        return 0

    async def prepare(self) -> None:
        await asyncio.to_thread(check_artifact, self.manifest)
        path = self._artifact()
        await until(lambda: not path.with_suffix(".hold").exists())
        self.addend = self._read(path)

    def _artifact(self) -> Path:
        assert self.manifest.backend.onnx is not None
        return Path(self.manifest.backend.onnx.path)

    def _read(self, path: Path) -> int:
        try:
            return int(path.read_text(encoding="utf-8"))
        except ValueError:
            raise ArtifactInvalid("its artifact is no number") from None

    async def ready(self) -> Readiness:
        spec = (TensorSpec("number", "INT64", (1,)),)
        return Readiness(self.addend is not None, signature=Signature("adding", spec, spec))

    async def execute(self, work: Work, protocol: InferProtocol) -> Result:  # noqa: ARG002 - the shape of the port
        assert self.addend is not None, "executed without being prepared, or after it was released"
        return Result(Rendered(200, b"%d" % (int(work.body) + self.addend)), "onnx", 0, 0)

    async def release(self) -> None:
        self.addend = None
        self.releases += 1


class AddingVersions:
    """Makes artifacts and manifests of adding versions, and their executors; `made` has every executor ever made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made: list[AddingExecutor] = []

    def __call__(self, manifest: Manifest) -> AddingExecutor:
        self.made.append(AddingExecutor(manifest))
        return self.made[-1]

    def artifact(self, model: str, version: str) -> Path:
        return self.folder / f"{model}-{version}.number"

    def manifest(self, model: str, version: str, addend: str = "1", /, **fields: Any) -> bytes:
        """Write the artifact and return the manifest's JSON, complete unless `fields` says otherwise."""
        path = self.artifact(model, version)
        path.write_text(addend, encoding="utf-8")
        digest = hashlib.sha256(addend.encode()).hexdigest()
        whole = {
            "model": model,
            "version": version,
            "backend": {"onnx": {"path": str(path), "sha256": digest}},
            "code": {"git_commit": "9f2c1e7"},
            "data": {"version": "2026-10-01"},
            "metrics": {"accuracy": 0.96},
            "owner": "risk-ml",
        }
        return json.dumps(whole | fields).encode()


@pytest.fixture
def adding(tmp_path: Path) -> AddingVersions:
    """Versions that really run and need nothing: see `AddingVersions`."""
    folder = tmp_path / "artifacts"
    folder.mkdir()
    return AddingVersions(folder)
