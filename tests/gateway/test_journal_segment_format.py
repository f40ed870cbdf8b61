"""The bytes of a segment: pinned vectors, and no damage that passes for a frame."""

import struct
from pathlib import Path

import msgspec
import pytest
from crc32c import crc32c
from hypothesis import given
from hypothesis import strategies as st

from gateway.journal.frames import MAX_PAYLOAD_BYTES, Flaw, frames_follow, pack_frame, read_frame, resume
from gateway.journal.segment import (
    HeaderIncomplete,
    HeaderUnreadable,
    SegmentHeader,
    pack_header,
    parse_header,
    segment_numbers,
    segment_path,
)

HEADER = SegmentHeader("g/w0.0123456789ab", 7, 12, 1_800_000_000_000_000_000, bytes(range(32)))


def test_a_frame_has_the_bytes_that_the_format_says() -> None:
    frame = pack_frame(258, b"payload")
    checksum = crc32c((258).to_bytes(8, "little") + b"payload")
    assert frame == struct.pack("<IIQ", 7, checksum, 258) + b"payload"
    assert frame.hex() == "070000004978c98702010000000000007061796c6f6164"


def test_a_header_has_the_bytes_that_the_format_says() -> None:
    packed = pack_header(HEADER)
    magic, version, length, checksum = struct.unpack_from("<8sHHI", packed)
    body = packed[16:]
    assert (magic, version, length, checksum) == (b"PMJRNL\r\n", 2, len(body), crc32c(body))
    assert msgspec.msgpack.decode(body) == {
        "journal": "g/w0.0123456789ab",
        "segment": 7,
        "first_sequence": 12,
        "created_ns": 1_800_000_000_000_000_000,
        "chain": bytes(range(32)),
    }
    assert parse_header(packed + b"frames") == (HEADER, len(packed))


def test_a_header_with_fields_of_a_later_version_is_read() -> None:
    body = msgspec.msgpack.encode(msgspec.to_builtins(HEADER, builtin_types=(bytes,)) | {"mood": "sunny"})
    packed = struct.pack("<8sHHI", b"PMJRNL\r\n", 2, len(body), crc32c(body)) + body
    assert parse_header(packed)[0] == HEADER


def test_every_beginning_of_a_header_is_incomplete() -> None:
    packed = pack_header(HEADER)
    for size in range(len(packed)):
        with pytest.raises(HeaderIncomplete):
            parse_header(packed[:size])


def test_a_header_of_zeros_only_holds_no_frame() -> None:
    with pytest.raises(HeaderIncomplete):
        parse_header(bytes(4096))


def test_no_flipped_bit_of_a_header_passes() -> None:
    packed = pack_header(HEADER)
    for bit in range(len(packed) * 8):
        damaged = bytearray(packed + bytes(70_000))
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(HeaderUnreadable):
            parse_header(bytes(damaged))


def test_a_segment_of_a_later_format_is_refused_with_both_versions_named() -> None:
    packed = bytearray(pack_header(HEADER))
    packed[8] = 3
    with pytest.raises(HeaderUnreadable, match="format version 3; this Pointsman reads version 2"):
        parse_header(bytes(packed))


@given(sequence=st.integers(0, 2**64 - 1), payload=st.binary(min_size=1, max_size=200), lead=st.binary(max_size=9))
def test_a_frame_is_read_wherever_it_stands(sequence: int, payload: bytes, lead: bytes) -> None:
    view = memoryview(lead + pack_frame(sequence, payload) + b"after")
    frame = read_frame(view, len(lead))
    assert not isinstance(frame, Flaw)
    assert (frame[0], bytes(frame[1])) == (sequence, payload)


@given(payload=st.binary(min_size=1, max_size=80), data=st.data())
def test_no_cut_and_no_flipped_bit_of_a_frame_passes(payload: bytes, data: st.DataObject) -> None:
    frame = pack_frame(5, payload)
    cut = data.draw(st.integers(0, len(frame) - 1))
    assert read_frame(memoryview(frame[:cut]), 0) is Flaw.INCOMPLETE
    bit = data.draw(st.integers(0, len(frame) * 8 - 1))
    damaged = bytearray(frame + bytes(300))
    damaged[bit // 8] ^= 1 << bit % 8
    assert isinstance(read_frame(memoryview(damaged), 0), Flaw)


@pytest.mark.parametrize("length", [0, MAX_PAYLOAD_BYTES + 1, 2**32 - 1])
def test_an_impossible_length_is_no_frame(length: int) -> None:
    assert read_frame(memoryview(struct.pack("<IIQ", length, 0, 1) + b"x"), 0) is Flaw.LENGTH


def test_reading_resumes_behind_a_damaged_payload_and_at_a_later_sequence_only() -> None:
    one, two, three = (pack_frame(n, b"payload %d" % n) for n in (1, 2, 3))
    damaged = two[:-1] + b"!"
    assert resume(memoryview(one + damaged + three), len(one), 2) == (len(one + damaged), 3)
    assert resume(memoryview(one + three), len(one), 2) == (len(one), 3)
    assert resume(memoryview(one + one), len(one), 2) is None
    assert resume(memoryview(one + one + one + two), len(one), 2) == (3 * len(one), 2)
    assert resume(memoryview(one + one + three), len(one), 2) == (2 * len(one), 3)
    assert resume(memoryview(one + one + damaged + three), len(one), 2) == (len(one + one + damaged), 3)
    assert resume(memoryview(one + damaged + damaged + three), len(one), 2) is None
    assert resume(memoryview(one + damaged), len(one), 2) is None
    assert resume(memoryview(one + damaged + pack_frame(4, b"x")), len(one), 2) is None


def test_frames_are_found_after_damage_only_when_they_are_whole_and_in_turn() -> None:
    two, three, nine = (pack_frame(n, b"payload %d" % n) for n in (2, 3, 900))
    longer = b"\xff\xff\x00" + two[3:]
    assert frames_follow(longer + three, 0, 2)
    assert frames_follow(bytes(40) + pack_frame(40, b"x"), 0, 2)
    assert not frames_follow(longer + three[:-1], 0, 2)
    assert not frames_follow(longer, 0, 2)
    assert not frames_follow(longer + two + nine, 0, 2)


def test_segments_are_listed_by_number_and_other_files_are_passed_over(tmp_path: Path) -> None:
    for number in (12, 3, 10**11):
        segment_path(tmp_path, number).touch()
    for name in ("lock", "1.journal", "00000000000x.journal", "000000000004.corrupt", "000000000004.journal.tmp"):
        (tmp_path / name).touch()
    assert segment_numbers(tmp_path) == [3, 12, 10**11]
    assert segment_path(tmp_path, 3).name == "000000000003.journal"
