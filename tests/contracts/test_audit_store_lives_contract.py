"""How every audit store is opened again, closed, and used by many threads at once."""

import threading
from collections.abc import Callable

import pytest

from gateway.errors import AuditUnavailable
from gateway.ports import AuditStore, Filter, Place, PublicKey
from tests.contracts.audit_store import OpenAudit, everything, fill, frames_of, listed, scanned
from tests.records import (
    DAY,
    JOURNAL,
    NEXT_DAY,
    NOON_NS,
    OTHER_JOURNAL,
    ChainedJournal,
    batch,
    control_record,
    new_checkpoint,
    new_gap,
    new_record,
    shadow_of,
)


def _filled(audit: AuditStore) -> ChainedJournal:
    chain, control = ChainedJournal(), ChainedJournal("gw-a/control.00000000000c")
    primary = new_record(1, request_id="q", oip_id="o")
    first = chain.frames(primary, shadow_of(primary, 1), new_record(2, model="other"))
    audit.write(batch([*first, *control.frames(control_record(3, "audit.list"))], gaps=[new_gap(OTHER_JOURNAL, 1)]))
    audit.seal(new_checkpoint(1, first))
    fill(audit, chain.frames(new_record(10), new_record(11)), NEXT_DAY)
    audit.publish_key(PublicKey("gw-a", "k-1", "-----BEGIN PUBLIC KEY-----", NOON_NS))
    return chain


def test_everything_is_there_when_the_store_is_opened_again_and_it_goes_on(open_audit: OpenAudit) -> None:
    first = open_audit()
    chain = _filled(first)
    before = everything(first)
    first.close()
    again = open_audit()
    assert everything(again) == before
    more = chain.frames(new_record(12))
    fill(again, more, NEXT_DAY)
    assert frames_of(scanned(again))[-1:] == more
    assert again.positions()[JOURNAL] == chain.position


def test_another_opening_sees_what_is_written_through_the_first(open_audit: OpenAudit) -> None:
    writer, reader = open_audit(), open_audit()
    assert list(reader.days()) == []
    chain = _filled(writer)
    assert everything(reader) == everything(writer)
    frame = chain.frame(new_record(20, request_id="q-20"))
    fill(writer, [frame], "2026-11-27")
    assert frames_of(reader.find("q-20")) == [frame]


CALLS: dict[str, Callable[[AuditStore], object]] = {
    "positions": lambda audit: audit.positions(),
    "write": lambda audit: audit.write(batch(ChainedJournal().frames(new_record(1)))),
    "seal": lambda audit: audit.seal(new_checkpoint(9, ())),
    "last_checkpoint": lambda audit: audit.last_checkpoint("gw-a"),
    "publish_key": lambda audit: audit.publish_key(PublicKey("gw-a", "k", "", 1)),
    "find": lambda audit: audit.find("r-1"),
    "page": lambda audit: audit.page(Filter(), None, 10),
    "sample": lambda audit: audit.sample("fraud", 0, 1),
    "count": lambda audit: audit.count(Filter()),
    "scan": lambda audit: list(audit.scan(Filter(), contents=True)),
    "days": lambda audit: audit.days(),
    "holdings": lambda audit: audit.holdings(),
    "gaps": lambda audit: audit.gaps(),
    "dropped": lambda audit: audit.dropped(),
    "keys": lambda audit: audit.keys(),
    "checkpoints": lambda audit: list(audit.checkpoints()),
    "checkpoint_of": lambda audit: audit.checkpoint_of(Place(JOURNAL, 1)),
    "rows": lambda audit: list(audit.rows(JOURNAL, 1, 9)),
    "places_of": lambda audit: audit.places_of(b"u" * 16),
    "erase": lambda audit: audit.erase([Place(JOURNAL, 1)], "e"),
    "places_in": lambda audit: audit.places_in(DAY, ["fraud"]),
    "thin": lambda audit: audit.thin(DAY, ["fraud"], "p"),
    "drop": lambda audit: audit.drop(DAY, "p"),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_every_call_on_a_closed_store_says_so_and_closing_may_be_repeated(
    audit: AuditStore, call: Callable[[AuditStore], object]
) -> None:
    _filled(audit)
    audit.find("q")
    audit.close()
    audit.close()
    with pytest.raises(AuditUnavailable):
        call(audit)


def test_readers_in_many_threads_see_whole_transactions_while_records_are_written(audit: AuditStore) -> None:
    """Each write brings a primary and its shadow under one request id; no reader may ever see one without the other."""
    done = threading.Event()
    seen: list[int] = []
    failures: list[BaseException] = []

    def read() -> None:
        try:
            while not done.is_set():
                for number in range(0, 100, 5):
                    seen.append(len(audit.find(f"q-{number}")))
                records = len(listed(audit, Filter(model="fraud"), limit=50))
                assert records % 2 == 0
        except BaseException as error:
            failures.append(error)
            raise

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    chain = ChainedJournal()
    for number in range(100):
        primary = new_record(number, request_id=f"q-{number}")
        fill(audit, chain.frames(primary, shadow_of(primary, number)), DAY if number < 60 else NEXT_DAY)
    assert audit.positions()[JOURNAL].sequence == 200
    done.set()
    for reader in readers:
        reader.join()
    assert failures == []
    assert set(seen) <= {0, 2}
    assert 2 in seen
