"""Making checkpoints: what the recorder has committed is sealed by a signed statement, each bound to the one before.

Belongs here: when one is due, what it covers, and that one which was signed is never signed again otherwise. Never
here: the format (`statements`), reading journals, or sending checkpoints anywhere (`publishing`).
"""

import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway.chain import Tree, leaf
from gateway.evidence.journal_names import gateway_of, journals_in, worker_folders
from gateway.evidence.keys import SigningKey
from gateway.evidence.statements import Statement, Stretch, digest, encode_listing, marks_of, rfc3339, sign
from gateway.evidence.uncovered import uncovered_rows
from gateway.evidence.witness import FILE, Seen, WitnessUnreadable, read_witness, write_witness
from gateway.logs import logger
from gateway.ports import AuditStore, Batch, JournalPosition, PublicKey, SignedCheckpoint

SECONDS: Final = 10.0
RECORDS = 100_000
"""A checkpoint is due when it would cover so many records; a receipt has to read all of them."""


def _tell_nobody(_checkpoint: SignedCheckpoint) -> None:
    pass


class _Run:
    """A stretch that grows: the chain before it and after its last record, and its leaves, 32 bytes each."""

    __slots__ = ("end", "first", "last", "leaves", "start")

    def __init__(self, first: int, start: bytes) -> None:
        self.first = first
        self.last = first - 1
        self.start = self.end = start
        self.leaves: list[bytes] = []


def _no_runs() -> defaultdict[str, defaultdict[str, list[_Run]]]:
    """Return the stretches by day and journal while there are none."""
    return defaultdict(lambda: defaultdict(list))


class Checkpointer:
    """Makes the checkpoints of one gateway. Everything but `last_at_ns` belongs to the recorder's thread.

    `keys` is the folder of the keys, where the witness is kept, too; `journals` that of the journals. `sealed` is
    called with every checkpoint once the store has it. `monotonic` (s) and `now_ns` (Unix ns) tell the time.
    """

    def __init__(
        self,
        store: AuditStore,
        key: SigningKey,
        gateway: str,
        keys: Path,
        *,
        journals: Path | None = None,
        seconds: float = SECONDS,
        sealed: Callable[[SignedCheckpoint], None] = _tell_nobody,
        monotonic: Callable[[], float] = time.monotonic,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._store = store
        self._key = key
        self._gateway = gateway
        self._witness = keys / FILE
        self._journals = journals
        self._seconds = seconds
        self._sealed = sealed
        self._monotonic = monotonic
        self._now_ns = now_ns
        self._number = 0
        self._previous = ""
        self._last_at_ns = 0
        self._ends: dict[str, tuple[int, bytes]] = {}
        self._runs = _no_runs()
        self._records = 0
        self._since = 0.0
        self._offered: SignedCheckpoint | None = None

    @property
    def last_at_ns(self) -> int:
        """When the newest checkpoint was made (Unix ns); 0 while there is none. May be read from any thread."""
        return self._last_at_ns

    def begin(self) -> str:
        """Seal what the store holds beyond the last checkpoint, and return the newest day of it ("": none).

        The key is published first, so no record is ever in a store that does not have it. May be called again.

        Raises:
            AuditUnavailable: the store fails.
            OSError: the journals cannot be read.
        """
        self._ends, self._runs, self._records, self._offered = {}, _no_runs(), 0, None
        self._store.publish_key(PublicKey(self._gateway, self._key.id, self._key.public.pem, self._now_ns()))
        self._take_up(self._store.last_checkpoint(self._gateway))
        for found in uncovered_rows(self._store, self._own_positions()):
            self._add(found.day, found.row.journal, found.row.sequence, found.row.previous, found.chain)
        self.seal()
        days = self._store.days()
        return days[-1].day if days else ""

    def _own_positions(self) -> list[JournalPosition]:
        """Return the positions of the journals that are this gateway's; other gateways may share the store."""
        here = (
            {name for folder in worker_folders(self._journals) for name in journals_in(folder)}
            if self._journals
            else ()
        )
        positions = self._store.positions().items()
        return [one for name, one in positions if gateway_of(name) == self._gateway or name in here]

    def committed(self, batch: Batch) -> None:
        """Note what was committed; a record that was noted before is passed over."""
        for frame in batch.frames:
            self._add(batch.day, frame.journal, frame.sequence, frame.previous, frame.chain)

    def due(self) -> bool:
        """Tell whether what was committed since the last checkpoint should be sealed now."""
        if self._offered is not None or self._records >= RECORDS:
            return True
        return self._records > 0 and self._monotonic() - self._since >= self._seconds

    def seal(self) -> None:
        """Make a checkpoint of what was committed since the last one, one for each day; nothing, when nothing was.

        Raises:
            AuditUnavailable: the store does not take it. The next call offers it the very same one again.
        """
        while self._offered is not None or self._runs:
            if self._offered is None:
                self._offered = self._sign(min(self._runs))
            self._store.seal(self._offered)
            checkpoint, self._offered = self._offered, None
            self._number, self._previous = checkpoint.number, digest(checkpoint.statement)
            self._last_at_ns = checkpoint.at_ns
            self._remember()
            self._sealed(checkpoint)

    def _take_up(self, last: SignedCheckpoint | None) -> None:
        """Go on after the last checkpoint: that of the store, or of the witness, if the store was set back."""
        self._number, self._previous, self._last_at_ns = 0, "", 0
        if last is not None:
            self._number, self._previous, self._last_at_ns = last.number, digest(last.statement), last.at_ns
        try:
            seen = read_witness(self._witness).get(self._gateway)
        except WitnessUnreadable as error:
            logger().error("witness_unreadable", why=str(error))
            return
        if seen is None or seen.number < self._number or seen == Seen(self._number, self._previous):
            return
        # What was signed is never signed otherwise: the gap that stays is what verification has to find.
        logger().error(
            "checkpoints_missing",
            gateway=self._gateway,
            in_store=self._number,
            in_witness=seen.number,
            why="the audit store was set back, or its newest checkpoint was changed; audit verify says more",
        )
        self._number, self._previous = seen.number, seen.sha256

    def _add(self, day: str, journal: str, sequence: int, previous: bytes, chain: bytes) -> None:
        last, end = self._ends.get(journal, (0, b""))
        if sequence <= last:
            return
        runs = self._runs[day][journal]
        if not runs or sequence != last + 1 or previous != end:
            runs.append(_Run(sequence, previous))
        run = runs[-1]
        run.last, run.end = sequence, chain
        run.leaves.append(leaf(journal, sequence, chain))
        self._ends[journal] = (sequence, chain)
        if not self._records:
            self._since = self._monotonic()
        self._records += 1

    def _sign(self, day: str) -> SignedCheckpoint:
        tree, stretches = Tree(), []
        for journal, runs in sorted(self._runs.pop(day).items()):
            for run in runs:
                marks = marks_of(run.leaves)
                stretches.append(Stretch(journal, run.first, run.last, run.start.hex(), run.end.hex(), marks))
                for one in run.leaves:
                    tree.add(one)
        self._records -= tree.size
        listing, at_ns = encode_listing(stretches), self._now_ns()
        said = Statement(
            version=1,
            gateway=self._gateway,
            number=self._number + 1,
            previous=self._previous,
            day=day,
            at=rfc3339(at_ns),
            at_ns=at_ns,
            size=tree.size,
            root=tree.root().hex(),
            listing=digest(listing),
            key=self._key.id,
        )
        return sign(said, listing, self._key)

    def _remember(self) -> None:
        try:
            try:
                known = dict(read_witness(self._witness))
            except WitnessUnreadable:
                known = {}  # told when it was taken up
            write_witness(self._witness, known | {self._gateway: Seen(self._number, self._previous)})
        except OSError as error:
            # The store has the checkpoint; a witness that is behind still finds whatever is set back further.
            logger().error("witness_not_written", file=str(self._witness), why=str(error))
