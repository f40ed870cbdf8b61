"""The ids of a request."""

import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.identity import new_record_id, request_id_of, trace_id_of


@given(st.integers(0, (2**48 - 1) * 1_000_000))
def test_a_record_id_is_a_uuid_of_version_7_that_begins_with_its_millisecond(unix_ns: int) -> None:
    record_id = new_record_id(unix_ns)
    parsed = uuid.UUID(record_id)
    assert str(parsed) == record_id
    assert (parsed.version, parsed.variant) == (7, uuid.RFC_4122)
    assert parsed.int >> 80 == unix_ns // 1_000_000


def test_record_ids_of_one_instant_differ() -> None:
    assert len({new_record_id(1_700_000_000_000_000_000) for _ in range(10_000)}) == 10_000


@pytest.mark.parametrize("legal", ["a", "A-b_c.d:e", "0" * 128])
def test_a_legal_request_id_is_kept(legal: str) -> None:
    assert request_id_of({"x-request-id": legal}, "ours") == legal


@pytest.mark.parametrize("illegal", ["", "a b", "é", "0" * 129, "a\n", 'a"b'])
def test_an_illegal_request_id_is_ignored(illegal: str) -> None:
    assert request_id_of({"x-request-id": illegal}, "ours") == "ours"


def test_ours_stands_in_when_the_caller_gives_none() -> None:
    assert request_id_of({}, "ours") == "ours"


def test_a_trace_id_is_read_from_a_legal_traceparent() -> None:
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    assert trace_id_of({"traceparent": f"00-{trace}-00f067aa0ba902b7-01"}) == trace


@pytest.mark.parametrize("illegal", ["", "00-xyz-00f067aa0ba902b7-01", "4bf92f3577b34da6a3ce929d0e0e4736"])
def test_an_illegal_traceparent_gives_no_trace_id(illegal: str) -> None:
    assert trace_id_of({"traceparent": illegal}) is None
