"""The chain of a journal: what was swapped, taken out, put in or edited is told, and reading goes on behind it."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from gateway.chain import genesis, link
from gateway.journal.frames import pack_frame
from gateway.journal.segment import Corruption, SegmentHeader, pack_header, parse_header, segment_path
from gateway.journal.tail import Budget, Tail
from gateway.metrics import Board
from gateway.record import Frame, encode_record
from gateway.sealing import frame_of, pack_content
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
CHAIN = Chain(NAME)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "journal" / "w0"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    board = Board(tmp_path / "worker-0.board")
    yield board
    board.close()


def _edited(frame: Frame, previous: bytes | None = None, sealed: bytes | None = None) -> bytes:
    """Return a frame whose checksum is right and whose contents are others."""
    content = pack_content(previous or frame.previous, sealed or frame.sealed, frame.request, frame.response)
    return pack_frame(frame.sequence, content)


def _told(folder: Path) -> tuple[list[int], list[tuple[int, int, str]]]:
    """Return the sequences that were read, and (sequence, records missing, why) of each alarm."""
    frames, alarms = read_what_can_be(folder)
    return sequences(frames), [(alarm.sequence, alarm.missing, alarm.why) for alarm in alarms]


def test_each_frame_holds_the_chain_before_it_over_segments_and_lives(tmp_path: Path, board: Board) -> None:
    for life in range(3):
        journal = open_journal(tmp_path / "journal", board, 1_000)
        for number in range(8):
            journal.append(*made(life * 8 + number, b"x" * 200))
        journal.close()
    frames = read_all(tmp_path / "journal" / "w0")
    assert len(frames) == 24
    assert_chained(frames)
    chain = genesis(journal.name)
    for frame in frames:
        assert frame.previous == chain
        chain = link(chain, frame.sequence, frame.sealed)
        assert frame.chain == chain


def test_the_header_of_each_segment_holds_the_chain_before_its_first_frame(tmp_path: Path, board: Board) -> None:
    journal = open_journal(tmp_path / "journal", board, 1_000)
    for number in range(20):
        journal.append(*made(number, b"x" * 200))
    journal.close()
    folder = tmp_path / "journal" / "w0"
    frames = {frame.sequence: frame for frame in read_all(folder)}
    headers = [parse_header(path.read_bytes())[0] for path in sorted(folder.glob("*.journal"))]
    assert len(headers) > 3
    for number, header in enumerate(headers, 1):
        before = frames[header.first_sequence - 1].chain if header.first_sequence > 1 else genesis(journal.name)
        assert (header.journal, header.segment, header.chain) == (journal.name, number, before)


def test_the_chain_binds_what_is_sealed_and_not_the_parts(tmp_path: Path, board: Board) -> None:
    journal = open_journal(tmp_path / "journal", board)
    record, request, response = made(1, b"asked", b"answered")
    journal.append(record, request, response)
    journal.close()
    [frame] = read_all(tmp_path / "journal" / "w0")
    assert frame.sealed == encode_record(record)
    assert (frame.request, frame.response) == (request, response)
    assert b"asked" not in frame.sealed
    assert frame.chain == link(genesis(journal.name), 1, encode_record(record))


def test_an_edited_record_with_a_right_checksum_is_told_by_the_one_behind_it(folder: Path) -> None:
    other = encode_record(msgspec.structs.replace(CHAIN.frame(2).record, served="9"))
    CHAIN.segment(folder, 1, 1, CHAIN.data(1) + _edited(CHAIN.frame(2), sealed=other) + CHAIN.data(3, 4))
    assert _told(folder) == ([1, 2, 3, 4], [(3, 0, "it does not follow on the record before it")])


def test_an_edited_record_whose_successor_was_fitted_to_it_is_told_one_further_on(folder: Path) -> None:
    second = frame_of(NAME, 2, CHAIN.before(2), encode_record(made(99)[0]), b"", b"")
    third = frame_of(NAME, 3, second.chain, CHAIN.frame(3).sealed, b"", b"")
    CHAIN.segment(folder, 1, 1, CHAIN.data(1) + bytes_of(second) + bytes_of(third) + CHAIN.data(4, 5))
    assert _told(folder) == ([1, 2, 3, 4, 5], [(4, 0, "it does not follow on the record before it")])


def test_an_edited_last_record_of_a_segment_is_told_by_the_header_of_the_next(folder: Path) -> None:
    CHAIN.segment(folder, 1, 1, CHAIN.data(1) + _edited(CHAIN.frame(2), sealed=encode_record(made(99)[0])))
    CHAIN.segment(folder, 2, 3, CHAIN.data(3))
    assert _told(folder) == ([1, 2, 3], [(3, 0, "it does not follow on the segment before it")])


def test_a_chain_in_a_frame_that_was_changed_is_told_at_that_frame(folder: Path) -> None:
    CHAIN.segment(folder, 1, 1, CHAIN.data(1) + _edited(CHAIN.frame(2), previous=bytes(32)) + CHAIN.data(3))
    read, told = _told(folder)
    assert read == [1, 2, 3]
    assert [one[:2] for one in told] == [(2, 0), (3, 0)]


def test_an_edited_record_that_is_no_record_any_more_costs_itself_only_and_is_counted(folder: Path) -> None:
    for previous in (CHAIN.before(2), bytes(32)):
        broken = _edited(CHAIN.frame(2), previous=previous, sealed=b"\xc1")
        CHAIN.segment(folder, 1, 1, CHAIN.data(1) + broken + CHAIN.data(3, 4))
        read, told = _told(folder)
        assert read == [1, 3, 4]
        assert [one[:2] for one in told] == [(2, 1), (3, 0)]  # what stands behind it followed on another


@pytest.mark.parametrize(
    "sealed",
    [
        b"\x91" * 50_000 + b"\x90",  # lists in lists, deeper than any reader goes
        b"\x81\xa7details" + b"\x81\xa1x" * 50_000 + b"\xc0",
        b"\x81\xa5model\xa2\xff\xfe",  # text that is no UTF-8
        b"\x81\xa5model\xdb\xff\xff\xff\xff",  # a length that runs past the end
        b"",
        os.urandom(500),
    ],
    ids=["deep", "deep details", "no text", "too long", "nothing", "noise"],
)
def test_nothing_that_stands_in_a_frame_stops_the_ones_behind_it(folder: Path, sealed: bytes) -> None:
    broken = pack_frame(2, pack_content(CHAIN.before(2), sealed, b"", b""))
    CHAIN.segment(folder, 1, 1, CHAIN.data(1) + broken + CHAIN.data(3, 4))
    read, told = _told(folder)
    assert read == [1, 3, 4]
    assert [one[:2] for one in told] == [(2, 1), (3, 0)]


def test_content_whose_lengths_do_not_fit_costs_itself_only(folder: Path) -> None:
    content = pack_content(CHAIN.before(2), b"sealed", b"request", b"response")
    for broken in (content[:30], content[:32] + struct.pack("<I", 10**6) + content[36:]):
        CHAIN.segment(folder, 1, 1, CHAIN.data(1) + pack_frame(2, broken) + CHAIN.data(3))
        read, told = _told(folder)
        assert read == [1, 3]
        assert [one[:2] for one in told] == [(2, 1)]


def test_swapped_records_are_told_and_what_stands_behind_them_is_read(folder: Path) -> None:
    CHAIN.segment(folder, 1, 1, CHAIN.data(1, 3, 2, 4, 5))
    frames, alarms = read_what_can_be(folder)
    assert frames == CHAIN.frames(1, 3, 4, 5)
    assert [(alarm.sequence, alarm.missing, alarm.frames_follow) for alarm in alarms] == [(2, 1, True), (4, 0, True)]


def test_a_record_that_stands_there_twice_is_told_and_read_once(folder: Path) -> None:
    CHAIN.segment(folder, 1, 1, CHAIN.data(1, 2, 2, 1, 3))
    frames, alarms = read_what_can_be(folder)
    assert frames == CHAIN.frames(1, 2, 3)
    assert [(alarm.sequence, alarm.missing, alarm.frames_follow) for alarm in alarms] == [(3, 0, True)]


def test_records_of_another_journal_that_were_put_in_are_told(folder: Path) -> None:
    other = Chain("g/w1.ffffffffffff")
    CHAIN.segment(folder, 1, 1, CHAIN.data(1) + other.data(2, 3) + CHAIN.data(4))
    read, told = _told(folder)
    assert read == [1, 2, 3, 4]
    assert [one[:2] for one in told] == [(2, 0), (4, 0)]


def test_segments_that_were_swapped_are_told(folder: Path) -> None:
    CHAIN.segment(folder, 1, 1, CHAIN.data(1))
    CHAIN.segment(folder, 2, 4, CHAIN.data(4, 5))
    CHAIN.segment(folder, 3, 2, CHAIN.data(2, 3))
    CHAIN.segment(folder, 4, 6, CHAIN.data(6))
    frames, alarms = read_what_can_be(folder)
    assert {frame.sequence for frame in frames} == {1, 2, 3, 4, 5, 6}
    assert [(alarm.segment, alarm.missing) for alarm in alarms] == [(2, 2), (3, 0), (4, 2)]


def test_a_header_with_another_chain_is_told(folder: Path) -> None:
    CHAIN.segment(folder, 1, 1, CHAIN.data(1))
    header = pack_header(SegmentHeader(NAME, 2, 2, 1, bytes(32)))
    segment_path(folder, 2).write_bytes(header + CHAIN.data(2))
    read, told = _told(folder)
    assert read == [1, 2]
    assert told == [
        (2, 0, "it does not follow on the segment before it"),
        (2, 0, "it does not follow on the record before it"),
    ]


def test_a_first_segment_that_does_not_begin_at_the_journals_name_is_told(folder: Path) -> None:
    header = pack_header(SegmentHeader(NAME, 1, 1, 1, bytes(32)))
    segment_path(folder, 1).write_bytes(header + CHAIN.data(1))
    assert [one[:2] for one in _told(folder)[1]] == [(1, 0), (1, 0)]


@pytest.mark.parametrize("behind", [2, 3])
def test_reading_that_begins_again_behind_damage_raises_no_second_alarm(folder: Path, behind: int) -> None:
    """What follows on damage cannot be held against a chain, whoever reads it and whenever."""
    broken = CHAIN.data(2)[:-1] + b"!" if behind == 3 else pack_frame(2, b"no content")
    path = CHAIN.segment(folder, 1, 1, CHAIN.data(1) + broken + (CHAIN.data(3) if behind == 3 else b""))
    alarms: list[Corruption] = []
    first = Tail(folder, {}, lambda _, damage: alarms.append(damage))
    first.read(Budget(10, 10**6))
    [position] = first.positions()
    first.close()
    assert position.sequence == behind
    with path.open("ab") as file:
        file.write(CHAIN.data(behind + 1))
    second = Tail(folder, {NAME: position}, lambda _, damage: alarms.append(damage))
    assert second.read(Budget(10, 10**6)) == CHAIN.frames(behind + 1)
    second.close()
    assert [(alarm.sequence, alarm.missing) for alarm in alarms] == [(2, 1)]
