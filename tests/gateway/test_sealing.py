"""The content of a frame: put together and taken apart, and nothing that was cut passes unseen."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.capture import capture, fits, open_part
from gateway.chain import HASH_BYTES, genesis, link
from gateway.journal.frames import Flaw, pack_frame, read_frame
from gateway.record import decode_record, encode_record
from gateway.sealing import NoContent, frame_of, pack_content, parts_at, unpack_content
from routing import Capture
from tests.journals import made

hashes = st.binary(min_size=HASH_BYTES, max_size=HASH_BYTES)
parts = st.binary(max_size=120)


@given(hashes, parts, parts, parts)
def test_what_was_put_together_comes_apart_the_same(
    previous: bytes, sealed: bytes, request: bytes, response: bytes
) -> None:
    content = pack_content(previous, sealed, request, response)
    assert unpack_content(content) == (previous, sealed, request, response)
    assert unpack_content(memoryview(b"lead" + content)[4:]) == (previous, sealed, request, response)
    request_at, request_end, response_at, response_end = parts_at(content)
    assert content[request_at:request_end] == request
    assert content[response_at:response_end] == response
    assert (request_end, response_end) == (response_at, len(content))


def test_content_has_the_bytes_that_the_format_says() -> None:
    content = pack_content(bytes(range(32)), b"sealed", b"asked", b"answered")
    assert content == bytes(range(32)) + b"\x06\0\0\0sealed" + b"\x05\0\0\0asked" + b"answered"


@given(hashes, parts, parts, parts)
def test_every_cut_is_refused_or_leaves_all_but_the_end_of_the_responses_part(
    previous: bytes, sealed: bytes, request: bytes, response: bytes
) -> None:
    """The frame has the length of the whole; the content has none of its own for what stands last."""
    content = pack_content(previous, sealed, request, response)
    for cut in range(len(content) - len(response)):
        with pytest.raises(NoContent):
            unpack_content(content[:cut])
    for missing in range(1, len(response) + 1):
        cut_response = response[: len(response) - missing]
        assert unpack_content(content[: len(content) - missing]) == (previous, sealed, request, cut_response)


@given(st.integers(1, 2**64 - 1), parts.filter(bool), parts, st.binary(min_size=1, max_size=60))
def test_no_cut_of_a_frame_passes_and_no_cut_part_fits_its_record(
    sequence: int, sealed: bytes, request: bytes, answer: bytes
) -> None:
    payload, response = capture(answer, "full", Capture())
    frame = pack_frame(sequence, pack_content(bytes(32), sealed, request, response))
    for cut in range(len(frame)):
        assert isinstance(read_frame(memoryview(frame[:cut]), 0), Flaw)
    for cut in range(len(response)):
        assert not fits(response[:cut], payload)


@given(st.binary(max_size=200))
def test_whatever_stands_there_comes_apart_into_all_of_it_or_is_refused(content: bytes) -> None:
    try:
        taken = unpack_content(content)
    except NoContent:
        return
    assert pack_content(*taken) == content


@given(st.integers(1, 2**64 - 1), parts, parts)
def test_a_frame_has_the_chain_after_it_and_the_record_that_was_sealed(
    sequence: int, body: bytes, answer: bytes
) -> None:
    record, request, response = made("1", body, answer)
    sealed = encode_record(record)
    previous = genesis("g/w0.0123456789ab")
    frame = frame_of("g/w0.0123456789ab", sequence, previous, sealed, request, response)
    assert frame.chain == link(previous, sequence, sealed)
    assert frame.record == decode_record(sealed) == record
    asked = open_part(frame.request, frame.record.request)
    answered = open_part(frame.response, frame.record.response)
    assert asked is not None
    assert answered is not None
    assert (asked.body, answered.body) == (body, answer)


def test_sealed_bytes_that_are_no_record_make_no_frame() -> None:
    with pytest.raises(msgspec.DecodeError):
        frame_of("g/w0.0123456789ab", 1, bytes(32), b"\xc1", b"", b"")
