"""Run by tests as a process of its own: kills a worker or a recorder again and again, and tells what each had done.

    python -m tests.gateway.crashing_journal writers FOLDER ROUNDS    one journal, its writers killed at random moments
    python -m tests.gateway.crashing_journal recorders FOLDER ROUNDS  one writer, and recorders killed at random moments

Forked children are quick to start, so many lives fit into a second. What happened is written to FOLDER/told.json.
"""

import json
import os
import random
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway.metrics import Board
from gateway.record import Frame
from gateway.recorder import Recorder
from gateway.stores.audit_sqlite import SqliteAudit
from tests.journals import CountedCheckpoints, made, open_journal

LARGEST_BODY = 300_000


def main() -> None:
    what, folder, rounds = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    told = kill_writers(folder, rounds) if what == "writers" else kill_recorders(folder, rounds)
    (folder / "told.json").write_text(json.dumps(told))


def kill_writers(folder: Path, rounds: int) -> list[int]:
    """Return the number of the last append that had returned in each life; the kill waits for the first."""
    returned = []
    for life in range(rounds):
        reading, writing = os.pipe()
        child = _fork(lambda life=life, writing=writing: _append_for_ever(folder, life, writing))  # type: ignore[misc]
        os.close(writing)
        heard = os.read(reading, 8)
        time.sleep(random.uniform(0, 0.02))  # the moment of the kill, not a wait
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        while more := os.read(reading, 65_536):
            heard += more
        os.close(reading)
        returned.append(struct.unpack("<q", heard[-8:])[0])
    return returned


def _append_for_ever(folder: Path, life: int, telling: int) -> None:
    journal = open_journal(folder / "journal", Board(folder / "worker-0.board"), 400_000)
    chance = random.Random(os.getpid())
    for number in range(8_000):  # so many fit into the pipe; it must not be what keeps us waiting
        size = chance.randint(0, LARGEST_BODY) if number % 5 == 4 else chance.randint(0, 2_000)
        journal.append(*made(f"{life}-{number}", random.randbytes(size)))
        os.write(telling, struct.pack("<q", number))
    signal.pause()


def kill_recorders(folder: Path, rounds: int) -> dict[str, int]:
    """Return how many records were written, and how many lives of recorders it took to ship them."""
    done = folder / "written"
    writer = _fork(lambda: _append_until(folder, done))
    lives = 0
    while lives < rounds:
        child = _fork(lambda: _record_for_ever(folder))
        time.sleep(random.uniform(0.005, 0.08))  # the moment of the kill, not a wait
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        lives += 1
    done.touch()
    os.waitpid(writer, 0)
    last = _fork(lambda: _record_what_is_there(folder))
    _, status = os.waitpid(last, 0)
    return {"lives": lives, "status": status, "written": int((folder / "count").read_text())}


def _append_until(folder: Path, done: Path) -> None:
    journal = open_journal(folder / "journal", Board(folder / "worker-0.board"), 100_000)
    number = 0
    while not done.exists():
        for _ in range(20):
            journal.append(*made(number, random.randbytes(random.randint(0, 1_500)), received_ns=time.time_ns()))
            number += 1
        time.sleep(0.002)  # a pace, not a wait
    journal.close()
    (folder / "count").write_text(str(number))


def _record_for_ever(folder: Path) -> None:
    store = SqliteAudit(folder / "audit")
    Recorder(folder / "journal", store, CountedCheckpoints(), _count_nothing, 0.0).run(threading.Event())


def _record_what_is_there(folder: Path) -> None:
    stop = threading.Event()
    stop.set()
    store = SqliteAudit(folder / "audit")
    Recorder(folder / "journal", store, CountedCheckpoints(), _count_nothing, 0.0).run(stop)
    store.close()


def _count_nothing(_: Sequence[Frame]) -> None:
    pass


def _fork(work: Callable[[], None]) -> int:
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException:  # noqa: BLE001 - told on stderr; the copy of the parent must not run on
            sys.excepthook(*sys.exc_info())
            os._exit(1)
        os._exit(0)
    return child


if __name__ == "__main__":
    main()
