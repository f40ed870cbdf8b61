"""A rules store of one's own, over TCP with a password, and everything that can happen to one."""

import json
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import redis

from gateway.stores.embedded_valkey import EmbeddedValkey
from tests.e2e.running_gateway import wait_until

PASSWORD = "hush-hush-77"


class OwnRedis:
    """A real server on a TCP port of loopback that asks for a password."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.url = self.url_at(self.port)
        self.start()

    @staticmethod
    def url_at(port: int) -> str:
        """Return the URL of this server as it is reached at `port`, its own or a proxy's."""
        return f"redis://:{PASSWORD}@127.0.0.1:{port}/0"

    def start(self) -> None:
        """Start on what the folder holds, and wait until it listens."""
        binary = EmbeddedValkey.prepare(self.folder).argv[0]
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self.folder),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
            "requirepass": PASSWORD,
        }
        words = [word for name, value in options.items() for word in (f"--{name}", value)]
        self.process = subprocess.Popen([binary, *words], stdout=subprocess.DEVNULL)
        wait_until(self._answers, "the rules store answers")

    def _answers(self) -> bool:
        try:
            return bool(self.command("PING"))
        except redis.RedisError:
            return False

    def command(self, *words: str) -> object:
        """Send one command and return the reply."""
        with redis.Redis(host="127.0.0.1", port=self.port, password=PASSWORD) as client:
            return client.execute_command(*words)

    def calls(self) -> int:
        """Return how many commands the server has executed for clients, by its own count of each."""
        with redis.Redis(host="127.0.0.1", port=self.port, password=PASSWORD) as client:
            stats: dict[str, dict[str, int]] = client.info("commandstats")
        return sum(stat["calls"] for name, stat in stats.items() if name not in ("cmdstat_info", "cmdstat_auth"))

    def stop(self) -> None:
        """End it in order, also when it is frozen or has ended before."""
        self.process.terminate()
        self.thaw()
        self.process.wait(10)

    def freeze(self) -> None:
        """Stop answering without closing a connection (SIGSTOP)."""
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def restart(self, *, empty: bool = False, restored: Path | None = None) -> None:
        """Stop and start it, on what it had, on nothing, or on a copy made by `copy`."""
        self.stop()
        if empty or restored is not None:
            shutil.rmtree(self.folder / "appendonlydir")
        if restored is not None:
            shutil.copytree(restored, self.folder / "appendonlydir")
        self.start()

    def copy(self, place: Path) -> Path:
        """Copy everything it has, as a backup does."""
        shutil.copytree(self.folder / "appendonlydir", place)
        return place


def settings_file(folder: Path, redis_url: str, workers: int = 2, **more: int) -> Path:
    """Write a settings file for a gateway on this rules store, and return its path; `more` are settings of `rules`."""
    lines = [f"redis_url = {json.dumps(redis_url)}", f"workers = {workers}"]
    path = folder / "pointsman.toml"
    path.write_text("\n".join([*lines, *(f"rules.{name} = {value}" for name, value in more.items()), ""]))
    return path
