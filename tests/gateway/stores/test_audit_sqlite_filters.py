"""How the audit store in SQLite finds ids over many days and opens few: its filters, and what it does without them."""

from collections.abc import Iterator
from pathlib import Path

import apsw
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from gateway.record import Frame
from gateway.stores.audit_sqlite import SqliteAudit
from gateway.stores.audit_sqlite_day import CHUNK_BITS, oip_key, request_key, stray_key
from gateway.stores.audit_sqlite_filters import BLOCK_BYTES, block_count, block_of, filter_of, may_have
from gateway.stores.audit_sqlite_index import SCHEMA, Index
from tests.records import DAY, JOURNAL, NEXT_DAY, NOON_NS, ChainedJournal, batch, new_record, record_id_at, shadow_of

KEYS = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=2_000)
DAY_NS = 86_400 * 10**9


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audit"


@pytest.fixture
def store(folder: Path) -> Iterator[SqliteAudit]:
    store = SqliteAudit(folder)
    yield store
    store.close()


def _has(blocks: list[bytes], key: int) -> bool:
    return may_have(key, blocks[block_of(key, len(blocks))])


@given(KEYS)
def test_a_filter_has_every_key_that_it_was_made_of(keys: list[int]) -> None:
    blocks = filter_of(np.array(keys, dtype=np.int64))
    assert len(blocks) == block_count(len(keys))
    assert {len(block) for block in blocks} == {BLOCK_BYTES}
    assert all(_has(blocks, key) for key in keys)


def test_a_filter_says_no_of_most_other_keys() -> None:
    keys = [request_key(f"q-{number}") for number in range(50_000)]
    blocks = filter_of(np.array(keys, dtype=np.int64))
    wrong = sum(_has(blocks, oip_key(f"q-{number}")) for number in range(20_000))
    assert 0 < wrong < 20_000 * 0.02
    assert sum(map(len, blocks)) * 8 / len(keys) < 12.1


def test_a_filter_of_nothing_has_nothing() -> None:
    blocks = filter_of(np.array([], dtype=np.int64))
    assert not any(_has(blocks, request_key(f"q-{number}")) for number in range(1_000))


def test_one_text_is_another_key_as_each_kind_of_id() -> None:
    assert len({request_key("x"), oip_key("x"), stray_key("x"), stray_key(b"x" * 16)}) == 4


# ── days ─────────────────────────────────────────────────────────────────────────────────────────────────────────────


def _fill(store: SqliteAudit, days: int) -> dict[str, Frame]:
    """Write one record on each of so many days, and return them by day."""
    chain, found = ChainedJournal(), {}
    for nth in range(days):
        at_ns = NOON_NS - (days - nth) * DAY_NS
        day = f"2026-{9 + nth // 30:02}-{nth % 30 + 1:02}"
        found[day] = chain.frame(new_record(nth, received_ns=at_ns, request_id=f"q-{nth}", oip_id=f"o-{nth}"))
        store.write(batch([found[day]], day))
    return found


def _opened(store: SqliteAudit) -> set[str]:
    """Return to which days the store has connections, and close them."""
    days = {day for day, _ in store._files._idle}
    for day in days:
        store._files.forget(day)
    return days


def test_a_look_up_opens_only_days_that_may_have_the_id(store: SqliteAudit) -> None:
    frames = _fill(store, 60)
    newest = max(frames)
    _opened(store)
    for day in list(frames)[::7]:
        record = frames[day].record
        for any_id in (record.record_id, record.request_id, record.oip_id):
            assert any_id is not None
            assert [kept.day for kept in store.find(any_id)] == [day]
            assert len(_opened(store) - {day, newest}) <= 2  # a filter is wrong once in a hundred times
    assert list(store.find("no such id")) == []
    assert len(_opened(store) - {newest}) <= 2


def test_a_store_that_is_opened_again_reads_no_complete_day_to_find_an_id(store: SqliteAudit, folder: Path) -> None:
    frames = _fill(store, 40)
    store.close()
    again = SqliteAudit(folder, read_only=True)
    assert len(again.find("q-7")) == 1
    assert len(_opened(again) - {max(frames)}) <= 3
    again.close()


@pytest.mark.parametrize("lost", [["chunks"], ["blocks"], ["chunks", "blocks"], ["complete"], ["extents"]])
def test_what_the_index_has_lost_is_done_without_and_made_again(
    store: SqliteAudit, folder: Path, lost: list[str]
) -> None:
    frames = _fill(store, 5)
    store.close()
    _lose(folder, *lost)
    again = SqliteAudit(folder)
    for nth, (day, frame) in enumerate(frames.items()):
        for any_id in (frame.record.record_id, f"q-{nth}", f"o-{nth}"):
            assert [kept.day for kept in again.find(any_id)] == [day]
    chain = ChainedJournal("gw-a/w9.999999999999")
    again.write(batch(chain.frames(new_record(99)), "2026-12-24"))
    again.write(batch(chain.frames(new_record(100)), "2026-12-25"))
    finished = again._index.finished()
    assert all(finished[day].final for day in [*frames, "2026-12-24"])
    again.close()


def _lose(folder: Path, *tables: str) -> None:
    index = apsw.Connection(str(folder / "index.db"))
    for table in tables:
        index.execute(f"DELETE FROM {table}")
    index.close()


def test_an_index_that_is_gone_is_made_again_and_look_ups_do_without_it(store: SqliteAudit, folder: Path) -> None:
    frames = _fill(store, 9)
    store.close()
    (folder / "index.db").unlink()
    again = SqliteAudit(folder)
    assert [kept.frame for kept in again.find("q-3")] == [list(frames.values())[3]]
    chain = ChainedJournal("gw-a/w9.999999999999")
    for number in range(4):  # each batch makes a few of them, so that none has to wait for all
        again.write(batch(chain.frames(new_record(number)), "2026-12-24"))
    assert sum(one.final for one in again._index.finished().values()) == 9
    assert again._index.extents().keys() == frames.keys()
    again.close()


def test_a_batch_is_kept_when_the_filters_cannot_be(store: SqliteAudit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.stores.sqlite_file._BUSY_MS", 1)
    chain = ChainedJournal()
    store.write(batch(chain.frames(new_record(1, request_id="q-1")), DAY))
    index = store._index
    with index._file.writer() as connection:
        connection.set_busy_timeout(1)
    other = apsw.Connection(str(index._file._path))
    other.execute("BEGIN IMMEDIATE")
    with capture_logs() as logs:
        store.write(batch(chain.frames(new_record(2, request_id="q-2")), NEXT_DAY))
    assert [line["event"] for line in logs] == ["audit_index_behind"]
    other.execute("ROLLBACK")
    other.close()
    assert store.positions()[JOURNAL] == chain.position
    assert [kept.day for any_id in ("q-1", "q-2") for kept in store.find(any_id)] == [DAY, NEXT_DAY]
    store.write(batch(chain.frames(new_record(3)), "2026-11-27"))
    assert all(store._index.finished()[day].final for day in (DAY, NEXT_DAY))


def test_strays_are_found_through_the_filters_too(store: SqliteAudit) -> None:
    chain = ChainedJournal()
    odd = new_record(1, record_id="r-1", request_id="q")
    away = new_record(2, record_id=record_id_at(NOON_NS - 99 * DAY_NS, 2), request_id="q")
    store.write(batch(chain.frames(odd, away), DAY))
    for nth in range(1, 5):
        store.write(batch(chain.frames(new_record(nth, received_ns=NOON_NS + nth * DAY_NS)), f"2026-11-{25 + nth}"))
    store.write(batch(chain.frames(shadow_of(odd, 1, record_id="s-1", request_id="x")), "2026-11-30"))
    store.write(batch(chain.frames(new_record(9, received_ns=NOON_NS + 9 * DAY_NS)), "2026-12-01"))
    assert [(kept.day, kept.frame.record.record_id) for kept in store.find("r-1")] == [
        (DAY, "r-1"),
        ("2026-11-30", "s-1"),
    ]
    assert [kept.day for kept in store.find(away.record_id)] == [DAY]
    assert [one.strays for one in store._index.finished().values()] == [True, False, False, False, False, True]


def test_ids_are_found_in_each_chunk_of_a_day_that_has_several(store: SqliteAudit, folder: Path) -> None:
    """A chunk has 65 536 records; its filter is made while the day is still being written."""
    chain = ChainedJournal()
    records = 2**CHUNK_BITS + 2_000
    chosen = {0: "first", 2**CHUNK_BITS - 2: "end of a chunk", 2**CHUNK_BITS: "begin of the next", records - 1: "last"}
    frames: list[Frame] = []
    for number in range(records):
        named = {"request_id": chosen[number], "oip_id": "often"} if number in chosen else {}
        frames.append(chain.frame(new_record(number, received_ns=NOON_NS + number * 1_000, **named), None, None))
        if len(frames) == 10_000 or number == records - 1:
            store.write(batch(frames, DAY))
            frames = []
    assert store._index.finished()[DAY].chunks == 1
    store.close()
    again = SqliteAudit(folder)
    for number, name in chosen.items():
        assert [kept.frame.sequence for kept in again.find(name)] == [number + 1]
    assert [kept.frame.sequence for kept in again.find("often")] == [number + 1 for number in chosen]
    assert list(again.find("nowhere")) == []
    again.write(batch(chain.frames(new_record(1)), NEXT_DAY))
    assert again._index.finished()[DAY].final
    assert [kept.frame.sequence for kept in again.find("often")] == [number + 1 for number in chosen]
    again.close()


def test_filters_of_a_day_that_is_dropped_go_with_it(store: SqliteAudit) -> None:
    frames = _fill(store, 3)
    first, *_ = frames
    store.drop(first, "p")
    assert first not in store._index.finished()
    assert first not in store._index.extents()
    assert list(store.find("q-0")) == []


def test_the_index_is_told_apart_from_a_day(folder: Path) -> None:
    Index(folder / "index.db").close()
    index = apsw.Connection(str(folder / "index.db"))
    assert index.pragma("application_id") == SCHEMA.application_id
    index.close()
