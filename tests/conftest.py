"""Fixtures for every test that needs a rules store: the real embedded Valkey, on a unix socket.

    valkey          one server for the whole session, emptied before each test; never stop this one
    start_valkey    starts private ones that a test may kill, freeze and start again

Both give a `RunningValkey` with `.url` (for `RedisRules` or `--redis-url`) and `.socket`.
"""

import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.stores.embedded_valkey import EmbeddedValkey

READY_SECONDS = 10.0


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
