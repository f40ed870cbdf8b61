"""Every moment of a journal's life at which the power may go, and every loss of what was not synced then.

For each disk that may be left: recovery never fails, what was promised is there, the chain holds, and the next life
goes on in a place that nobody has used.
"""

import json
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import structlog
from msgspec import Struct

from gateway.capture import is_erased
from gateway.journal.segment import Corruption
from gateway.journal.tail import Budget, Tail
from gateway.metrics import Board
from gateway.ports import JournalPosition
from gateway.record import Frame
from tests.gateway.crash_images import images
from tests.gateway.journal_session import GROUPS, SEGMENT_BYTES, secret_of
from tests.gateway.syscall_trace import Image, traced, why_not
from tests.journals import assert_chained, made, open_journal, read_what_can_be

FULL = os.environ.get("FULL_IMAGES") == "1"  # a longer session, and some 14 000 images in a minute and a half
RANDOM_LOSSES = 100 if FULL else 30
IMAGES = 5_000 if FULL else 2_000
# What a kill without a power cut leaves, or a power cut that takes all that was not synced: there nothing is damaged.
CLEAN = ("nothing", "everything", "the end of the last write")

pytestmark = pytest.mark.skipif(bool(why_not()), reason=why_not())


class Promises(Struct):
    """What had been said when the power went."""

    acked: dict[tuple[str, int], str] = {}
    shipped: dict[tuple[str, int], str] = {}
    erased: list[str] = []
    positions: dict[str, JournalPosition] = {}


def _promises(lines: Sequence[bytes]) -> Promises:
    found = Promises({}, {}, [], {})
    for line in map(json.loads, lines):
        if "acked" in line:
            found.acked[line["journal"], line["sequence"]] = line["acked"]
        elif "erased" in line:
            found.erased += line["erased"]
        elif "shipped" in line:
            said: dict[str, Any] = line["shipped"]
            position = JournalPosition(**said | {"chain": bytes.fromhex(said["chain"])})
            found.positions[position.journal] = position
            found.shipped |= {(position.journal, sequence): record for sequence, record in line["records"]}
    return found


class Disks:
    """Folders in memory, where a sync costs nothing, each with an image in it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._made = 0

    def holding(self, image: Image) -> Path:
        self._made += 1
        folder = self._folder / str(self._made)
        folder.mkdir()
        for path, data in image.items():
            if data is None:
                (folder / path).mkdir()
            else:
                (folder / path).write_bytes(data)
        return folder

    def forget(self, folder: Path) -> None:
        shutil.rmtree(folder)


@pytest.fixture
def disks(tmp_path: Path) -> Iterator[Disks]:
    memory = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else tmp_path))
    with structlog.testing.capture_logs():  # thousands of recoveries have much to say
        yield Disks(folder)
    shutil.rmtree(folder)


@pytest.mark.parametrize("kind", ["power", "process"])
def test_whatever_the_disk_holds_after_a_power_cut_recovery_keeps_every_promise(
    tmp_path: Path, disks: Disks, kind: str
) -> None:
    command = [sys.executable, "-m", "tests.gateway.journal_session", kind, str(tmp_path)]
    trace = traced(command, tmp_path, "journal", "told")
    said = _promises(trace.said_before(trace.moments))
    assert len(said.acked if kind == "power" else said.shipped) >= 5 * GROUPS
    # One image may be left at several moments; it has to keep what was promised up to the last of them.
    distinct: dict[tuple[tuple[str, bytes | None], ...], tuple[int, bool]] = {}
    for moment, what, image in images(trace, RANDOM_LOSSES, random.Random(7)):
        key = tuple(image.items())
        last, clean = distinct.get(key, (0, False))
        distinct[key] = max(last, moment), clean or what in CLEAN
    assert len(distinct) >= IMAGES
    for key, (moment, clean) in distinct.items():
        folder = disks.holding(dict(key))
        _assert_kept(folder, _promises(trace.said_before(moment)), clean=clean)
        disks.forget(folder)


def _assert_kept(folder: Path, promises: Promises, *, clean: bool) -> None:
    board = Board(folder / "worker-0.board")
    journal = open_journal(folder / "journal", board, SEGMENT_BYTES)
    journal.append(*made("next"))
    place = (journal.name, journal.sequence)
    journal.close()
    board.close()
    frames, damage = read_what_can_be(folder / "journal" / "w0")
    _assert_chain_holds(frames, damage, clean=clean)
    found = {(frame.journal, frame.sequence): frame.record.record_id for frame in frames}
    assert len(found) == len(frames)
    assert found[place] == "r-next"
    assert max(sequence for name, sequence in found if name == journal.name) == place[1]
    for promised in (promises.acked, promises.shipped):
        assert place not in promised
        assert promised.items() <= found.items()
    _assert_erased(folder, frames, promises.erased)
    if promises.positions:
        _assert_shipping_goes_on(folder, promises, place)


def _assert_chain_holds(frames: list[Frame], damage: list[Corruption], *, clean: bool) -> None:
    if clean:
        assert damage == []
    if not damage:
        assert_chained(frames)
    told = {one.sequence for one in damage}
    ends: dict[str, Frame] = {}
    for frame in frames:
        before = ends.get(frame.journal)
        if before is not None and frame.previous != before.chain:
            assert any(before.sequence < sequence <= frame.sequence for sequence in told)
        ends[frame.journal] = frame


def _assert_erased(folder: Path, frames: list[Frame], erased: Sequence[str]) -> None:
    if erased:
        held = b"".join(path.read_bytes() for path in (folder / "journal").rglob("*") if path.is_file())
        for record_id in erased:
            assert secret_of(record_id) not in held
        for frame in frames:
            if frame.record.record_id in erased:
                assert is_erased(frame.request)


def _assert_shipping_goes_on(folder: Path, promises: Promises, place: tuple[str, int]) -> None:
    """The store goes on from its position with all that came later, and with nothing that it has already."""
    tail = Tail(folder / "journal" / "w0", promises.positions, lambda *_: None)
    frames = tail.read(Budget(10**6, 10**9))
    tail.close()
    found = {(frame.journal, frame.sequence) for frame in frames}
    assert place in found
    assert not found & promises.shipped.keys()
