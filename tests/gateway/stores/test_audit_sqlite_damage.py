"""What the audit store in SQLite says when somebody, or a disk, has changed its files behind its back."""

import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import apsw
import pytest
from structlog.testing import capture_logs

from gateway.errors import AuditUnavailable
from gateway.ports import Filter, Row
from gateway.record import Frame, encode_record
from gateway.stores.audit_sqlite import SqliteAudit
from gateway.stores.audit_sqlite_day import COLUMNS
from tests.records import (
    DAY,
    JOURNAL,
    NEXT_DAY,
    NOON_NS,
    ChainedJournal,
    batch,
    control_record,
    new_checkpoint,
    new_record,
    shadow_of,
)

THIRD_DAY = "2026-11-27"
_primary = new_record(
    1, request_id="q", oip_id="o", asked_version="1", headers={"x-tenant": "acme"}, cohort_revision=3, model="digits"
)
RECORDS = [
    _primary,
    shadow_of(_primary, 1),
    control_record(2, "audit.list"),
    *(new_record(number) for number in range(3, 40)),
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audit"


@pytest.fixture
def frames(folder: Path) -> Sequence[Frame]:
    """The frames of three days of a store that is closed: of the first day 40, of the others one each."""
    store, chain = SqliteAudit(folder), ChainedJournal()
    first = chain.frames(*RECORDS)
    store.write(batch(first, DAY))
    store.seal(new_checkpoint(1, first))
    for nth, day in enumerate((NEXT_DAY, THIRD_DAY)):
        at_ns = NOON_NS + (nth + 1) * 86_400 * 10**9
        first += chain.frames(new_record(100 + nth, received_ns=at_ns, request_id=f"q-{day}"))
        store.write(batch(first[-1:], day))
    store.close()
    return first


@pytest.fixture
def open_store(folder: Path) -> Iterator[Callable[[], SqliteAudit]]:
    opened: list[SqliteAudit] = []

    def open_one() -> SqliteAudit:
        opened.append(SqliteAudit(folder))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


def _tamper(folder: Path, *statements: str, day: str = DAY) -> None:
    connection = apsw.Connection(str(folder / f"{day}.db"))
    for statement in statements:
        connection.execute(statement)
    connection.close()


def _row(frame: Frame) -> Row:
    return Row(frame.journal, frame.sequence, frame.previous, frame.sealed, frame.request, frame.response)


def _rows(store: SqliteAudit) -> list[Row]:
    return list(store.rows(JOURNAL, 1, 2**62))


# ── columns ──────────────────────────────────────────────────────────────────────────────────────────────────────────

CHANGES = {
    "record_id": "x'0123456789abcdef0123456789abcdef'",
    "stray": "1",
    "received_ns": "received_ns + 1",
    "model": "(SELECT id FROM words WHERE word = 'fraud')",
    "version": "NULL",
    "status": "500",
    "outcome": "1",
    "reason": "NULL",
    "role": "1",
    "caller": "gateway",
    "gateway": "caller",
    "action": "1",
    "request_key": "request_key + 1",
    "oip_key": "NULL",
    "primary_id": "'x'",
    "unit": "zeroblob(16)",
    "keyed": "0",
    "headers": "NULL",
    "asked_version": "NULL",
    "intended": "model",
    "revision": "5",
    "cohort_revision": "NULL",
}


@pytest.mark.parametrize("column", COLUMNS.split(", "))
def test_a_column_that_contradicts_the_sealed_part_is_named(
    folder: Path, frames: Sequence[Frame], open_store: Callable[[], SqliteAudit], column: str
) -> None:
    _tamper(folder, f"UPDATE records SET {column} = {CHANGES[column]} WHERE number = 1")
    rows = _rows(open_store())
    assert rows[0].damage == f"contradicting its sealed part: {column}"
    assert (rows[0].sealed, rows[0].request) == (frames[0].sealed, frames[0].request)
    assert rows[1:] == [_row(frame) for frame in frames[1:]]


def test_a_name_that_was_changed_damages_every_record_that_has_it(
    folder: Path, frames: Sequence[Frame], open_store: Callable[[], SqliteAudit]
) -> None:
    _tamper(folder, "UPDATE words SET word = 'other' WHERE word = 'fraud'")
    rows = _rows(open_store())
    assert [row.damage for row in rows] == [
        "contradicting its sealed part: model" if frame.record.model == "fraud" and nth < 40 else ""
        for nth, frame in enumerate(frames)
    ]


SEALED: dict[str, tuple[str, str]] = {
    "is no record": ("UPDATE sealed SET sealed = x'c1' WHERE number = 1", "its sealed part is no record"),
    "is empty": ("UPDATE sealed SET sealed = x'' WHERE number = 1", "its sealed part is no record"),
    "is gone": ("DELETE FROM sealed WHERE number = 1", "its sealed part is not there"),
}


@pytest.mark.parametrize(("change", "said"), SEALED.values(), ids=SEALED)
def test_a_sealed_part_that_is_no_record_is_told_and_look_ups_say_so(
    folder: Path, frames: Sequence[Frame], open_store: Callable[[], SqliteAudit], change: str, said: str
) -> None:
    _tamper(folder, change)
    store = open_store()
    rows = _rows(store)
    assert rows[0].damage.startswith(said)
    assert rows[1:] == [_row(frame) for frame in frames[1:]]
    with pytest.raises(AuditUnavailable, match=f"record 1 of journal {JOURNAL}, kept under {DAY}, is damaged"):
        store.find(frames[0].record.record_id)
    with capture_logs() as logs:
        assert len(store.page(Filter(), None, 100).records) == 41
        assert sum(map(len, store.scan(Filter(), contents=True))) == 41
    assert [line["event"] for line in logs] == ["record_unreadable"] * 2
    assert store.count(Filter()) == 42


def test_another_record_in_the_sealed_part_is_found_out_by_the_columns(
    folder: Path, frames: Sequence[Frame], open_store: Callable[[], SqliteAudit]
) -> None:
    other = encode_record(new_record(1, status=503))
    connection = apsw.Connection(str(folder / f"{DAY}.db"))
    connection.execute("UPDATE sealed SET sealed = ? WHERE number = 4", (other,))
    connection.close()
    row = _rows(open_store())[3]
    assert row.sealed == other
    assert "status" in row.damage


VALUES = ["NULL", "7", "'text'", "1.5", "x''", "x'00ff'", "zeroblob(100)"]


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize(
    "place", ["sealed.sealed", "sealed.previous", "parts.request", "parts.response", "erasures.erasure", "stubs.chain"]
)
def test_values_of_any_kind_where_bytes_belong_do_not_make_reading_fail(
    folder: Path, frames: Sequence[Frame], open_store: Callable[[], SqliteAudit], place: str, value: str
) -> None:
    """Somebody who writes into the file is not held to the types of the schema."""
    store = open_store()
    store.erase([], "e")
    store.thin(DAY, ["digits"], "p")
    store.close()
    table, column = place.split(".")
    _tamper(
        folder,
        "PRAGMA writable_schema = 1",
        "UPDATE sqlite_schema SET sql = replace(replace(sql, ' STRICT', ''), ' NOT NULL', '') "
        f"WHERE type = 'table' AND name = '{table}'",
    )
    _tamper(folder, "INSERT INTO erasures VALUES (5, 'e')", f"UPDATE {table} SET {column} = {value}")
    rows = _rows(open_store())
    assert [row.sequence for row in rows] == [frame.sequence for frame in frames]
    for row in rows:
        assert all(isinstance(one, bytes) for one in (row.previous, row.request, row.response, row.chain))


def test_text_that_is_no_unicode_in_the_file_is_damage_of_the_records_that_it_is_in(
    folder: Path, frames: Sequence[Frame], open_store: Callable[[], SqliteAudit]
) -> None:
    _tamper(folder, "UPDATE records SET record_id = CAST(x'ff00ff' AS TEXT) WHERE number = 7")
    _tamper(folder, "UPDATE words SET word = CAST(x'ff' AS TEXT) WHERE word = 'digits'")
    rows = _rows(open_store())
    assert [row.sequence for row in rows if row.damage] == [1, 2, 7]


# ── files ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_whatever_bytes_of_a_complete_day_are_changed_its_rows_are_read_or_told_as_damaged(
    folder: Path, frames: Sequence[Frame], open_store: Callable[[], SqliteAudit]
) -> None:
    path, drawn = folder / f"{DAY}.db", random.Random(7)
    whole = path.read_bytes()
    sealed = {frame.sequence: frame.sealed for frame in frames}
    for _ in range(100):
        changed = bytearray(whole)
        for _ in range(drawn.choice((1, 1, 40))):
            changed[drawn.randrange(len(changed))] = drawn.randrange(256)
        path.write_bytes(changed)
        store = open_store()
        rows = _rows(store)
        assert [row.sequence for row in rows] == sorted({row.sequence for row in rows})
        assert [row.sealed for row in rows[-2:]] == [sealed[41], sealed[42]]
        assert [kept.day for kept in store.find(f"q-{NEXT_DAY}")] == [NEXT_DAY]
        store.close()


@pytest.mark.parametrize("content", [b"", b"not a database" * 1_000, bytes(20_000)], ids=["empty", "text", "zeros"])
def test_every_place_of_a_complete_day_whose_file_is_destroyed_is_told_as_damaged(
    folder: Path, frames: Sequence[Frame], open_store: Callable[[], SqliteAudit], content: bytes
) -> None:
    path = folder / f"{DAY}.db"
    path.write_bytes(content)
    store = open_store()
    rows = _rows(store)
    told = [row.sequence for row in rows if str(path) in row.damage]
    assert told == (list(range(1, 41)) if content else [])  # an empty file has no place, so they are missing
    assert [_row(frame) for frame in frames[40:]] == [row for row in rows if not row.damage]
    assert [kept.day for kept in store.find(f"q-{NEXT_DAY}")] == [NEXT_DAY]


def test_a_destroyed_day_is_named_when_a_look_up_needs_it_and_goes_when_its_time_is_over(
    folder: Path, frames: Sequence[Frame], open_store: Callable[[], SqliteAudit]
) -> None:
    (folder / f"{DAY}.db").write_bytes(b"not a database" * 1_000)
    store = open_store()
    with pytest.raises(AuditUnavailable, match=f"{DAY}\\.db failed"):
        store.find(frames[0].record.record_id)
    with capture_logs() as logs:
        assert [(day.day, dict(day.records)) for day in store.days()][:2] == [(DAY, {}), (NEXT_DAY, {"fraud": 1})]
        dropped = store.drop(DAY, "p")
    assert {line["event"] for line in logs} == {"audit_day_damaged"}
    assert [(one.first, one.last, one.records) for one in dropped] == [(1, 40, 40)]
    assert [day.day for day in store.days()] == [NEXT_DAY, THIRD_DAY]


def test_a_destroyed_newest_day_is_named_and_the_others_can_be_read(
    folder: Path, frames: Sequence[Frame], open_store: Callable[[], SqliteAudit]
) -> None:
    path = folder / f"{THIRD_DAY}.db"
    path.write_bytes(b"not a database" * 1_000)
    store = open_store()
    for call in (store.positions, lambda: _rows(store), lambda: store.find("q"), store.gaps):
        with pytest.raises(AuditUnavailable, match=f"{THIRD_DAY}\\.db"):
            call()
    with pytest.raises(AuditUnavailable, match=f"{THIRD_DAY}\\.db"):
        store.write(batch(frames[-1:], THIRD_DAY))
    assert path.read_bytes().startswith(b"not a database")
    assert store.days()[0].records["fraud"] == 37
    path.unlink()
    assert store.positions()[JOURNAL].sequence == 41
    store.write(batch(frames[-1:], THIRD_DAY))
    assert [row.damage for row in _rows(store)] == [""] * 42


def test_the_file_of_something_else_is_refused_and_left_alone(folder: Path, frames: Sequence[Frame]) -> None:
    other = folder / "2026-12-24.db"
    connection = apsw.Connection(str(other))
    connection.execute("CREATE TABLE birds (name)")
    connection.close()
    before = other.read_bytes()
    store = SqliteAudit(folder)
    with pytest.raises(AuditUnavailable, match="something else"):
        store.write(batch(frames[-1:], "2026-12-24"))
    store.close()
    assert other.read_bytes() == before


@pytest.mark.parametrize("name", ["index", DAY])
def test_a_schema_of_a_later_version_is_refused_with_both_versions_named(
    folder: Path, frames: Sequence[Frame], name: str
) -> None:
    connection = apsw.Connection(str(folder / f"{name}.db"))
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(AuditUnavailable, match="schema 99 and this Pointsman knows schema 1"):
        SqliteAudit(folder).find(frames[0].record.record_id)
