"""A process that writes the audit store in SQLite is killed, again and again: what it had committed is all there."""

import multiprocessing
import random
from datetime import date, timedelta
from multiprocessing.connection import Connection
from pathlib import Path

from gateway.chain import genesis, link
from gateway.ports import Filter
from gateway.stores.audit_sqlite import SqliteAudit
from tests.records import JOURNAL, ChainedJournal, batch, new_checkpoint, new_record

LIVES = 12
_BATCH = 25


def _write(folder: Path, to_test: Connection) -> None:
    """Go on where the store is, a new day every few batches, and send the sequence after each commit."""
    store = SqliteAudit(folder)
    chain = ChainedJournal()
    known = store.positions().get(JOURNAL)
    if known is not None:
        chain.sequence, chain.chain = known.sequence, known.chain
    while True:
        first = chain.sequence
        day = f"{date(2026, 1, 1) + timedelta(days=first // (4 * _BATCH)):%Y-%m-%d}"
        frames = chain.frames(*(new_record(first + nth, request_id=f"q-{first + nth}") for nth in range(_BATCH)))
        store.write(batch(frames, day))
        to_test.send(chain.sequence)
        if first % (3 * _BATCH) == 0:
            last = store.last_checkpoint("gw-a")
            store.seal(new_checkpoint(last.number + 1 if last is not None else 1, frames, day))


def test_a_store_whose_writer_is_killed_has_every_record_once_and_its_positions_with_them(tmp_path: Path) -> None:
    folder, drawn, told = tmp_path / "audit", random.Random(11), 0
    for _ in range(LIVES):
        here, there = multiprocessing.Pipe(duplex=False)
        writing = multiprocessing.get_context("spawn").Process(target=_write, args=(folder, there))
        writing.start()
        there.close()
        for _ in range(drawn.randrange(1, 12)):
            assert here.poll(60), "the writer says nothing"
            told = here.recv()
        writing.kill()
        writing.join()
        while here.poll():
            try:
                told = here.recv()
            except EOFError:
                break
        told = _check(folder, told)


def _check(folder: Path, told: int) -> int:
    """Check the store as it is found, and return how many records it has."""
    store = SqliteAudit(folder, read_only=True)
    position = store.positions()[JOURNAL]
    assert position.sequence >= told
    at = genesis(JOURNAL)
    rows = list(store.rows(JOURNAL, 1, 2**62))
    for nth, row in enumerate(rows, 1):
        assert (row.sequence, row.previous, row.damage) == (nth, at, "")
        assert row.sealed is not None
        at = link(at, row.sequence, row.sealed)
    assert (len(rows), at) == (position.sequence, position.chain)
    assert store.count(Filter()) == len(rows)
    assert [len(store.find(f"q-{number}")) for number in range(0, len(rows), 10)] == [1] * len(range(0, len(rows), 10))
    numbers = [one.number for one in store.checkpoints()]
    assert numbers == list(range(1, len(numbers) + 1))
    store.close()
    return len(rows)
