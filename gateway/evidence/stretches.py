"""One stretch of a journal, row by row: whether what stands in the store is what a checkpoint covers.

This is where verification spends its time, so the way through sound records is one loop. At the first sign of a fault
the rows are only counted, and `diagnosis` looks at the stretch again to name what is wrong.

Belongs here: that loop, and going through a journal's rows once. Never here: checkpoints, or several journals.
"""

from collections.abc import Iterator
from hashlib import sha256

from gateway.evidence.accounts import ACCOUNTING_ACTIONS, Accounts
from gateway.evidence.glance import UNREADABLE, decode_glance, wrong_parts
from gateway.evidence.statements import Stretch
from gateway.ports import Row


class JournalRows:
    """The rows of one journal, in order, with the next one in sight; `last` says how far it was covered."""

    def __init__(self, journal: str, rows: Iterator[Row]) -> None:
        self.journal = journal
        self.rows = rows
        self.next: Row | None = next(rows, None)
        self.last = 0

    def advance(self) -> None:
        """Go on to the next row."""
        self.next = next(self.rows, None)

    def before(self, sequence: int) -> list[tuple[Row, int]]:
        """Go on to the first row that does not stand before `sequence`.

        Return what was passed: each run of consecutive places by its first row and its last sequence.
        """
        runs: list[tuple[Row, int]] = []
        while (row := self.next) is not None and row.sequence < sequence:
            if runs and row.sequence == runs[-1][1] + 1:
                runs[-1] = (runs[-1][0], row.sequence)
            else:
                runs.append((row, row.sequence))
            self.advance()
        return runs


class Walked:
    """What was met on the way through the stretches of one checkpoint."""

    def __init__(self) -> None:
        self.leaves: list[bytes] = []
        self.records = 0
        self.stubs = 0
        self.erased = 0


def walk(rows: JournalRows, stretch: Stretch, day: str, accounts: Accounts, walked: Walked) -> bool:
    """Go through the rows of a stretch, which is next, and note its leaves; return whether all of it is sound.

    What the rows say was erased or pruned, and the control records that account for such things, go to `accounts`.
    """
    row, following = rows.next, rows.rows
    head = b"\0" + stretch.journal.encode() + b"\0"
    expected, last = stretch.first, stretch.last
    chain, leaves, sound = bytes.fromhex(stretch.start), walked.leaves, True
    while row is not None and row.sequence <= last:
        sealed = row.sealed
        if row.sequence != expected or row.previous != chain or row.damage:
            sound = False
        number = expected.to_bytes(8, "big")
        if sealed is None:
            chain = row.chain
            walked.stubs += 1
            accounts.note_stub(row, day)
        else:
            chain = sha256(b"".join((chain, number, sealed))).digest()
            walked.records += 1
            try:
                record = decode_glance(sealed)
            except UNREADABLE:
                sound = False
            else:
                if wrong_parts(row, record):
                    sound = False
                if row.erasure is not None:
                    walked.erased += 1
                    accounts.note_erased(row)
                if record.action in ACCOUNTING_ACTIONS:
                    accounts.note_control(row)
        leaves.append(sha256(b"".join((head, number, chain))).digest())
        expected += 1
        row = next(following, None)
    rows.next = row
    return sound and expected == last + 1 and chain.hex() == stretch.end
