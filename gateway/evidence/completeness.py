"""Evidence that nothing is missing: for each journal, what was served against what is recorded, or known not to be.

    served = recorded + pruned + quarantined + pending + missing

`served` is the last sequence that any trace of a journal tells of: the store, how far it was shipped, the segments on
the disk, or the worker's board, which survives the worker. Within times it is the sequences between the first and the
last record that was received then; what is pending is then counted by its own time.

Belongs here: counting. Never here: whether the records that are there are genuine (`verification`).
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from gateway.evidence.glance import UNREADABLE, decode_glance
from gateway.evidence.journal_names import gateway_of, worker_folders, worker_of
from gateway.gauges import BoardFolder
from gateway.journal.frames import FRAME_OVERHEAD, Flaw, read_frame
from gateway.journal.segment import HeaderIncomplete, HeaderUnreadable, parse_header, segment_numbers, segment_path
from gateway.metrics import Slot
from gateway.ports import AuditStore, Dropped, Filter, Gap, Holding, JournalPosition
from gateway.sealing import NoContent, unpack_content

LOST = "records.lost"
_PAGE = 500


class JournalCount(Struct, frozen=True):
    """The account of one journal; all are numbers of records.

    `recorded` are in the store, `pending` in the journal and not shipped yet, `quarantined` could not be read and are
    told of by gaps, `pruned` were taken out when their time was over. `missing` is what nothing tells of.
    """

    gateway: str
    worker: str
    journal: str
    served: int
    recorded: int
    pending: int
    quarantined: int
    pruned: int
    missing: int


class Completeness(Struct, frozen=True):
    """The account of every journal, and by gateway the predictions that were served without a record (`lost`)."""

    journals: Sequence[JournalCount]
    lost: Mapping[str, int]

    @property
    def complete(self) -> bool:
        """Whether nothing is missing, quarantined or lost."""
        return not any(one.missing or one.quarantined for one in self.journals) and not any(self.lost.values())


class Unshipped(Struct, frozen=True):
    """What the segments of a journal tell: the last sequence, and when the records beyond a position were received."""

    last: int
    received_ns: Sequence[int]


def board_sequences(run_folder: Path) -> Mapping[str, int]:
    """Return the last sequence that each worker wrote, by the worker's name (`w0`, …), from the boards in a folder."""
    boards = BoardFolder(run_folder)
    try:
        return {
            f"w{name.removeprefix('worker-')}": board[Slot.JOURNAL_SEQUENCE] for name, board in boards.open().items()
        }
    finally:
        boards.close()


def completeness(
    store: AuditStore,
    gateway: str,
    journals: Path,
    boards: Mapping[str, int],
    *,
    since_ns: int | None = None,
    until_ns: int | None = None,
) -> Completeness:
    """Return the account of every journal that the store knows, and of this gateway's that stand in `journals`.

    `boards` is what `board_sequences` returns. Times are received times in Unix ns, `until_ns` excluded. Blocks.

    Raises:
        AuditUnavailable: the store cannot be read.
        OSError: a journal cannot be read.
    """
    whole = since_ns is None and until_ns is None
    # First what may still grow, then the store: so nothing that is shipped meanwhile is counted as missing.
    positions = store.positions()
    unshipped = _read_journals(journals, positions)
    newest = _newest_journals(positions, unshipped, gateway)
    positions = store.positions()
    held: dict[str, list[Holding]] = {}
    for one in store.holdings(since_ns, until_ns):
        held.setdefault(one.journal, []).append(one)
    dropped = store.dropped() if whole else ()
    counts = []
    for journal in sorted({*held, *unshipped, *(positions if whole else ()), *(one.journal for one in dropped)}):
        gaps = [gap for gap in store.gaps() if gap.journal == journal]
        found = unshipped.get(journal, Unshipped(0, ()))
        if whole:
            written = boards.get(worker_of(journal), 0) if journal in newest else 0
            gone = [one for one in dropped if one.journal == journal]
            counts.append(_whole(journal, held.get(journal, ()), positions.get(journal), found, written, gaps, gone))
        elif journal in held or any(_within(at, since_ns, until_ns) for at in found.received_ns):
            pending = sum(_within(at, since_ns, until_ns) for at in found.received_ns)
            counts.append(_stretch(journal, held.get(journal, ()), pending, gaps))
    return Completeness(tuple(counts), _lost(store, since_ns, until_ns))


# ── one journal ──────────────────────────────────────────────────────────────────────────────────────────────────────


def _whole(  # noqa: PLR0917 - every trace of a journal
    journal: str,
    held: Iterable[Holding],
    position: JournalPosition | None,
    found: Unshipped,
    written: int,
    gaps: Sequence[Gap],
    dropped: Iterable[Dropped],
) -> JournalCount:
    shipped = position.sequence if position is not None else 0
    holdings = list(held)
    recorded = sum(one.records for one in holdings)
    # What a dropped day held of stubs is not told apart any more; all its places but those of gaps were pruned.
    gone = sum(one.last - one.first + 1 - _told(gaps, one.first, one.last) for one in dropped)
    pruned = sum(one.stubs for one in holdings) + gone
    last = max([shipped, found.last, written, *(one.last for one in holdings)])
    pending = max(0, found.last - shipped)
    absent = last - recorded - pruned - pending
    quarantined = _quarantined(absent, gaps)
    return _count(journal, last, recorded, pending, quarantined, pruned, absent)


def _stretch(journal: str, held: Iterable[Holding], pending: int, gaps: Sequence[Gap]) -> JournalCount:
    holdings = list(held)
    first, last = min((one.first for one in holdings), default=1), max((one.last for one in holdings), default=0)
    recorded, pruned = sum(one.records for one in holdings), sum(one.stubs for one in holdings)
    between = last - first + 1
    inside = [gap for gap in gaps if first <= gap.first <= last]
    absent = between - recorded - pruned
    return _count(journal, between + pending, recorded, pending, _quarantined(absent, inside), pruned, absent)


def _quarantined(absent: int, gaps: Sequence[Gap]) -> int:
    """Return how many of the absent records the gaps tell of; one of unknown length (count 0) may be all of them."""
    if any(gap.count == 0 for gap in gaps):
        return max(0, absent)
    return max(0, min(absent, sum(gap.count for gap in gaps)))


def _told(gaps: Sequence[Gap], first: int, last: int) -> int:
    """Return how many records between two sequences the gaps tell of."""
    return sum(gap.count for gap in gaps if first <= gap.first <= last)


def _count(  # noqa: PLR0917 - the fields of the account, in their order
    journal: str, served: int, recorded: int, pending: int, quarantined: int, pruned: int, absent: int
) -> JournalCount:
    missing = max(0, absent - quarantined)
    names = gateway_of(journal), worker_of(journal), journal
    return JournalCount(*names, served, recorded, pending, quarantined, pruned, missing)


def _within(at_ns: int, since_ns: int | None, until_ns: int | None) -> bool:
    return (since_ns is None or at_ns >= since_ns) and (until_ns is None or at_ns < until_ns)


def _newest_journals(
    positions: Mapping[str, JournalPosition], unshipped: Mapping[str, Unshipped], gateway: str
) -> frozenset[str]:
    """Return the journal of each worker of a gateway that its board tells of: the one written last."""
    newest: dict[str, tuple[int, str]] = {}
    for order, journal in enumerate(unshipped):
        newest[worker_of(journal)] = (order, journal)
    for journal, position in positions.items():
        if journal.startswith(f"{gateway}/") and worker_of(journal) not in newest:
            newest[worker_of(journal)] = (position.segment, journal)
    return frozenset(journal for _, journal in newest.values())


# ── the journals on the disk ─────────────────────────────────────────────────────────────────────────────────────────


def _read_journals(journals: Path, positions: Mapping[str, JournalPosition]) -> Mapping[str, Unshipped]:
    """Return what the segments tell of each journal, those of one worker in the order in which they were begun."""
    found: dict[str, Unshipped] = {}
    for folder in worker_folders(journals):
        for number in segment_numbers(folder):
            _read_segment(segment_path(folder, number), number, positions, found)
    return found


def _read_segment(
    path: Path, number: int, positions: Mapping[str, JournalPosition], found: dict[str, Unshipped]
) -> None:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return  # deleted meanwhile, because it was shipped
    try:
        header, at = parse_header(data)
    except (HeaderIncomplete, HeaderUnreadable):
        return
    known = found.pop(header.journal, Unshipped(header.first_sequence - 1, ()))
    position = positions.get(header.journal)
    last, received = max(known.last, header.first_sequence - 1), list(known.received_ns)
    if position is None or position.segment <= number:
        if position is not None and position.segment == number:
            at, last = position.offset, max(last, position.sequence)
        view = memoryview(data)
        while not isinstance(frame := read_frame(view, at), Flaw) and frame[0] > last:
            last, at = frame[0], at + FRAME_OVERHEAD + len(frame[1])
            received.append(_received_ns(frame[1]))
    found[header.journal] = Unshipped(last, received)


def _received_ns(content: memoryview) -> int:
    try:
        return decode_glance(unpack_content(content)[1]).received_ns
    except (NoContent, *UNREADABLE):
        return 0


# ── what was served without a record ─────────────────────────────────────────────────────────────────────────────────


def _lost(store: AuditStore, since_ns: int | None, until_ns: int | None) -> Mapping[str, int]:
    """Return by gateway how many predictions `records.lost` records tell of, those that overlap the times."""
    lost: dict[str, int] = {}
    after: str | None = None
    while True:
        # A loss is told of after it happened, so only those that were told before the times cannot matter.
        page = store.page(Filter(role="control", action=LOST, since_ns=since_ns), after, _PAGE)
        for record in page.records:
            count, first, last = (record.details.get(name) for name in ("count", "first_ns", "last_ns"))
            starts_in_time = until_ns is None or not isinstance(first, int) or first < until_ns
            ends_in_time = since_ns is None or not isinstance(last, int) or last >= since_ns
            if isinstance(count, int) and starts_in_time and ends_in_time:
                lost[record.gateway] = lost.get(record.gateway, 0) + count
        if page.next is None:
            return lost
        after = page.next
