"""Verification: everything that the audit store holds, walked once more and held against what was signed.

    checkpoints     numbers without a gap, each bound to the one before, signed by the right key   (`succession`)
    records         every row of every stretch: place, chain, leaf, root, parts, columns           (`stretches`)
    journals        stretches follow on each other; rows outside of them are no one's              (`continuity`)
    what is gone    erased contents, stubs and dropped days are told of by control records         (`accounts`)
    outside         the witness, exported checkpoints, the journals' segments on the disk          (`on_disk`)

What came after the newest checkpoint is held against its journal only: nothing vouches for it yet.

Belongs here: the order of these. Never here: any of them, or HTTP.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from gateway.chain import root_of
from gateway.evidence.accounts import ACCOUNTING_ACTIONS, Accounts, Control
from gateway.evidence.against import Against
from gateway.evidence.continuity import Continuity
from gateway.evidence.diagnosis import diagnose
from gateway.evidence.findings import Finding, Findings, Verdict
from gateway.evidence.glance import read_record_id
from gateway.evidence.journal_names import gateway_of
from gateway.evidence.on_disk import Disk
from gateway.evidence.outside import remembered
from gateway.evidence.proven_control import proven_control
from gateway.evidence.statements import Stretch
from gateway.evidence.stretches import JournalRows, Walked, walk
from gateway.evidence.succession import Checked, Succession
from gateway.evidence.trust import Trust
from gateway.evidence.uncovered import chain_after
from gateway.ports import AuditStore, Filter, Holding, Place, SignedCheckpoint

__all__ = ["Against", "verify"]
_TRIES = 3
_UNDER_WAY_NS = 5 * 10**9
Progress = Callable[[int, int], None]
"""Called now and then with the number of records that are done, and of all."""


def _tell_nobody(_done: int, _total: int) -> None:
    pass


def verify(store: AuditStore, against: Against, progress: Progress = _tell_nobody) -> Verdict:
    """Verify what a store holds and return the verdict. Blocks for as long as it takes.

    Records may come meanwhile; what is looked at is what the newest checkpoint at the beginning covers. Where something
    is found and contents were erased or pruned meanwhile, everything is looked at once more.

    Raises:
        AuditUnavailable: the store cannot be read.
        OSError: the exported file or a journal cannot be read.
    """
    for _ in range(_TRIES):
        began_ns = time.time_ns()
        verdict = _Verification(store, against, progress).run()
        if verdict.holds or not _taken_since(store, began_ns):
            break
    return verdict


def _taken_since(store: AuditStore, began_ns: int) -> bool:
    """Tell whether an erasure or a pruning came between, so that what was found may be what it took.

    One that is recorded shortly before may still have been under way.
    """
    since_ns = began_ns - _UNDER_WAY_NS
    wanted = (Filter(role="control", action=action, since_ns=since_ns) for action in ACCOUNTING_ACTIONS)
    return any(store.page(one, None, 1).records for one in wanted)


class _Verification:
    def __init__(self, store: AuditStore, against: Against, progress: Progress) -> None:
        self._store = store
        self._against = against
        self._progress = progress
        self._findings = Findings()
        own = {against.gateway: against.own} if against.own is not None else {}
        self._trust = Trust(against.public_keys, own, store.keys(), self._findings)
        expected = remembered(against.exported, against.witness, self._trust, self._findings)
        # What is covered is fixed first, then what the store holds, so all that is covered lies within that.
        last = {gateway: store.last_checkpoint(gateway) for gateway in self._trust.gateways}
        self._last = {gateway: one.number if one is not None else 0 for gateway, one in last.items()}
        self._positions = store.positions()
        self._gaps = store.gaps()
        self._dropped = store.dropped()
        self._held: dict[str, list[Holding]] = {}
        for one in store.holdings():
            if against.has(one.day):
                self._held.setdefault(one.journal, []).append(one)
        self._total = sum(one.records + one.stubs for held in self._held.values() for one in held)
        self._succession = Succession(self._trust, expected, self._findings)
        self._accounts = Accounts()
        self._rows: dict[str, JournalRows] = {}
        self._continuity: dict[str, Continuity] = {}
        self._covered: dict[tuple[str, str], Holding] = {}
        self._walked = Walked()
        self._met: list[Finding] = []
        self._tails: dict[str, int] = {}
        self._checkpoints = 0
        self._frames = 0

    def run(self) -> Verdict:
        for checkpoint in self._store.checkpoints():
            if checkpoint.number <= self._last.get(checkpoint.gateway, checkpoint.number):
                self._checkpoint(checkpoint)
        self._succession.close()
        for journal in sorted(self._held):
            self._tail(journal)
        self._days()
        self._accounts.settle(self._store, self._succession.gone, self._dropped, self._look_up, self._findings)
        if self._against.whole:
            self._ends()
            if self._against.journals is not None:
                self._disk(self._against.journals)
        self._progress(self._total, self._total)
        return Verdict(
            records=self._walked.records,
            stubs=self._walked.stubs,
            erased=self._walked.erased,
            uncovered=sum(self._tails.values()),
            checkpoints=self._checkpoints,
            frames=self._frames,
            count=self._findings.count,
            findings=tuple(self._findings.kept),
        )

    # ── checkpoints and what they cover ──────────────────────────────────────────────────────────────────────────

    def _checkpoint(self, checkpoint: SignedCheckpoint) -> None:
        inside = self._against.has(checkpoint.day)
        checked = self._succession.check(checkpoint, verify=inside)
        if not inside:
            for stretch in checked.stretches:
                self._follow(stretch, checkpoint.day)
            return
        self._checkpoints += 1
        self._walked.leaves.clear()
        unsound = [stretch for stretch in checked.stretches if not self._stretch(stretch, checkpoint)]
        leaves, said = self._walked.leaves, checked.statement
        root_holds = said is not None and len(leaves) == said.size and root_of(leaves).hex() == said.root
        only_root = not unsound and said is not None and not root_holds
        named = [
            finding
            for stretch in (checked.stretches if only_root else unsound)
            for finding in diagnose(
                self._store, stretch, checkpoint.day, root_holds=root_holds, signed=said is not None
            )
        ]
        self._met += named
        self._say_in_order()
        if only_root and not named:
            self._say_root(checkpoint, checked)
        self._accounts.confirm(covered=not unsound and root_holds)
        self._progress(min(self._walked.records + self._walked.stubs, self._total), self._total)

    def _stretch(self, stretch: Stretch, checkpoint: SignedCheckpoint) -> bool:
        day, number = checkpoint.day, checkpoint.number
        self._follow(stretch, day)
        rows = self._rows_of(stretch.journal)
        self._outside(rows, stretch.first, day)
        sound = walk(rows, stretch, day, self._accounts, self._walked)
        rows.last = max(rows.last, stretch.last)
        covered = self._covered.get((stretch.journal, day))
        size, first = (covered.records, covered.first) if covered is not None else (0, stretch.first)
        self._covered[stretch.journal, day] = Holding(stretch.journal, day, first, stretch.last, size + stretch.size, 0)
        if sound and not self._is_found(stretch, number):
            what = f"the store does not find checkpoint {number}, which covers it"
            self._met.append(Finding(what, "", stretch.journal, stretch.first, "", day, number))
        return sound

    def _is_found(self, stretch: Stretch, number: int) -> bool:
        """Tell whether a look-up from a place to its checkpoint works, on which receipts depend."""
        for sequence in {stretch.first, stretch.last}:
            found = self._store.checkpoint_of(Place(stretch.journal, sequence))
            if found is None or found.number != number:
                return False
        return True

    def _follow(self, stretch: Stretch, day: str) -> None:
        self._continuity_of(stretch.journal).follow(stretch, day)

    def _continuity_of(self, journal: str) -> Continuity:
        found = self._continuity.get(journal)
        if found is None:
            found = self._continuity[journal] = Continuity(journal, self._gaps, self._dropped, self._findings)
        return found

    def _rows_of(self, journal: str) -> JournalRows:
        found = self._rows.get(journal)
        if found is None:
            held = self._held.get(journal, [])
            first, last = min((one.first for one in held), default=1), max((one.last for one in held), default=0)
            rows = iter(self._store.rows(journal, first, last)) if held else iter(())
            found = self._rows[journal] = JournalRows(journal, rows)
        return found

    def _outside(self, rows: JournalRows, before: int, day: str) -> None:
        for row, last in rows.before(before):
            which = "it stands" if last == row.sequence else f"it and all up to {last} stand"
            what = f"{which} outside every checkpoint"
            self._met.append(Finding(what, "", row.journal, row.sequence, read_record_id(row.sealed), day))

    def _say_in_order(self) -> None:
        """Note what was met since the last call, in the order in which a checkpoint lists records."""
        for finding in sorted(self._met, key=lambda one: (one.journal, one.sequence)):
            self._findings.add(finding)
        self._met.clear()

    def _say_root(self, checkpoint: SignedCheckpoint, checked: Checked) -> None:
        """The chain holds and the root does not, and no marks tell more: only stubs, whose own chain is taken as they
        say, can do that.
        """
        for stretch in checked.stretches:
            for row in self._store.rows(stretch.journal, stretch.first, stretch.last):
                if row.sealed is None:
                    what = "what pruning left of it, or of others beside it, is not what was covered"
                    where = Finding(what, checkpoint.gateway, row.journal, row.sequence, "", checkpoint.day)
                    self._findings.add(where)
                    return
        what = f"checkpoint {checkpoint.number}: the records that it covers do not give its root"
        self._findings.add(Finding(what, checkpoint.gateway, day=checkpoint.day, checkpoint=checkpoint.number))

    def _look_up(self, record_id: str) -> Control | str:
        return proven_control(self._store, self._trust, record_id, self._against.patience_seconds)

    # ── what no checkpoint covers ────────────────────────────────────────────────────────────────────────────────

    def _tail(self, journal: str) -> None:
        """Look at the rows after the last one that is covered: only the newest records of a journal may be there."""
        rows, continuity = self._rows_of(journal), self._continuity_of(journal)
        self._outside(rows, rows.last + 1, "")
        self._say_in_order()
        first = row = rows.next
        if first is None:
            return
        why, count = self._no_tail(journal, first.sequence), 0
        while row is not None:
            if not why:
                continuity.go_to(row.sequence, row.previous, "")
                if row.damage:
                    where = Finding(row.damage, "", journal, row.sequence, read_record_id(row.sealed))
                    self._findings.add(where)
            continuity.last, continuity.chain = max(continuity.last, row.sequence), chain_after(row)
            count += 1
            rows.advance()
            row = rows.next
        if why:
            self._findings.add(Finding(why, "", journal, first.sequence, read_record_id(first.sealed)))
        else:
            self._tails[journal] = count

    def _no_tail(self, journal: str, first: int) -> str:
        """Say why rows cannot be the newest of a journal, "" when they can."""
        gateway = gateway_of(journal)
        if gateway not in self._trust.gateways:
            return "it is of a gateway that never published a key"
        newest = self._succession.newest.get(gateway)
        day = next((one.day for one in self._held[journal] if one.last >= first), "")
        return "it stands outside every checkpoint" if newest is not None and day < newest.day else ""

    def _days(self) -> None:
        """See that every day holds just what its checkpoints cover, and the newest day what came since as well.

        What a store holds is counted, so this also finds records that it does not show where they should stand.
        """
        for journal, day in sorted({*self._covered, *((one.journal, one.day) for one in self._holdings())}):
            if journal in self._findings.journals:
                continue  # what is wrong with it is told already, and would be told once more
            held = next((one for one in self._held.get(journal, ()) if one.day == day), None)
            covered = self._covered.get((journal, day), Holding(journal, day, 1, 0, 0, 0))
            newest = self._succession.newest.get(gateway_of(journal))
            tail = self._tails.get(journal, 0) if newest is None or day >= newest.day else 0
            size = held.records + held.stubs if held is not None else 0
            if held is None or size < covered.records or size > covered.records + tail or held.first < covered.first:
                what = f"the records of the day {day} are not all and only those that its checkpoints cover"
                self._findings.add(Finding(what, "", journal, _odd_place(held, covered), "", day))

    def _holdings(self) -> Iterator[Holding]:
        return (one for held in self._held.values() for one in held)

    def _ends(self) -> None:
        after = self._store.positions()
        for journal in sorted({*self._continuity, *self._positions, *(one.journal for one in self._dropped)}):
            self._continuity_of(journal).end(self._positions.get(journal), after.get(journal))
        for gap in self._gaps:
            # Where a segment's header cannot be read, its gap bears the name of the worker, which has no gateway in it.
            if "/" in gap.journal and gap.journal not in after:
                what = "a gap is told of in a journal that was never shipped"
                self._findings.add(Finding(what, journal=gap.journal, sequence=gap.first))

    def _disk(self, journals: Path) -> None:
        disk = Disk(journals, self._store, self._findings)
        disk.check(self._against.gateway)
        self._frames = disk.frames
        for journal, continuity in sorted(self._continuity.items()):
            own = journal.startswith(f"{self._against.gateway}/")
            if own and continuity.last > self._rows_of(journal).last and journal not in disk.names:
                what = "it is covered by no checkpoint, and no segment of its journal is on the disk"
                self._findings.add(Finding(what, journal=journal, sequence=continuity.last))


def _odd_place(held: Holding | None, covered: Holding) -> int:
    """Return the sequence that a day holds beyond those that are covered, as far as its first and last one tell."""
    if held is None or covered.first <= held.first <= held.last <= covered.last:
        return covered.first
    return held.first if held.first < covered.first or covered.records == 0 else held.last
