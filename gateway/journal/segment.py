"""The file format of a journal, and the reading of it: segments, headers, frames, and what is wrong with a bad one.

A journal is a folder of segments named by 12 decimal digits and `.journal`; a higher number is a later segment.
Integers are little-endian.

    segment = header, frame*
    header  = magic "PMJRNL\\r\\n" (8 bytes), format version u16 (2), length of the map u16, crc32c of the map u32, map
    map     = msgpack {"journal": str, "segment": int, "first_sequence": int, "created_ns": int, "chain": bytes}
    frame   = length of the payload u32, crc32c of (sequence, payload) u32, sequence u64, payload
    payload = the content of one record (`gateway.sealing`), never empty, at most 1 GiB; erased, zeros for its parts

The name in the map is the journal's own, `<gateway>/<worker>.<12 hex digits>`, drawn when its first segment is made.
Its sequences begin at 1 and have no gap, within a segment, from one to the next and over restarts of the worker. Its
frames are a hash chain (`gateway.chain`): each holds the chain before it, and `chain` in a header is the one before
its first frame, which binds a segment to the one before. A worker
that cannot tell where its journal ends begins another one beside it, under another name, and never re-uses a sequence.
Frames are appended in order by one writer, each by a single write, so a reader that meets a frame which runs past the
end of a live segment reads it again later.

Belongs here: bytes to frames and back, and the names of segments. Never here: opening, writing or deleting them.
"""

import os
import struct
from enum import Enum
from pathlib import Path

import msgspec
from crc32c import crc32c
from msgspec import Struct

from gateway.sealing import NoContent, parts_at

MAGIC = b"PMJRNL\r\n"
FORMAT_VERSION = 2
SUFFIX = ".journal"
MAX_PAYLOAD_BYTES = 2**30
_HEADER = struct.Struct("<8sHHI")
_FRAME = struct.Struct("<IIQ")
_CHECKED = struct.Struct("<II")
_SEQUENCE = struct.Struct("<Q")
FRAME_OVERHEAD = _FRAME.size
MAX_HEADER_BYTES = _HEADER.size + 0xFFFF
_SEARCHED_SEQUENCES = 64
"""How many sequences after a bad frame are looked for to tell a torn tail from damage in the middle."""


class SegmentHeader(Struct, frozen=True):
    """What a segment says of itself. `created_ns` is Unix time in ns."""

    journal: str
    segment: int
    first_sequence: int
    created_ns: int
    chain: bytes


class HeaderIncomplete(Exception):
    """The file ends within its header: its writer is at it now, or was stopped there. It holds no frame."""


class HeaderUnreadable(Exception):
    """The file is no segment, is damaged, or is of a format that this version does not know. The message says which."""


class Flaw(Enum):
    """What keeps a frame from being read; `INCOMPLETE` may heal when its writer goes on."""

    INCOMPLETE = "runs past the end"
    LENGTH = "has an impossible length"
    CHECKSUM = "does not match its checksum"
    SEQUENCE = "has a sequence that is out of turn"


class Corruption(Struct, frozen=True):
    """Damage found while reading: where it begins, the sequence expected there, and how many records are lost by it.

    `missing` is 0 when that cannot be told yet, or none is. `frames_follow` says that reading goes on in the same
    segment. `told` is how many of the missing an earlier damage stood for, of which nobody could tell yet.
    """

    journal: str
    segment: int
    offset: int
    sequence: int
    missing: int
    why: str
    frames_follow: bool
    told: int = 0


def segment_path(folder: Path, number: int) -> Path:
    """Return where segment `number` of the journal in `folder` is kept."""
    return folder / f"{number:012d}{SUFFIX}"


def segment_numbers(folder: Path) -> list[int]:
    """Return the numbers of the segments in `folder`, ascending; files that are none are passed over."""
    stems = (name.removesuffix(SUFFIX) for name in os.listdir(folder) if name.endswith(SUFFIX))  # noqa: PTH208 - polled
    return sorted(int(stem) for stem in stems if len(stem) == 12 and stem.isascii() and stem.isdigit())


def sync_folder(folder: Path) -> None:
    """Return when the names in `folder` survive the death of the machine. Raises `OSError`."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def pack_header(header: SegmentHeader) -> bytes:
    """Return the bytes that a segment begins with."""
    body = msgspec.msgpack.encode(header)
    return _HEADER.pack(MAGIC, FORMAT_VERSION, len(body), crc32c(body)) + body


def parse_header(data: bytes) -> tuple[SegmentHeader, int]:
    """Return the header at the start of `data` and the offset of the first frame.

    Raises:
        HeaderIncomplete: `data` ends too soon.
        HeaderUnreadable: these bytes are no header that this version can read.
    """
    if not data.strip(b"\0") or (len(data) < _HEADER.size and MAGIC.startswith(data[: len(MAGIC)])):
        raise HeaderIncomplete
    if len(data) < _HEADER.size:
        raise HeaderUnreadable("it does not begin as a journal segment does")
    magic, version, length, checksum = _HEADER.unpack_from(data)
    if magic != MAGIC:
        raise HeaderUnreadable("it does not begin as a journal segment does")
    if version != FORMAT_VERSION:
        raise HeaderUnreadable(f"it has format version {version}; this Pointsman reads version {FORMAT_VERSION}")
    end = _HEADER.size + length
    if len(data) < end:
        raise HeaderIncomplete
    body = data[_HEADER.size : end]
    if crc32c(body) != checksum:
        raise HeaderUnreadable("its header does not match its checksum")
    try:
        return msgspec.msgpack.decode(body, type=SegmentHeader), end
    except msgspec.DecodeError as error:
        raise HeaderUnreadable(f"its header does not parse: {error}") from None


def pack_frame(sequence: int, payload: bytes) -> bytes:
    """Return the frame of one record; `payload` is its content."""
    return frame_head(sequence, payload) + payload


def frame_head(sequence: int, payload: bytes) -> bytes:
    """Return what stands before the content of a record in its frame."""
    number = _SEQUENCE.pack(sequence)
    return _CHECKED.pack(len(payload), crc32c(payload, crc32c(number))) + number


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
