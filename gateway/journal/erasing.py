"""Erasing contents from the journals' segments, where shipped records stay until the segments are deleted.

Belongs here: writing zeros over parts. Never here: which records are erased, or touching a frame that is not shipped
yet.

A frame keeps its place, its length and its sealed part; its parts become zeros, and its checksum is that of the frame
with zeros. The checksum is written first and the zeros when it is on the disk: from then on the frame reads as erased
(`frames.read_frame`), wherever this is stopped and whoever reads meanwhile. Its writer only ever appends, so it is not
disturbed.
"""

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from crc32c import crc32c

from gateway.journal.frames import FRAME_OVERHEAD, Flaw, frames_follow, read_frame, resume
from gateway.journal.segment import HeaderIncomplete, HeaderUnreadable, parse_header, segment_numbers, segment_path
from gateway.ports import Place
from gateway.sealing import NoContent, parts_at

_CHECKSUM_AT = 4
_SEQUENCE_AT = 8


class _Stretch:
    """Bytes of a segment that become zeros, and for those of a frame: the checksum that it has then, and where."""

    def __init__(self, start: int, end: int, checksum_at: int = 0, checksum: int = 0) -> None:
        self.start = start
        self.end = end
        self.checksum_at = checksum_at
        self.checksum = checksum


class _Hidden:
    """A segment of which nobody can say what stands in it from sequence `first` on (0: in all of it)."""

    def __init__(self, path: Path, journal: str, first: int) -> None:
        self.path = path
        self.journal = journal
        self.first = first

    def may_hold(self, place: Place) -> bool:
        if self.first:
            return place.journal == self.journal and place.sequence >= self.first
        return place.journal.rpartition("/")[2].partition(".")[0] == self.path.parent.name


def erase_in_journals(journals: Path, places: Collection[Place]) -> int:
    """Write zeros over the parts of the frames in these places, in every segment there is; return how many it found.

    Those that were erased before are left as they are and counted. Blocks.

    Raises:
        OSError: a file cannot be written; or one is damaged so that contents of these places may stand in it where
            nobody can find them. All others are erased then, and the message names the file.
    """
    wanted: dict[str, set[int]] = {}
    for place in places:
        wanted.setdefault(place.journal, set()).add(place.sequence)
    found: set[Place] = set()
    hidden: list[_Hidden] = []
    for folder in sorted(path for path in journals.iterdir() if path.is_dir()):
        for number in segment_numbers(folder):
            _erase_in_segment(segment_path(folder, number), wanted, found, hidden)
    missed = set(places) - found
    holding = [str(one.path) for one in hidden if any(one.may_hold(place) for place in missed)]
    if holding:
        raise OSError(f"what is left of the damaged {', '.join(holding)} may hold contents; look at it and delete it")
    return len(found)


def _erase_in_segment(
    path: Path, wanted: Mapping[str, Collection[int]], found: set[Place], hidden: list[_Hidden]
) -> None:
    try:
        file = path.open("r+b", buffering=0)
    except FileNotFoundError:
        return  # deleted meanwhile, because it was shipped
    with file:
        data = file.readall()
        try:
            header, at = parse_header(data)
        except HeaderIncomplete:
            return
        except HeaderUnreadable:
            hidden.append(_Hidden(path, "", 0))
            return
        if sequences := wanted.get(header.journal):
            stretches, first_hidden = _look_through(data, at, header.first_sequence, sequences)
            _write(file.fileno(), [stretch for _, stretch in stretches])
            found.update(Place(header.journal, sequence) for sequence, _ in stretches)
            if first_hidden is not None:
                hidden.append(_Hidden(path, header.journal, first_hidden))


def _look_through(
    data: bytes, at: int, sequence: int, wanted: Collection[int]
) -> tuple[list[tuple[int, _Stretch]], int | None]:
    """Return what to write over, each with its sequence, and the sequence from which on frames cannot be told apart, if
    there are any.
    """
    view, stretches = memoryview(data), list[tuple[int, _Stretch]]()
    while at < len(view):
        frame = read_frame(view, at)
        if isinstance(frame, Flaw):
            onward = resume(view, at, sequence)
            if onward is None:
                return stretches, sequence if frames_follow(data, at, sequence) else None
            for lost in range(sequence, onward[1]):
                if lost in wanted and onward[0] > at:  # damaged, but nobody else's bytes
                    stretches.append((lost, _Stretch(at + FRAME_OVERHEAD, onward[0])))
            at, sequence = onward
            continue
        end = at + FRAME_OVERHEAD + len(frame[1])
        if frame[0] in wanted:
            stretches.append((frame[0], _parts_of(view, at, frame[1])))
        at, sequence = end, frame[0] + 1
    return stretches, None


def _parts_of(view: memoryview, at: int, content: memoryview) -> _Stretch:
    start, end = at + FRAME_OVERHEAD, at + FRAME_OVERHEAD + len(content)
    try:
        parts = parts_at(content)[0]
    except NoContent:
        return _Stretch(start, end)
    erased = bytes(content[:parts]) + bytes(len(content) - parts)
    checksum = crc32c(erased, crc32c(view[at + _SEQUENCE_AT : start]))
    return _Stretch(start + parts, end, at + _CHECKSUM_AT, checksum)


def _write(descriptor: int, stretches: Collection[_Stretch]) -> None:
    for one in stretches:
        if one.checksum_at:
            os.pwrite(descriptor, one.checksum.to_bytes(4, "little"), one.checksum_at)
    os.fdatasync(descriptor)
    for one in stretches:
        os.pwrite(descriptor, bytes(one.end - one.start), one.start)
    os.fdatasync(descriptor)
