"""What the command line is tested against: a real gateway, and for what that does not do on demand a scripted peer."""

import json
import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.cli.app import app
from gateway.examples import digits_folder
from tests.e2e.running_gateway import RunningGateway

CUT = b""


class ScriptedPeer:
    """Takes one request a connection, and answers it with the next line of the script, or hangs up for `CUT`."""

    def __init__(self, script: Sequence[bytes]) -> None:
        self.requests: list[str] = []
        self._script = list(script)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def headers(self, name: str) -> list[str]:
        """The values of a header in the requests so far, one a request."""
        pairs = ([line.partition(": ") for line in request.split("\r\n")] for request in self.requests)
        return [next(value for found, _, value in lines if found.lower() == name) for lines in pairs]

    def _serve(self) -> None:
        for answer in self._script:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                self.requests.append(_read(connection).decode())
                connection.sendall(answer)


def _read(connection: socket.socket) -> bytes:
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65_536)
    head, _, body = data.partition(b"\r\n\r\n")
    sizes = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
    while sizes and len(body) < int(sizes[0].split(b":")[1]):
        body += connection.recv(65_536)
    return head + b"\r\n\r\n" + body


@pytest.fixture
def peer() -> Iterator[Callable[..., ScriptedPeer]]:
    peers: list[ScriptedPeer] = []

    def start(*script: bytes) -> ScriptedPeer:
        peers.append(ScriptedPeer(script))
        return peers[-1]

    yield start
    for started in peers:
        started.close()


@pytest.fixture
def nobody() -> Iterator[str]:
    """A URL that nobody serves: the port is bound, so no other process gets it, and never listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("POINTSMAN_ADMIN_URL", "POINTSMAN_URL", "POINTSMAN_ACTOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)


class Pointsman:
    """The command line, run in this process against one gateway."""

    def __init__(self, gateway: RunningGateway) -> None:
        self.gateway = gateway

    def __call__(self, *arguments: str, code: int = 0, text: str | None = None) -> str:
        """Run a command, check its exit code, and return what it printed: stdout when it is 0, else stderr."""
        result = CliRunner().invoke(app, ["--admin-url", self.gateway.admin_url, *arguments], input=text)
        assert result.exit_code == code, (arguments, result.exit_code, result.stdout, result.stderr)
        return result.stderr if code else result.stdout

    def json(self, *arguments: str) -> Any:
        """Return the JSON that a read prints, which is all that it prints."""
        return json.loads(self(*arguments, "--json"))


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningGateway]:
    """A real gateway with the example models, for all tests of the command line."""
    folder = tmp_path_factory.mktemp("gateway")
    (folder / "settings.toml").write_text("[rules]\npublish_wait_ms = 2500\n", encoding="utf-8")
    running = RunningGateway(folder / "gateway", "--examples", "--config", str(folder / "settings.toml"))
    yield running
    running.close()


@pytest.fixture(scope="session")
def pointsman(gateway: RunningGateway) -> Pointsman:
    return Pointsman(gateway)


@pytest.fixture(scope="session")
def manifests(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], list[Path]]:
    """Write the example manifests under another model's name, each in a folder with its artifact; return those."""

    def write(model: str) -> list[Path]:
        folders = [tmp_path_factory.mktemp(model) / version for version in ("1", "2", "3")]
        for folder in folders:
            shutil.copytree(digits_folder() / folder.name, folder)
            manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
            (folder / "manifest.json").write_text(json.dumps({**manifest, "model": model}), encoding="utf-8")
        return folders

    return write


@pytest.fixture(scope="session")
def _registered(pointsman: Pointsman, manifests: Callable[[str], list[Path]]) -> str:
    pointsman("versions", "register", *(str(folder) for folder in manifests("work")))
    return "work"


@pytest.fixture
def model(pointsman: Pointsman, _registered: str) -> str:
    """A model with versions 1, 2 and 3, routed 90/10 between 1 and 2 and nothing else when the test begins."""
    pointsman("routes", "apply", "-", text=json.dumps({"model": _registered, "split": {"1": 9000, "2": 1000}}))
    return _registered
