"""Pruning: what is over goes, by the day or by the model, a control record comes first, and the rest still verifies."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from gateway.control_records import ControlRecords
from gateway.errors import AuditUnavailable
from gateway.evidence.places import places_digest
from gateway.evidence.pruning import Expired, Pruning, expired
from gateway.journal import Journal
from gateway.metrics import Board
from gateway.ports import Day, Place
from gateway.settings_audit import AuditSettings
from gateway.stores.audit_sqlite import SqliteAudit
from tests.journals import read_all
from tests.records import ChainedJournal, batch, new_record, place_of

TODAY = date(2026, 11, 25)


def day(age: int, **records: int) -> Day:
    return Day(
        (TODAY - timedelta(days=age)).isoformat(), {name.strip("_"): count for name, count in records.items()}, 0, 0
    )


def test_a_day_goes_whole_when_everything_in_it_is_over() -> None:
    days = [day(402, fraud=3), day(401, fraud=2, __=1), day(400, fraud=9), day(0)]
    assert expired(days, TODAY, AuditSettings()) == [
        Expired(days[0].day, True, (), 3),
        Expired(days[1].day, True, (), 3),
    ]


def test_a_model_that_is_kept_longer_keeps_its_records_and_the_day_when_others_go() -> None:
    days = [day(500, fraud=3, digits=4, __=1), day(0)]
    settings = AuditSettings(retention={"fraud": 3650})
    assert expired(days, TODAY, settings) == [Expired(days[0].day, False, ["digits"], 4)]


def test_a_model_that_is_kept_shorter_goes_alone_but_never_before_the_floor() -> None:
    days = [day(300, fraud=3, digits=4), day(184, digits=5), day(0)]
    settings = AuditSettings(retention={"digits": 184})
    assert expired(days, TODAY, settings) == [Expired(days[0].day, False, ["digits"], 4)]
    higher = AuditSettings(retention={"digits": 350}, retention_floor_days=350)
    assert expired(days, TODAY, higher) == []


def test_the_newest_day_is_never_pruned_however_old_it_is() -> None:
    assert expired([day(4000, fraud=1)], TODAY, AuditSettings()) == []
    assert expired([], TODAY, AuditSettings()) == []


class Kept:
    """A store with records of past days, and the control records of whoever prunes it."""

    def __init__(self, folder: Path) -> None:
        self.store = SqliteAudit(folder / "audit")
        self.board = Board(folder / "control.board")
        self.journals = folder / "journal"
        self.journal = Journal(self.journals, "control", 2**20, self.board, gateway="g")
        self.records = ControlRecords(self.journal, "g")
        self.chain = ChainedJournal()

    def put(self, age: int, *models: str) -> list[Place]:
        """Record a request of each model on a day so many days ago, and return their places."""
        name = (datetime.now(UTC).date() - timedelta(days=age)).isoformat()
        first = self.chain.sequence
        frames = self.chain.frames(*(new_record(first + n, model=model) for n, model in enumerate(models, 1)))
        self.store.write(batch(frames, day=name))
        return [place_of(frame) for frame in frames]

    def prune(self, **settings: object) -> list[Expired]:
        pruning = Pruning(self.store, self.records, AuditSettings(**settings))  # type: ignore[arg-type]
        return list(asyncio.run(pruning.prune("retention", "")))

    def told(self) -> list[dict[str, object]]:
        """Return the details of every control record, as it stands in the journal."""
        return [dict(frame.record.details) for frame in read_all(self.journals / "control")]

    def close(self) -> None:
        self.store.close()
        self.journal.close()
        self.board.close()


@pytest.fixture
def kept(tmp_path: Path) -> Iterator[Kept]:
    made = Kept(tmp_path)
    yield made
    made.close()


def test_a_day_that_is_over_is_gone_with_its_file_and_a_control_record_says_so(kept: Kept, tmp_path: Path) -> None:
    kept.put(500, "fraud", "digits")
    kept.put(10, "fraud")
    [pruned] = kept.prune()
    assert (pruned.whole, pruned.records) == (True, 2)
    assert not list((tmp_path / "audit").glob(f"{pruned.day}*"))
    assert [one.records for one in kept.store.dropped()] == [2]
    [told] = kept.told()
    assert (told["day"], told["whole"], told["count"]) == (pruned.day, True, 2)
    assert kept.prune() == []
    assert len(kept.told()) == 1


def test_a_models_records_are_thinned_to_stubs_that_the_control_record_accounts_for(kept: Kept) -> None:
    _, digits, fraud = kept.put(500, "digits", "digits", "fraud")
    first = Place(digits.journal, digits.sequence - 1)
    kept.put(10, "fraud")
    [pruned] = kept.prune(retention={"fraud": 3650})
    assert (pruned.whole, list(pruned.models), pruned.records) == (False, ["digits"], 2)
    [told] = kept.told()
    assert (told["models"], told["count"]) == (["digits"], 2)
    assert told["places_sha256"] == places_digest([first, digits])
    rows = {row.sequence: row for row in kept.store.rows(fraud.journal, 1, 10)}
    assert [rows[n].sealed is None for n in (1, 2, 3)] == [True, True, False]
    assert kept.prune(retention={"fraud": 3650}) == []


def test_nothing_is_pruned_when_its_control_record_cannot_be_kept(kept: Kept) -> None:
    kept.put(500, "fraud")
    kept.put(10, "fraud")
    kept.journal.close()
    with pytest.raises(AuditUnavailable):
        kept.prune()
    assert len(kept.store.days()) == 2
