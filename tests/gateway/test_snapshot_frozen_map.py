"""The mapping that snapshots are made of: a dict in every answer, and never changed by its successors."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.snapshot.frozen_map import FrozenMap

_keys = st.integers(0, 600)  # more than there are shelves, so that some share one
_changes = st.lists(st.tuples(st.dictionaries(_keys, st.integers(), max_size=20), st.sets(_keys, max_size=20)))


@given(_changes)
def test_mapping_answers_as_a_dict_does_after_any_changes(changes: list[tuple[dict[int, int], set[int]]]) -> None:
    whole: FrozenMap[int, int] = FrozenMap()
    expected: dict[int, int] = {}
    earlier = []
    for put, gone in changes:
        earlier.append((whole, dict(expected)))
        whole = whole.changed(put, gone)
        expected = {key: value for key, value in expected.items() if key not in gone} | put
    for mapping, meant in [*earlier, (whole, expected)]:
        assert mapping == meant
        assert len(mapping) == len(meant)
        assert mapping.keys() == meant.keys()
        assert set(mapping) == meant.keys()
        for key in range(0, 600, 7):
            assert (key in mapping) == (key in meant)
            assert mapping.get(key, -1) == meant.get(key, -1)


def test_change_that_says_nothing_is_the_mapping_itself() -> None:
    whole = FrozenMap[str, int]().changed({"a": 1})
    assert whole.changed({}) is whole
    assert repr(whole) == "FrozenMap({'a': 1})"
