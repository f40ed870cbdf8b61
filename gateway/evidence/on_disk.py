"""The journals' segments that are still on the disk, against the store and against each other.

What was shipped from a segment must stand in the store with the same chain; segments follow on each other from the
oldest kept to the newest; and how far a journal has been shipped must lie between two frames. What is not shipped yet
is only held against what comes before it, and a torn end of the newest segment is what a killed writer leaves.

Belongs here: reading segments and comparing. Never here: changing anything, or the store's own order.
"""

from pathlib import Path

from gateway.capture import fits, is_erased
from gateway.chain import genesis, link
from gateway.evidence.findings import Finding, Findings
from gateway.evidence.glance import UNREADABLE, Glance, decode_glance
from gateway.evidence.journal_names import journals_in, worker_folders, worker_of
from gateway.evidence.uncovered import chain_after
from gateway.journal.frames import FRAME_OVERHEAD, Flaw, read_frame, resume
from gateway.journal.segment import (
    HeaderIncomplete,
    HeaderUnreadable,
    SegmentHeader,
    parse_header,
    segment_numbers,
    segment_path,
)
from gateway.ports import AuditStore, JournalPosition, Row
from gateway.sealing import NoContent, unpack_content


class Disk:
    """The journals of one gateway under `journals`, held against its store; `frames` counts, `names` are theirs."""

    def __init__(self, journals: Path, store: AuditStore, findings: Findings) -> None:
        self.journals = journals
        self.store = store
        self.findings = findings
        self.frames = 0
        self.names: set[str] = set()

    def check(self, gateway: str) -> None:
        """Read every segment; what is wrong leaves a finding. Raises `AuditUnavailable` as the store does."""
        for folder in worker_folders(self.journals):
            _Worker(self, folder, gateway).check()
        for name, position in self.store.positions().items():
            if name.startswith(f"{gateway}/") and position.sequence and not (self.journals / worker_of(name)).is_dir():
                self.findings.add(Finding("its segments are gone from the disk", journal=name))


class _Worker:
    """The segments in the folder of one worker: of its journal, and of those before it."""

    def __init__(self, disk: Disk, folder: Path, gateway: str) -> None:
        self._disk = disk
        self._folder = folder
        # Its own journals: by name, or because they stand here, as under another name that the gateway once had.
        self._mine = f"{gateway}/{folder.name}."
        self._here = frozenset(journals_in(folder))
        gaps = [gap for gap in disk.store.gaps() if self._is_mine(gap.journal) or gap.journal == folder.name]
        self._gaps = frozenset((gap.segment, gap.offset) for gap in gaps)
        self._positions = self._read_positions()
        self._journal = ""
        self._expected = 0
        self._chain: bytes | None = None
        self._before = -1
        self._lost = False
        self._met: set[str] = set()

    def _read_positions(self) -> dict[str, JournalPosition]:
        positions = self._disk.store.positions()
        return {name: one for name, one in positions.items() if self._is_mine(name)}

    def _is_mine(self, journal: str) -> bool:
        return journal.startswith(self._mine) or journal in self._here

    def check(self) -> None:
        numbers = segment_numbers(self._folder)
        self._contiguous(numbers)
        for number in numbers:
            self._segment(number, newest=number == numbers[-1])
        self._shipped_to(numbers)

    # ── which segments there are ─────────────────────────────────────────────────────────────────────────────────

    def _contiguous(self, numbers: list[int]) -> None:
        """From the newest down no segment may be missing; below the oldest only damaged ones are kept."""
        damaged = {segment for segment, _ in self._gaps}
        missing = 0
        for below, number in zip(reversed(numbers[:-1]), reversed(numbers[1:]), strict=True):
            missing = missing or (number - 1 if below != number - 1 else 0)
            if missing and below not in damaged:
                self._say(f"segment {missing} is missing", missing)
                return

    def _shipped_to(self, numbers: list[int]) -> None:
        newest = max(self._positions.values(), key=lambda one: one.segment, default=None)
        if newest is not None and newest.segment not in numbers:
            moved_on = self._read_positions().get(newest.journal)
            if moved_on == newest:
                self._say("the segment up to which it has been shipped is gone", newest.segment, newest.journal)
        for name, position in self._positions.items():
            if position.segment in numbers and name not in self._met:
                what = "how far it has been shipped does not lie between two of its frames"
                self._say(what, position.segment, name, position.sequence)

    # ── one segment ──────────────────────────────────────────────────────────────────────────────────────────────

    def _segment(self, number: int, *, newest: bool) -> None:
        try:
            data = segment_path(self._folder, number).read_bytes()
        except FileNotFoundError:
            return  # deleted meanwhile, because it was shipped
        try:
            header, start = parse_header(data)
        except HeaderIncomplete:
            if not newest:
                self._say("its header is cut short", number)
            return
        except HeaderUnreadable as error:
            if (number, 0) not in self._gaps:
                self._say(str(error), number)
            return
        self._enter(number, header)
        self._frames(number, data, start, newest=newest)
        self._before = number

    def _enter(self, number: int, header: SegmentHeader) -> None:
        self._disk.names.add(header.journal)
        excused = (number, 0) in self._gaps or self._lost
        if header.segment != number:
            self._say(f"it says that it is segment {header.segment}", number, header.journal)
        if header.journal == self._journal and self._before == number - 1:
            if (header.first_sequence, header.chain) != (self._expected, self._chain) and not excused:
                self._say("it does not follow on the segment before it", number, header.journal, header.first_sequence)
        elif header.first_sequence == 1 and header.chain != genesis(header.journal):
            self._say("it does not begin as its journal does", number, header.journal, 1)
        elif header.first_sequence > 1 and self._before == number - 1 and not excused:
            self._say("it is of another journal than the segment before it", number, header.journal)
        if worker_of(header.journal) != self._folder.name:
            self._say("it is of the journal of another worker", number, header.journal)
        self._journal, self._expected, self._chain = header.journal, header.first_sequence, header.chain
        self._lost = False

    def _frames(self, number: int, data: bytes, start: int, *, newest: bool) -> None:
        view, at = memoryview(data), start
        position = self._positions.get(self._journal)
        shipped = position.sequence if position is not None else 0
        rows = _Lockstep(self._disk.store, self._journal, self._expected, shipped)
        while True:
            self._meet(number, at)
            if at >= len(view):
                return
            frame = read_frame(view, at)
            told = (number, at) in self._gaps
            if isinstance(frame, Flaw) or frame[0] != self._expected:
                torn = newest and isinstance(frame, Flaw) and self._expected > shipped
                if not told and not torn:
                    flaw = frame.value if isinstance(frame, Flaw) else Flaw.SEQUENCE.value
                    self._say(f"a frame {flaw}", number, self._journal, self._expected)
                onward = resume(view, at, self._expected)
                if onward is None:
                    self._chain, self._lost = None, True
                    return
                at, self._expected = onward
                self._chain = None
                continue
            end = at + FRAME_OVERHEAD + len(frame[1])
            wrong = self._frame(frame[1], rows, told=told)
            if not wrong and frame[1] != view[at + FRAME_OVERHEAD : end]:  # it reads as zeros, and is none
                wrong = "a frame was erased, and something still stands where its contents were"
            if wrong:
                self._say(wrong, number, self._journal, self._expected)
            at, self._expected = end, self._expected + 1

    def _meet(self, number: int, at: int) -> None:
        """Note that a frame begins here, or the end is reached, if this is how far the journal has been shipped."""
        position = self._positions.get(self._journal)
        if position is None or (position.segment, position.offset) != (number, at):
            return
        agrees = position.sequence == self._expected - 1 and self._chain in {None, position.chain}
        if agrees or (number, at) in self._gaps:
            self._met.add(self._journal)

    def _frame(self, content: memoryview, rows: "_Lockstep", *, told: bool) -> str:
        """Return what is wrong with a frame, "" if nothing is, and go on to the chain after it."""
        before, self._chain = self._chain, None
        try:
            previous, sealed, request, response = unpack_content(content)
        except NoContent as error:
            return "" if told else f"a frame is no record: {error}"
        self._disk.frames += 1
        self._chain = link(previous, self._expected, sealed)
        if before is not None and previous != before and not told:
            return "a frame does not follow on the one before it"
        row = rows.at(self._expected)
        if row is not None and chain_after(row) != self._chain:
            return "a frame is not the record that stands in the store"
        try:
            record = decode_glance(sealed)
        except UNREADABLE as error:
            return "" if told else f"a frame is no record: {error}"
        return _wrong_parts(row, record, request, response)

    def _say(self, what: str, segment: int, journal: str = "", sequence: int = 0) -> None:
        name = f"{self._folder.name}/{segment_path(self._folder, segment).name}"
        self._disk.findings.add(Finding(what, journal=journal, sequence=sequence, segment=name))


class _Lockstep:
    """The store's rows of one journal up to `last`, asked for in ascending order."""

    def __init__(self, store: AuditStore, journal: str, first: int, last: int) -> None:
        self._rows = iter(store.rows(journal, first, last)) if first <= last else iter(())
        self._next = next(self._rows, None)

    def at(self, sequence: int) -> Row | None:
        """Return the row in this place, if there is one."""
        while self._next is not None and self._next.sequence < sequence:
            self._next = next(self._rows, None)
        return self._next if self._next is not None and self._next.sequence == sequence else None


def _wrong_parts(row: Row | None, record: Glance, request: bytes, response: bytes) -> str:
    for name, part, payload in (("request", request, record.request), ("response", response, record.response)):
        if not part:
            if payload.commitment and not (name == "request" and record.role == "shadow"):
                return f"the {name} of a frame is gone"
        elif is_erased(part):
            if row is not None and row.sealed is not None and row.erasure is None:
                return f"the {name} of a frame was erased, and no erasure tells of that"
        elif not fits(part, payload):
            return f"the {name} of a frame is not the one that was recorded"
    return ""
