from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.cli.failures import Misuse
from gateway.cli.weights import parse_share, parse_split, percent, split_words

VERSIONS = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)


@st.composite
def splits(draw: st.DrawFn) -> dict[str, int]:
    """Any legal split: distinct versions whose basis points sum to 10 000."""
    versions = draw(st.lists(VERSIONS, min_size=1, max_size=8, unique=True))
    cuts = sorted(draw(st.lists(st.integers(0, 10_000), min_size=len(versions) - 1, max_size=len(versions) - 1)))
    edges = [0, *cuts, 10_000]
    return {version: after - before for version, before, after in zip(versions, edges, edges[1:], strict=False)}


@settings(deadline=None)
@given(splits())
def test_any_legal_split_comes_back_when_it_is_written_and_parsed(split: dict[str, int]) -> None:
    parsed = parse_split(split_words(split).split(" "))
    assert parsed == split
    assert list(parsed) == list(split)


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_percent_is_exact_when_compared_in_decimal_arithmetic(points: int) -> None:
    assert Decimal(percent(points)) * 100 == points
    assert parse_share(f"2={percent(points)}") == ("2", points)


@settings(deadline=None)
@given(splits(), st.integers(0, 10_000))
def test_a_split_is_refused_when_it_does_not_sum_to_100(split: dict[str, int], other: int) -> None:
    version, points = next(iter(split.items()))
    if other == points:
        other = points + 1 if points < 10_000 else points - 1
    with pytest.raises(Misuse, match=r"must sum to exactly 100"):
        parse_split(split_words(split | {version: other}).split(" "))


@settings(deadline=None)
@given(st.text(max_size=12))
def test_a_percentage_is_refused_or_exact_when_it_is_any_text(text: str) -> None:
    try:
        _, points = parse_share(f"v={text}")
    except Misuse:
        return
    value = Decimal(text)
    assert value * 100 == points
    assert 0 <= value <= 100
    assert set(text) <= set("0123456789.")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["1=90", "2=9.99"], "sum to 99.99 %; they must sum to exactly 100 (0.01 % missing)"),
        (["1=90", "2=10.01"], "sum to 100.01 %; they must sum to exactly 100 (0.01 % too much)"),
        (["1=50", "1=50"], "version 1 stands twice"),
        (["1=110", "2=-10"], "'1=110': 110 is more than 100 %"),
        (["2=-10", "1=110"], "'2=-10': '-10' is no percentage"),
        (["1=99.999", "2=0.001"], "'1=99.999': '99.999' is no percentage from 0 to 100 with at most two decimals"),
        (["1=9e1", "2=10"], "'9e1' is no percentage"),
        (["1=", "2=100"], "'' is no percentage"),
        (["1=90%", "2=10%"], "'90%' is no percentage"),
        (["1=٩٠", "2=10"], "is no percentage"),
        (["1=100."], "is no percentage"),
        (["1=.5", "2=99.5"], "is no percentage"),
        (["1=nan"], "is no percentage"),
        (["100"], "expected VERSION=PERCENT"),
        (["=100"], "expected VERSION=PERCENT"),
        (["a b=100"], "expected VERSION=PERCENT"),
        (["-v=100"], "expected VERSION=PERCENT"),
        ([f"{'v' * 65}=100"], "expected VERSION=PERCENT"),
        (["1=100\n"], "is no percentage"),
    ],
)
def test_what_is_no_legal_split_is_refused_with_the_argument_and_advice(arguments: list[str], complaint: str) -> None:
    with pytest.raises(Misuse) as caught:
        parse_split(arguments)
    assert complaint in caught.value.message
    assert caught.value.advice
    assert caught.value.exit_code == 2


def test_a_version_of_weight_zero_stays_in_the_split_when_it_is_named() -> None:
    assert parse_split(["1=100", "2=0"]) == {"1": 10_000, "2": 0}
