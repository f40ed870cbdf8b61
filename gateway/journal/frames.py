"""Frames of a journal's segments: bytes to frames and back, and what is wrong with a bad one (the format: `segment`).

Belongs here: one frame, and finding the next good one after a bad one. Never here: headers, names of files, or opening,
writing and deleting them.
"""

import struct
from enum import Enum
from typing import Final

from crc32c import crc32c

from gateway.sealing import NoContent, parts_at

MAX_PAYLOAD_BYTES: Final = 2**30
_FRAME: Final = struct.Struct("<IIQ")
_CHECKED: Final = struct.Struct("<II")
_SEQUENCE: Final = struct.Struct("<Q")
FRAME_OVERHEAD: Final[int] = _FRAME.size
_SEARCHED_SEQUENCES: Final = 64
"""How many sequences after a bad frame are looked for to tell a torn tail from damage in the middle."""


class Flaw(Enum):
    """What keeps a frame from being read; `INCOMPLETE` may heal when its writer goes on."""

    INCOMPLETE = "runs past the end"
    LENGTH = "has an impossible length"
    CHECKSUM = "does not match its checksum"
    SEQUENCE = "has a sequence that is out of turn"


def pack_frame(sequence: int, payload: bytes) -> bytes:
    """Return the frame of one record; `payload` is its content."""
    return b"".join(frame_pieces(sequence, (payload,)))


def frame_pieces(sequence: int, payload: tuple[bytes, ...]) -> tuple[bytes, bytes]:
    """Return the frame of one record in two pieces, its content given in any number of them."""
    checked = b"".join((_SEQUENCE.pack(sequence), *payload))
    return _CHECKED.pack(len(checked) - _SEQUENCE.size, crc32c(checked)), checked


def read_frame(view: memoryview, at: int) -> tuple[int, memoryview] | Flaw:
    """Return (sequence, payload) of the frame that begins at `at`, whatever its sequence, or what is wrong with it.

    A frame whose checksum is that of itself with zeros for its parts is erased, or is being erased: so it is returned.
    """
    start = at + FRAME_OVERHEAD
    if start > len(view):
        return Flaw.INCOMPLETE
    length, checksum, sequence = _FRAME.unpack_from(view, at)
    if not 0 < length <= MAX_PAYLOAD_BYTES:
        return Flaw.LENGTH
    end = start + length
    if end > len(view):
        return Flaw.INCOMPLETE
    payload = view[start:end]
    if crc32c(view[at + 8 : end]) != checksum:
        erased = _without_parts(payload)
        if erased is None or crc32c(erased, crc32c(view[at + 8 : start])) != checksum:
            return Flaw.CHECKSUM
        return sequence, memoryview(erased)
    return sequence, payload


def _without_parts(payload: memoryview) -> bytes | None:
    try:
        parts = parts_at(payload)[0]
    except NoContent:
        return None
    return bytes(payload[:parts]) + bytes(len(payload) - parts)


def frame_end(view: memoryview, at: int) -> int:
    """Return where the frame at `at` says that it ends; only its length is read, which must lie within `view`."""
    length: int = _FRAME.unpack_from(view, at)[0]
    return at + FRAME_OVERHEAD + length


def resume(view: memoryview, at: int, sequence: int) -> tuple[int, int] | None:
    """Return (offset, sequence) of the good frame after a bad one at `at`, where `sequence` was expected.

    None when that is not sure. Sure is a frame at that very place which carries a later sequence (frames before it
    were taken out), or an earlier one (it was put there) and then what stands where it ends; and a frame with the next
    sequence where the bad one's length leads to (its payload was damaged). Any other search could take bytes that a
    client sent in a request for a frame.
    """
    here = read_frame(view, at)
    while not isinstance(here, Flaw):
        if here[0] >= sequence:
            return at, here[0]
        at += FRAME_OVERHEAD + len(here[1])
        here = read_frame(view, at)
    if here is not Flaw.CHECKSUM:
        return None
    end = frame_end(view, at)
    following = read_frame(view, end)
    if isinstance(following, Flaw) or following[0] != sequence + 1:
        return None
    return end, following[0]


def frames_follow(data: bytes, at: int, sequence: int) -> bool:
    """Tell whether any good frame of the next sequences stands after a bad one at `at`, where `sequence` was expected.

    If none does, what is left of a segment is a torn tail.
    """
    view = memoryview(data)
    for later in range(sequence + 1, sequence + 1 + _SEARCHED_SEQUENCES):
        pattern = _SEQUENCE.pack(later)
        found = data.find(pattern, at + FRAME_OVERHEAD)
        while found >= 0:
            frame = read_frame(view, found - 8)
            if not isinstance(frame, Flaw) and frame[0] == later:
                return True
            found = data.find(pattern, found + 1)
    return False
