"""Whatever stands in a record fits into every audit store, and keeps no other record from being kept."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.ports import AuditStore, Place
from gateway.record import Attempt, Payload, Record
from tests.contracts.audit_store import fill, frames_of, listed, rows_of, scanned
from tests.records import (
    DAY,
    JOURNAL,
    NOON_NS,
    ChainedJournal,
    new_record,
    record_id_at,
)

LARGEST = 2**64 - 1
SMALLEST = -(2**63)
_SAID = ("record_id", "request_id", "oip_id", "primary_id", "model", "intended", "reason", "client")
_MORE = (*_SAID, "served", "asked_version", "gateway", "action", "unit", "rule", "error", "actor", "comment")
STRANGE: dict[str, dict[str, Any]] = {
    "numbers larger than 63 bits": {
        "received_ns": LARGEST,
        "status": LARGEST,
        "revision": LARGEST,
        "cohort_revision": LARGEST,
        "rules_revision": LARGEST,
        "total_us": LARGEST,
        "record_id": "r-large",
    },
    "numbers below nothing": {"received_ns": SMALLEST, "status": SMALLEST, "revision": -1, "record_id": "r-small"},
    "NUL characters": dict.fromkeys(_MORE, "\x00a\x00"),
    "no text at all": dict.fromkeys(_MORE, ""),
    "very long text": dict.fromkeys(_SAID, "ü" * 100_000),
    "text that is not of the alphabet": {"model": "日本語", "request_id": "🚂" * 40, "client": "a'b\"c;d\\e%f_g\n"},
    "a digest that is no hex": {"unit": "no hex"},
    "a digest of odd length": {"unit": "abc"},
    "a digest with spaces": {"unit": "ab cd"},
    "a record id that tells another time": {"record_id": record_id_at(NOON_NS - 10**15, 1)},
    "a record id in capitals": {"record_id": record_id_at(NOON_NS, 2).upper()},
    "a record id of another version": {"record_id": "9b2f1f6e-58a3-4c58-8f9e-0d3c6b0f4a11"},
    "its own primary": {"record_id": "r-self", "primary_id": "r-self", "role": "shadow"},
    "headers of any text": {"headers": {"": "", "x\x00": "ü\n"}, "kept_headers": {"a": "b"}},
    "details of any depth": {"role": "control", "action": "audit.list", "details": {"a": [{"b": [1.5, None, True]}]}},
    "many attempts": {"attempts": tuple(Attempt("1", "http://127.0.0.1", 1) for _ in range(1_000))},
    "large payloads": {"request": Payload(LARGEST, b"c" * 32, kept=True), "response": Payload(0, b"x" * 5_000)},
}


@pytest.mark.parametrize("strange", STRANGE.values(), ids=STRANGE)
def test_a_strange_record_is_kept_and_so_are_the_others_of_its_batch(
    audit: AuditStore, strange: dict[str, Any]
) -> None:
    frames = ChainedJournal().frames(new_record(1), new_record(2, **strange), new_record(3))
    fill(audit, frames, DAY)
    assert frames_of(scanned(audit)) == frames
    assert [row.damage for row in rows_of(audit, JOURNAL)] == ["", "", ""]
    found = audit.find(frames[1].record.record_id)
    assert frames[1] in frames_of(found)
    assert frames_of(audit.find(frames[2].record.record_id)) == [frames[2]]
    assert {record.record_id for record in listed(audit)} == {frame.record.record_id for frame in frames}
    audit.sample(frames[1].record.model, SMALLEST, 10)
    audit.holdings(SMALLEST, LARGEST)
    audit.days()


def test_text_that_is_no_unicode_is_kept_as_the_sealed_part_has_it(audit: AuditStore) -> None:
    """The data plane's own record may hold lone surrogates; its sealed bytes have them escaped."""
    chain = ChainedJournal()
    frame = chain.frame(new_record(1, model="\ud800", request_id="q\udfff", client="\udc80", oip_id="\ud801"))
    before = replace(frame.record, model="\ud800", request_id="q\udfff", client="\udc80", oip_id="\ud801")
    fill(audit, [replace(frame, record=before), *chain.frames(new_record(2))], DAY)
    assert frames_of(audit.find("q\\udfff")) == [frame]
    assert [row.damage for row in rows_of(audit, JOURNAL)] == ["", ""]


_text = st.text(max_size=40)
_names = st.one_of(st.none(), _text)
_integers = st.integers(SMALLEST, LARGEST)
_records = st.builds(
    Record,
    record_id=st.one_of(_text, st.integers(0, 2**40).map(lambda at: record_id_at(at * 1_000_000, 1))),
    request_id=_text,
    role=st.sampled_from(["primary", "shadow", "control"]),
    received_ns=_integers,
    model=_text,
    protocol=_text,
    outcome=st.sampled_from(["served", "failed", "refused"]),
    status=_integers,
    request=st.builds(Payload, st.integers(0, LARGEST), st.binary(max_size=32)),
    response=st.builds(Payload, st.integers(0, LARGEST), st.binary(max_size=32)),
    oip_id=_names,
    primary_id=_names,
    asked_version=_names,
    intended=_names,
    served=_names,
    revision=st.one_of(st.none(), _integers),
    cohort_revision=st.one_of(st.none(), _integers),
    reason=_names,
    unit=st.one_of(st.none(), _text, st.binary(max_size=16).map(bytes.hex)),
    keyed=st.booleans(),
    headers=st.dictionaries(_text, _text, max_size=2),
    client=_text,
    gateway=_text,
    action=_names,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=st.lists(_records, min_size=1, max_size=6))
def test_any_records_that_can_be_sealed_come_back_from_everywhere(audit: AuditStore, records: list[Record]) -> None:
    journal = f"gw-a/w0.{len(audit.holdings()):012x}"
    frames = ChainedJournal(journal).frames(*records)
    fill(audit, frames, DAY)
    rows = rows_of(audit, journal)
    assert [(row.sealed, row.request, row.response, row.damage) for row in rows] == [
        (frame.sealed, frame.request, frame.response, "") for frame in frames
    ]
    for frame in frames:
        record = frame.record
        for any_id in (record.record_id, record.request_id, record.oip_id):
            assert any_id is None or frame in frames_of(audit.find(any_id))
        if record.unit is not None and _is_hex(record.unit) and record.role != "control":
            assert Place(journal, frame.sequence) in audit.places_of(bytes.fromhex(record.unit))


def _is_hex(text: str) -> bool:
    try:
        bytes.fromhex(text)
    except ValueError:
        return False
    return True
