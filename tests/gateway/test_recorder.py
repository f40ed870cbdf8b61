"""The recorder between real journals and a real store: counting once, shipping once, catching up, deleting."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import apsw
import pytest
from structlog.testing import capture_logs

from gateway.journal import Journal
from gateway.journal.frames import pack_frame
from gateway.journal.segment import segment_numbers, segment_path
from gateway.metrics import Board
from gateway.ports import Batch, Filter
from gateway.record import Frame, Record, encode_record
from gateway.recorder import Recorder
from gateway.sealing import pack_content
from gateway.stores.audit_sqlite import SqliteAudit
from tests.journals import Chain, CountedCheckpoints, made, open_journal, wait

DEADLINE = 20.0


class House:
    """Journals, a store and a recorder in one folder, with what was counted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = SqliteAudit(folder / "audit")
        self.checkpoints = CountedCheckpoints()
        self.counted: list[Frame] = []
        self._board = Board(folder / "worker.board")
        self._open: list[Journal] = []

    def journal(self, name: str = "w0", segment_bytes: int = 2**20) -> Journal:
        self._open.append(open_journal(self.folder / "journal", self._board, segment_bytes, name))
        return self._open[-1]

    def recorder(
        self, observe: Callable[[Sequence[Frame]], None] | None = None, *, keep_seconds: float = 600.0
    ) -> Recorder:
        journals = self.folder / "journal"
        return Recorder(journals, self.store, self.checkpoints, observe or self.counted.extend, keep_seconds)

    @contextmanager
    def recording(self, keep_seconds: float = 600.0) -> Iterator[Recorder]:
        """Run a recorder in a thread, as the control process does, and stop it in order."""
        recorder = self.recorder(keep_seconds=keep_seconds)
        stop = threading.Event()
        thread = threading.Thread(target=recorder.run, args=(stop,))
        thread.start()
        try:
            yield recorder
        finally:
            stop.set()
            thread.join()

    def run_once(self, keep_seconds: float = 600.0) -> None:
        """Start a recorder and stop it when it has shipped what is there."""
        with self.recording(keep_seconds):
            pass

    def stored(self) -> list[tuple[str, int]]:
        """Return what the store holds: record id and sequence, in order of journal and sequence."""
        frames = [kept.frame for chunk in self.store.scan(Filter(), contents=True) for kept in chunk]
        frames.sort(key=lambda frame: (frame.journal, frame.sequence))
        return [(frame.record.record_id, frame.sequence) for frame in frames]

    def close(self) -> None:
        for journal in self._open:
            journal.close()
        self._board.close()
        self.store.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.close()


@pytest.fixture
def locked(house: House, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Take the store's write lock, as another process would; the call gives it back."""
    monkeypatch.setattr("gateway.stores.sqlite_file._BUSY_MS", 1)
    house.store.write(Batch(f"{datetime.now(UTC):%Y-%m-%d}", (), ()))
    [day] = (house.folder / "audit").glob("2*.db")
    other = apsw.Connection(str(day))
    other.execute("BEGIN IMMEDIATE")

    def release() -> None:
        if other.in_transaction:
            other.execute("ROLLBACK")

    yield release
    release()
    other.close()


def made_now(number: int, size: int = 10) -> tuple[Record, bytes, bytes]:
    return made(number, bytes(size), received_ns=time.time_ns())


def test_a_record_can_be_found_as_soon_as_it_was_caught_up_with(house: House) -> None:
    journal = house.journal()
    with house.recording() as recorder:
        for number in range(100):
            given = made(number, b"x" * 10)
            journal.append(*given)
            assert recorder.catch_up(DEADLINE)
            [kept] = house.store.find(f"q-{number}")
            assert (kept.frame.record, kept.frame.request, kept.frame.response) == given
            assert (kept.frame.journal, kept.frame.sequence) == (journal.name, number + 1)


def test_records_arrive_without_being_asked_for(house: House) -> None:
    journal = house.journal()
    with house.recording():
        journal.append(*made_now(1))
        wait(lambda: house.store.find("r-1"), "the record in the store")


def test_every_frame_is_counted_once_and_kept_once_over_segments_workers_and_batches(house: House) -> None:
    one, two = house.journal("w0", segment_bytes=20_000), house.journal("w1")
    for number in range(2_500):
        one.append(*made_now(number))
    with house.recording() as recorder:
        for number in range(2_500, 3_000):
            (one if number % 2 else two).append(*made_now(number))
        late = house.journal("w2")
        late.append(*made_now(3_000))
        assert recorder.catch_up(DEADLINE)
        assert sorted(house.stored()) == sorted((f.record.record_id, f.sequence) for f in house.counted)
    assert sorted(frame.record.record_id for frame in house.counted) == sorted(f"r-{n}" for n in range(3_001))
    for journal in (one, two, late):
        mine = [frame.sequence for frame in house.counted if frame.journal == journal.name]
        assert mine == list(range(1, len(mine) + 1))


def test_the_next_recorder_goes_on_where_the_last_one_stopped(house: House) -> None:
    journal = house.journal()
    for number in range(10):
        journal.append(*made_now(number))
    house.run_once()
    house.run_once()
    for number in range(10, 15):
        journal.append(*made_now(number))
    house.run_once()
    assert [frame.sequence for frame in house.counted] == list(range(1, 16))
    assert house.stored() == [(f"r-{number}", number + 1) for number in range(15)]


def test_the_journal_of_a_worker_that_is_gone_is_shipped(house: House) -> None:
    journal = house.journal()
    journal.append(*made_now(1))
    journal.close()
    house.run_once()
    assert house.stored() == [("r-1", 1)]


def test_stopping_ships_what_is_there(house: House) -> None:
    journal = house.journal(segment_bytes=50_000)
    with house.recording():
        for number in range(3_000):
            journal.append(*made_now(number))
    assert len(house.stored()) == 3_000


def test_figures_go_on_and_nothing_is_lost_while_the_store_fails(house: House, locked: Callable[[], None]) -> None:
    journal = house.journal()
    with capture_logs() as logs, house.recording() as recorder:
        for number in range(5):
            journal.append(*made_now(number))
        assert not recorder.catch_up(0.05)
        wait(lambda: len(house.counted) == 5, "the first frames counted")
        for number in range(5, 2_000):
            journal.append(*made_now(number))
        wait(lambda: len(house.counted) == 2_000, "all frames counted while the store is locked")
        wait(lambda: recorder.lag().records == 2_000, "the lag in records")
        wait(lambda: recorder.lag().seconds > 0, "the age of the oldest record")
        assert recorder.lag().bytes > 200_000
        assert house.stored() == []
        locked()
        assert recorder.catch_up(DEADLINE)
        assert len(house.stored()) == len(house.counted) == 2_000
        assert (recorder.lag().records, recorder.lag().bytes, recorder.lag().seconds) == (0, 0, 0.0)
    assert "records_not_shipped" in {line["event"] for line in logs}


def test_stopping_while_the_store_fails_leaves_the_records_to_the_next_recorder(
    house: House, locked: Callable[[], None]
) -> None:
    journal = house.journal()
    journal.append(*made_now(1))
    with capture_logs() as logs:
        house.run_once()
    assert "recorder_stopped_behind" in {line["event"] for line in logs}
    locked()
    house.run_once()
    assert house.stored() == [("r-1", 1)]


def test_a_record_is_kept_when_counting_it_fails(house: House) -> None:
    def fail(frames: Sequence[Frame]) -> None:
        house.counted.extend(frames)
        raise ValueError("a defect of the figures")

    journal = house.journal()
    for number in range(1_500):
        journal.append(*made_now(number))
    stop = threading.Event()
    stop.set()
    with capture_logs() as logs:
        house.recorder(fail).run(stop)
    assert len(house.stored()) == len(house.counted) == 1_500
    assert [line["event"] for line in logs] == ["records_not_counted"]


def test_the_lag_is_known_before_anything_was_shipped(house: House) -> None:
    journal = house.journal()
    recorder = house.recorder()
    assert recorder.lag().records is None
    assert recorder.lag().corrupt_frames == 0
    before = recorder.lag().bytes
    journal.append(*made_now(1, 5_000))
    assert recorder.lag().bytes - before > 5_000


def test_catching_up_gives_up_after_its_time_when_nobody_records(house: House) -> None:
    recorder = house.recorder()
    assert not recorder.catch_up(0.01)


def test_catching_up_is_possible_while_records_keep_coming_and_from_many_threads(house: House) -> None:
    journal = house.journal()
    stop = threading.Event()
    appended = [0]

    def write() -> None:
        while not stop.is_set():
            journal.append(*made_now(appended[0]))
            appended[0] += 1
            time.sleep(0.0005)

    caught: list[bool] = []
    with house.recording() as recorder:
        writer = threading.Thread(target=write)
        writer.start()

        def ask() -> None:
            for _ in range(10):
                wait(lambda: appended[0] > 0, "the first record")
                last = appended[0] - 1
                caught.append(recorder.catch_up(DEADLINE) and bool(house.store.find(f"r-{last}")))

        asking = [threading.Thread(target=ask) for _ in range(4)]
        for thread in asking:
            thread.start()
        for thread in asking:
            thread.join()
        stop.set()
        writer.join()
    assert caught == [True] * 40


def _fill_segments(house: House) -> Path:
    journal = house.journal(segment_bytes=5_000)
    for number in range(100):
        journal.append(*made_now(number))
    folder = house.folder / "journal" / "w0"
    assert len(segment_numbers(folder)) > 3
    return folder


def test_shipped_segments_are_deleted_but_for_the_newest(house: House) -> None:
    folder = _fill_segments(house)
    newest = segment_numbers(folder)[-1]
    with house.recording(keep_seconds=0.0):
        wait(lambda: segment_numbers(folder) == [newest], "the shipped segments deleted")
    assert len(house.stored()) == 100
    successor = house.folder / "journal" / "w0"
    house.run_once(keep_seconds=0.0)
    assert segment_numbers(successor) == [newest]


def test_shipped_segments_are_kept_for_their_time(house: House) -> None:
    folder = _fill_segments(house)
    before = segment_numbers(folder)
    house.run_once(keep_seconds=600.0)
    assert segment_numbers(folder) == before


def test_no_segment_is_deleted_before_its_records_are_committed(house: House, locked: Callable[[], None]) -> None:
    folder = _fill_segments(house)
    before = segment_numbers(folder)
    with house.recording(keep_seconds=0.0) as recorder:
        wait(lambda: len(house.counted) == 100, "all frames counted while the store is locked")
        assert not recorder.catch_up(0.2)
        assert segment_numbers(folder) == before
        locked()
        wait(lambda: segment_numbers(folder) == before[-1:], "the shipped segments deleted")


def test_damage_is_logged_counted_and_kept_as_evidence_while_the_rest_is_shipped(house: House) -> None:
    folder = _fill_segments(house)
    second = segment_path(folder, segment_numbers(folder)[1])
    data = bytearray(second.read_bytes())
    data[-1] ^= 1
    data[len(data) // 2] ^= 1
    second.write_bytes(data)
    with capture_logs() as logs, house.recording(keep_seconds=0.0) as recorder:
        assert recorder.catch_up(DEADLINE)
        newest = segment_numbers(folder)[-1]
        wait(lambda: segment_numbers(folder) == [2, newest], "the sound segments deleted")
        assert recorder.lag().corrupt_frames == 2
    assert [line["records_missing"] for line in logs if line["event"] == "journal_corrupt"] == [1, 1]
    assert second.with_suffix(".corrupt").exists()
    assert len(house.stored()) == len(house.counted) == 98


def _damage_second(folder: Path) -> Path:
    """Flip the last byte of the second segment, and return it."""
    second = segment_path(folder, 2)
    data = bytearray(second.read_bytes())
    data[-1] ^= 1
    second.write_bytes(data)
    return second


def test_damage_that_cannot_be_marked_costs_no_other_record_and_its_segment_stays(house: House) -> None:
    """A folder of the mark's name is in the way, as a full disk would be."""
    folder = _fill_segments(house)
    second = _damage_second(folder)
    mark = second.with_suffix(".corrupt")
    in_the_way = mark.with_name("elsewhere")
    in_the_way.symlink_to(folder / "nowhere" / "at-all")
    in_the_way.rename(mark)
    with capture_logs() as logs, house.recording(keep_seconds=0.0) as recorder:
        assert recorder.catch_up(DEADLINE)
        assert len(house.stored()) == 99
        wait(lambda: segment_path(folder, 1).exists() is False, "the sound segments deleted")
        assert second.exists()
        mark.unlink()
        wait(mark.exists, "the mark, as soon as it can be made")
    assert second.exists()
    assert "damaged_segment_not_marked" in {line["event"] for line in logs}


def test_damage_is_committed_as_gaps_that_say_exactly_what_is_missing(house: House) -> None:
    folder = house.folder / "journal" / "w0"
    folder.mkdir(parents=True)
    chain = Chain("g/w0.0123456789ab")
    edited = pack_frame(9, pack_content(chain.before(9), encode_record(made(99)[0]), b"", b""))
    chain.segment(folder, 1, 1, chain.data(1) + chain.data(2)[:-1] + b"!" + chain.data(3, 5, 4, 6) + b"\xff" * 90)
    chain.segment(folder, 2, 8, chain.data(8) + edited + chain.data(10))
    chain.segment(folder, 3, 13, chain.data(13))
    with capture_logs(), house.recording() as recorder:
        assert recorder.catch_up(DEADLINE)
        assert recorder.lag().corrupt_frames == 1 + 1 + 1 + 1 + 1 + 2
    kept = [sequence for _, sequence in house.stored()]
    lost = {sequence for gap in house.store.gaps() for sequence in range(gap.first, gap.first + gap.count)}
    assert kept == [1, 3, 5, 6, 8, 9, 10, 13]
    assert lost == set(range(1, 14)) - set(kept)
    assert [(gap.journal, gap.first, gap.count) for gap in house.store.gaps()] == [
        (chain.name, first, count) for first, count in ((2, 1), (4, 1), (6, 0), (7, 1), (10, 0), (11, 2))
    ]


def test_the_same_damage_is_the_same_gap_for_the_next_recorder(house: House) -> None:
    folder = house.folder / "journal" / "w0"
    folder.mkdir(parents=True)
    chain = Chain("g/w0.0123456789ab")
    chain.segment(folder, 1, 1, chain.data(1) + b"\xff" * 4 + chain.data(2)[4:] + chain.data(3))
    for _ in range(3):
        with capture_logs(), house.recording() as recorder:
            assert recorder.catch_up(DEADLINE)
            wait(lambda recorder=recorder: recorder.lag().corrupt_frames, "the alarm")  # type: ignore[misc]
    assert len(house.store.gaps()) == 1
    chain.segment(folder, 2, 4, chain.data(4))
    with capture_logs():
        house.run_once()
    assert [sequence for _, sequence in house.stored()] == [1, 4]
    assert [(gap.first, gap.count) for gap in house.store.gaps()] == [(2, 0), (2, 2)]


def test_a_recorder_outlives_a_store_that_cannot_even_be_asked_for_positions(house: House) -> None:
    journal = house.journal()
    journal.append(*made_now(1))
    house.store.write(Batch("2026-11-25", (), ()))
    house.store.close()
    with capture_logs() as logs, house.recording():
        wait(lambda: logs, "the failure in the log")
    assert {line["event"] for line in logs} == {"records_not_shipped", "recorder_stopped_behind"}
    assert house.counted == []


class WatchedStore(SqliteAudit):
    """The real store, and how much each transaction was given."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.given: list[tuple[int, int]] = []

    def write(self, batch: Batch) -> None:
        self.given.append((len(batch.frames), sum(len(frame.request) for frame in batch.frames)))
        super().write(batch)


@pytest.mark.parametrize(("records", "size"), [(20, 1_000_000), (3_500, 10)])
def test_a_backlog_is_shipped_in_transactions_of_bounded_size(house: House, records: int, size: int) -> None:
    journal = house.journal()
    for number in range(records):
        journal.append(*made_now(number, size))
    house.store.close()
    house.store = store = WatchedStore(house.folder / "audit")
    house.run_once()
    assert len(house.stored()) == records
    assert max(frames for frames, _ in store.given) <= 1_000
    assert max(total for _, total in store.given) <= 4 * 2**20 + size


def test_a_recorder_that_only_has_a_position_to_commit_takes_the_records_that_came_meanwhile(
    house: House, locked: Callable[[], None]
) -> None:
    journal = house.journal()
    with house.recording() as recorder:
        assert not recorder.catch_up(0.05)
        journal.append(*made_now(1))
        wait(lambda: recorder.lag().seconds > 0, "the age of the record")
        locked()
        assert recorder.catch_up(DEADLINE)
    assert house.stored() == [("r-1", 1)]


def test_catching_up_does_not_wait_for_the_next_tick(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.recorder.TICK_SECONDS", DEADLINE + 10)
    journal = house.journal()
    recorder = house.recorder()
    stop = threading.Event()
    thread = threading.Thread(target=recorder.run, args=(stop,))
    thread.start()
    try:
        for number in range(3):
            journal.append(*made_now(number))
            assert recorder.catch_up(DEADLINE)
            assert len(house.stored()) == number + 1
    finally:
        stop.set()
        recorder.catch_up(DEADLINE)
        thread.join()
