"""A frame of a journal or a row of a store, put together from its bytes and taken apart again.

Belongs here: what belongs to the sealed part and what beside it. Never here: files, sequences, or hashes of batches.

    content = chain before it (32 bytes) ‖ length of the sealed part u32 ‖ sealed part
              ‖ length of the request's part u32 ‖ request's part ‖ response's part

Integers are little-endian. The sealed part is the msgpack map of the record.
"""

import struct
from typing import Final

from gateway.chain import HASH_BYTES, link
from gateway.record import Frame, decode_record

_LENGTH: Final = struct.Struct("<I")
_length_at: Final = _LENGTH.unpack_from
_LENGTH_BYTES: Final[int] = _LENGTH.size
_SEALED_AT: Final = HASH_BYTES + _LENGTH_BYTES
_SHORTEST: Final = _SEALED_AT + _LENGTH_BYTES


class NoContent(ValueError):
    """The bytes are not the content of a frame."""


def pack_content(previous: bytes, sealed: bytes, request: bytes, response: bytes) -> bytes:
    """Return the content of a frame."""
    return b"".join(content_pieces(previous, sealed, request, response))


def content_pieces(previous: bytes, sealed: bytes, request: bytes, response: bytes) -> tuple[bytes, ...]:
    """Return the content of a frame, yet to be joined."""
    return previous, _LENGTH.pack(len(sealed)), sealed, _LENGTH.pack(len(request)), request, response


def unpack_content(content: bytes | memoryview) -> tuple[bytes, bytes, bytes, bytes]:
    """Return (chain before it, sealed part, request's part, response's part).

    Raises:
        NoContent: the lengths do not fit.
    """
    whole = bytes(content)  # one copy and plain slices of it: cheaper than to copy each part out of a memoryview
    return unpack_at(whole, 0, len(whole))


def unpack_at(data: bytes, start: int, end: int) -> tuple[bytes, bytes, bytes, bytes]:
    """Return what `unpack_content` does, of the content that stands at `start` to `end` of `data`."""
    if end - start < _SHORTEST:
        raise NoContent("it is too short")
    sealed_at = start + _SEALED_AT
    sealed_end: int = sealed_at + _length_at(data, start + HASH_BYTES)[0]
    request_at = sealed_end + _LENGTH_BYTES
    if request_at > end:
        raise NoContent("its sealed part runs past the end")
    request_end: int = request_at + _length_at(data, sealed_end)[0]
    if request_end > end:
        raise NoContent("the request's part runs past the end")
    return (
        data[start : start + HASH_BYTES],
        data[sealed_at:sealed_end],
        data[request_at:request_end],
        data[request_end:end],
    )


def parts_at(content: bytes | memoryview) -> tuple[int, int, int, int]:
    """Return where in a content the two parts stand: (start, end) of the request's, (start, end) of the response's.

    Raises:
        NoContent: the lengths do not fit.
    """
    _, sealed, request, _ = unpack_content(content)
    request_at = HASH_BYTES + 2 * _LENGTH_BYTES + len(sealed)
    return request_at, request_at + len(request), request_at + len(request), len(content)


def frame_of(  # noqa: PLR0917 - the fields of a frame, in their order
    journal: str, sequence: int, previous: bytes, sealed: bytes, request: bytes, response: bytes
) -> Frame:
    """Return the frame of these bytes, its chain worked out and its record decoded.

    Raises:
        msgspec.DecodeError: the sealed part is no record.
    """
    chain = link(previous, sequence, sealed)
    return Frame(journal, sequence, previous, chain, sealed, request, response, decode_record(sealed))
