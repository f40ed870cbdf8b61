"""What is particular to the archive of revisions in SQLite: its file, and that look-ups go by index."""

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from gateway.errors import AuditUnavailable
from gateway.ports import DocumentChange, Head, Revision
from gateway.stores import revisions_sqlite
from gateway.stores.audit_sqlite import SqliteAudit
from gateway.stores.revisions_sqlite import SqliteRevisions


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "revisions.db"


@pytest.fixture
def archive(path: Path) -> Iterator[SqliteRevisions]:
    archive = SqliteRevisions(path)
    yield archive
    archive.close()


def _revisions(first: int, last: int) -> list[Revision]:
    changes = (DocumentChange("route", "fraud", b"{}", b"{}"),)
    return [Revision(number, "ann", "", f"op-{number}", number, changes) for number in range(first, last + 1)]


def test_nobody_else_may_read_the_file(archive: SqliteRevisions, path: Path) -> None:
    archive.keep("e", _revisions(1, 1))
    assert {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {
        "revisions.db": 0o600,
        "revisions.db-wal": 0o600,
        "revisions.db-shm": 0o600,
    }


def test_what_is_kept_is_synced(archive: SqliteRevisions) -> None:
    with archive._file.writer() as connection:
        assert connection.pragma("journal_mode") == "wal"
        assert connection.pragma("synchronous") == 2


def test_another_process_reads_what_is_kept_and_changes_nothing(archive: SqliteRevisions, path: Path) -> None:
    reading = SqliteRevisions(path, read_only=True)
    archive.keep("e", _revisions(1, 3))
    assert reading.kept() == Head("e", 3)
    with pytest.raises(AuditUnavailable, match="for reading only"):
        reading.keep("e", _revisions(4, 4))
    reading.close()
    archive.keep("e", _revisions(4, 4))


def test_an_archive_that_is_only_read_has_to_be_there_and_be_one(tmp_path: Path) -> None:
    with pytest.raises(AuditUnavailable, match="is not there"):
        SqliteRevisions(tmp_path / "nothing.db", read_only=True)
    assert not (tmp_path / "nothing.db").exists()
    apsw.Connection(str(tmp_path / "empty.db")).close()
    with pytest.raises(AuditUnavailable, match="is still empty"):
        SqliteRevisions(tmp_path / "empty.db", read_only=True)


def test_the_file_of_another_store_is_refused(path: Path) -> None:
    SqliteAudit(path.parent).close()
    with pytest.raises(AuditUnavailable, match="something else"):
        SqliteRevisions(path.parent / "index.db")


def test_a_schema_of_a_later_version_is_refused_with_both_versions_named(archive: SqliteRevisions, path: Path) -> None:
    archive.close()
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(AuditUnavailable, match="schema 99 and this Pointsman knows schema 1"):
        SqliteRevisions(path)


def test_an_archive_that_stays_locked_says_so_and_works_when_the_lock_is_gone(
    archive: SqliteRevisions, path: Path
) -> None:
    assert archive._file._writer is not None
    archive._file._writer.set_busy_timeout(1)
    other = apsw.Connection(str(path))
    try:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(AuditUnavailable, match="locked"):
            archive.keep("e", _revisions(1, 1))
        other.execute("ROLLBACK")
    finally:
        other.close()
    archive.keep("e", _revisions(1, 1))
    assert archive.revision(1) is not None


@pytest.mark.parametrize(
    ("statement", "bindings"),
    [
        (revisions_sqlite._LAST, ()),
        (revisions_sqlite._KNOWN, (5, "op")),
        (revisions_sqlite._MEANT, (5,)),
        (revisions_sqlite._ALL, (5, 10)),
        (revisions_sqlite._CHANGING, ("route", "fraud", 5, 10)),
        (revisions_sqlite._PLACE, (5,)),
        (revisions_sqlite._NEXT, (5,)),
        (revisions_sqlite._LEFT_BY, ("route", "fraud", 5, 1, 9)),
        (revisions_sqlite._AT, (5,)),
    ],
)
def test_no_look_up_goes_through_every_revision_nor_sorts_them(
    archive: SqliteRevisions, statement: str, bindings: tuple[object, ...]
) -> None:
    archive.keep("e", _revisions(1, 500))
    assert archive._file._writer is not None
    archive._file._writer.execute("ANALYZE")
    plan = [str(row[3]) for row in archive._file._writer.execute(f"EXPLAIN QUERY PLAN {statement}", bindings)]
    assert not [step for step in plan if "TEMP B-TREE" in step], plan
    # The newest row of all is the one that a scan by place meets first.
    scans = [step for step in plan if step.startswith("SCAN") and statement != revisions_sqlite._LAST]
    assert scans == [], plan
