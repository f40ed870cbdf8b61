"""What is erased, thinned or dropped from the audit store in SQLite is in none of its files any more, byte by byte."""

import random
from collections.abc import Collection, Iterator
from pathlib import Path

import apsw
import pytest
from structlog.testing import capture_logs

from gateway.errors import AuditUnavailable
from gateway.ports import Place
from gateway.record import Frame
from gateway.stores import audit_sqlite_privacy
from gateway.stores.audit_sqlite import SqliteAudit
from routing.types import Capture
from tests.records import DAY, JOURNAL, NEXT_DAY, ChainedJournal, batch, new_checkpoint, new_record, place_of

THIRD_DAY = "2026-11-27"
WHOLE = Capture(max_bytes=2**20)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "audit"


@pytest.fixture
def store(folder: Path) -> Iterator[SqliteAudit]:
    store = SqliteAudit(folder)
    yield store
    store.close()


def _found(folder: Path, secrets: Collection[bytes]) -> set[bytes]:
    """Return which of these bytes stand in a file of the folder."""
    files = [file.read_bytes() for file in folder.iterdir()]
    return {secret for secret in secrets if any(secret in content for content in files)}


def _secret(number: int) -> bytes:
    return b"secret %06d of a caller" % number


def _frames(chain: ChainedJournal, first: int, last: int) -> list[Frame]:
    """Return frames whose bodies are of every size: in one page with others, in pages of their own, in many pages."""
    drawn = random.Random(first)
    frames = []
    for number in range(first, last):
        body = bytearray(drawn.randbytes(drawn.choice((60, 700, 700, 5_000, 9_000, 40_000))))
        for at in (0, len(body) // 2, len(body) - len(_secret(0))):
            body[at : at + len(_secret(0))] = _secret(number)
        model = "old" if number % 3 else "fraud"
        frames.append(chain.frame(new_record(number, model=model), bytes(body), _secret(number), WHOLE))
    return frames


def test_no_byte_of_erased_contents_is_left_and_the_others_are_whole(store: SqliteAudit, folder: Path) -> None:
    chain = ChainedJournal()
    frames: list[Frame] = []
    for nth, day in enumerate((DAY, NEXT_DAY, THIRD_DAY)):
        for first in range(nth * 200, nth * 200 + 200, 50):
            more = _frames(chain, first, first + 50)
            store.write(batch(more, day))
            frames += more
    assert len(_found(folder, [_secret(number) for number in range(600)])) == 600
    drawn, erased = random.Random(5), set[int]()
    for _ in range(6):
        chosen = set(drawn.sample(range(600), 60))
        assert store.erase([place_of(frames[number]) for number in chosen], "e") == len(chosen - erased)
        erased |= chosen
        assert _found(folder, [_secret(number) for number in erased]) == set()
    left = [number for number in range(600) if number not in erased]
    assert len(_found(folder, [_secret(number) for number in left])) == len(left)
    for row, frame in zip(store.rows(JOURNAL, 1, 600), frames, strict=True):
        gone = frame.sequence - 1 in erased
        assert (row.request, row.response) == ((b"", b"") if gone else (frame.request, frame.response))
        assert row.damage == ""


def test_erasing_makes_no_file_larger_and_goes_on_when_records_come(store: SqliteAudit, folder: Path) -> None:
    chain = ChainedJournal()
    frames = _frames(chain, 0, 100)
    store.write(batch(frames, DAY))
    store.erase([Place(JOURNAL, 999)], "e")
    assert store.erase([place_of(frames[0])], "e") == 1
    size = (folder / f"{DAY}.db").stat().st_size
    store.erase([place_of(frame) for frame in frames[1:50]], "e")
    assert (folder / f"{DAY}.db").stat().st_size <= size + 2 * 8_192  # room for the erasures themselves
    assert (folder / f"{DAY}.db-wal").stat().st_size == 0
    more = _frames(chain, 100, 120)
    store.write(batch(more, DAY))
    assert [row.erasure for row in store.rows(JOURNAL, 1, 120)] == ["e"] * 50 + [None] * 70


def test_erasing_waits_for_nobody_for_ever_and_can_be_asked_for_again(
    store: SqliteAudit, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody who reads what stood there before keeps the log from being emptied."""
    monkeypatch.setattr("gateway.stores.sqlite_file._BUSY_MS", 1)
    monkeypatch.setattr(audit_sqlite_privacy, "EMPTY_LOG_SECONDS", 0.0)
    frames = _frames(ChainedJournal(), 0, 5)
    store.write(batch(frames, DAY))
    store.close()
    again = SqliteAudit(folder)
    reader = apsw.Connection(str(folder / f"{DAY}.db"))
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM records").fetchall()
    with pytest.raises(AuditUnavailable, match="being read"):
        again.erase([place_of(frames[0])], "e")
    assert next(again.rows(JOURNAL, 1, 1)).erasure == "e"
    reader.execute("COMMIT")
    reader.close()
    assert again.erase([place_of(frames[0])], "later") == 0
    assert _found(folder, [_secret(0)]) == set()
    again.close()


def test_what_an_interrupted_erasure_left_in_the_log_goes_when_the_store_is_opened(folder: Path) -> None:
    first = SqliteAudit(folder)
    frames = _frames(ChainedJournal(), 0, 5)
    first.write(batch(frames, DAY))
    files = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert first._writers is not None
    with first._writers.recording.changing(DAY) as file, file.transaction() as connection:
        connection.execute(audit_sqlite_privacy._ZEROS, (1,))
    killed = {file.name: file.read_bytes() for file in folder.iterdir()}
    assert killed[f"{DAY}.db-wal"] != files[f"{DAY}.db-wal"]
    first.close()
    for name, content in killed.items():  # as a process leaves them that is killed before it empties the log
        if not name.endswith("-shm"):
            (folder / name).write_bytes(content)
    assert _found(folder, [_secret(0)]) == {_secret(0)}
    again = SqliteAudit(folder)
    assert _found(folder, [_secret(0)]) == set()
    assert len(list(again.rows(JOURNAL, 1, 9))) == 5
    again.close()


def test_a_log_that_cannot_be_emptied_is_no_reason_not_to_start(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.stores.sqlite_file._BUSY_MS", 1)
    first = SqliteAudit(folder)
    first.write(batch(_frames(ChainedJournal(), 0, 5), DAY))
    reader = apsw.Connection(str(folder / f"{DAY}.db"))
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM records").fetchall()
    with capture_logs() as logs:
        second = SqliteAudit(folder)
    assert [(line["event"], line["day"]) for line in logs] == [("audit_log_not_emptied", DAY)]
    assert len(second.find(next(first.rows(JOURNAL, 1, 1)).journal)) == 0
    reader.close()
    second.close()
    first.close()


def test_thinned_records_leave_no_byte_and_give_their_room_back(store: SqliteAudit, folder: Path) -> None:
    chain = ChainedJournal()
    frames = _frames(chain, 0, 300)
    store.write(batch(frames, DAY))
    store.seal(new_checkpoint(1, frames))
    store.write(batch(_frames(chain, 300, 301), NEXT_DAY))
    path = folder / f"{DAY}.db"
    before = path.stat().st_size
    taken = store.thin(DAY, ["old"], "p").places
    assert len(taken) == 200
    assert path.stat().st_size < before / 2
    gone = {_secret(place.sequence - 1) for place in taken}
    kept = {_secret(number) for number in range(300)} - gone
    assert _found(folder, gone) == set()
    assert _found(folder, kept) == kept
    assert [row.damage for row in store.rows(JOURNAL, 1, 301)] == [""] * 301
    assert len(list(store.checkpoints())) == 1


def test_a_dropped_day_leaves_no_file(store: SqliteAudit, folder: Path) -> None:
    chain = ChainedJournal()
    for nth, day in enumerate((DAY, NEXT_DAY)):
        store.write(batch(_frames(chain, nth * 10, nth * 10 + 10), day))
    store.find("q")
    list(store.rows(JOURNAL, 1, 99))
    store.drop(DAY, "p")
    assert not [file.name for file in folder.iterdir() if file.name.startswith(DAY)]
    assert _found(folder, [_secret(number) for number in range(10)]) == set()


def test_a_drop_that_was_interrupted_is_ended_when_the_store_is_opened(
    store: SqliteAudit, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = ChainedJournal()
    for nth, day in enumerate((DAY, NEXT_DAY)):
        store.write(batch(_frames(chain, nth * 10, nth * 10 + 10), day))

    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", _refuse)
        with pytest.raises(AuditUnavailable, match="cannot be taken away"):
            store.drop(DAY, "p")
    assert (folder / f"{DAY}.db").exists()
    store.close()
    again = SqliteAudit(folder)
    assert not (folder / f"{DAY}.db").exists()
    assert [(one.day, one.pruning, one.records) for one in again.dropped()] == [(DAY, "p", 10)]
    assert [day.day for day in again.days()] == [NEXT_DAY]
    assert list(again._index.dropping()) == []
    again.close()


def test_a_drop_that_failed_can_be_asked_for_again(
    store: SqliteAudit, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = ChainedJournal()
    for nth, day in enumerate((DAY, NEXT_DAY)):
        store.write(batch(_frames(chain, nth * 10, nth * 10 + 10), day))
    with monkeypatch.context() as patched:
        patched.setattr(Path, "unlink", _refuse)
        with pytest.raises(AuditUnavailable):
            store.drop(DAY, "p")
    store.drop(DAY, "p")
    assert not (folder / f"{DAY}.db").exists()
    assert [(one.day, one.pruning) for one in store.dropped()] == [(DAY, "p")]


def _refuse(*_: object, **__: object) -> None:
    raise OSError("no")


def test_a_day_whose_room_cannot_be_given_back_is_thinned_all_the_same(
    store: SqliteAudit, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = ChainedJournal()
    store.write(batch(_frames(chain, 0, 60), DAY))
    store.write(batch(_frames(chain, 60, 61), NEXT_DAY))
    monkeypatch.setattr(audit_sqlite_privacy, "_VACUUM", "VACUUM nowhere")
    with capture_logs() as logs:
        taken = store.thin(DAY, ["old"], "p").places
    assert [line["event"] for line in logs] == ["audit_room_not_given_back"]
    assert len(taken) == 40
    assert [row.pruning is not None for row in store.rows(JOURNAL, 1, 60)] == [n % 3 > 0 for n in range(60)]
