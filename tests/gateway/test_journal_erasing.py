"""Erasing contents in the segments of journals: gone to the last byte, and everything else as it was."""

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.capture import is_erased
from gateway.journal import Journal
from gateway.journal.erasing import erase_in_journals
from gateway.journal.frames import FRAME_OVERHEAD, read_frame
from gateway.journal.segment import segment_path
from gateway.metrics import Board
from gateway.ports import Place
from tests.journals import (
    Chain,
    assert_chained,
    bytes_of,
    made,
    open_journal,
    read_all,
    read_what_can_be,
    sequences,
)

NAME = "g/w0.0123456789ab"


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    board = Board(tmp_path / "worker-0.board")
    yield board
    board.close()


@pytest.fixture
def journals(tmp_path: Path) -> Path:
    folder = tmp_path / "journal"
    (folder / "w0").mkdir(parents=True)
    return folder


def _secret(number: int) -> bytes:
    return b"canary-%d-canary" % number


def _written(journals: Path, board: Board, records: int, segment_bytes: int = 1_000) -> Journal:
    """Return an open journal with so many records, each with a secret in its request and in its response."""
    journal = open_journal(journals, board, segment_bytes)
    for number in range(1, records + 1):
        journal.append(*made(number, b"asked " + _secret(number), b"answered " + _secret(number)))
    return journal


def _bytes_in(folder: Path) -> bytes:
    """Return every byte of every file in a folder."""
    return b"\n".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


def test_the_contents_are_in_no_byte_of_the_folder_and_the_others_are_all_there(journals: Path, board: Board) -> None:
    journal = _written(journals, board, 40)
    taken = (1, 2, 17, 39)
    before = {frame.sequence: frame for frame in read_all(journals / "w0")}
    assert erase_in_journals(journals, [Place(journal.name, number) for number in taken]) == len(taken)
    held = _bytes_in(journals)
    for number in range(1, 41):
        assert (_secret(number) in held) == (number not in taken)
    frames = read_all(journals / "w0")
    assert_chained(frames)
    for frame in frames:
        was = before[frame.sequence]
        assert (frame.sealed, frame.previous, frame.chain) == (was.sealed, was.previous, was.chain)
        if frame.sequence in taken:
            assert is_erased(frame.request)
            assert is_erased(frame.response)
            for part in (was.request, was.response):
                assert part not in held  # the salt and the digest with it
        else:
            assert frame == was
    journal.close()


def test_erasing_again_changes_nothing_and_places_that_are_nowhere_are_passed_over(
    journals: Path, board: Board
) -> None:
    journal = _written(journals, board, 10)
    places = [Place(journal.name, 3), Place(journal.name, 99), Place("g/w1.ffffffffffff", 3), Place(journal.name, 3)]
    assert erase_in_journals(journals, places) == 1
    after = _bytes_in(journals)
    assert erase_in_journals(journals, places) == 1
    assert _bytes_in(journals) == after
    journal.close()


def test_a_record_without_parts_is_left_as_it_is(journals: Path, board: Board) -> None:
    journal = open_journal(journals, board)
    record, _, answered = made(1, b"", _secret(1))
    journal.append(record, b"", b"")
    journal.append(record, b"", answered)
    before = read_all(journals / "w0")
    assert erase_in_journals(journals, [Place(journal.name, 1), Place(journal.name, 2)]) == 2
    first, second = read_all(journals / "w0")
    assert first == before[0]
    assert (second.sealed, second.request, is_erased(second.response)) == (before[1].sealed, b"", True)
    assert _secret(1) not in _bytes_in(journals)
    journal.close()


def test_the_writer_goes_on_behind_an_erased_last_record_and_so_does_its_successor(
    journals: Path, board: Board
) -> None:
    journal = _written(journals, board, 3, 2**20)
    assert erase_in_journals(journals, [Place(journal.name, 3)]) == 1
    journal.append(*made(4, _secret(4)))
    assert erase_in_journals(journals, [Place(journal.name, 4)]) == 1
    journal.close()
    successor = open_journal(journals, board)
    assert (successor.name, successor.sequence) == (journal.name, 4)
    successor.append(*made(5))
    successor.close()
    frames = read_all(journals / "w0")
    assert sequences(frames) == [1, 2, 3, 4, 5]
    assert_chained(frames)
    assert _secret(3) not in _bytes_in(journals)
    assert _secret(4) not in _bytes_in(journals)


def test_no_frame_is_unreadable_at_any_moment_wherever_the_erasing_is_stopped(
    tmp_path: Path, journals: Path, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stop it behind every byte of its writes; only the four bytes of a checksum are written as one."""
    journal = _written(journals, board, 4, 2**20)
    journal.close()
    path = segment_path(journals / "w0", 1)
    whole = path.read_bytes()
    places = [Place(journal.name, number) for number in (2, 4)]
    writes: list[tuple[int, bytes]] = []
    synced: list[int] = []
    pwrite, fdatasync = os.pwrite, os.fdatasync

    def watch_write(descriptor: int, data: bytes, at: int) -> int:
        writes.append((at, data))
        return pwrite(descriptor, data, at)

    def watch_sync(descriptor: int) -> None:
        synced.append(len(writes))
        fdatasync(descriptor)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", watch_write)
        patched.setattr(os, "fdatasync", watch_sync)
        erase_in_journals(journals, places)
    assert [len(data) for _, data in writes[:2]] == [4, 4]
    assert synced == [2, 4]  # a power cut cannot leave zeros without their checksum
    erased = path.read_bytes()
    state = bytearray(whole)
    for at, data in writes:
        for done in range(len(data) + 1) if len(data) > 4 else (0, 4):
            state[at : at + done] = data[:done]
            path.write_bytes(state)
            frames = read_all(journals / "w0")
            assert sequences(frames) == [1, 2, 3, 4]
            assert_chained(frames)
            assert not is_erased(frames[0].request)
            if done % 40 == 0:
                _assert_recovered_and_erased(journals, board, journal.name, places, erased)
    assert state == erased


def _assert_recovered_and_erased(journals: Path, board: Board, name: str, places: list[Place], erased: bytes) -> None:
    path = segment_path(journals / "w0", 1)
    left = path.read_bytes()
    successor = open_journal(journals, board)
    assert (successor.name, successor.sequence) == (name, 4)
    successor.close()
    assert path.read_bytes() == left  # nothing was taken for a torn tail
    segment_path(journals / "w0", 2).unlink()
    erase_in_journals(journals, places)
    assert path.read_bytes() == erased
    path.write_bytes(left)


def test_nobody_who_reads_meanwhile_sees_anything_but_whole_or_erased_records(journals: Path, board: Board) -> None:
    journal = open_journal(journals, board, 60_000)
    stop = threading.Event()
    written = [0]

    def write() -> None:
        while not stop.is_set() and written[0] < 200:
            journal.append(*made(written[0], os.urandom(9_000), os.urandom(9_000)))
            written[0] += 1

    def erase() -> None:
        while not stop.is_set():
            erase_in_journals(journals, [Place(journal.name, number) for number in range(1, written[0] + 1, 2)])

    threads = [threading.Thread(target=write), threading.Thread(target=erase)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(6):
            frames, damage = read_what_can_be(journals / "w0")
            assert damage == []
            assert_chained(frames)
            for frame in frames:
                if frame.sequence % 2 == 0:
                    assert not is_erased(frame.request)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    erase_in_journals(journals, [Place(journal.name, number) for number in range(1, written[0] + 1, 2)])
    assert {frame.sequence for frame in read_all(journals / "w0") if is_erased(frame.response)} == set(
        range(1, written[0] + 1, 2)
    )
    journal.close()


# ── segments that are damaged ────────────────────────────────────────────────────────────────────────────────────


def _with_secrets() -> Chain:
    return Chain(NAME, {number: _secret(number) for number in range(1, 10)})


def test_a_record_whose_frame_is_damaged_is_erased_with_all_that_stands_in_it(journals: Path) -> None:
    chain = _with_secrets()
    damaged = bytearray(chain.data(2))
    damaged[30] ^= 1
    chain.segment(journals / "w0", 1, 1, chain.data(1) + bytes(damaged) + chain.data(3))
    assert erase_in_journals(journals, [Place(NAME, 2)]) == 1
    held = _bytes_in(journals)
    assert _secret(2) not in held
    assert _secret(1) in held
    assert _secret(3) in held
    assert sequences(read_what_can_be(journals / "w0")[0]) == [1, 3]


@pytest.mark.parametrize("wanted", [2, 3])
def test_a_segment_in_which_contents_may_be_hidden_is_named_and_all_others_are_erased(
    journals: Path, wanted: int
) -> None:
    chain, other = _with_secrets(), Chain("g/w1.ffffffffffff", {1: b"another canary"})
    (journals / "w1").mkdir()
    hiding = chain.segment(
        journals / "w0", 1, 1, chain.data(1) + b"\xff\xff\x00\x00" + chain.data(2)[4:] + chain.data(3)
    )
    chain.segment(journals / "w0", 2, 4, chain.data(4))
    other.segment(journals / "w1", 1, 1, other.data(1))
    places = [Place(NAME, 1), Place(NAME, wanted), Place(NAME, 4), Place(other.name, 1)]
    with pytest.raises(OSError, match=f"damaged {hiding} may hold contents"):
        erase_in_journals(journals, places)
    held = _bytes_in(journals)
    assert b"another canary" not in held
    assert _secret(1) not in held
    assert _secret(4) not in held
    # What was found elsewhere is no reason to complain.
    assert erase_in_journals(journals, [Place(NAME, 1), Place(NAME, 4), Place(other.name, 1)]) == 3
    hiding.unlink()
    assert erase_in_journals(journals, places) == 2


def test_a_segment_with_an_unreadable_header_is_named_when_it_may_hold_what_was_not_found(journals: Path) -> None:
    chain = _with_secrets()
    broken = chain.segment(journals / "w0", 1, 1, chain.data(1))
    broken.write_bytes(b"X" + broken.read_bytes()[1:])
    chain.segment(journals / "w0", 2, 2, chain.data(2))
    assert erase_in_journals(journals, [Place(NAME, 2)]) == 1
    assert erase_in_journals(journals, [Place("g/w1.ffffffffffff", 1)]) == 0
    with pytest.raises(OSError, match=str(broken)):
        erase_in_journals(journals, [Place(NAME, 1)])


def test_a_torn_tail_and_an_unfinished_segment_hide_nothing(journals: Path) -> None:
    chain = _with_secrets()
    chain.segment(journals / "w0", 1, 1, chain.data(1) + chain.data(2)[:-9])
    segment_path(journals / "w0", 2).write_bytes(chain.segment(journals / "w0", 2, 2).read_bytes()[:20])
    assert erase_in_journals(journals, [Place(NAME, 1), Place(NAME, 2)]) == 1


def test_a_frame_counts_as_erased_only_with_the_checksum_of_itself_without_its_parts() -> None:
    chain = _with_secrets()
    frame = chain.frame(1)
    data = bytearray(bytes_of(frame))
    data[-len(frame.response) - len(frame.request) :] = bytes(len(frame.request) + len(frame.response))
    assert not isinstance(read_frame(memoryview(data), 0), tuple)
    for at in range(FRAME_OVERHEAD, len(data)):
        flipped = bytearray(bytes_of(frame))
        flipped[at] ^= 1
        assert not isinstance(read_frame(memoryview(flipped), 0), tuple)
