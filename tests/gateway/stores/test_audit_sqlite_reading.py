"""How the audit store in SQLite is read: by other processes, by index, and within a budget."""

import multiprocessing
import re
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

import apsw
import pytest

from gateway.errors import AuditUnavailable
from gateway.ports import AuditStore, Filter, PublicKey
from gateway.record import Frame
from gateway.stores import audit_sqlite_evidence, audit_sqlite_lookups, audit_sqlite_privacy, audit_sqlite_rows
from gateway.stores.audit_sqlite import SqliteAudit
from gateway.stores.audit_sqlite_listing import page
from tests.records import (
    DAY,
    JOURNAL,
    NEXT_DAY,
    ChainedJournal,
    batch,
    control_record,
    new_checkpoint,
    new_record,
    shadow_of,
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


# ── reading from another process ─────────────────────────────────────────────────────────────────────────────────────


def _read(folder: Path, to_test: Connection) -> None:
    """Read until told to stop, and send how many records were seen each time, or what went wrong."""
    try:
        reader = SqliteAudit(folder, read_only=True)
        to_test.send("ready")
        while not to_test.poll():
            rows = list(reader.rows(JOURNAL, 1, 2**62))
            assert [row.sequence for row in rows] == list(range(1, len(rows) + 1))
            assert not any(row.damage for row in rows)
            assert reader.count(Filter()) >= len(rows)
            to_test.send(len(rows))
        reader.close()
        to_test.send("closed")
    except BaseException as error:
        to_test.send(repr(error))
        raise


def test_another_process_reads_the_folder_while_records_are_written(folder: Path) -> None:
    store, chain = SqliteAudit(folder), ChainedJournal()
    here, there = multiprocessing.Pipe()
    reading = multiprocessing.get_context("spawn").Process(target=_read, args=(folder, there))
    reading.start()
    assert here.recv() == "ready"
    for nth in range(150):
        day = DAY if nth < 75 else NEXT_DAY
        store.write(batch(chain.frames(*(new_record(number) for number in range(10))), day))
    seen: list[int] = []
    while not seen or seen[-1] < 1_500:
        assert here.poll(30), "the reader says nothing"
        seen.append(here.recv())
        assert isinstance(seen[-1], int), seen[-1]
    here.send("stop")
    while (last := here.recv()) != "closed":
        assert last == 1_500
    reading.join()
    assert seen == sorted(seen)
    store.close()
    assert sorted(file.name for file in folder.iterdir()) == [f"{DAY}.db", f"{NEXT_DAY}.db", "index.db"]


def test_a_store_that_is_opened_for_reading_changes_nothing(store: SqliteAudit, folder: Path) -> None:
    frames = _frames(store, 3)
    reader = SqliteAudit(folder, read_only=True)
    assert len(reader.find("q-1")) == 1
    changes = (
        lambda: reader.write(batch(frames)),
        lambda: reader.seal(new_checkpoint(1, ())),
        lambda: reader.publish_key(PublicKey("gw-a", "k", "", 1)),
        lambda: reader.erase([], "e"),
        lambda: reader.thin(DAY, [], "p"),
        lambda: reader.drop(DAY, "p"),
    )
    for change in changes:
        with pytest.raises(AuditUnavailable, match="for reading only"):
            change()
    reader.close()


def test_nothing_is_made_by_opening_for_reading_what_is_not_there(folder: Path) -> None:
    with pytest.raises(AuditUnavailable, match=r"index\.db is not there"):
        SqliteAudit(folder, read_only=True)
    assert not folder.exists()


# ── plans ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _plan(path: Path, statement: str) -> list[str]:
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        plan = connection.execute("EXPLAIN QUERY PLAN " + re.sub(r"\?\d?", "1", statement))
        return [str(row[3]) for row in plan]
    finally:
        connection.close()


LOOK_UPS = {
    "a record id": audit_sqlite_lookups._OF_TIME,
    "the id of a stray": audit_sqlite_lookups._STRAY,
    "shadows": audit_sqlite_lookups._SHADOWS,
    "a request id": audit_sqlite_lookups._BY_REQUEST,
    "an OIP id": audit_sqlite_lookups._BY_OIP,
    "keys of request ids": audit_sqlite_lookups._REQUEST_KEYS,
    "keys of OIP ids": audit_sqlite_lookups._OIP_KEYS,
    "a sample": audit_sqlite_lookups._SAMPLE,
    "whole records": f"{audit_sqlite_lookups._WITH_PARTS} WHERE number = ?",
    "rows": audit_sqlite_rows._ROWS,
    "stubs": audit_sqlite_rows._STUBS,
    "a covering checkpoint": audit_sqlite_evidence._COVERING,
}


@pytest.mark.parametrize("statement", LOOK_UPS.values(), ids=LOOK_UPS)
def test_no_look_up_goes_through_every_record_nor_sorts_what_it_found(
    store: SqliteAudit, folder: Path, statement: str
) -> None:
    _frames(store, 10)
    plan = _plan(folder / f"{DAY}.db", statement)
    assert all(step.startswith("SEARCH") for step in plan), plan


IN_ORDER = {
    "a scan": f"{audit_sqlite_lookups._WITH_PARTS} WHERE number > ? AND model = ? AND role = 0 ORDER BY number LIMIT ?",
    "thinning": audit_sqlite_privacy._OF_MODEL,
}


@pytest.mark.parametrize("statement", IN_ORDER.values(), ids=IN_ORDER)
def test_what_goes_through_all_records_of_a_model_goes_through_them_once(
    store: SqliteAudit, folder: Path, statement: str
) -> None:
    """By the index of models, each chunk would sort all that are left."""
    _frames(store, 10)
    plan = _plan(folder / f"{DAY}.db", statement)
    assert plan[0] == "SEARCH records USING INTEGER PRIMARY KEY (rowid>?)"
    assert not any("TEMP B-TREE" in step for step in plan), plan


def test_what_a_day_holds_is_counted_in_an_index_alone(store: SqliteAudit, folder: Path) -> None:
    _frames(store, 10)
    plan = _plan(folder / f"{DAY}.db", audit_sqlite_evidence._HELD)
    assert "SCAN records USING COVERING INDEX sqlite_autoindex_records_1" in plan


@pytest.mark.parametrize("most", [1, 5, 23, 1_000])
def test_a_page_looks_at_no_more_records_than_it_may_and_the_next_one_goes_on(store: SqliteAudit, most: int) -> None:
    chain = ChainedJournal()
    for day in (DAY, NEXT_DAY):
        primary = new_record(0, status=500)
        others = (new_record(number) for number in range(1, 30))
        store.write(batch(chain.frames(*others, primary, shadow_of(primary, 1)), day))
        store.write(batch([chain.frame(control_record(9, "audit.list"), None, None)], day))
    for wanted, count in ((Filter(status=500), 4), (Filter(), 64), (Filter(role="control"), 2), (Filter(status=1), 0)):
        found, after, pages = 0, None, 0
        while True:
            part = page(store._files, store._extents, wanted, after, 10, most=most)
            found, after, pages = found + len(part.records), part.next, pages + 1
            if after is None:
                break
        assert found == count
        assert pages >= 64 // most or wanted.role == "control"
