"""What is particular to the audit store in SQLite: its file, its schema, its durability, its plans."""

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from structlog.testing import capture_logs

from gateway.errors import AuditUnavailable
from gateway.ports import JournalPosition
from gateway.record import Frame, Payload, Record
from gateway.stores import audit_sqlite
from gateway.stores.audit_sqlite import SqliteAudit


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "audit.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteAudit]:
    store = SqliteAudit(path)
    yield store
    store.close()


def _frame(sequence: int, **fields: object) -> Frame:
    given: dict[str, object] = {
        "record_id": f"r-{sequence}",
        "request_id": f"q-{sequence}",
        "role": "primary",
        "received_ns": sequence,
        "model": "fraud",
        "protocol": "oip-v2",
        "outcome": "served",
        "status": 200,
        "request": Payload(0, "a" * 64),
        "response": Payload(0, "b" * 64),
    }
    return Frame("w0.0123456789ab", sequence, Record(**(given | fields)))  # type: ignore[arg-type]


def test_nobody_else_may_read_the_file_nor_its_log(store: SqliteAudit, path: Path) -> None:
    store.write([_frame(1)], [])
    assert {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {
        "audit.db": 0o600,
        "audit.db-wal": 0o600,
        "audit.db-shm": 0o600,
    }
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_what_is_committed_is_synced_and_readers_do_not_wait_for_the_writer(store: SqliteAudit) -> None:
    assert store._writer.pragma("journal_mode") == "wal"
    assert store._writer.pragma("synchronous") == 2
    assert store._writer.pragma("page_size") == 8192


def test_tables_take_no_value_of_a_wrong_type(store: SqliteAudit) -> None:
    with pytest.raises(apsw.ConstraintError):
        store._writer.execute("INSERT INTO positions VALUES ('w0', 'one', 2, 3)")


def test_no_look_up_goes_through_every_record(store: SqliteAudit) -> None:
    store.write([_frame(number, oip_id="1") for number in range(1, 2_000)], [])
    store._writer.execute("ANALYZE")
    plan = [row[3] for row in store._writer.execute(f"EXPLAIN QUERY PLAN {audit_sqlite._FIND}", {"id": "x"})]
    touching = [step for step in plan if isinstance(step, str) and ("records" in step or "shadow" in step)]
    assert len(touching) == 5
    assert all(step.startswith("SEARCH") for step in touching), plan


def test_a_conflict_of_places_is_told_and_neither_record_is_changed(store: SqliteAudit) -> None:
    store.write([_frame(1), _frame(2)], [])
    with capture_logs() as logs:
        store.write([_frame(1, record_id="r-9"), _frame(3, record_id="r-2"), _frame(2), _frame(4)], [])
    assert [(line["event"], line["record_id"], line["sequence"]) for line in logs] == [
        ("record_conflict", "r-9", 1),
        ("record_conflict", "r-2", 3),
    ]
    assert list(store.find("r-4")) == [_frame(4).record]


def test_frames_that_are_written_again_are_no_conflict(store: SqliteAudit) -> None:
    store.write([_frame(1), _frame(2)], [])
    with capture_logs() as logs:
        store.write([_frame(1), _frame(2), _frame(3)], [])
    assert logs == []


def test_a_store_that_stays_locked_says_so_and_works_when_the_lock_is_gone(store: SqliteAudit, path: Path) -> None:
    store._writer.set_busy_timeout(1)
    other = apsw.Connection(str(path))
    try:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(AuditUnavailable, match="locked"):
            store.write([_frame(1)], [])
        assert list(store.find("r-1")) == []
        other.execute("ROLLBACK")
    finally:
        other.close()
    store.write([_frame(1)], [JournalPosition("w0", 1, 2, 3)])
    assert list(store.find("r-1")) == [_frame(1).record]


def test_a_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but somebody's notes\n" * 100)
    with pytest.raises(AuditUnavailable, match=r"notes\.txt"):
        SqliteAudit(path)
    assert path.read_text().startswith("not a database")


def test_a_database_of_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE birds (name)")
    connection.close()
    with pytest.raises(AuditUnavailable, match="something else"):
        SqliteAudit(path)


def test_a_schema_of_a_later_version_is_refused_with_both_versions_named(store: SqliteAudit, path: Path) -> None:
    store.close()
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(AuditUnavailable, match="schema 99 and this Pointsman knows schema 1"):
        SqliteAudit(path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "in-the-way").touch()
    with pytest.raises(AuditUnavailable, match="in-the-way"):
        SqliteAudit(tmp_path / "in-the-way" / "audit.db")
