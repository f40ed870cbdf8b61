"""What a caller's `X-Request-Timeout-Ms` makes of a route's time-out, and what a backend is told in turn."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import InvalidHeader
from gateway.timeouts import TIMEOUT_HEADER, deadline_of, remaining

MS = 1_000_000
times = st.integers(0, 2**62)
routes_ms = st.integers(1, 3_600_000)


@given(times, routes_ms)
def test_the_route_decides_when_the_caller_asks_for_nothing(started_ns: int, timeout_ms: int) -> None:
    assert deadline_of({"x-other": "1"}, started_ns, timeout_ms) == started_ns + timeout_ms * MS


@given(times, routes_ms, st.integers(1, 10**15 - 1), st.integers(0, 3))
def test_the_smaller_of_both_holds_when_the_caller_asks_for_a_time(
    started_ns: int, timeout_ms: int, asked_ms: int, zeros: int
) -> None:
    headers = {TIMEOUT_HEADER: "0" * zeros + str(asked_ms)}
    assert deadline_of(headers, started_ns, timeout_ms) == started_ns + min(timeout_ms, asked_ms) * MS


@pytest.mark.parametrize(
    "value", ["", "0", "00", "-1", "+1", "1.5", "1e3", " 1", "1_000", "0x10", "١", "soon", "9" * 31]
)
def test_anything_but_a_whole_number_is_refused_by_the_headers_name(value: str) -> None:
    with pytest.raises(InvalidHeader, match=r"^X-Request-Timeout-Ms: expected a whole number"):
        deadline_of({TIMEOUT_HEADER: value}, 0, 1_000)


@given(st.text())
def test_any_text_is_a_time_or_refused(value: str) -> None:
    try:
        assert 0 < deadline_of({TIMEOUT_HEADER: value}, 0, 1_000) <= 1_000 * MS
    except InvalidHeader:
        assert not (value.isascii() and value.isdigit() and 0 < int(value) < 10**15)


@given(times, st.integers(-(10**9), 10**14))
def test_what_a_backend_is_told_is_never_more_than_what_is_left_and_at_least_1_ms(now_ns: int, left_ns: int) -> None:
    told = int(remaining(now_ns + left_ns, now_ns))
    assert told >= 1
    assert told == 1 or told * MS <= left_ns < (told + 1) * MS


@given(routes_ms)
def test_what_is_told_is_what_the_next_gateway_understands(timeout_ms: int) -> None:
    told = remaining(timeout_ms * MS, 0)
    assert deadline_of({TIMEOUT_HEADER: told}, 0, 3_600_000) == timeout_ms * MS
