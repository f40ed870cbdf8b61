"""Erasing contents from the journals' segments, where shipped records stay until the segments are deleted.

Belongs here: writing zeros over parts. Never here: which records are erased, or touching a frame that is not shipped
yet.

A frame keeps its place, its length and its sealed part; its parts become zeros and its checksum is that of the
new bytes, all in one write. Its writer only ever appends, so it is not disturbed.
"""

import os
from collections.abc import Collection
from pathlib import Path

from crc32c import crc32c

from gateway.journal.segment import (
    FRAME_OVERHEAD,
    Flaw,
    HeaderIncomplete,
    HeaderUnreadable,
    parse_header,
    read_frame,
    resume,
    segment_numbers,
    segment_path,
)
from gateway.ports import Place
from gateway.sealing import NoContent, parts_at

_CHECKSUM_AT = 4
_SEQUENCE_AT = 8


def erase_in_journals(journals: Path, places: Collection[Place]) -> int:
    """Write zeros over the parts of the frames in these places, in every segment there is; return how many it found.

    Those that were erased before are left as they are and counted. Blocks; raises `OSError`.
    """
    wanted: dict[str, set[int]] = {}
    for place in places:
        wanted.setdefault(place.journal, set()).add(place.sequence)
    found = 0
    for folder in sorted(path for path in journals.iterdir() if path.is_dir()):
        for number in segment_numbers(folder):
            found += _erase_in_segment(segment_path(folder, number), wanted)
    return found


def _erase_in_segment(path: Path, wanted: dict[str, set[int]]) -> int:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return 0  # deleted meanwhile, because it was shipped
    try:
        header, at = parse_header(data)
    except (HeaderIncomplete, HeaderUnreadable):
        return 0
    sequences = wanted.get(header.journal)
    if not sequences:
        return 0
    view, sequence, found = memoryview(data), header.first_sequence, 0
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        while at < len(view):
            frame = read_frame(view, at)
            if isinstance(frame, Flaw):
                onward = resume(view, at, sequence)
                if onward is None:
                    break
                at, sequence = onward
                continue
            if frame[0] in sequences:
                found += 1
                _overwrite(descriptor, at, view, frame[1])
            at, sequence = at + FRAME_OVERHEAD + len(frame[1]), frame[0] + 1
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
    return found


def _overwrite(descriptor: int, at: int, view: memoryview, content: memoryview) -> None:
    try:
        request_at, request_end, response_at, response_end = parts_at(content)
    except NoContent:
        return
    new = bytearray(content)
    new[request_at:request_end] = bytes(request_end - request_at)
    new[response_at:response_end] = bytes(response_end - response_at)
    number = bytes(view[at + _SEQUENCE_AT : at + FRAME_OVERHEAD])
    checksum = crc32c(new, crc32c(number)).to_bytes(4, "little")
    os.pwrite(descriptor, checksum + number + new, at + _CHECKSUM_AT)
