"""How the backends of a worker stand, by version, in a file that the control process reads when it makes figures.

Belongs here: what is told about backends, and the file it is told in. Never here: judging a backend.

The board of a worker has a fixed number of slots, and versions come and go; so this is a file of its own beside it: one
JSON array, replaced whole. Only versions that ever had a backend in trouble are in it. It is written a moment after the
trouble, at most ten times a second, and never by a request.
"""

import asyncio
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


class Standings:
    """The standings of one worker; kept to itself without a `path`."""

    def __init__(self, path: Path | None = None) -> None:
        """Begin with nothing left out, and go on counting where the worker before this one ended."""
        self._path = path
        self._standings: dict[tuple[str, str], Standing] = {}
        self._write_later: asyncio.TimerHandle | None = None
        for told in read_standings(path) if path is not None else ():
            self._standings[told.model, told.version] = Standing(told.model, told.version, ejections=told.ejections)
        self._write()

    def of(self, model: str, version: str) -> Standing:
        """Return the standing of a version, for whoever looks after its backends to change."""
        return self._standings.setdefault((model, version), Standing(model, version))

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
            fresh.write_bytes(msgspec.json.encode(list(self._standings.values())))
            fresh.replace(self._path)
        except OSError as error:  # figures are not worth a request
            logger().warning("standings_not_written", why=str(error))


def standings_path(run_folder: Path, index: int) -> Path:
    """Return where worker `index` of a gateway keeps its standings: beside its board."""
    return run_folder / f"worker-{index}.standings"


def read_standings(path: Path) -> list[Standing]:
    """Return the standings in a file; none, if there is no such file or it cannot be read."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=list[Standing])
    except (OSError, msgspec.DecodeError):
        return []
