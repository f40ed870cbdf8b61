"""Counting each frame once: beside shipping, ahead of it while the store fails, and beside it again afterwards."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from gateway.counting import Counting
from gateway.journal import Journal, JournalReader
from gateway.journal.segment import segment_path
from gateway.journal.tail import Budget
from gateway.metrics import Board
from gateway.record import Frame
from tests.journals import Chain, made, open_journal, sequences

MUCH = 10**9


class House:
    """Journals of two workers, a reader that ships at the test's pace, and what was counted."""

    def __init__(self, folder: Path) -> None:
        self.journals = folder / "journal"
        self.counted: list[Frame] = []
        self.counting = Counting(self.journals, self.counted.extend)
        self.alarms = 0
        self.shipping = JournalReader(self.journals, {}, lambda *_: self._alarm())
        self.shipped: list[Frame] = []

    def _alarm(self) -> None:
        self.alarms += 1

    def ship(self, frames: int = MUCH) -> None:
        """Ship at most so many frames, as the recorder does."""
        self.shipping.discover()
        read = self.shipping.read(Budget(frames, MUCH))
        self.counting.count(read)
        self.counting.rejoin(self.shipping)
        self.shipped += read

    def run_ahead(self) -> None:
        while self.counting.run_ahead(self.shipping, {}):
            pass

    def close(self) -> None:
        self.counting.close()
        self.shipping.close()


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    house = House(tmp_path)
    yield house
    house.close()


@contextmanager
def writing(folder: Path, *names: str) -> Iterator[list[Journal]]:
    board = Board(folder / "worker.board")
    journals = [open_journal(folder / "journal", board, 3_000, name) for name in names]
    yield journals
    for journal in journals:
        journal.close()
    board.close()


STEPS = st.lists(
    st.tuples(st.just("append"), st.integers(1, 12))
    | st.tuples(st.just("ship"), st.integers(1, 12))
    | st.tuples(st.just("run ahead"), st.just(0)),
    max_size=20,
)


@given(STEPS)
def test_each_frame_is_counted_once_and_in_order_whenever_the_store_fails_and_recovers(
    tmp_path_factory: pytest.TempPathFactory, steps: Sequence[tuple[str, int]]
) -> None:
    folder = tmp_path_factory.mktemp("house")
    house = House(folder)
    made_so_far = 0
    with writing(folder, "w0", "w1") as journals:
        for what, amount in [*steps, ("ship", MUCH)]:
            if what == "append":
                for _ in range(amount):
                    journals[made_so_far % 2].append(*made(made_so_far))
                    made_so_far += 1
            elif what == "ship":
                house.ship(amount)
            else:
                house.run_ahead()
                assert len(house.counted) == made_so_far, "the figures waited for the store"
    house.close()
    assert house.alarms == 0
    assert len(house.shipped) == len(house.counted) == made_so_far
    for journal in journals:
        mine = [frame for frame in house.counted if frame.journal == journal.name]
        assert sequences(mine) == list(range(1, len(mine) + 1))


def test_counting_ahead_goes_over_damage_and_leaves_the_alarm_to_shipping(house: House) -> None:
    folder = house.journals / "w0"
    folder.mkdir(parents=True)
    chain = Chain("g/w0.0123456789ab")
    chain.segment(folder, 1, 1, chain.data(1) + chain.data(2)[:-1] + b"!" + chain.data(3))
    house.ship(1)
    house.run_ahead()
    house.run_ahead()
    assert (sequences(house.counted), house.alarms) == ([1, 3], 0)
    house.ship()
    house.ship()
    assert (sequences(house.counted), sequences(house.shipped), house.alarms) == ([1, 3], [1, 3], 1)


def test_frames_that_damage_gave_a_sequence_once_more_are_counted_while_shipping_alone_counts(house: House) -> None:
    folder = house.journals / "w0"
    folder.mkdir(parents=True)
    chain = Chain("g/w0.0123456789ab")
    chain.segment(folder, 1, 1, chain.data(1, 2, 3))
    house.run_ahead()
    house.ship()
    chain.segment(folder, 2, 2, chain.data(2, 3))
    house.ship()
    assert sequences(house.counted) == [1, 2, 3, 2, 3]


def test_segments_that_were_shipped_and_deleted_do_not_keep_counting_from_going_ahead(house: House) -> None:
    with writing(house.journals.parent, "w0") as [journal]:
        for number in range(30):
            journal.append(*made(number))
        house.ship()
        segment_path(house.journals / "w0", 1).unlink()
        for number in range(30, 40):
            journal.append(*made(number))
        house.run_ahead()
    assert sequences(house.counted) == list(range(1, 41))


def test_a_defect_of_the_figures_is_said_once_and_raises_nothing(tmp_path: Path) -> None:
    def fail(_: Sequence[Frame]) -> None:
        raise ValueError("a defect")

    counting = Counting(tmp_path, fail)
    frames = Chain("g/w0.0123456789ab").frames(1, 2)
    with capture_logs() as logs:
        counting.count([])
        counting.count(frames)
        counting.count(frames)
    assert [(line["event"], line["record_id"]) for line in logs] == [("records_not_counted", "r-1")]
