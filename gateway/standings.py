"""How the versions of a worker stand, in a file that the control process reads for figures and the status.

Belongs here: what is told about versions and their backends, and the file it is told in. Never here: judging them.

The board of a worker has a fixed number of slots, and versions come and go; so this is a file of its own beside it: one
JSON document, replaced whole. Only versions that ever had a backend in trouble, or have a limit in force, are in it. It
is written a moment after the trouble, at most ten times a second, and never by a request.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from gateway.logs import logger

_PAUSE_SECONDS: Final = 0.1


class Standing(Struct):
    """The backends of one version in one worker: how many are left out or unhealthy now, and how often one was left
    out since the gateway was set up.
    """

    model: str
    version: str
    ejected: int = 0
    unhealthy: int = 0
    ejections: int = 0


class Limited(Struct, frozen=True):
    """A version that gets at most `most` requests at once in one worker, as it would not answer more in time."""

    model: str
    version: str
    most: int


class Told(Struct):
    """All that a worker tells."""

    backends: list[Standing] = []
    limits: list[Limited] = []


class Standings:
    """The standings of one worker; kept to itself without a `path`."""

    def __init__(self, path: Path | None = None) -> None:
        """Begin with nothing left out, and go on counting where the worker before this one ended."""
        self._path = path
        self._standings: dict[tuple[str, str], Standing] = {}
        self._limits: list[Limited] = []
        self._write_later: asyncio.TimerHandle | None = None
        for told in read_told(path).backends if path is not None else ():
            self._standings[told.model, told.version] = Standing(told.model, told.version, ejections=told.ejections)
        self._write()

    def of(self, model: str, version: str) -> Standing:
        """Return the standing of a version, for whoever looks after its backends to change."""
        return self._standings.setdefault((model, version), Standing(model, version))

    def limit(self, limits: Mapping[tuple[str, str], int]) -> None:
        """Take note of the limits in force now, by model and version."""
        self._limits = [Limited(model, version, most) for (model, version), most in limits.items()]
        self.changed()

    def changed(self) -> None:
        """Take note that a standing has changed."""
        if self._write_later is None and self._path is not None:
            self._write_later = asyncio.get_running_loop().call_later(_PAUSE_SECONDS, self._write)

    def close(self) -> None:
        """Write what is not written yet."""
        if self._write_later is not None:
            self._write_later.cancel()
            self._write()

    def _write(self) -> None:
        self._write_later = None
        if self._path is None:
            return
        fresh = self._path.with_suffix(".fresh")
        try:
            fresh.write_bytes(msgspec.json.encode(Told(list(self._standings.values()), self._limits)))
            fresh.replace(self._path)
        except OSError as error:  # figures are not worth a request
            logger().warning("standings_not_written", why=str(error))


def standings_path(run_folder: Path, index: int) -> Path:
    """Return where worker `index` of a gateway keeps its standings: beside its board."""
    return run_folder / f"worker-{index}.standings"


def read_told(path: Path) -> Told:
    """Return what stands in a file; nothing, if there is no such file or it cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Told)
    except (OSError, msgspec.DecodeError):
        return Told()
