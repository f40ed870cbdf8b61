"""Journals and records for tests: real files, small records, and reading them back."""

from pathlib import Path
from typing import Any

from gateway.capture import capture
from gateway.journal import Journal
from gateway.journal.segment import Corruption
from gateway.journal.tail import Budget, Tail
from gateway.metrics import Board
from gateway.record import Frame, Record
from routing.types import Capture

GATEWAY = "g"
KEEP_ALL = Capture(max_bytes=16 * 2**20)


def open_journal(folder: Path, board: Board, segment_bytes: int = 2**20, name: str = "w0", **fields: Any) -> Journal:
    """Open the journal of a worker of gateway `g` in `folder`."""
    return Journal(folder, name, segment_bytes, board, gateway=GATEWAY, **fields)


def made(number: int | str, body: bytes = b"", answer: bytes = b"", **fields: object) -> tuple[Record, bytes, bytes]:
    """Return a record with its parts, as `Journal.append` takes them."""
    request, asked = capture(body, "full", KEEP_ALL)
    response, answered = capture(answer, "full", KEEP_ALL)
    given: dict[str, object] = {
        "record_id": f"r-{number}",
        "request_id": f"q-{number}",
        "role": "primary",
        "received_ns": number if isinstance(number, int) else 1,
        "model": "fraud",
        "protocol": "oip-v2",
        "outcome": "served",
        "status": 200,
        "request": request,
        "response": response,
    }
    return Record(**(given | fields)), asked, answered  # type: ignore[arg-type]


def read_all(folder: Path) -> list[Frame]:
    """Return every frame of a worker's folder; nothing may be wrong with it."""
    damage: list[Corruption] = []
    tail = Tail(folder, {}, lambda _, found: damage.append(found))
    try:
        frames = tail.read(Budget(10**6, 10**9))
    finally:
        tail.close()
    assert damage == []
    return frames


def ids(frames: list[Frame]) -> list[str]:
    return [frame.record.record_id for frame in frames]
