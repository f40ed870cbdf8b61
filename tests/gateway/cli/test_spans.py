import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli.preview import window_seconds
from gateway.cli.spans import parse_span, span_words
from gateway.cli.terms import Terms, confirm_seconds


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("15m", 900), ("12h", 43_200), ("7d", 604_800), ("0s", 0), ("007m", 420)]
)
def test_a_span_is_a_count_and_a_unit(text: str, seconds: int) -> None:
    span = parse_span(text)
    assert span is not None
    assert span.total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "15", "m", "1.5h", "-1m", "15 m", "15M", "1h30m", "١m", "1234567s"])
def test_a_span_of_any_other_form_is_none(text: str) -> None:
    assert parse_span(text) is None


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (59.6, "1 min"),
        (45, "45 s"),
        (200, "3 min 20 s"),
        (7200, "2 h"),
        (7205, "2 h"),
        (100_800, "1 d 4 h"),
        (-90, "-1 min 30 s"),
    ],
)
def test_a_span_is_told_in_its_two_largest_units(seconds: float, words: str) -> None:
    assert span_words(seconds) == words


@given(st.integers(1, 7 * 24 * 3600))
def test_a_change_may_wait_to_be_confirmed_for_up_to_seven_days(seconds: int) -> None:
    if seconds < 10**6:
        assert confirm_seconds(f"{seconds}s") == seconds


@pytest.mark.parametrize("text", ["0s", "8d", "604801s", "soon"])
def test_a_longer_or_no_wait_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="expected a span from 1s to 7d"):
        confirm_seconds(text)


def test_records_are_looked_at_for_up_to_a_year() -> None:
    assert window_seconds("366d") == 366 * 86_400
    for text in ("367d", "0m", "x"):
        with pytest.raises(typer.BadParameter, match="expected a span from 1s to 366d"):
            window_seconds(text)


def test_terms_say_only_what_they_mean() -> None:
    assert Terms().query() == {}
    terms = Terms(dry_run=True, max_moves=0, confirm_within_s=900)
    assert terms.fields() == {"dry_run": True, "max_moves": 0, "confirm_within_s": 900}
    assert terms.query() == {"dry_run": "true", "max_moves": "0", "confirm_within_s": "900"}
