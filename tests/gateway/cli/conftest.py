"""A peer that answers as scripted over a real socket: for what a healthy admin API does not do on demand."""

import socket
import threading
from collections.abc import Callable, Iterator, Sequence

import pytest

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
