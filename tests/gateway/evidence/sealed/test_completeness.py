"""Completeness: what was served against what is recorded, pending, pruned, set aside, lost, and missing."""

import random
from pathlib import Path

import pytest

from gateway.control_records import loss_record
from gateway.evidence.completeness import Completeness, JournalCount, board_sequences, completeness
from gateway.metrics import Board, Slot, board_path
from gateway.ports import Batch, Filter
from gateway.stores.audit_sqlite import SqliteAudit
from tests.gateway.evidence.sealed.tampering.raw import Store
from tests.gateway.evidence.sealed.world import House, damage_a_frame, dawn_ns, days_ago, live

FILTER = Filter()
TODAY, BEFORE = days_ago(0), days_ago(250)


def account(house: House, boards: dict[str, int] | None = None, **times: int) -> Completeness:
    return completeness(house.store, house.gateway, house.journals, boards or {}, **times)


def of(found: Completeness, worker: str) -> JournalCount:
    (one,) = (count for count in found.journals if count.worker == worker)
    return one


def test_an_empty_house_is_complete(house: House) -> None:
    found = account(house)

    assert found.complete
    assert (found.journals, found.lost) == ((), {})


def test_what_was_served_is_recorded_or_pending(house: House, chance: random.Random) -> None:
    house.serve("w0", 5, chance, TODAY)
    house.ship(TODAY)
    recorded = house.journal("w0").sequence
    house.serve("w0", 3, chance, TODAY)
    house.serve("w1", 2, chance, TODAY)

    found = account(house)

    assert found.complete
    w0, w1 = of(found, "w0"), of(found, "w1")
    served = house.journal("w0").sequence
    assert (w0.served, w0.recorded, w0.pending, w0.missing) == (served, recorded, served - recorded, 0)
    assert (w1.recorded, w1.pending) == (0, house.journal("w1").sequence)
    assert (w0.gateway, w0.journal) == ("g", house.journal("w0").name)


def test_records_that_are_gone_from_the_store_are_missing(house: House, chance: random.Random) -> None:
    house.serve("w0", 9, chance, TODAY)
    house.ship(TODAY)
    store = Store(house.folder / "audit", chance)
    store.run(store.days[0], "DELETE FROM records WHERE sequence IN (3, 4)")

    found = account(house)

    assert not found.complete
    assert of(found, "w0").missing == 2


def test_what_only_the_board_tells_of_is_missing(house: House, chance: random.Random, tmp_path: Path) -> None:
    """A segment that was taken away before it was shipped is found, because the board outlives the worker."""
    house.serve("w0", 4, chance, TODAY)
    house.ship(TODAY)
    served = house.journal("w0").sequence
    run = tmp_path / "run"
    run.mkdir()
    board = Board(board_path(run, 0))
    board[Slot.JOURNAL_SEQUENCE] = served + 7
    board.close()

    boards = board_sequences(run)
    found = account(house, dict(boards))

    assert boards == {"w0": served + 7}
    assert not found.complete
    assert (of(found, "w0").served, of(found, "w0").missing) == (served + 7, 7)


def test_what_cannot_be_read_is_quarantined(house: House, chance: random.Random) -> None:
    house.serve("w0", 4, chance, TODAY)
    house.ship(TODAY)
    house.serve("w0", 4, chance, TODAY)
    damage_a_frame(house, "w0")
    house.ship(TODAY)

    found = account(house)

    assert not found.complete
    assert (of(found, "w0").quarantined, of(found, "w0").missing, of(found, "w0").pending) == (1, 0, 0)


def test_what_was_pruned_is_accounted_for(house: House, chance: random.Random) -> None:
    for day in (days_ago(460), BEFORE, TODAY):
        house.serve("w0", 9, chance, day)
        house.ship(day)
        house.seal()
    served = house.journal("w0").sequence
    house.prune(TODAY)
    assert house.store.dropped()

    found = account(house)

    w0 = of(found, "w0")
    assert found.complete
    assert w0.pruned > 9
    assert (w0.served, w0.recorded + w0.pruned, w0.missing) == (served, served, 0)


def test_what_was_served_without_a_record_is_lost(house: House, chance: random.Random) -> None:
    at_ns = dawn_ns(TODAY)
    for count, first in ((5, at_ns), (3, at_ns + 10**9)):
        house.journal("w0").append(loss_record("g", "w0", count, first, first + 10), b"", b"")
    house.ship(TODAY)

    found = account(house)

    assert not found.complete
    assert found.lost == {"g": 8}
    assert account(house, since_ns=0, until_ns=at_ns + 5).lost == {"g": 5}
    assert account(house, since_ns=0, until_ns=at_ns).lost == {}


def test_a_journal_of_another_gateway_counts_with_what_the_store_knows_of_it(
    house: House, chance: random.Random, tmp_path: Path
) -> None:
    other = House(tmp_path / "other", gateway="h")
    other.serve("w0", 3, chance, TODAY)
    other.ship(TODAY)
    frames = [kept.frame for chunk in other.store.scan(FILTER, contents=False) for kept in chunk]
    house.store.write(Batch(TODAY, frames, list(other.store.positions().values())))
    other.close()

    (found,) = account(house, {"w0": 999}).journals

    assert (found.gateway, found.worker, found.missing, found.served) == ("h", "w0", 0, len(frames))


def test_times_bound_what_is_counted(house: House, chance: random.Random) -> None:
    day_ns = 86_400 * 10**9
    for day in (BEFORE, TODAY):
        house.serve("w0", 6, chance, day)
        house.ship(day)
    house.serve("w0", 2, chance, TODAY)
    start = dawn_ns(TODAY)
    unbounded = of(account(house), "w0")

    today = of(account(house, since_ns=start), "w0")
    before = of(account(house, until_ns=start), "w0")

    assert today.recorded + before.recorded == unbounded.recorded
    assert (today.pending, before.pending) == (unbounded.pending, 0)
    assert (today.missing, before.missing) == (0, 0)
    assert today.served == today.recorded + today.pending
    assert account(house, since_ns=start + 2 * day_ns).journals == ()


def test_a_record_that_is_missing_within_the_times_is_counted(house: House, chance: random.Random) -> None:
    house.serve("w0", 9, chance, TODAY)
    house.ship(TODAY)
    store = Store(house.folder / "audit", chance)
    store.run(store.days[0], "DELETE FROM records WHERE sequence = 3")

    assert not account(house, since_ns=0).complete
    assert of(account(house, since_ns=0), "w0").missing == 1


@pytest.mark.parametrize("seed", range(12))
def test_months_of_life_leave_nothing_missing(tmp_path: Path, seed: int) -> None:
    house = House(tmp_path / "house")
    live(house, random.Random(seed))
    found = account(house)
    served = {journal.name: journal.sequence for journal in house._open.values()}
    house.close()
    store = SqliteAudit(tmp_path / "house" / "audit", read_only=True)
    again = completeness(store, "g", tmp_path / "house" / "journal", {})
    store.close()

    assert [one.missing for one in found.journals] == [0] * len(found.journals)
    assert {one.journal: one.served for one in found.journals} == served
    assert all(
        one.served == one.recorded + one.pruned + one.quarantined + one.pending + one.missing for one in found.journals
    )
    assert again == found
