"""What is particular to the audit store in SQLite: its file, its schema, its durability, its plans."""

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
from structlog.testing import capture_logs

from gateway.errors import AuditUnavailable
from gateway.ports import JournalPosition
from gateway.record import Frame, Payload, Record, encode_record
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
    assert store._file._writer.pragma("journal_mode") == "wal"
    assert store._file._writer.pragma("synchronous") == 2
    assert store._file._writer.pragma("page_size") == 8192
    assert store._file._writer.pragma("wal_autocheckpoint") == 2000
    assert store._file._writer.pragma("cache_size") == -32768


def test_tables_take_no_value_of_a_wrong_type(store: SqliteAudit) -> None:
    with pytest.raises(apsw.ConstraintError):
        store._file._writer.execute("INSERT INTO positions VALUES ('w0', 'one', 2, 3)")


def test_no_look_up_goes_through_every_record(store: SqliteAudit) -> None:
    store.write([_frame(number, oip_id="1") for number in range(1, 2_000)], [])
    store._file._writer.execute("ANALYZE")
    plan = [row[3] for row in store._file._writer.execute(f"EXPLAIN QUERY PLAN {audit_sqlite._FIND}", {"id": "x"})]
    touching = [step for step in plan if isinstance(step, str) and ("records" in step or "shadow" in step)]
    assert len(touching) == 5
    assert all(step.startswith("SEARCH") for step in touching), plan


def test_a_sample_is_read_from_its_index_alone(store: SqliteAudit) -> None:
    plan = store._file._writer.execute(f"EXPLAIN QUERY PLAN {audit_sqlite._SAMPLE}", ("fraud", 0, 10)).fetchall()
    assert [row[3] for row in plan] == [
        "SEARCH records USING COVERING INDEX records_by_decision (model=? AND received_ns>?)"
    ]


def test_a_file_of_schema_1_is_brought_up_and_what_is_in_it_stays(path: Path) -> None:
    old = _frame(1, intended="1", reason="split", rule="split", unit="d" * 32, keyed=True).record
    _make_schema_1(path, old)
    store = SqliteAudit(path)
    assert list(store.find("r-1")) == [old]
    assert dict(store.positions()) == {"w0.0123456789ab": JournalPosition("w0.0123456789ab", 1, 2, 1)}
    assert list(store.sample("fraud", 0, 10)) == []  # what it looked at is in its body only
    new = _frame(2, intended="1", reason="split", rule="split", unit="e" * 32, keyed=True)
    store.write([_frame(1), new], [])
    assert [one.record_id for one in store.sample("fraud", 0, 10)] == ["r-2"]
    store.close()
    again = SqliteAudit(path)
    assert again._file._writer.pragma("user_version") == 2
    assert list(again.find("q-2")) == [new.record]
    again.close()


def test_a_file_stays_of_schema_1_when_bringing_it_up_fails(path: Path) -> None:
    _make_schema_1(path, _frame(1).record)
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE records_by_decision (in_the_way)")
    with pytest.raises(AuditUnavailable, match="already"):
        SqliteAudit(path)
    assert connection.pragma("user_version") == 1
    connection.execute("DROP TABLE records_by_decision")
    connection.close()
    store = SqliteAudit(path)
    assert list(store.find("r-1")) == [_frame(1).record]
    store.close()


def _make_schema_1(path: Path, record: Record) -> None:
    """Make the file that Pointsman 0.1 made, to the letter of its schema."""
    path.parent.mkdir()
    connection = apsw.Connection(str(path))
    connection.execute(
        """
        PRAGMA page_size = 8192;
        PRAGMA journal_mode = WAL;
        CREATE TABLE records (
          record_id TEXT NOT NULL PRIMARY KEY,
          request_id TEXT NOT NULL,
          oip_id TEXT,
          primary_id TEXT,
          role TEXT NOT NULL,
          model TEXT NOT NULL,
          served TEXT,
          status INTEGER NOT NULL,
          outcome TEXT NOT NULL,
          received_ns INTEGER NOT NULL,
          journal TEXT NOT NULL,
          sequence INTEGER NOT NULL,
          body BLOB NOT NULL,
          UNIQUE (journal, sequence)
        ) STRICT;
        CREATE INDEX records_by_request ON records (request_id, received_ns) WHERE request_id <> record_id;
        CREATE INDEX records_by_oip ON records (oip_id, received_ns) WHERE oip_id IS NOT NULL;
        CREATE INDEX records_by_primary ON records (primary_id) WHERE primary_id IS NOT NULL;
        CREATE INDEX records_by_time ON records (received_ns);
        CREATE TABLE positions (
          journal TEXT NOT NULL PRIMARY KEY,
          segment INTEGER NOT NULL,
          "offset" INTEGER NOT NULL,
          sequence INTEGER NOT NULL
        ) STRICT;
        PRAGMA application_id = 0x506D4175;
        PRAGMA user_version = 1;
        INSERT INTO positions VALUES ('w0.0123456789ab', 1, 2, 1);
        """
    ).fetchall()
    ids = (record.record_id, record.request_id, record.oip_id, record.primary_id, record.role, record.model)
    rest = (record.served, record.status, record.outcome, record.received_ns, "w0.0123456789ab", 1)
    connection.execute(f"INSERT INTO records VALUES ({', '.join('?' * 13)})", (*ids, *rest, encode_record(record)))
    connection.close()


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
    store._file._writer.set_busy_timeout(1)
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
    with pytest.raises(AuditUnavailable, match="schema 99 and this Pointsman knows schema 2"):
        SqliteAudit(path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "in-the-way").touch()
    with pytest.raises(AuditUnavailable, match="in-the-way"):
        SqliteAudit(tmp_path / "in-the-way" / "audit.db")
