"""What a record costs in the control process: CPU of reading, counting, committing to SQLite and sealing it.

    .venv/bin/python -m loadtests.recorder_cost [--records 50000] [--at-once 600] [--rounds 3]

Two journals grow by `--at-once` records (as many as come between two looks of the recorder at 6 000 requests/s), the
recorder ships them, and so on; then all of `--records` come at once. Printed are, of the best of a few rounds, the µs
of CPU that the recorder's thread took for a record, and the commits. Records have bodies of 500 and 120 bytes. Figures
depend on the machine; compare those of one run.
"""

import argparse
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from gateway.book import Book
from gateway.evidence.checkpointing import Checkpointer
from gateway.evidence.keys import open_key
from gateway.identity import new_record_id
from gateway.journal import Journal
from gateway.metrics import Board, board_path
from gateway.ports import Batch, Filter
from gateway.record import Attempt
from gateway.recorder import Recorder
from gateway.stores.audit_sqlite import SqliteAudit
from tests.journals import GATEWAY, made

BODY, ANSWER = b"x" * 500, b"y" * 120
DEADLINE_SECONDS = 60.0
Figures = tuple[float, int]


class CountedStore(SqliteAudit):
    """The real store, and how many transactions it was given."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.commits = 0

    def write(self, batch: Batch) -> None:
        """Commit a batch."""
        super().write(batch)
        self.commits += 1


class Rig:
    """Journals of two workers, and the recorder with all that it works with in the control process."""

    def __init__(self, folder: Path) -> None:
        (folder / "run").mkdir(parents=True)
        self._boards = [Board(board_path(folder / "run", number)) for number in range(2)]
        self._journals = [
            Journal(folder / "journal", f"w{number}", 64 * 2**20, board, gateway=GATEWAY)
            for number, board in enumerate(self._boards)
        ]
        self.store = CountedStore(folder / "audit")
        self._book = Book(folder / "run")
        checkpoints = Checkpointer(self.store, open_key(folder / "keys"), GATEWAY, folder / "keys")
        self.recorder = Recorder(folder / "journal", self.store, checkpoints, self._book.observe, 600.0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self.recorder.run, args=(self._stop,))
        self._written = 0

    def append(self, count: int) -> None:
        """Append so many records to the journals in turn."""
        for _ in range(count):
            self._written += 1
            at_ns = time.time_ns()
            record_id = new_record_id(at_ns)
            fields = {
                "record_id": record_id, "request_id": record_id, "received_ns": at_ns, "digest": "5f" * 32,
                "intended": "1", "served": "1", "reason": "split", "rule": "split", "keyed": True, "revision": 3,
                "unit": f"{self._written % 5000:032x}", "attempts": (Attempt("1", "http://127.0.0.1:9", 120, 200),),
                "infer_us": 120, "total_us": 240 + self._written % 1000, "client": "127.0.0.1", "gateway": GATEWAY,
            }  # fmt: skip
            self._journals[self._written % 2].append(*made(self._written, BODY, ANSWER, **fields))

    def start(self) -> Callable[[], float]:
        """Start the recorder; return what tells the CPU time of its thread (s)."""
        self._thread.start()
        assert self._thread.ident is not None
        clock = time.pthread_getcpuclockid(self._thread.ident)
        return lambda: time.clock_gettime(clock)

    def ship(self) -> None:
        """Return when all is in the store."""
        assert self.recorder.catch_up(DEADLINE_SECONDS), "the recorder is stuck"

    def close(self) -> None:
        """End all of it; every record must be in the store."""
        self._stop.set()
        self._thread.join()
        assert self.store.count(Filter()) == self._written, "records are missing"
        for journal in self._journals:
            journal.close()
        for board in self._boards:
            board.close()
        self._book.close()
        self.store.close()


def cost(folder: Path, records: int, at_once: int) -> Figures:
    """Return CPU µs for a record, and commits, of records that come so many at once."""
    rig = Rig(folder)
    try:
        rig.append(1)  # a day begins with its first record
        cpu_seconds = rig.start()
        rig.ship()
        spent, commits = cpu_seconds(), rig.store.commits
        for start in range(0, records, at_once):
            rig.append(min(at_once, records - start))
            rig.ship()
        return (cpu_seconds() - spent) / records * 1e6, rig.store.commits - commits
    finally:
        rig.close()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=50_000)
    parser.add_argument("--at-once", type=int, default=600)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    table = Table("records", "CPU µs each", "commits")
    with tempfile.TemporaryDirectory() as name:
        for label, at_once in ((f"{options.at_once} at once", options.at_once), ("a backlog", options.records)):
            rounds = [cost(Path(name) / f"{at_once}-{n}", options.records, at_once) for n in range(options.rounds)]
            spent, commits = min(rounds)
            table.add_row(label, f"{spent:.1f}", str(commits))
    Console().print(table)


if __name__ == "__main__":
    main()
