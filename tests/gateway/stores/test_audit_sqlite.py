"""What is particular to the audit store in SQLite: its files, and who may write when."""

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from gateway.errors import AuditUnavailable, InvalidInput
from gateway.ports import AuditStore, Batch, Filter
from gateway.record import Frame
from gateway.stores import audit_sqlite_files
from gateway.stores.audit_sqlite import SqliteAudit
from gateway.stores.audit_sqlite_day import SCHEMA
from gateway.stores.sqlite_file import SqliteFile
from tests.records import (
    DAY,
    JOURNAL,
    NEXT_DAY,
    ChainedJournal,
    batch,
    new_checkpoint,
    new_record,
    position_of,
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "audit"


@pytest.fixture
def store(folder: Path) -> Iterator[SqliteAudit]:
    store = SqliteAudit(folder)
    yield store
    store.close()


def _frames(store: AuditStore, records: int, day: str = DAY) -> list[Frame]:
    chain = ChainedJournal()
    frames = chain.frames(*(new_record(number, request_id=f"q-{number}") for number in range(records)))
    store.write(batch(frames, day))
    return frames


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_nobody_else_may_read_a_file_nor_its_log(store: SqliteAudit, folder: Path) -> None:
    _frames(store, 1)
    store.find("q-0")
    assert {file.name: file.stat().st_mode & 0o777 for file in folder.iterdir()} == {
        f"{name}{suffix}": 0o600 for name in ("index.db", f"{DAY}.db") for suffix in ("", "-wal", "-shm")
    }
    assert folder.stat().st_mode & 0o777 == 0o700
    assert folder.parent.stat().st_mode & 0o777 == 0o700


def test_closing_leaves_one_whole_file_for_each_day(store: SqliteAudit, folder: Path) -> None:
    chain = ChainedJournal()
    for day in (DAY, NEXT_DAY):
        store.write(batch(chain.frames(new_record(1)), day))
    store.find("q")
    store.close()
    assert sorted(file.name for file in folder.iterdir()) == [f"{DAY}.db", f"{NEXT_DAY}.db", "index.db"]


def test_what_is_committed_is_synced_and_what_is_deleted_is_overwritten(tmp_path: Path) -> None:
    file = SqliteFile(tmp_path / "2026-11-25.db", SCHEMA)
    with file.writer() as connection:
        assert connection.pragma("journal_mode") == "wal"
        assert connection.pragma("synchronous") == 2
        assert connection.pragma("page_size") == 16_384
        assert connection.pragma("secure_delete") == 1
        assert connection.pragma("wal_autocheckpoint") == 2000
        assert connection.pragma("cache_size") == -32768
        with pytest.raises(apsw.ConstraintError):
            connection.execute("INSERT INTO positions VALUES ('w0', 'one', 2, 3, x'')")
    file.close()


def test_a_store_of_an_earlier_version_beside_the_folder_is_left_alone(folder: Path) -> None:
    earlier = folder.parent / "audit.db"
    earlier.parent.mkdir()
    earlier.write_bytes(b"what was recorded in development")
    store = SqliteAudit(folder)
    _frames(store, 3)
    store.close()
    assert earlier.read_bytes() == b"what was recorded in development"


def test_files_of_many_days_take_few_descriptors(store: SqliteAudit, folder: Path) -> None:
    chain = ChainedJournal()
    days = [f"2026-{month:02}-{day:02}" for month in (7, 8, 9, 10) for day in range(1, 31)]
    for nth, day in enumerate(days):
        store.write(batch(chain.frames(new_record(nth)), day))
    assert len(list(store.days())) == len(days)
    assert len(list(store.rows(JOURNAL, 1, 2**62))) == len(days)
    mine = [link.readlink() for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    inside = [path for path in mine if path.is_relative_to(folder.resolve())]
    assert len(inside) <= 3 * (audit_sqlite_files.IDLE_CONNECTIONS + 3)
    assert len(store._files._idle) == audit_sqlite_files.IDLE_CONNECTIONS


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "in-the-way").touch()
    with pytest.raises(AuditUnavailable, match="in-the-way"):
        SqliteAudit(tmp_path / "in-the-way" / "audit")


def test_other_files_in_the_folder_are_no_days(store: SqliteAudit, folder: Path) -> None:
    _frames(store, 1)
    for name in ("notes.txt", "2026-1-1.db", "2026-11-25.db.bak", "x2026-11-25.db", "２０２６-11-25.db"):
        (folder / name).write_text("not ours")
    assert [day.day for day in store.days()] == [DAY]


# ── who may write, and when ──────────────────────────────────────────────────────────────────────────────────────────


def test_a_complete_day_takes_no_more_records(store: SqliteAudit) -> None:
    chain = ChainedJournal()
    store.write(batch(chain.frames(new_record(1)), NEXT_DAY))
    with pytest.raises(AuditUnavailable, match=f"{DAY} of the audit store is complete since {NEXT_DAY}"):
        store.write(batch(chain.frames(new_record(2)), DAY))
    assert [day.day for day in store.days()] == [NEXT_DAY]


@pytest.mark.parametrize("day", ["", "today", "2026-11-25/../../x", "../x", "2026-11-25\n", "２０２６-11-25"])
def test_a_day_that_is_none_is_refused_before_it_becomes_a_path(store: SqliteAudit, folder: Path, day: str) -> None:
    with pytest.raises(InvalidInput, match="day"):
        store.write(batch(ChainedJournal().frames(new_record(1)), day))
    with pytest.raises(InvalidInput, match="day"):
        store.seal(new_checkpoint(1, (), day))
    assert list(store.drop(day, "p")) == []
    assert list(store.thin(day, ["fraud"], "p").places) == []
    assert list(store.places_in(day, ["fraud"])) == []
    assert {file.name for file in folder.iterdir()} <= {"index.db", "index.db-wal", "index.db-shm"}


def test_a_store_that_stays_locked_says_so_keeps_nothing_half_and_works_when_the_lock_is_gone(
    store: SqliteAudit, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.stores.sqlite_file._BUSY_MS", 1)
    chain = ChainedJournal()
    store.write(batch(chain.frames(new_record(1))))
    before = dict(store.positions())
    second = chain.frames(new_record(2, model="new name"), new_record(3, client="192.0.2.1"))
    other = apsw.Connection(str(folder / f"{DAY}.db"))
    try:
        other.execute("BEGIN IMMEDIATE")
        for _ in range(2):
            with pytest.raises(AuditUnavailable, match="locked"):
                store.write(batch(second))
        assert dict(store.positions()) == before
        other.execute("ROLLBACK")
    finally:
        other.close()
    store.write(batch(second))
    assert [row.damage for row in store.rows(JOURNAL, 1, 9)] == ["", "", ""]
    assert len(store.page(Filter(model="new name"), None, 9).records) == 1


def test_a_batch_that_fails_midway_leaves_neither_frames_nor_names_nor_positions(store: SqliteAudit) -> None:
    """The last part of a record of the batch is longer than SQLite takes; what came before it must not stay."""
    chain = ChainedJournal()
    store.write(batch(chain.frames(new_record(1))))
    assert store._writers is not None
    writer = store._writers.recording._writer
    assert writer is not None
    limit = writer._connection.limit(apsw.SQLITE_LIMIT_LENGTH, 10_000)
    frames = [*chain.frames(new_record(2, model="a name")), chain.frame(new_record(3), b"x" * 20_000)]
    with pytest.raises(AuditUnavailable):
        store.write(batch(frames))
    writer._connection.limit(apsw.SQLITE_LIMIT_LENGTH, limit)
    assert store.positions()[JOURNAL].sequence == 1
    assert len(list(store.rows(JOURNAL, 1, 9))) == 1
    store.write(batch(frames))
    assert [(row.sequence, row.damage) for row in store.rows(JOURNAL, 1, 9)] == [(1, ""), (2, ""), (3, "")]


def test_a_day_whose_making_was_interrupted_does_not_hide_the_positions(store: SqliteAudit, folder: Path) -> None:
    """A file is made before the first batch is committed to it; a process may die between the two."""
    chain = ChainedJournal()
    store.write(batch(chain.frames(new_record(1))))
    for name, make in (("2026-11-26.db", _make_empty), ("2026-11-27.db", _make_schema)):
        make(folder / name)
    again = SqliteAudit(folder)
    assert again.positions()[JOURNAL] == chain.position
    assert [day.day for day in again.days()] == [DAY]
    again.write(batch(chain.frames(new_record(2, request_id="q")), "2026-11-27"))
    assert again.positions()[JOURNAL] == chain.position
    assert [kept.day for kept in again.find("q")] == ["2026-11-27"]
    again.close()


def test_what_a_process_left_that_died_while_it_made_a_day_is_made_anew(store: SqliteAudit, folder: Path) -> None:
    for name in ("2026-11-25.making", "2026-11-25.making-wal", "2026-11-25.making-shm"):
        (folder / name).write_bytes(b"half of a file")
    _frames(store, 2)
    assert [row.damage for row in store.rows(JOURNAL, 1, 9)] == ["", ""]
    assert not [file.name for file in folder.iterdir() if "making" in file.name]


def _make_empty(path: Path) -> None:
    path.touch()


def _make_schema(path: Path) -> None:
    SqliteFile(path, SCHEMA).close()


def test_gaps_and_positions_of_an_empty_batch_go_to_the_newest_day(store: SqliteAudit) -> None:
    _frames(store, 1)
    store.write(Batch("2026-12-24", (), [position_of(JOURNAL, 1, segment=8)]))
    assert [day.day for day in store.days()] == [DAY]
    assert store.positions()[JOURNAL].segment == 8
