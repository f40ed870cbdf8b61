"""Real servers on TCP ports of loopback, as tests need them beside the embedded one: clusters, Sentinels, replicas."""

import signal
import socket
import subprocess
import time
from pathlib import Path

import redis

from gateway.stores.embedded_valkey import EmbeddedValkey

ANSWER_SECONDS = 10.0


def free_port() -> int:
    """Return a port that nobody listens on just now."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


class RedisServer:
    """A server with options of its own in a folder of its own; `sentinel` makes it a Sentinel."""

    def __init__(self, folder: Path, *, sentinel: bool = False, **options: object) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self._configuration = folder / "server.conf"
        lines = [f"port {self.port}", "bind 127.0.0.1", f"dir {folder}", 'save ""', f"logfile {folder / 'log'}"]
        lines += [f"{name.replace('_', '-')} {value}" for name, value in options.items()]
        self._configuration.write_text("\n".join(lines) + "\n", encoding="utf-8")
        binary = EmbeddedValkey.prepare(folder / "unused").binary
        self._argv = [str(binary), str(self._configuration), *(["--sentinel"] if sentinel else [])]
        self.process = subprocess.Popen(self._argv, stdin=subprocess.DEVNULL)

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self, *words: str | int) -> object:
        """Send one command and return the reply."""
        with redis.Redis(host="127.0.0.1", port=self.port, protocol=2, decode_responses=True) as client:
            return client.execute_command(*words)

    def wait_until(self, *words: str | int, says: str) -> None:
        """Wait until the reply to a command has a text in it."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                reply = str(self.command(*words))
            except redis.RedisError as error:
                reply = str(error)
            if says in reply:
                return
            assert time.monotonic() < deadline, f"{words} does not come to say {says!r}: {reply}"
            time.sleep(0.01)

    def freeze(self) -> None:
        """Stop answering without closing a connection (SIGSTOP)."""
        self.process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """End it without a chance to tidy up (SIGKILL); also when it is frozen or has ended before."""
        self.process.kill()
        self.process.wait()


def make_cluster(server: RedisServer) -> None:
    """Make a server that was started with `cluster_enabled` a cluster of one node that has every slot."""
    server.wait_until("ECHO", "ready", says="ready")
    server.command("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
    server.wait_until("CLUSTER", "INFO", says="cluster_state:ok")
