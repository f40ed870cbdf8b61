"""How much of a journal is not kept yet, told from headers and lengths."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.journal import Journal, JournalReader
from gateway.journal.backlog import beyond
from gateway.journal.segment import segment_numbers, segment_path
from gateway.journal.tail import Budget
from gateway.metrics import Board
from gateway.ports import JournalPosition
from tests.journals import Chain, made, open_journal

NAME = "g/w0.0123456789ab"


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    board = Board(tmp_path / "worker.board")
    journal = open_journal(tmp_path, board, 2_000)
    yield journal
    journal.close()
    board.close()


def _position_after(folder: Path, frames: int) -> dict[str, JournalPosition]:
    reader = JournalReader(folder, {}, lambda _, damage: pytest.fail(str(damage)))
    reader.discover()
    assert len(reader.read(Budget(frames, 10**9))) == frames
    reader.close()
    return {position.journal: position for position in reader.positions()}


@pytest.mark.parametrize("shipped", [1, 7, 20, 39, 40])
def test_records_are_told_exactly_wherever_shipping_stands(tmp_path: Path, journal: Journal, shipped: int) -> None:
    for number in range(40):
        journal.append(*made(number, b"x" * (number % 7)))
    folder = tmp_path / "w0"
    numbers = segment_numbers(folder)
    assert len(numbers) > 3
    positions = _position_after(tmp_path, shipped)
    at = positions[journal.name]
    sizes = {number: segment_path(folder, number).stat().st_size for number in numbers if number >= at.segment}
    assert beyond(folder, positions) == (40 - shipped, sum(sizes.values()) - at.offset)


def test_everything_counts_while_nothing_is_shipped(tmp_path: Path, journal: Journal) -> None:
    for number in range(40):
        journal.append(*made(number))
    size = sum(path.stat().st_size for path in (tmp_path / "w0").glob("*.journal"))
    assert beyond(tmp_path / "w0", {}) == (40, size)


def test_frames_larger_than_a_chunk_of_reading_are_counted_by_their_lengths(tmp_path: Path) -> None:
    chain = Chain(NAME, {1: bytes(3_000_000), 2: b"", 3: bytes(2**20), 4: b""})
    path = chain.segment(tmp_path, 1, 1, chain.data(1, 2, 3, 4))
    assert beyond(tmp_path, {}) == (4, path.stat().st_size)


def test_half_a_frame_is_bytes_but_no_record(tmp_path: Path) -> None:
    chain = Chain(NAME)
    path = chain.segment(tmp_path, 1, 1, chain.data(1, 2) + chain.data(3)[:-1])
    assert beyond(tmp_path, {}) == (2, path.stat().st_size)
    path = chain.segment(tmp_path, 1, 1, chain.data(1, 2) + bytes(100))
    assert beyond(tmp_path, {}) == (2, path.stat().st_size)


def test_a_segment_without_a_header_is_bytes_alone(tmp_path: Path) -> None:
    chain = Chain(NAME)
    first = chain.segment(tmp_path, 1, 1, chain.data(1, 2))
    segment_path(tmp_path, 2).write_bytes(b"\xff" * 50)
    assert beyond(tmp_path, {}) == (2, first.stat().st_size + 50)
    assert beyond(tmp_path, {NAME: chain.position(1, first.stat().st_size, 2)}) == (0, 50)


def test_a_journal_that_was_begun_beside_a_damaged_one_is_counted_beside_it(tmp_path: Path) -> None:
    old, new = Chain(NAME), Chain("g/w0.fedcba987654")
    first = old.segment(tmp_path, 1, 1, old.data(1, 2, 3))
    new.segment(tmp_path, 2, 1, new.data(1))
    new.segment(tmp_path, 3, 2, new.data(2, 3))
    assert beyond(tmp_path, {})[0] == 6
    assert beyond(tmp_path, {NAME: old.position(1, first.stat().st_size, 3)})[0] == 3


def test_a_folder_without_segments_has_nothing(tmp_path: Path) -> None:
    assert beyond(tmp_path, {}) == (0, 0)
