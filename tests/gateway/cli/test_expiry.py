from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.cli.expiry import parse_expiry
from gateway.cli.failures import Misuse

NOW = datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30d", "2026-03-31T12:00:00Z"),
        ("12h", "2026-03-02T00:00:00Z"),
        ("90m", "2026-03-01T13:30:00Z"),
        ("2026-12-31T00:00:00Z", "2026-12-31T00:00:00Z"),
        ("2026-12-31T01:30:00+01:30", "2026-12-31T00:00:00Z"),
        ("2026-12-31T00:00:00.5-00:00", "2026-12-31T00:00:00.500000Z"),
    ],
)
def test_an_expiry_is_a_time_in_utc_when_it_is_a_span_or_a_time(text: str, expected: str) -> None:
    assert parse_expiry(text, NOW) == expected


@settings(deadline=None)
@given(st.datetimes(datetime(2026, 3, 2), datetime(9000, 1, 1)), st.integers(-23, 23))
def test_the_same_moment_comes_back_when_a_time_has_any_zone(moment: datetime, hours: int) -> None:
    given_time = moment.replace(tzinfo=timezone(timedelta(hours=hours)))
    if given_time > NOW:
        assert datetime.fromisoformat(parse_expiry(given_time.isoformat(), NOW)) == given_time


@pytest.mark.parametrize(
    "text",
    [
        *("", "30", "d", "-30d", "1.5h", "30 d", "30w", "30d\n", "٣d", "9999999d", "tomorrow"),
        *("2026-12-31", "2026-12-31T00:00:00", "2026-12-31 00:00:00Z", "20261231T000000Z", "2026-W50-1T00:00:00Z"),
        "2026-02-30T00:00:00Z",
    ],
)
def test_an_expiry_is_refused_with_advice_when_it_is_neither(text: str) -> None:
    with pytest.raises(Misuse, match="neither a time with its zone nor a span") as caught:
        parse_expiry(text, NOW)
    assert "2026-12-31T00:00:00Z" in caught.value.advice


@pytest.mark.parametrize("text", ["2026-03-01T12:00:00.25Z", "2026-03-01T12:00:00Z", "1999-01-01T00:00:00Z", "0d"])
def test_an_expiry_is_refused_when_it_has_passed(text: str) -> None:
    with pytest.raises(Misuse, match="has passed"):
        parse_expiry(text, NOW)
