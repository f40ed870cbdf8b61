"""A record as a row of a day's file: what `columns_of` says of it, packed and interned."""

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.columns import Columns, columns_of, packed_id, tells_its_time, unpacked_id
from gateway.record import Record
from gateway.stores.audit_sqlite_day import COLUMNS, INSERT, OUTCOMES, ROLES, oip_key, request_key, row_of
from tests.records import NOON_NS, control_record, new_record, record_id_at, shadow_of

NAMES = COLUMNS.split(", ")
WORDS = {"model", "version", "reason", "caller", "gateway", "action", "asked_version", "intended"}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=6)
HUGE = st.integers(-(2**70), 2**70)


class Interned(dict[str, int]):
    """Small integers of names, and back."""

    def __missing__(self, name: str) -> int:
        self[name] = len(self)
        return self[name]

    def of(self, number: object) -> str | None:
        return next((name for name, known in self.items() if known == number), None)


def _maybe(values: st.SearchStrategy[str]) -> st.SearchStrategy[str | None]:
    return st.none() | values


IDS = st.builds(record_id_at, st.just(NOON_NS + 7_000_000), st.integers(0, 3)) | TEXT
RECORDS = st.builds(
    new_record,
    st.just(7),
    record_id=IDS,
    request_id=IDS,
    oip_id=_maybe(TEXT),
    primary_id=_maybe(IDS),
    role=st.sampled_from(["primary", "primary", "shadow", "control"]),
    received_ns=st.just(NOON_NS + 7_000_000) | HUGE,
    model=TEXT,
    outcome=st.sampled_from(["served", "failed", "refused"]),
    status=st.just(200) | HUGE,
    served=_maybe(TEXT),
    intended=_maybe(TEXT),
    asked_version=_maybe(TEXT),
    reason=_maybe(st.sampled_from(["split", "pin"])),
    unit=st.sampled_from([None, "no hex", "", "00ff"]),
    keyed=st.booleans(),
    headers=st.dictionaries(TEXT, TEXT, max_size=2),
    revision=st.none() | HUGE,
    cohort_revision=st.none() | HUGE,
    action=_maybe(TEXT),
    client=TEXT,
    gateway=TEXT,
)
PACKED: dict[str, Callable[[Columns], object]] = {
    "record_id": lambda said: packed_id(said.record_id),
    "primary_id": lambda said: None if said.primary_id is None else packed_id(said.primary_id),
    "outcome": lambda said: OUTCOMES[said.outcome],
    "role": lambda said: ROLES[said.role],
    "request_key": lambda said: None if said.request_id is None else request_key(said.request_id),
    "oip_key": lambda said: None if said.oip_id is None else oip_key(said.oip_id),
    "stray": lambda said: (
        None
        if all(
            tells_its_time(packed_id(one), said.received_ns)
            for one in (said.record_id, said.primary_id)
            if one is not None
        )
        else 1
    ),
}


@given(RECORDS)
def test_a_row_says_what_the_columns_of_its_record_say(record: Record) -> None:
    words = Interned()
    row = dict(zip(NAMES, row_of(record, words.__getitem__), strict=True))
    said = columns_of(record)
    for name in NAMES:
        if name in PACKED:
            assert row[name] == PACKED[name](said), name
        elif name in WORDS and row[name] is not None:
            assert words.of(row[name]) == getattr(said, name), name
        else:
            assert row[name] == getattr(said, name), name


def test_a_row_has_a_value_for_every_column() -> None:
    assert INSERT.count("?") == len(NAMES) + 3  # with number, journal and sequence


@pytest.mark.parametrize("record", [new_record(1), shadow_of(new_record(1), 2), control_record(3, "audit.list")])
def test_an_id_of_ours_is_packed_and_no_stray(record: Record) -> None:
    row = dict(zip(NAMES, row_of(record, Interned().__getitem__), strict=True))
    assert (unpacked_id(row["record_id"]), row["stray"]) == (record.record_id, None)
    assert isinstance(row["record_id"], bytes)


def test_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        row_of(msgspec.structs.replace(new_record(1), request_id="\ud800"), Interned().__getitem__)
