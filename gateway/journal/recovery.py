"""What a restarted worker finds: where its journal ends, after the torn tail of a killed writer has been cut.

Belongs here: reading the newest segment and deciding where to go on. Never here: appending, or touching bytes whose
meaning is not sure.
"""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from msgspec import Struct

from gateway.chain import genesis, link
from gateway.journal.frames import FRAME_OVERHEAD, Flaw, frames_follow, read_frame, resume
from gateway.journal.segment import (
    HeaderIncomplete,
    HeaderUnreadable,
    SegmentHeader,
    parse_header,
    segment_numbers,
    segment_path,
)
from gateway.logs import logger
from gateway.sealing import NoContent, unpack_content


class JournalEnd(Struct, frozen=True):
    """Where a journal ends: its own name, its last sequence, the newest segment in its folder, the chain at the end."""

    journal: str
    sequence: int
    segment: int
    chain: bytes


def find_end(folder: Path, name: str) -> JournalEnd:
    """Return where the journal in `folder` ends, after cutting the torn tail that a killed writer may have left.

    What is left of it survives the death of the machine then, whatever the killed writer had synced: the next records
    go on behind it, and could otherwise outlive it.

    `name` (`<gateway>/<worker>`) is what the name of a journal that is begun here starts with.
    Only the newest segment is read. When it is damaged so that its last sequence is not sure, nothing of it is
    touched and another journal begins beside it; the recorder raises the alarm about what it cannot read.
    """
    numbers = segment_numbers(folder)
    newest = numbers[-1] if numbers else 0
    for number in numbers:
        with suppress(FileNotFoundError):  # deleted meanwhile, because it was shipped
            _sync(segment_path(folder, number))
    for number in reversed(numbers):
        path = segment_path(folder, number)
        data = path.read_bytes()
        try:
            header, start = parse_header(data)
        except HeaderIncomplete:
            # Its writer was stopped while making it, so it never held a frame; the one before it is the newest.
            logger().warning("journal_segment_unfinished", segment=str(path), bytes=len(data))
            path.unlink()
            continue
        except HeaderUnreadable as error:
            logger().error("journal_segment_unreadable", segment=str(path), why=str(error))
            break
        end = _end_of(path, data, header, start)
        if end is None:
            break
        return JournalEnd(header.journal, end[0], newest, end[1])
    journal = f"{name}.{secrets.token_hex(6)}"
    return JournalEnd(journal, 0, newest, genesis(journal))


def _end_of(path: Path, data: bytes, header: SegmentHeader, start: int) -> tuple[int, bytes] | None:
    """Return the last sequence of a segment and the chain after it; None when that is not sure."""
    view = memoryview(data)
    at, sequence, last = start, header.first_sequence, memoryview(b"")
    while at < len(view):
        frame = read_frame(view, at)
        if not isinstance(frame, Flaw) and frame[0] == sequence:
            at, sequence, last = at + FRAME_OVERHEAD + len(frame[1]), sequence + 1, frame[1]
            continue
        damage = {"segment": str(path), "offset": at, "sequence": sequence}
        onward = resume(view, at, sequence)
        if onward is not None:
            logger().error("journal_damaged", **damage, why="a bad frame with good ones after it")
            at, sequence = onward
        elif not isinstance(frame, Flaw) or frames_follow(data, at, sequence):
            logger().error("journal_damaged", **damage, why="its end is not sure, so another journal is begun")
            return None
        else:
            logger().warning("journal_torn_tail_cut", **damage, bytes=len(view) - at)
            _cut(path, at)
            break
    try:
        return sequence - 1, _chain_after(sequence - 1, last) if last else header.chain
    except NoContent as error:
        logger().error("journal_damaged", segment=str(path), sequence=sequence - 1, why=f"its last frame: {error}")
        return None


def _chain_after(sequence: int, content: memoryview) -> bytes:
    previous, sealed, _, _ = unpack_content(content)
    return link(previous, sequence, sealed)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


def _cut(path: Path, size: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.ftruncate(descriptor, size)
        os.fdatasync(descriptor)
    finally:
        os.close(descriptor)
