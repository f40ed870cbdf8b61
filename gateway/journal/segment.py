"""The file format of a journal, and its segments: their names, and their headers as bytes.

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

Belongs here: headers, damage as it is told, names. Never here: what stands in frames (`frames`), or opening, writing
and deleting segments.
"""

import os
import struct
from pathlib import Path

import msgspec
from crc32c import crc32c
from msgspec import Struct

MAGIC = b"PMJRNL\r\n"
FORMAT_VERSION = 2
SUFFIX = ".journal"
_HEADER = struct.Struct("<8sHHI")
MAX_HEADER_BYTES = _HEADER.size + 0xFFFF


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
