"""What the recorder commits, and in which order: days, checkpoints, stores that fail late or refuse a record."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from gateway.errors import AuditUnavailable
from gateway.metrics import Board
from gateway.ports import Batch, Filter
from gateway.recorder import Recorder
from gateway.stores.audit_sqlite import SqliteAudit
from tests.journals import CountedCheckpoints, made, open_journal, wait

DEADLINE = 20.0
LATER_DAY = "2999-01-01"


class Store(SqliteAudit):
    """The real store; `before` and `after` are called around each write, and may raise."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.before: Callable[[Batch], None] = lambda _: None
        self.after: Callable[[Batch], None] = lambda _: None
        self.days_written: list[str] = []

    def write(self, batch: Batch) -> None:
        self.before(batch)
        super().write(batch)
        if batch.frames:
            self.days_written.append(batch.day)
        self.after(batch)


class House:
    """One worker's journal, a store and who makes checkpoints."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = Store(folder / "audit")
        self.checkpoints = CountedCheckpoints()
        self._board = Board(folder / "worker.board")
        self.journal = open_journal(folder / "journal", self._board)

    def append(self, *numbers: int) -> None:
        for number in numbers:
            self.journal.append(*made(number))

    @contextmanager
    def recording(self) -> Iterator[Recorder]:
        recorder = Recorder(self.folder / "journal", self.store, self.checkpoints, lambda _: None, 600.0)
        stop = threading.Event()
        thread = threading.Thread(target=recorder.run, args=(stop,))
        thread.start()
        try:
            yield recorder
        finally:
            stop.set()
            thread.join()

    def stored(self) -> list[str]:
        return [kept.frame.record.record_id for chunk in self.store.scan(Filter(), contents=False) for kept in chunk]

    def told(self) -> list[str | None]:
        """Return what the checkpoints were told: the ids of each batch that has any, and None for each seal."""
        return [
            ",".join(frame.record.record_id for frame in one.frames) if one is not None else None
            for one in self.checkpoints.told
            if one is None or one.frames
        ]

    def close(self) -> None:
        self.journal.close()
        self._board.close()
        self.store.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.close()


class Once:
    """Fails the first so many times that it is asked to look at records, and then no more."""

    def __init__(self, error: Exception, times: int = 1) -> None:
        self._error = error
        self.left = times

    def __call__(self, batch: Batch) -> None:
        if batch.frames and self.left:
            self.left -= 1
            raise self._error


def _today() -> str:
    return f"{datetime.now(UTC):%Y-%m-%d}"


# ── stores that fail ─────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("when", ["before", "after"])
def test_records_are_kept_once_when_the_store_fails_before_or_after_it_has_committed(house: House, when: str) -> None:
    house.append(*range(50))
    failing = Once(AuditUnavailable("the connection was cut"), times=3)
    setattr(house.store, when, failing)
    with capture_logs() as logs, house.recording() as recorder:
        assert recorder.catch_up(DEADLINE)
    assert failing.left == 0
    assert house.stored() == [f"r-{number}" for number in range(50)]
    assert sum(one.count(",") + 1 for one in house.told() if one is not None) == 50
    assert [line["event"] for line in logs] == ["records_not_shipped"] * 3


def test_a_record_that_the_store_does_not_take_is_set_aside_and_blocks_nobody(house: House) -> None:
    def refuse(batch: Batch) -> None:
        if any(frame.record.record_id in ("r-3", "r-7") for frame in batch.frames):
            raise ValueError("there is something in it")

    house.store.before = refuse
    house.append(*range(10))
    with capture_logs() as logs, house.recording() as recorder:
        assert recorder.catch_up(DEADLINE)
        assert recorder.lag().corrupt_frames == 2
        assert recorder.lag().records == 0
        house.append(10)
        assert recorder.catch_up(DEADLINE)
    assert house.stored() == [f"r-{number}" for number in range(11) if number not in (3, 7)]
    assert [(gap.journal, gap.first, gap.count) for gap in house.store.gaps()] == [
        (house.journal.name, 4, 1),
        (house.journal.name, 8, 1),
    ]
    assert house.told()[1] == ",".join(f"r-{number}" for number in range(10) if number not in (3, 7))
    assert [line["record_id"] for line in logs if line["event"] == "record_set_aside"] == ["r-3", "r-7"]
    [position] = house.store.positions().values()
    assert position.sequence == 11


def test_a_store_that_fails_while_records_are_set_aside_counts_none_twice(house: House) -> None:
    failing = Once(AuditUnavailable("gone for a moment"), times=2)

    def refuse(batch: Batch) -> None:
        ids = [frame.record.record_id for frame in batch.frames]
        if "r-1" in ids:
            raise ValueError("there is something in it")
        if ids == ["r-2"]:
            failing(batch)

    house.store.before = refuse
    house.append(0, 1, 2)
    with capture_logs(), house.recording() as recorder:
        assert recorder.catch_up(DEADLINE)
        assert recorder.lag().corrupt_frames == 1
    assert failing.left == 0
    assert house.stored() == ["r-0", "r-2"]
    assert [(gap.first, gap.count) for gap in house.store.gaps()] == [(2, 1)]


# ── days and checkpoints ─────────────────────────────────────────────────────────────────────────────────────────


def test_a_checkpoint_is_made_before_the_first_record_of_a_new_day_and_never_covers_two(house: House) -> None:
    house.checkpoints.day = "2020-01-01"
    house.append(1, 2)
    with house.recording() as recorder:
        assert recorder.catch_up(DEADLINE)
    assert house.store.days_written == [_today()]
    assert house.told() == [None, "r-1,r-2", None]


def test_records_are_never_kept_under_an_earlier_day_whatever_the_clock_says(house: House) -> None:
    house.checkpoints.day = LATER_DAY
    house.append(1)
    with house.recording() as recorder:
        assert recorder.catch_up(DEADLINE)
        house.append(2)
        assert recorder.catch_up(DEADLINE)
    assert house.store.days_written == [LATER_DAY, LATER_DAY]
    assert house.told() == ["r-1", "r-2", None]


def test_a_checkpoint_is_made_when_one_is_due_and_when_the_recorder_stops(house: House) -> None:
    with house.recording() as recorder:
        house.append(1)
        assert recorder.catch_up(DEADLINE)
        told = len(house.told())
        house.checkpoints.wanted = True
        wait(lambda: not house.checkpoints.wanted, "the checkpoint that was due")
        assert house.told()[told:] == [None]
    assert house.told()[-1] is None
    assert house.checkpoints.begun == 1


def test_sealing_covers_all_that_was_written_before_it_was_asked_for(house: House) -> None:
    with house.recording() as recorder:
        for number in range(5):
            house.append(number)
            assert recorder.seal(DEADLINE)
            told = house.told()
            assert told[-2:] == [f"r-{number}", None]
    recorder = Recorder(house.folder / "journal", house.store, house.checkpoints, lambda _: None, 600.0)
    assert not recorder.seal(0.01)


def test_what_cannot_be_sealed_now_is_sealed_later_and_shipping_goes_on(house: House) -> None:
    class Failing(CountedCheckpoints):
        fails = 2

        def seal(self) -> None:
            if self.fails:
                self.fails -= 1
                raise AuditUnavailable("the store does not take the checkpoint")
            super().seal()

    house.checkpoints = failing = Failing()
    house.append(1)
    with capture_logs(), house.recording() as recorder:
        assert recorder.seal(DEADLINE)
        house.append(2)
        assert recorder.catch_up(DEADLINE)
    assert failing.fails == 0
    assert house.stored() == ["r-1", "r-2"]


def test_a_store_that_fails_when_the_recorder_begins_is_asked_again(house: House) -> None:
    class Failing(CountedCheckpoints):
        def begin(self) -> str:
            day = super().begin()
            if self.begun < 3:
                raise AuditUnavailable("the store does not answer")
            return day

    house.checkpoints = Failing()
    house.append(1)
    with capture_logs(), house.recording() as recorder:
        assert recorder.catch_up(DEADLINE)
    assert house.checkpoints.begun == 3
    assert house.stored() == ["r-1"]
