"""What every audit store does, whatever it is made of.

A new implementation adds one entry to STORES: a function that opens the store of a folder, the same one each time.
"""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gateway.errors import AuditUnavailable
from gateway.ports import FIND_LIMIT, AuditStore, JournalPosition, Sampled
from gateway.record import Attempt, Frame, Payload, Record
from gateway.stores.audit_sqlite import SqliteAudit

JOURNAL = "w0.0123456789ab"
OPEN = Callable[[], AuditStore]


def _open_sqlite(folder: Path) -> AuditStore:
    return SqliteAudit(folder / "audit.db")


STORES: dict[str, Callable[[Path], AuditStore]] = {"sqlite": _open_sqlite}


@pytest.fixture(params=sorted(STORES))
def open_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OPEN]:
    """Open the test's store, as often as the test likes."""
    opened: list[AuditStore] = []

    def open_one() -> AuditStore:
        opened.append(STORES[request.param](tmp_path))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: OPEN) -> AuditStore:
    return open_store()


def _record(number: int, **fields: object) -> Record:
    given: dict[str, object] = {
        "record_id": f"r-{number}",
        "request_id": f"r-{number}",
        "role": "primary",
        "received_ns": 1_800_000_000_000_000_000 + number,
        "model": "fraud",
        "protocol": "oip-v2",
        "outcome": "served",
        "status": 200,
        "request": Payload(2, "a" * 64, b"{}"),
        "response": Payload(2, "b" * 64, b"[]"),
        "intended": "1",
        "served": "1",
        "attempts": (Attempt("1", "onnx", 7, 200),),
    }
    return Record(**(given | fields))  # type: ignore[arg-type]


def _frames(*records: Record, first: int = 1) -> list[Frame]:
    return [Frame(JOURNAL, sequence, record) for sequence, record in enumerate(records, first)]


def _position(sequence: int, segment: int = 1, journal: str = JOURNAL) -> JournalPosition:
    return JournalPosition(journal, segment, sequence * 100, sequence)


def test_an_empty_store_has_no_positions_and_finds_nothing(store: AuditStore) -> None:
    assert dict(store.positions()) == {}
    assert list(store.find("r-1")) == []


def test_a_record_is_found_as_it_was_written_by_each_of_its_ids(store: AuditStore) -> None:
    record = _record(1, request_id="q-1", oip_id="o-1", headers={"x-tenant": "acme"}, unit="d" * 32, stale=True)
    store.write(_frames(record, _record(2)), [_position(2)])
    for any_id in ("r-1", "q-1", "o-1"):
        assert list(store.find(any_id)) == [record]
    assert list(store.find("r-2")) == [_record(2)]


@pytest.mark.parametrize("any_id", ["", "r-", "r-11", "R-1", "%", "r-_", "' OR 1=1 --", "r-1\x00", "\ud800", JOURNAL])
def test_nothing_is_found_by_what_is_no_id_of_a_record(store: AuditStore, any_id: str) -> None:
    store.write(_frames(_record(1)), [_position(1)])
    assert list(store.find(any_id)) == []


def test_positions_are_those_of_the_last_write_for_each_journal(store: AuditStore) -> None:
    store.write(_frames(_record(1)), [_position(1), _position(5, journal="w1.ffffffffffff")])
    store.write((), [_position(1, segment=2)])
    assert dict(store.positions()) == {
        JOURNAL: _position(1, segment=2),
        "w1.ffffffffffff": _position(5, journal="w1.ffffffffffff"),
    }


def test_a_frame_that_is_written_again_is_there_once_and_as_it_was(store: AuditStore) -> None:
    store.write(_frames(_record(1), _record(2)), [_position(2)])
    store.write(_frames(_record(1), _record(2), _record(3)), [_position(3)])
    store.write(_frames(_record(2, model="changed"), first=2), [_position(3)])
    for number in (1, 2, 3):
        assert list(store.find(f"r-{number}")) == [_record(number)]
    assert store.positions()[JOURNAL] == _position(3)


def test_another_record_in_a_place_that_is_taken_leaves_the_first_and_keeps_the_rest(store: AuditStore) -> None:
    store.write(_frames(_record(1)), [_position(1)])
    store.write(_frames(_record(9), _record(2)), [_position(2)])
    assert list(store.find("r-1")) == [_record(1)]
    assert list(store.find("r-9")) == []
    assert list(store.find("r-2")) == [_record(2)]


def test_the_same_sequence_of_another_journal_is_another_place(store: AuditStore) -> None:
    store.write([Frame("a", 1, _record(1)), Frame("b", 1, _record(2))], [])
    assert [list(store.find(f"r-{number}")) for number in (1, 2)] == [[_record(1)], [_record(2)]]


def test_neither_frames_nor_positions_are_kept_when_a_write_fails(store: AuditStore) -> None:
    store.write(_frames(_record(1)), [_position(1)])
    # A status that fits no store's integer; the frames before it in the batch must not stay behind.
    impossible = _record(3, status=2**80)
    with pytest.raises((AuditUnavailable, OverflowError)):
        store.write(_frames(_record(2), impossible, first=2), [_position(3)])
    assert list(store.find("r-2")) == []
    assert store.positions()[JOURNAL] == _position(1)
    store.write(_frames(_record(2), first=2), [_position(2)])
    assert list(store.find("r-2")) == [_record(2)]


def test_a_request_id_that_was_repeated_finds_every_attempt_oldest_first(store: AuditStore) -> None:
    attempts = [_record(number, request_id="q") for number in (3, 1, 2)]
    store.write(_frames(*attempts), [_position(3)])
    assert [record.record_id for record in store.find("q")] == ["r-1", "r-2", "r-3"]


def test_a_record_is_found_once_when_several_of_its_ids_are_the_same(store: AuditStore) -> None:
    store.write(_frames(_record(1, request_id="same", oip_id="same")), [_position(1)])
    assert len(store.find("same")) == 1


def test_an_id_that_means_different_things_in_different_records_finds_them_all(store: AuditStore) -> None:
    store.write(_frames(_record(1), _record(2, request_id="r-1"), _record(3, oip_id="r-1")), [_position(3)])
    assert [record.record_id for record in store.find("r-1")] == ["r-1", "r-2", "r-3"]


def test_a_primary_comes_with_its_shadows_and_a_shadow_with_its_primary(store: AuditStore) -> None:
    """All of them have the time of the primary, which comes first whatever its id is."""
    primary = _record(5, request_id="q-5")
    fields = {"role": "shadow", "primary_id": "r-5", "request_id": "q-5", "received_ns": primary.received_ns}
    shadows = [_record(2, **fields), _record(8, **fields)]
    stranger = _record(4, role="shadow", primary_id="r-0")
    store.write(_frames(shadows[1], stranger, primary, shadows[0]), [_position(4)])
    assert list(store.find("r-5")) == [primary, *shadows]
    assert list(store.find("q-5")) == [primary, *shadows]
    assert list(store.find("r-2")) == [primary, shadows[0]]
    assert list(store.find("r-4")) == [stranger]


def test_an_oip_id_finds_the_shadows_that_do_not_carry_it(store: AuditStore) -> None:
    primary, shadow = _record(1, oip_id="o"), _record(2, role="shadow", primary_id="r-1")
    store.write(_frames(primary, shadow), [_position(2)])
    assert list(store.find("o")) == [primary, shadow]


@pytest.mark.parametrize("any_id", ["ü–ß", "日本語", "🚂" * 40, "a'b\"c;d\\e%f_g", "line\nbreak", "nul\x00inside", " "])
def test_ids_of_any_text_are_found(store: AuditStore, any_id: str) -> None:
    record = _record(1, oip_id=any_id, error=any_id, model=any_id)
    store.write(_frames(record), [_position(1)])
    assert list(store.find(any_id)) == [record]


def test_large_payloads_come_back_byte_for_byte(store: AuditStore) -> None:
    body = bytes(range(256)) * 4096 * 8
    record = _record(1, request=Payload(len(body), "a" * 64, body), response=Payload(len(body), "b" * 64, body[::-1]))
    store.write(_frames(record), [_position(1)])
    assert list(store.find("r-1")) == [record]


def test_the_newest_records_are_found_when_more_carry_an_id_than_one_look_up_returns(store: AuditStore) -> None:
    records = [_record(number, oip_id="1") for number in range(FIND_LIMIT + 50)]
    store.write(_frames(*records), [_position(len(records))])
    assert list(store.find("1")) == records[-FIND_LIMIT:]


def test_a_record_is_found_by_its_own_id_however_many_callers_use_it_as_theirs(store: AuditStore) -> None:
    records = [_record(0), *(_record(number, request_id="r-0", oip_id="r-0") for number in range(1, FIND_LIMIT + 50))]
    store.write(_frames(*records), [_position(len(records))])
    assert store.find("r-0")[0] == records[0]


def _decided(number: int, **fields: object) -> Record:
    given: dict[str, object] = {
        "reason": "split",
        "rule": "split",
        "unit": f"{number:032x}",
        "keyed": True,
        "revision": 4,
    }
    return _record(number, **(given | fields))


def test_a_sample_has_what_each_decision_looked_at_newest_first(store: AuditStore) -> None:
    plain = _decided(1)
    rich = _decided(2, keyed=False, headers={"x-tenant": "ä"}, asked_version="2", intended="2", cohort_revision=3)
    store.write(_frames(plain, rich), [_position(2)])
    assert list(store.sample("fraud", 0, 10)) == [
        Sampled("r-2", rich.received_ns, (2).to_bytes(16), False, {"x-tenant": "ä"}, "2", "2", 4, 3),
        Sampled("r-1", plain.received_ns, (1).to_bytes(16), True, {}, None, "1", 4, None),
    ]


def test_only_primaries_that_a_rule_decided_are_sampled(store: AuditStore) -> None:
    records = [
        _decided(1),
        _decided(2, role="shadow", primary_id="r-1", reason="shadow"),
        _decided(3, intended=None, reason=None, rule=None, outcome="refused"),
        _decided(4, model="other"),
        _decided(5, outcome="failed", served=None),
        _record(6),
    ]
    store.write(_frames(*records), [_position(6)])
    assert [one.record_id for one in store.sample("fraud", 0, 10)] == ["r-5", "r-1"]
    assert list(store.sample("nobody", 0, 10)) == []


def test_a_sample_begins_at_its_time_and_ends_with_the_newest_so_many(store: AuditStore) -> None:
    store.write(_frames(*(_decided(number) for number in range(10))), [_position(10)])
    since = _record(4).received_ns
    assert [one.record_id for one in store.sample("fraud", since, 100)] == [f"r-{n}" for n in (9, 8, 7, 6, 5, 4)]
    assert [one.record_id for one in store.sample("fraud", 0, 3)] == ["r-9", "r-8", "r-7"]
    assert list(store.sample("fraud", 2**62 + 2**61, 3)) == []


def test_a_record_of_damaged_facts_is_kept_and_not_sampled(store: AuditStore) -> None:
    damaged = [_decided(1, unit="no hex"), _decided(2, headers={"x-tenant": "\ud800"})]
    store.write(_frames(*damaged), [_position(2)])
    assert [record.record_id for record in (*store.find("r-1"), *store.find("r-2"))] == ["r-1", "r-2"]
    assert list(store.sample("fraud", 0, 10)) == []


def test_everything_is_there_when_the_store_is_opened_again(open_store: OPEN) -> None:
    first = open_store()
    first.write(_frames(_record(1), _record(2)), [_position(2)])
    first.close()
    again = open_store()
    assert list(again.find("r-2")) == [_record(2)]
    assert dict(again.positions()) == {JOURNAL: _position(2)}
    again.write(_frames(_record(2), _record(3), first=2), [_position(3)])
    assert len(again.find("r-2")) == 1


def test_closing_may_be_repeated_and_every_call_afterwards_says_so(store: AuditStore) -> None:
    store.find("r-1")
    store.close()
    store.close()
    with pytest.raises(AuditUnavailable):
        store.find("r-1")
    with pytest.raises(AuditUnavailable):
        store.sample("fraud", 0, 1)
    with pytest.raises(AuditUnavailable):
        store.positions()
    with pytest.raises(AuditUnavailable):
        store.write(_frames(_record(1)), [_position(1)])


def test_readers_in_many_threads_see_whole_transactions_while_records_are_written(store: AuditStore) -> None:
    """Each write brings a primary and its shadow under one request id; no reader may ever see one without the other."""
    done = threading.Event()
    seen: list[int] = []
    failures: list[BaseException] = []

    def read() -> None:
        try:
            while not done.is_set():
                for number in range(0, 200, 2):
                    seen.append(len(store.find(f"q-{number}")))
        except BaseException as error:
            failures.append(error)
            raise

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for number in range(0, 200, 2):
        pair = (
            _record(number, request_id=f"q-{number}"),
            _record(number + 1, request_id=f"q-{number}", role="shadow", primary_id=f"r-{number}"),
        )
        store.write(_frames(*pair, first=number + 1), [_position(number + 2)])
    assert store.positions()[JOURNAL].sequence == 200
    done.set()
    for reader in readers:
        reader.join()
    assert failures == []
    assert set(seen) <= {0, 2}
    assert 2 in seen
