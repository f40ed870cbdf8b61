"""How much of a worker's journals is not kept yet: records and bytes, without reading a record.

Sequences have no gap, so where another segment of the same journal follows one, their headers say how many records it
has; only in the last one are frames counted, by their lengths.

Belongs here: that arithmetic. Never here: reading frames, or who has shipped how far.
"""

import os
from collections.abc import Mapping
from pathlib import Path

from gateway.journal.frames import FRAME_OVERHEAD, frame_end
from gateway.journal.segment import (
    MAX_HEADER_BYTES,
    HeaderIncomplete,
    HeaderUnreadable,
    SegmentHeader,
    parse_header,
    segment_numbers,
    segment_path,
)
from gateway.ports import JournalPosition

_CHUNK_BYTES = 2**20


def beyond(folder: Path, positions: Mapping[str, JournalPosition]) -> tuple[int, int]:
    """Return how many records, and how many bytes, of the journals in `folder` come after their positions.

    What is damaged or half written ends the counting of records in its segment. A segment that is deleted meanwhile has
    nothing any more.

    Raises:
        OSError: the folder, or a segment in it, cannot be read.
    """
    records = behind = 0
    following: SegmentHeader | None = None
    for number in reversed(segment_numbers(folder)):
        try:
            file = os.open(segment_path(folder, number), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            following = None
            continue
        try:
            header, start = _header(file)
            position = positions.get(header.journal) if header is not None else None
            if position is not None and number < position.segment:
                break
            size = os.fstat(file).st_size
            if position is not None and number == position.segment:
                records += _records(file, position.offset, size, header, position.sequence, following)
                return records, behind + max(0, size - position.offset)
            first = header.first_sequence - 1 if header is not None else 0
            records += _records(file, start, size, header, first, following)
            behind += size
            following = header
        finally:
            os.close(file)
    return records, behind


def _header(file: int) -> tuple[SegmentHeader | None, int]:
    try:
        return parse_header(os.pread(file, MAX_HEADER_BYTES, 0))
    except (HeaderIncomplete, HeaderUnreadable):
        return None, 0


def _records(  # noqa: PLR0917 - what is known of a segment
    file: int, offset: int, size: int, header: SegmentHeader | None, last: int, following: SegmentHeader | None
) -> int:
    """Return how many records a segment has after `offset`, where `last` was the sequence of the one before."""
    if header is None:
        return 0
    if following is not None and following.journal == header.journal:
        return max(0, following.first_sequence - 1 - last)
    return _frames(file, offset, size)


def _frames(file: int, offset: int, size: int) -> int:
    """Return how many whole frames stand between `offset` and `size`."""
    count = 0
    while size - offset >= FRAME_OVERHEAD:
        view = memoryview(os.pread(file, _CHUNK_BYTES, offset))
        at = 0
        while at + FRAME_OVERHEAD <= len(view):
            end = frame_end(view, at)
            if end == at + FRAME_OVERHEAD or offset + end > size:
                return count
            count += 1
            at = end
        if not at:
            return count  # it became shorter
        offset += at
    return count
