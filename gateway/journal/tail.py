"""Reading the journals of one worker while they are written: every segment in order, each frame once.

Belongs here: where a reader stands, moving from segment to segment, what to do about a frame that cannot be read.
Never here: the format (`segment`), or what becomes of the frames.
"""

import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from errno import EIO
from pathlib import Path
from typing import Final

import msgspec

from gateway.chain import genesis, link
from gateway.journal.frames import FRAME_OVERHEAD, Flaw, frame_end, frames_follow, read_frame, resume
from gateway.journal.segment import (
    MAX_HEADER_BYTES,
    Corruption,
    HeaderIncomplete,
    HeaderUnreadable,
    SegmentHeader,
    parse_header,
    segment_numbers,
    segment_path,
    sync_folder,
)
from gateway.ports import JournalPosition
from gateway.record import Frame, decode_record
from gateway.sealing import NoContent, unpack_at, unpack_content

CHUNK_BYTES: Final = 2**20
STUCK_SECONDS = 1.0
Alarm = Callable[[Path, Corruption], None]
"""Called once for each damage with the segment it is in."""


class Budget:
    """How much one round of reading may still take. The last frame may exceed the bytes."""

    __slots__ = ("bytes", "frames")

    def __init__(self, frames: int, size: int) -> None:
        self.frames = frames
        self.bytes = size

    def __bool__(self) -> bool:
        return self.frames > 0 and self.bytes > 0

    def take(self, size: int) -> bool:
        """Count one frame of `size` bytes; return whether there may be another."""
        self.frames -= 1
        self.bytes -= size
        return self.frames > 0 and self.bytes > 0


class Tail:
    """One reader's place in the journals of one worker's folder.

    `positions` are where the reader stands already, by journal; `alarm` hears of what cannot be read.
    """

    def __init__(self, folder: Path, positions: Mapping[str, JournalPosition], alarm: Alarm) -> None:
        self.segment = 0
        self.offset = 0
        self._folder = folder
        self._known = dict(positions)
        self._touched: set[str] = set()
        self._alarm = alarm
        self._alarmed: set[tuple[int, int]] = set()
        self._file: int | None = None
        self._unsynced = False
        self._unnamed = False
        self._newer = False
        self._stuck: tuple[int, float] = (-1, 0.0)
        self._window = CHUNK_BYTES
        self._journal = ""
        self._sequence = 0
        self._chain = b""  # empty: nobody can tell, because what stood before cannot be read
        self._leftover = 0

    def read(self, budget: Budget) -> list[Frame]:
        """Return the next frames in order, as many as `budget` allows; none means that there are no more as yet."""
        frames: list[Frame] = []
        try:
            while budget:
                if self._file is None and not self._open_next():
                    break
                if self._read_chunk(frames, budget):
                    continue
                if self._newer:
                    self._leave()
                elif segment_numbers(self._folder)[-1:] > [self.segment]:
                    # Read once more before leaving: the last frames may have come just before the newer segment.
                    self._newer = True
                else:
                    break
        except OSError as error:
            self._fail(error)
        return frames

    def positions(self) -> list[JournalPosition]:
        """Return where the reader stands in every journal that it has opened."""
        self._note()
        return [self._known[journal] for journal in self._touched]

    def sync(self) -> None:
        """Return when every frame read so far is on the disk, whatever its writer has synced. Raises `OSError`.

        With it the segment's name: a segment that a power cut takes back as a whole would give its sequences away once
        more, to other records.
        """
        if self._file is not None and self._unsynced:
            os.fdatasync(self._file)
            if self._unnamed:
                sync_folder(self._folder)
            self._unsynced = self._unnamed = False

    def close(self) -> None:
        """Close the segment that is open."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    # ── from segment to segment ──────────────────────────────────────────────────────────────────────────────────

    def _open_next(self) -> bool:
        numbers = segment_numbers(self._folder)
        for number in (number for number in numbers if number > self.segment):
            path = segment_path(self._folder, number)
            try:
                file, header, start = _open_segment(path)
            except (HeaderIncomplete, HeaderUnreadable, OSError) as error:
                if isinstance(error, OSError) and error.errno != EIO:
                    raise
                if not isinstance(error, HeaderIncomplete):
                    self._raise_alarm(Corruption(self._journal, number, 0, self._sequence + 1, 0, str(error), False))
                if number == numbers[-1]:
                    return False
                continue
            if self._enter(number, header, start):
                self._file, self._newer, self._unsynced, self._unnamed = file, False, True, True
                return True
            os.close(file)
        return False

    def _enter(self, number: int, header: SegmentHeader, start: int) -> bool:
        known = self._known.get(header.journal)
        if known is not None and known.segment > number:
            return False
        expected = known.sequence + 1 if known is not None else 1
        chain = known.chain if known is not None else genesis(header.journal)
        inside = known is not None and known.segment == number
        if not inside:
            self._account(number, header, expected)
            if header.first_sequence == expected and chain and header.chain != chain:
                why = "it does not follow on the segment before it"
                self._raise_alarm(Corruption(header.journal, number, 0, expected, 0, why, False))
        self.segment, self._journal = number, header.journal
        self.offset = known.offset if known is not None and inside else start
        self._chain = chain if inside else header.chain
        self._sequence = expected - 1 if inside else header.first_sequence - 1
        self._touched.add(header.journal)
        return True

    def _account(self, number: int, header: SegmentHeader, expected: int) -> None:
        """Raise the alarm for what is missing between where the last segment was left and where this one begins."""
        missing = header.first_sequence - expected
        left, self._leftover = self._leftover, 0
        told = 0
        if left:
            told = int((self.segment, self.offset) in self._alarmed)
            mine = missing if header.journal == self._journal and missing > 0 else 0
            self._raise_here(mine, f"its last {left} bytes hold no frame that can be read")
            missing -= 0 if told else mine
        if missing:
            why = "the records before it are in no segment" if missing > 0 else "its sequences begin again"
            lost, told = max(0, missing), told if header.journal == self._journal else 0
            self._raise_alarm(Corruption(header.journal, number, 0, expected, lost, why, False, told))

    def _leave(self) -> None:
        assert self._file is not None
        self._leftover = max(0, os.fstat(self._file).st_size - self.offset)
        self.sync()
        self._note()
        self.close()

    def _note(self) -> None:
        if self._journal:
            place = JournalPosition(self._journal, self.segment, self.offset, self._sequence, self._chain)
            self._known[self._journal] = place

    # ── within a segment ─────────────────────────────────────────────────────────────────────────────────────────

    def _read_chunk(self, frames: list[Frame], budget: Budget) -> bool:
        """Read on from the present offset; return whether that led anywhere."""
        assert self._file is not None
        data = os.pread(self._file, self._window, self.offset)
        self._window = CHUNK_BYTES
        view = memoryview(data)
        at, more, following = 0, bool(budget), self._sequence + 1
        while more and at < len(data):
            frame = read_frame(view, at)
            if not isinstance(frame, tuple) or frame[0] != following:
                break
            self._decode(frames, following, frame[1], data, at + FRAME_OVERHEAD)
            following += 1
            size = FRAME_OVERHEAD + len(frame[1])
            at += size
            self.offset += size
            more = budget.take(size)
        if at:
            self._unsynced = True
            return True
        return bool(data) and self._face(view)

    def _decode(self, frames: list[Frame], sequence: int, content: memoryview, data: bytes, start: int) -> None:
        """Add a frame; its `content` is what stands at `start` of `data`, unless that is being erased."""
        before, self._chain = self._chain, b""
        try:
            if content.obj is data:  # taken apart where it is, at half the cost
                previous, sealed, request, response = unpack_at(data, start, start + len(content))
            else:
                previous, sealed, request, response = unpack_content(content)
            self._chain = chain = link(previous, sequence, sealed)
            record = decode_record(sealed)
        except (NoContent, msgspec.DecodeError) as error:
            self._raise_here(1, f"its checksum holds but it is no record: {error}", frames_follow=True)
        else:
            if before and before != previous:
                self._raise_here(0, "it does not follow on the record before it", frames_follow=True)
            frames.append(Frame(self._journal, sequence, previous, chain, sealed, request, response, record))
        self._sequence = sequence

    def _face(self, view: memoryview) -> bool:
        """Deal with a frame at the present offset that cannot be read; return whether reading can go on."""
        assert self._file is not None
        rest = os.fstat(self._file).st_size - self.offset
        flaw = read_frame(view, 0)
        if flaw is Flaw.INCOMPLETE and FRAME_OVERHEAD <= len(view) < frame_end(view, 0) <= rest:
            self._window = frame_end(view, 0)
            return True
        if not self._due(flaw):
            return False
        data = os.pread(self._file, rest, self.offset)
        onward = resume(memoryview(data), 0, self._sequence + 1)
        if onward is not None:
            why = flaw.value if isinstance(flaw, Flaw) else Flaw.SEQUENCE.value
            missing = onward[1] - self._sequence - 1
            self._raise_here(missing, f"a frame {why}", frames_follow=True)
            self.offset, self._sequence = self.offset + onward[0], onward[1] - 1
            self._chain = b"" if missing else self._chain
            return True
        if frames_follow(data, 0, self._sequence + 1):
            self._raise_here(0, "a bad frame; the ones after it in this segment cannot be told apart")
        return False

    def _due(self, flaw: object) -> bool:
        """Tell whether to look into a bad frame now: at once and every second, a second later if half-written."""
        offset, since = self._stuck
        now = time.monotonic()
        met_before = offset == self.offset
        if met_before and not self._newer and now - since < STUCK_SECONDS:
            return False
        self._stuck = (self.offset, now)
        return met_before or flaw is not Flaw.INCOMPLETE

    def _fail(self, error: OSError) -> None:
        """Deal with a segment that cannot be read: what the medium has lost must not keep the next ones back."""
        met_before = self._stuck[0] == self.offset
        self._raise_here(0, f"it cannot be read: {error}")
        if error.errno != EIO or self._file is None:
            return  # it may be put right: permissions, too many open files
        if not met_before:
            self._stuck = (self.offset, time.monotonic())
        elif time.monotonic() - self._stuck[1] >= STUCK_SECONDS:
            with suppress(OSError):
                if segment_numbers(self._folder)[-1:] > [self.segment]:
                    self._leave()

    def _raise_here(self, missing: int, why: str, *, frames_follow: bool = False) -> None:
        place = (self._journal, self.segment, self.offset)
        self._raise_alarm(Corruption(*place, self._sequence + 1, missing, why, frames_follow))

    def _raise_alarm(self, damage: Corruption) -> None:
        if (damage.segment, damage.offset) not in self._alarmed:
            self._alarmed.add((damage.segment, damage.offset))
            self._alarm(segment_path(self._folder, damage.segment), damage)


def _open_segment(path: Path) -> tuple[int, SegmentHeader, int]:
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return file, *parse_header(os.pread(file, MAX_HEADER_BYTES, 0))
    except BaseException:
        os.close(file)
        raise
