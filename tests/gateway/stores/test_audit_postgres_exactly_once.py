"""Each record once in PostgreSQL, whatever is cut or killed, and whenever: nothing lost, nothing twice."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
import structlog

from gateway.errors import AuditUnavailable
from gateway.ports import AuditStore, Filter, Gap, SignedCheckpoint
from gateway.record import Frame
from gateway.stores.audit_postgres import PostgresAudit
from tests.postgres_proxy import PostgresProxy, Trick
from tests.postgres_server import PostgresServer
from tests.records import DAY, JOURNAL, NEXT_DAY, ChainedJournal, batch, new_record


@pytest.fixture
def proxy(postgres: PostgresServer) -> Iterator[PostgresProxy]:
    """A proxy in front of the session's server."""
    with closing(PostgresProxy(postgres.port)) as made:
        yield made


@pytest.fixture
def through(proxy: PostgresProxy, postgres: PostgresServer, database: str) -> Iterator[AuditStore]:
    """The store, its connections going through the proxy."""
    with closing(PostgresAudit(postgres.url(database, port=proxy.port))) as store:
        yield store


def _stored(store: AuditStore) -> list[tuple[str, int]]:
    """Return every place that has a row, in order of day and recording; a place that was taken twice stands twice."""
    chunks = list(store.scan(Filter(), contents=True))
    return [(kept.frame.journal, kept.frame.sequence) for chunk in chunks for kept in chunk]


def _sequences(store: AuditStore, journal: str = JOURNAL) -> list[int]:
    return [sequence for name, sequence in _stored(store) if name == journal]


@pytest.mark.parametrize("trick", ["cut before", "cut after"])
@pytest.mark.parametrize("day", [DAY, NEXT_DAY])
def test_a_batch_whose_outcome_nobody_knows_is_there_once_when_it_is_written_again(
    through: AuditStore, proxy: PostgresProxy, trick: Trick, day: str
) -> None:
    """The recorder tries the same batch again; it keeps its day, and it is right also if it did not."""
    journal = ChainedJournal()
    through.write(batch(journal.frames(new_record(1))))
    frames = journal.frames(new_record(2), new_record(3))
    gap = Gap(JOURNAL, 9, 1, 1, 900, "damaged", 5)
    proxy.next_commit(trick)
    with pytest.raises(AuditUnavailable, match="does not answer"):
        through.write(batch(frames, gaps=[gap]))
    assert proxy.played.wait(20)
    assert _sequences(through) == ([1] if trick == "cut before" else [1, 2, 3])
    assert through.positions()[JOURNAL].sequence == (1 if trick == "cut before" else 3)
    with structlog.testing.capture_logs() as logged:
        through.write(batch(frames, day, gaps=[gap]))
        through.write(batch(frames, day, gaps=[gap]))
    assert logged == []
    assert _sequences(through) == [1, 2, 3]
    assert through.positions()[JOURNAL] == journal.position
    assert list(through.gaps()) == [gap]
    assert all(
        kept.frame.request and kept.frame.response for chunk in through.scan(Filter(), contents=True) for kept in chunk
    )


@pytest.mark.parametrize("trick", ["cut before", "cut after"])
def test_a_checkpoint_whose_outcome_nobody_knows_is_there_once(
    through: AuditStore, proxy: PostgresProxy, trick: Trick
) -> None:
    checkpoint = SignedCheckpoint("gw-a", 1, DAY, 7, b"statement", b"[]", bytes(64), "key")
    proxy.next_commit(trick)
    with pytest.raises(AuditUnavailable):
        through.seal(checkpoint)
    through.seal(checkpoint)
    assert list(through.checkpoints()) == [checkpoint]


def test_a_commit_that_the_server_finishes_after_its_gateway_was_replaced_doubles_nothing(
    through: AuditStore, proxy: PostgresProxy, postgres: PostgresServer, database: str
) -> None:
    """The next process reads the positions, finds the old ones, and ships the same records under the next day."""
    journal = ChainedJournal()
    through.write(batch(journal.frames(new_record(1))))
    frames = journal.frames(new_record(2), new_record(3), new_record(4))
    proxy.next_commit("hold")
    with pytest.raises(AuditUnavailable):
        through.write(batch(frames))
    assert proxy.played.wait(20)
    with closing(PostgresAudit(postgres.url(database))) as successor, ThreadPoolExecutor(1) as pool:
        assert successor.positions()[JOURNAL].sequence == 1
        writing = pool.submit(successor.write, batch(frames[:2], NEXT_DAY))
        _wait_until_somebody_waits(postgres, database)
        proxy.release()
        writing.result(timeout=30)
        assert successor.positions()[JOURNAL].sequence == 3
        successor.write(batch([frames[2], *journal.frames(new_record(5))], NEXT_DAY))
        assert _sequences(successor) == [1, 2, 3, 4, 5]
        days = [holding.records for holding in successor.holdings()]
        assert days == [4, 1]


def _wait_until_somebody_waits(postgres: PostgresServer, database: str) -> None:
    waiting = f"SELECT 1 FROM pg_stat_activity WHERE datname = '{database}' AND wait_event = 'advisory'"
    _wait(lambda: postgres.execute(waiting))


def _wait(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come to hold"
        time.sleep(0.005)


def test_another_record_in_a_place_that_is_taken_on_another_day_is_left_out_and_raises_the_alarm(
    through: AuditStore,
) -> None:
    frames = ChainedJournal().frames(new_record(1), new_record(2))
    through.write(batch(frames))
    forged = [frames[0], *_fork(frames[0]).frames(new_record(8), new_record(3))]
    with structlog.testing.capture_logs() as logged:
        through.write(batch(forged, NEXT_DAY))
    assert [(line["event"], line["journal"], line["sequence"]) for line in logged] == [("record_conflict", JOURNAL, 2)]
    assert _sequences(through) == [1, 2, 3]
    assert not through.find(forged[1].record.record_id)


def _fork(frame: Frame) -> ChainedJournal:
    """Return a journal that goes on after a frame in its own way."""
    fork = ChainedJournal(frame.journal)
    fork.sequence, fork.chain = frame.sequence, frame.chain
    return fork


def test_a_place_is_taken_once_also_where_somebody_edited_the_table_that_tells_where_journals_end(
    through: AuditStore, postgres: PostgresServer, database: str
) -> None:
    frames = ChainedJournal().frames(new_record(1), new_record(2))
    through.write(batch(frames))
    postgres.execute("DELETE FROM pointsman.stretches", database)
    through.write(batch(frames))
    with structlog.testing.capture_logs() as logged:
        through.write(batch([frames[0], *_fork(frames[0]).frames(new_record(9))]))
    assert [line["sequence"] for line in logged] == [2]
    assert _sequences(through) == [1, 2]


def test_what_was_erased_or_pruned_does_not_come_back_with_a_batch_that_is_written_again(
    through: AuditStore,
) -> None:
    journal = ChainedJournal()
    frames = journal.frames(new_record(1), new_record(2, model="churn"))
    through.write(batch(frames))
    through.write(batch(journal.frames(new_record(3)), NEXT_DAY))
    through.erase(through.places_of(bytes.fromhex(f"{1:032x}")), "erasure")
    through.thin(DAY, ["churn"], "pruning")
    with structlog.testing.capture_logs() as logged:
        through.write(batch(frames))
        through.write(batch(frames, NEXT_DAY))
    assert logged == []
    first, stub, _ = through.rows(JOURNAL, 1, 3)
    assert (first.request, first.response, first.erasure) == (b"", b"", "erasure")
    assert (stub.sealed, stub.pruning) == (None, "pruning")


def test_two_gateways_write_at_once_and_both_have_every_record_once(postgres: PostgresServer, database: str) -> None:
    def ship(gateway: int) -> None:
        journals = [ChainedJournal(f"gw-{gateway}/w{number}.0123456789ab") for number in range(2)]
        with closing(PostgresAudit(postgres.url(database))) as store:
            for number in range(40):
                frames = [
                    frame
                    for journal in journals
                    for frame in journal.frames(new_record(number * 10, request_id=f"q-{number}"), new_record(number))
                ]
                store.write(batch(frames, DAY if number < 20 else NEXT_DAY))
                store.write(batch(frames, DAY if number < 20 else NEXT_DAY))

    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(ship, gateway) for gateway in range(2)]:
            done.result(timeout=120)
    with closing(PostgresAudit(postgres.url(database))) as store:
        stored = _stored(store)
        assert len(stored) == len(set(stored)) == 2 * 2 * 40 * 2
        for gateway in range(2):
            for number in range(2):
                assert _sequences(store, f"gw-{gateway}/w{number}.0123456789ab") == list(range(1, 81))
        assert len(store.find("q-7")) == 4


_SHIPS = """
import sys
from gateway.errors import AuditUnavailable
from gateway.record import Frame
from gateway.stores.audit_postgres import PostgresAudit
from tests.records import ChainedJournal, batch, new_record
journal = ChainedJournal(sys.argv[2])
store = PostgresAudit(sys.argv[1])
for number in range(int(sys.argv[3])):
    frames = journal.frames(*(new_record(number * 50 + n) for n in range(50)))
    while True:
        try:
            store.write(batch(frames))
            break
        except AuditUnavailable as error:
            assert "s3cret" not in str(error), error
            print("again", flush=True)
    print(journal.sequence, flush=True)
"""


class _Shipping:
    """A gateway in a process of its own that ships batches of 50 records, and tells what it knows to be committed."""

    def __init__(self, url: str, journal: str, batches: int) -> None:
        self.journal = journal
        self.committed: list[int] = [0]
        self.retries = 0
        self.process = subprocess.Popen(
            [sys.executable, "-c", _SHIPS, url, journal, str(batches)], stdout=subprocess.PIPE, text=True
        )
        self._listening = threading.Thread(target=self._listen)
        self._listening.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line == "again\n":
                self.retries += 1
            elif line.strip().isdecimal():
                self.committed.append(int(line))

    def end(self) -> int:
        """Wait for its end and return its exit code."""
        code = self.process.wait(120)
        self._listening.join()
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code


def test_nothing_is_lost_or_doubled_when_the_server_is_killed_in_the_middle_of_writes(
    start_postgres: Callable[..., PostgresServer],
) -> None:
    """Two gateways ship; the server is killed (SIGKILL) four times and started again. What was told as done stays."""
    server, batches = start_postgres(), 60
    shipping = [_Shipping(server.url(), f"gw-{number}/w0.0123456789ab", batches) for number in range(2)]
    try:
        for kill in range(1, 5):
            _wait(lambda kill=kill: all(len(one.committed) > kill * 12 for one in shipping))  # type: ignore[misc]
            server.kill()
            sure = [one.committed[-1] for one in shipping]
            server.start()
            with closing(PostgresAudit(server.url(), read_only=True)) as store:
                last = {holding.journal: holding.last for holding in store.holdings()}
            assert all(last[one.journal] >= known for one, known in zip(shipping, sure, strict=True))
        assert [one.end() for one in shipping] == [0, 0]
    finally:
        for one in shipping:
            one.process.kill()
            one.end()
    assert all(one.retries for one in shipping)
    with closing(PostgresAudit(server.url())) as store:
        stored = _stored(store)
        assert len(stored) == len(set(stored)) == 2 * 50 * batches
        for one in shipping:
            rows = list(store.rows(one.journal, 1, 50 * batches))
            assert len(rows) == 50 * batches
            assert all(row.request and not row.damage for row in rows)
