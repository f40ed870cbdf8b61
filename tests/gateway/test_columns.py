"""What stores keep of a record beside its sealed bytes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.columns import LARGEST, bounded, columns_of, made_in, packed_id, tells_its_time, unpacked_id
from gateway.identity import new_record_id
from tests.records import NOON_NS, control_record, new_record, record_id_at, shadow_of

_uuids = st.uuids().map(str)


@given(st.one_of(_uuids, _uuids.map(str.upper), st.text()))
def test_an_id_comes_back_as_it_was_packed(text: str) -> None:
    assert unpacked_id(packed_id(text)) == text


@given(st.uuids())
def test_only_a_uuid_in_its_canonical_form_becomes_16_bytes(uuid: object) -> None:
    text = str(uuid)
    assert packed_id(text) == bytes.fromhex(text.replace("-", ""))
    digits = text.replace("-", "")
    for other in (digits, f"{{{text}}}", f"{text}\n", f" {text}", text[:-1], f"{text}0", text.replace("-", "_")):
        assert packed_id(other) == other


@pytest.mark.parametrize("value", [None, 7, 1.5, b"", b"short", b"x" * 17])
def test_what_is_no_packed_id_comes_back_as_text(value: object) -> None:
    assert isinstance(unpacked_id(value), str)


@given(st.integers(0, 2**48 - 1), st.integers(0, 999_999))
def test_a_record_id_tells_the_millisecond_it_was_made_in(ms: int, ns: int) -> None:
    packed = packed_id(new_record_id(ms * 1_000_000 + ns))
    assert made_in(packed) == ms
    assert tells_its_time(packed, ms * 1_000_000 + 999_999 - ns)
    assert not tells_its_time(packed, (ms + 1) * 1_000_000)


@pytest.mark.parametrize("other", ["r-1", "", "9b2f1f6e-58a3-4c58-8f9e-0d3c6b0f4a11", record_id_at(NOON_NS, 1).upper()])
def test_other_ids_tell_no_time(other: str) -> None:
    assert made_in(packed_id(other)) is None
    assert not tells_its_time(packed_id(other), 0)


@given(st.integers(-(2**70), 2**70))
def test_a_number_is_bounded_to_what_stores_take(number: int) -> None:
    assert -LARGEST <= bounded(number) <= LARGEST
    assert bounded(number) == number or abs(number) > LARGEST


def test_a_primary_that_a_rule_decided_has_what_its_decision_looked_at() -> None:
    record = new_record(1, request_id="q", asked_version="2", intended="2", headers={"a": "b"}, cohort_revision=2**64)
    said = columns_of(record)
    assert (said.request_id, said.version, said.unit) == ("q", "1", (1).to_bytes(16, "big"))
    assert (said.keyed, said.asked_version, said.intended, said.revision) == (True, "2", "2", 4)
    assert said.cohort_revision == LARGEST
    assert said.headers == b"\x81\xa1a\xa1b"


@pytest.mark.parametrize(
    "record",
    [
        shadow_of(new_record(1), 1),
        control_record(1, "audit.list"),
        new_record(1, unit=None),
        new_record(1, unit="no hex"),
        new_record(1, intended=None),
        new_record(1, reason=None),
    ],
    ids=["shadow", "control", "no unit", "a damaged unit", "nothing intended", "no reason"],
)
def test_no_other_record_has_what_a_decision_looked_at(record: object) -> None:
    said = columns_of(record)  # type: ignore[arg-type]
    assert (said.keyed, said.headers, said.asked_version, said.intended, said.revision) == (None,) * 5


def test_the_version_is_the_one_that_served_else_the_one_that_should_have() -> None:
    assert columns_of(new_record(1, served="3", intended="1")).version == "3"
    assert columns_of(new_record(1, served=None, intended="1")).version == "1"
    assert columns_of(new_record(1, served=None, intended=None)).version is None


def test_a_request_that_the_caller_did_not_name_has_no_request_id() -> None:
    assert columns_of(new_record(1)).request_id is None
    assert columns_of(new_record(1, request_id="")).request_id == ""
