"""How text stands in the columns of PostgreSQL: without NUL, bounded, and never the same for two texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.stores.audit_postgres_rows import column_text, escaped, plain_text

_text = st.text(st.sampled_from("ab\\0\0…"), max_size=12) | st.text(max_size=12)


@given(_text)
def test_a_text_comes_back_from_its_column(text: str) -> None:
    assert plain_text(column_text(text)) == plain_text(escaped(text)) == text
    assert "\0" not in column_text(text)


@given(_text, _text, st.sampled_from([1, 50, 400, 5_000]))
def test_two_texts_have_two_columns_however_long_they_are(one: str, other: str, times: int) -> None:
    columns = column_text(one * times), column_text(other * times)
    assert (columns[0] == columns[1]) == (one * times == other * times)
    assert all(len(column) < 450 for column in columns)


@given(st.text(min_size=1, max_size=4))
def test_what_was_cut_stands_for_itself(text: str) -> None:
    column = column_text(text * 401)
    assert plain_text(column) == column
    assert column_text(plain_text(column)) == column


@pytest.mark.parametrize("write", [column_text, escaped])
def test_text_that_is_no_unicode_has_no_column(write: object) -> None:
    assert callable(write)
    with pytest.raises(UnicodeEncodeError):
        write("a\ud800")
