"""A real PostgreSQL server for tests: Debian's, on loopback and a unix socket, in a folder of its own.

    postgres         one server for the whole session; never stop this one
    start_postgres   starts private ones that a test may kill, freeze and start again
    database         the URL of a fresh, empty database on the session's server

Where no server is installed, or none that may be run, what needs one is skipped and says why.
"""

import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psycopg
import pytest

from tests.redis_servers import free_port

ANSWER_SECONDS = 60.0
OLDEST_MAJOR = 15
PASSWORD = "s3cret+of/tests"
"""The password that the server asks for over TCP; over the unix socket it trusts everybody."""

_ENDED = "ZX"
"""States of processes that have ended, whether or not somebody has waited for them yet."""
_STOPPED = "T" + _ENDED
_DIES_WITH_US = ("setpriv", "--pdeathsig", "INT") if shutil.which("setpriv") else ()


def find_binaries() -> Path | None:
    """Return the folder of the newest installed server that is new enough, or None."""
    found = {}
    for binary in [*Path("/usr/lib/postgresql").glob("*/bin/postgres"), shutil.which("postgres")]:
        if binary is None:
            continue
        told = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
        if (version := re.search(r"\(PostgreSQL\) (\d+)", told)) is not None:
            found[int(version[1])] = Path(binary).parent
    newest = max(found, default=0)
    return found[newest] if newest >= OLDEST_MAJOR else None


class PostgresServer:
    """A server with its own folder, port and socket, and the signals a test may send it.

    `settings` are of its configuration; its folder is made in `where`, without that where temporary ones are.
    """

    def __init__(self, binaries: Path, where: Path | None = None, settings: Mapping[str, str] = {}) -> None:
        self._binaries = binaries
        self._settings = {"shared_buffers": "64MB", "max_wal_size": "512MB"} | dict(settings)
        self._user = _unprivileged_user()
        self.port = free_port()
        # Not in pytest's folders: others than their owner cannot enter them, and socket paths end at 107 bytes.
        self.folder = Path(tempfile.mkdtemp(prefix="pm-postgres-", dir=where))
        self.data = self.folder / "data"
        if self._user is not None:
            shutil.chown(self.folder, self._user)
        password = self.folder / "password"
        password.write_text(PASSWORD, encoding="utf-8")
        password.chmod(0o644)
        self._run(
            "initdb", f"--pgdata={self.data}", "--username=postgres", "--encoding=UTF8", "--locale=C.UTF-8",
            "--auth-local=trust", "--auth-host=scram-sha-256", f"--pwfile={password}", "--no-sync",
        )  # fmt: skip
        self.start()

    def start(self) -> None:
        """Start the server on what its folder holds, and wait until it answers."""
        deadline = time.monotonic() + ANSWER_SECONDS
        # Processes of a server that was killed hold its memory for a moment, and as long a new one gives up at once.
        self.process = self._spawn()
        while not self._answers():
            if self.process.poll() is not None:
                self.process = self._spawn()
            assert time.monotonic() < deadline, f"it does not start: {self.log()}"
            time.sleep(0.02)

    def _spawn(self) -> subprocess.Popen[bytes]:
        settings = {
            "port": self.port,
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": self.folder,
            "max_connections": 60,
            **self._settings,
        }
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with (self.folder / "log").open("ab") as log:
            return subprocess.Popen(
                [*_DIES_WITH_US, self._binaries / "postgres", "-D", self.data, *words],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                user=self._user,
                group=self._user,
                extra_groups=None if self._user is None else [],
            )

    def _answers(self) -> bool:
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def _run(self, name: str, *words: str) -> None:
        subprocess.run(
            [self._binaries / name, *words],
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            cwd=self.folder,
            user=self._user,
            group=self._user,
            extra_groups=None if self._user is None else [],
        )

    def url(self, database: str = "postgres", port: int | None = None) -> str:
        """Return the URL over TCP, with the password; `port` is that of a proxy in front of it."""
        password = PASSWORD.replace("+", "%2B").replace("/", "%2F")
        return f"postgresql://postgres:{password}@127.0.0.1:{port or self.port}/{database}"

    def socket_url(self, database: str = "postgres") -> str:
        """Return the URL over the unix socket."""
        folder = str(self.folder).replace("/", "%2F")
        return f"postgresql://postgres@{folder}:{self.port}/{database}"

    def execute(self, statement: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Execute one statement as the superuser and return its rows."""
        with psycopg.connect(self.socket_url(database), autocommit=True, connect_timeout=5) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def cut_all(self, database: str) -> None:
        """End every other connection to a database from the server's side, and wait until they are closed."""
        cut = self.execute(
            "SELECT pid, pg_terminate_backend(pid) FROM pg_stat_activity "
            f"WHERE datname = '{database}' AND pid <> pg_backend_pid()"
        )
        _wait_until_all([int(str(pid)) for pid, _ in cut], _ENDED)

    def log(self) -> str:
        """Return what the server has logged."""
        return (self.folder / "log").read_text(encoding="utf-8", errors="replace")

    def freeze(self) -> None:
        """Stop answering without closing a connection (SIGSTOP to the server and all its processes)."""
        for pid in self._stopped():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in [self.process.pid, *self._children()]:
            os.kill(pid, signal.SIGCONT)

    def _stopped(self) -> list[int]:
        """Stop the server's own process, and return its other ones.

        While it can wait for one of them that ends, the kernel may leave another one out of the list.
        """
        self.process.send_signal(signal.SIGSTOP)
        _wait_until_all([self.process.pid], _STOPPED)
        return self._children()

    def _children(self) -> list[int]:
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text(encoding="ascii")
        return [int(pid) for pid in children.split()]

    def kill(self) -> None:
        """End it without a chance to tidy up (SIGKILL), and wait until its other processes have ended by themselves."""
        others = self._stopped()
        self.process.kill()
        self.process.wait()
        _wait_until_all(others, _ENDED)

    def stop(self) -> None:
        """End it in order, also when it has ended before, and remove its folder."""
        if self.process.poll() is None:
            self.thaw()
            self.process.send_signal(signal.SIGINT)
            self.process.wait()
        shutil.rmtree(self.folder)


def _wait_until_all(pids: list[int], states: str) -> None:
    """Wait until each of these processes is in one of these states, or gone."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while any(_state(pid) not in states for pid in pids):
        assert time.monotonic() < deadline, f"a process of the server does not come to be in state {states}"
        time.sleep(0.002)


def _state(pid: int) -> str:
    """Return the letter of a process's state; Z, too, when there is none of that number."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "Z"


def _unprivileged_user() -> str | None:
    """Return whom the server runs as: ourselves (None), or `postgres` when we are root, whom it refuses to serve."""
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam("postgres").pw_name
    except KeyError:
        pytest.skip("PostgreSQL refuses to run as root, and there is no user `postgres` to run it as")


@pytest.fixture(scope="session")
def postgres_binaries() -> Path:
    """The folder of the server's programs."""
    found = find_binaries()
    if found is None:
        pytest.skip(f"no PostgreSQL {OLDEST_MAJOR} or newer is installed; on Debian: apt-get install postgresql")
    return found


@pytest.fixture(scope="session")
def postgres(postgres_binaries: Path) -> Iterator[PostgresServer]:
    """The session's server."""
    running = PostgresServer(postgres_binaries)
    yield running
    running.stop()


@pytest.fixture
def start_postgres(postgres_binaries: Path) -> Iterator[Callable[..., PostgresServer]]:
    """Start private servers, with settings of their own if any are given; they end with the test."""
    started: list[PostgresServer] = []

    def start(**settings: str) -> PostgresServer:
        started.append(PostgresServer(postgres_binaries, settings=settings))
        return started[-1]

    yield start
    for running in started:
        running.stop()


@pytest.fixture
def database(postgres: PostgresServer) -> Iterator[str]:
    """The name of a fresh database on the session's server; it is dropped after the test."""
    name = f"test_{time.time_ns()}"
    postgres.execute(f"CREATE DATABASE {name}")
    yield name
    postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")
