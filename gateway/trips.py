"""What workers tell the control process of their brakes: a small file for each worker, in the folder of the boards.

Belongs here: the shape of a trip, and that file. Never here: when a brake trips, or what is done about it.
"""

from collections.abc import Collection
from pathlib import Path

import msgspec
from msgspec import Struct

from gateway.logs import logger


class Trip(Struct, frozen=True):
    """A version that a worker diverts from: it failed `failures` of its last `of` requests there.

    `revision` is the route's by which it was served, `at_ns` is Unix time.
    """

    model: str
    version: str
    revision: int
    failures: int
    of: int
    at_ns: int


_decoder = msgspec.json.Decoder(tuple[Trip, ...])


def trips_path(run_folder: Path, worker: str) -> Path:
    """Return where a worker, by the name of its board (`worker-0`), tells of its brakes."""
    return run_folder / f"{worker}.trips"


def write_trips(path: Path, trips: Collection[Trip]) -> None:
    """Tell of the trips that hold now. A file that cannot be written is logged: the brake itself holds all the same."""
    making = path.with_suffix(".trips-new")
    try:
        making.write_bytes(msgspec.json.encode(tuple(trips)))
        making.rename(path)
    except OSError as error:
        logger().error("trips_not_told", why=error.strerror, path=str(path))


def read_trips(path: Path) -> tuple[Trip, ...]:
    """Return what a worker tells; nothing where it never told anything, or is telling just now."""
    try:
        return _decoder.decode(path.read_bytes())
    except (OSError, msgspec.DecodeError):
        return ()
