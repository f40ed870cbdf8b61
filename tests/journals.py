"""Journals and records for tests: real files, small records, and reading them back.

journal = open_journal(folder, board)   a real journal of worker `w0`
journal.append(*made(7))                record 7 in it
read_all(folder / "w0")                 every frame of it; nothing may be wrong with it
chain = Chain("g/w0.0123456789ab")      frames of a journal that nobody wrote, to be put into files as a test likes
"""

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from gateway.capture import capture
from gateway.chain import genesis
from gateway.journal import Journal
from gateway.journal.frames import pack_frame
from gateway.journal.segment import Corruption, SegmentHeader, pack_header, segment_path
from gateway.journal.tail import Budget, Tail
from gateway.metrics import Board
from gateway.ports import Batch, JournalPosition
from gateway.record import Frame, Record, encode_record
from gateway.sealing import frame_of, pack_content
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
    frames, damage = read_what_can_be(folder)
    assert damage == []
    return frames


def read_what_can_be(folder: Path) -> tuple[list[Frame], list[Corruption]]:
    """Return every frame of a worker's folder that can be read, and the alarms that were raised."""
    damage: list[Corruption] = []
    tail = Tail(folder, {}, lambda _, found: damage.append(found))
    try:
        return tail.read(Budget(10**6, 10**10)), damage
    finally:
        tail.close()


class CountedCheckpoints:
    """Notes what the recorder tells the one who makes checkpoints, in order: batches, and `None` for each seal."""

    def __init__(self, day: str = "") -> None:
        self.day = day
        self.begun = 0
        self.told: list[Batch | None] = []
        self.wanted = False

    def begin(self) -> str:
        self.begun += 1
        return self.day

    def committed(self, batch: Batch) -> None:
        self.told.append(batch)

    def due(self) -> bool:
        return self.wanted

    def seal(self) -> None:
        self.wanted = False
        self.told.append(None)


class Synced:
    """Watches what is synced: each file, up to the size that it had when its sync began."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls = 0
        self._sizes: dict[str, int] = {}
        self._folders: set[str] = set()
        self._fdatasync, self._fsync = os.fdatasync, os.fsync
        monkeypatch.setattr(os, "fdatasync", self._watch_file)
        monkeypatch.setattr(os, "fsync", self._watch_folder)

    def holds(self, path: Path, size: int) -> bool:
        """Tell whether so many bytes of a file are on the disk."""
        return self._sizes.get(str(path), 0) >= size

    def holds_names_in(self, folder: Path) -> bool:
        """Tell whether a folder was synced since this was asked last."""
        held = str(folder) in self._folders
        self._folders.discard(str(folder))
        return held

    def _watch_file(self, descriptor: int) -> None:
        path, size = str(Path(f"/proc/self/fd/{descriptor}").readlink()), os.fstat(descriptor).st_size
        self._fdatasync(descriptor)
        self.calls += 1
        self._sizes[path] = size

    def _watch_folder(self, descriptor: int) -> None:
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        self._fsync(descriptor)
        self._folders.add(path)


def wait(condition: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    """Wait until a condition holds; fail, saying what was waited for, when it does not."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.002)


def ids(frames: list[Frame]) -> list[str]:
    return [frame.record.record_id for frame in frames]


def sequences(frames: list[Frame]) -> list[int]:
    return [frame.sequence for frame in frames]


def assert_chained(frames: list[Frame]) -> None:
    """Fail unless each frame holds the chain of the one before it in its journal, from the first one on."""
    ends: dict[str, tuple[int, bytes]] = {}
    for frame in frames:
        sequence, chain = ends.get(frame.journal, (0, genesis(frame.journal)))
        assert (frame.sequence, frame.previous) == (sequence + 1, chain), f"{frame.journal} {frame.sequence}"
        ends[frame.journal] = (frame.sequence, frame.chain)


class Chain:
    """The frames of a journal that nobody wrote, made as they are asked for. Record `n` has the body `bodies[n]`, else
    ten bytes.
    """

    def __init__(self, name: str, bodies: Mapping[int, bytes] | None = None) -> None:
        self.name = name
        self._bodies = bodies or {}
        self._frames: list[Frame] = []

    def frame(self, sequence: int) -> Frame:
        """Return the frame of a sequence, from 1 on."""
        while len(self._frames) < sequence:
            number = len(self._frames) + 1
            record, request, response = made(number, self._bodies.get(number, b"x" * 10))
            frame = frame_of(self.name, number, self.before(number), encode_record(record), request, response)
            self._frames.append(frame)
        return self._frames[sequence - 1]

    def frames(self, *sequences: int) -> list[Frame]:
        return [self.frame(sequence) for sequence in sequences]

    def data(self, *sequences: int) -> bytes:
        """Return the bytes of these frames, one behind the other."""
        return b"".join(bytes_of(self.frame(sequence)) for sequence in sequences)

    def before(self, sequence: int) -> bytes:
        """Return the chain before the frame of a sequence."""
        return self.frame(sequence - 1).chain if sequence > 1 else genesis(self.name)

    def position(self, segment: int, offset: int, sequence: int) -> JournalPosition:
        """Return the position of a reader who has read up to a sequence."""
        return JournalPosition(self.name, segment, offset, sequence, self.before(sequence + 1))

    def segment(self, folder: Path, number: int, first: int, frames: bytes = b"") -> Path:
        """Write a segment whose first frame should be that of sequence `first`, and return where it is."""
        path = segment_path(folder, number)
        path.write_bytes(pack_header(SegmentHeader(self.name, number, first, 1, self.before(first))) + frames)
        return path


def bytes_of(frame: Frame) -> bytes:
    """Return a frame as it stands in a segment."""
    content = pack_content(frame.previous, frame.sealed, frame.request, frame.response)
    return pack_frame(frame.sequence, content)
