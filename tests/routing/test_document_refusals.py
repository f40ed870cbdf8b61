"""What parsing does with documents that nobody would write: a refusal at the right path, never another error."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from routing import Cohort, DocumentError, Route, encode_document, parse_cohort, parse_route
from routing.codec import MAX_BYTES, convert, parse_as, read_object, recognised, refuse_repeats
from routing.faults import find_fault, find_json_fault

unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no defect

ROUTE: dict[str, Any] = {
    "model": "fraud",
    "salt": "fraud",
    "split": {"1": 9_000, "2": 1_000},
    "key": [{"header": "x-user-id"}],
    "pins": [{"cohort": "beta", "version": "2", "expires": "2026-12-31T00:00:00Z", "owner": "risk", "reason": "test"}],
    "shadows": [{"version": "3", "sample": 1_000}],
    "fallback": ["1"],
    "client_versions": "allow",
    "timeout_ms": 2_000,
    "idempotent": True,
    "retries": 2,
    "capture": {"request": "full", "response": "none", "max_bytes": 65_536, "redact": ["/inputs/0"]},
}
COHORT: dict[str, Any] = {"name": "beta", "keys": ["u-17"], "match": [{"header": "x-tenant", "in": ["acme"]}]}

any_text = st.text(st.characters(exclude_categories=[]), max_size=8)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | any_text | st.sampled_from(["1", "fraud", "x-a"])
json_like = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text | st.sampled_from(list(ROUTE)), inner),
    max_leaves=8,
)


def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place of a document, the whole of it left out."""
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [place for step, inner in entries for place in ((*here, step), *places(inner, (*here, step)))]


@st.composite
def damaged(draw: st.DrawFn, document: dict[str, Any]) -> dict[str, Any]:
    """A legal document with one thing replaced, added, renamed or left out."""
    copy: Any = json.loads(json.dumps(document))
    *path, last = draw(st.sampled_from(places(document)))
    inner: Any = copy
    for step in path:
        inner = inner[step]
    match draw(st.sampled_from(["replace", "leave out", "add"])):
        case "replace":
            inner[last] = draw(json_like)
        case "leave out":
            del inner[last]
        case _ if isinstance(inner, dict):
            inner[draw(any_text)] = draw(json_like)
        case _:
            inner.append(draw(json_like))
    whole: dict[str, Any] = copy
    return whole


def outcome(parse: Any, document: Any) -> Any:
    """The parsed document, or the path and words of its refusal; any other exception is the test's failure."""
    try:
        return parse(document)
    except DocumentError as error:
        return error.path, error.message


@unhurried
@given(st.binary(max_size=64) | json_like.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_parsed_or_refused_as_a_document(text: bytes) -> None:
    for parse in (parse_route, parse_cohort, read_object):
        outcome(parse, text)


@unhurried
@given(json_like)
def test_any_value_is_parsed_or_refused_as_a_document(value: Any) -> None:
    for parse in (parse_route, parse_cohort, read_object):
        outcome(parse, value)


@settings(unhurried, max_examples=400)
@given(damaged(ROUTE))
def test_a_damaged_route_meets_the_same_fate_as_text_and_as_an_object(document: dict[str, Any]) -> None:
    by_object = outcome(parse_route, document)
    by_text = outcome(parse_route, json.dumps(document).encode())
    # In a text, NaN and infinities are refused by the reader of JSON, in its own words.
    assert (by_object[0] if isinstance(by_object, tuple) else by_object) == (
        by_text[0] if isinstance(by_text, tuple) else by_text
    )


@settings(unhurried, max_examples=400)
@given(st.sampled_from([Route, Cohort]), st.data())
def test_a_fault_is_found_exactly_in_what_msgspec_or_utf_8_refuses(kind: type, data: st.DataObject) -> None:
    document = data.draw(damaged(ROUTE if kind is Route else COHORT))
    try:
        msgspec.json.encode(msgspec.convert(document, kind, strict=True))
        accepted = True
    except (msgspec.ValidationError, UnicodeEncodeError):
        accepted = False
    assert (find_fault(document, msgspec.inspect.type_info(kind)) is None) is accepted


def test_a_refusal_never_repeats_a_text_of_the_document() -> None:
    secret = "hunter 2"  # the space makes it a name of nothing
    refused = 0
    for document, parse in ((ROUTE, parse_route), (COHORT, parse_cohort)):
        for *path, last in places(document):
            copy: Any = json.loads(json.dumps(document))
            inner = copy
            for step in path:
                inner = inner[step]
            inner[last] = secret
            found = outcome(parse, copy)
            if isinstance(found, tuple):
                refused += 1
                assert "hunter" not in "".join(found)
    assert refused > 20


def test_a_text_is_refused_when_it_is_larger_than_the_limit() -> None:
    with pytest.raises(DocumentError, match=f"at most {MAX_BYTES} are allowed"):
        parse_cohort(b" " * (MAX_BYTES + 1))


def test_a_text_is_refused_when_it_is_not_utf_8() -> None:
    with pytest.raises(DocumentError, match=r"not UTF-8 \(byte 1\)"):
        parse_cohort(b'"\xff"')


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'{"model":['])
def test_a_text_is_refused_when_it_is_nested_without_end(opening: bytes) -> None:
    with pytest.raises(DocumentError, match="nested too deeply"):
        read_object(opening * 100_000)
    with pytest.raises(DocumentError):
        parse_route(opening * 100_000)


def test_an_object_is_required_where_any_document_is_read() -> None:
    for value in (b"[]", b"3", b"null"):
        with pytest.raises(DocumentError, match="expected a JSON object"):
            read_object(value)


def test_plain_reading_keeps_the_object_and_refuses_what_json_hides() -> None:
    assert read_object(b'{"a": [1, {"b": 2.5}], "c": "\xc3\xbc"}') == {"a": [1, {"b": 2.5}], "c": "ü"}
    for text, path in (
        (b'{"a": 1, "a": 2}', "a"),
        (b'{"a": [{"b": 1, "b": 1}]}', "a[0].b"),
        (b'{"a": [NaN]}', "a[0]"),
        (b'{"a": 1e999}', "a"),
        (b'{"a": {"\\ud800": 1}}', 'a["\\ud800"]'),
    ):
        with pytest.raises(DocumentError) as refused:
            read_object(text)
        assert refused.value.path == path


def test_the_canonical_json_has_every_field_and_one_order_of_keys() -> None:
    assert encode_document(parse_route(b'{"split":{"b":4000,"a":6000},"model":"fraud"}')) == (
        b'{"model":"fraud","salt":"fraud","split":{"a":6000,"b":4000},"key":[{"header":"x-routing-key"}],"pins":[],'
        b'"shadows":[],"fallback":[],"client_versions":"allow","timeout_ms":30000,'
        b'"idempotent":false,"retries":1,'
        b'"capture":{"request":"full","response":"full","max_bytes":65536,"redact":[]},"brake":null,"slowdown":null}'
    )


def test_a_mapping_of_any_kind_is_read_like_a_dict() -> None:
    assert parse_route(MappingProxyType(ROUTE)) == parse_route(ROUTE)


def test_the_salt_is_the_models_name_when_the_route_gives_none() -> None:
    document = {"model": "fraud", "split": {"1": 10_000}}
    assert parse_route(document).salt == "fraud"
    assert document == {"model": "fraud", "split": {"1": 10_000}}  # what was given is left as it was


def test_a_cohort_of_100_000_keys_is_refused_for_its_last_one_when_that_is_a_repeat() -> None:
    keys = [f"caller-{number}-{'x' * 24}" for number in range(100_000)]
    assert len(parse_cohort({"name": "big", "keys": keys}).digests) == 100_000
    with pytest.raises(DocumentError) as refused:
        parse_cohort(json.dumps({"name": "big", "keys": [*keys, keys[0]]}, indent=4).encode())
    assert str(refused.value) == "keys[100000]: repeats keys[0]; remove one of them"


@pytest.mark.parametrize("key", ["\x1b[31m", "\u202e", "\x85", "a\nb", "\ud800"])
def test_a_path_holds_no_character_that_could_deceive_a_terminal(key: str) -> None:
    with pytest.raises(DocumentError) as refused:
        parse_route({**ROUTE, key: 1, "split": {key: 10_000}})
    assert str(refused.value).isprintable()
    assert refused.value.path == f"[{json.dumps(key)}]"


def test_a_path_shows_the_beginning_of_a_key_that_is_very_long() -> None:
    with pytest.raises(DocumentError) as refused:
        parse_route({**ROUTE, "split": {"v" * 100_000: 10_000}})
    assert refused.value.path == f'split["{"v" * 80}…"]'


def test_a_name_that_is_no_text_is_shown_in_the_path() -> None:
    with pytest.raises(DocumentError) as refused:
        parse_route({**ROUTE, 7: 1})  # type: ignore[dict-item]
    assert refused.value.path == "[7]"


class Loose(msgspec.Struct, forbid_unknown_fields=True):
    """Kinds of fields that the routing documents do not have, but other documents of the house do."""

    free: Any = None
    figures: Mapping[str, Annotated[float, msgspec.Meta(ge=0.0, le=1.0, description="a share")]] = {}
    note: Annotated[str, msgspec.Meta(max_length=3)] | None = None
    level: Annotated[int, msgspec.Meta(ge=0, le=9)] | None = None
    several: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=2)] | None = None
    inner: "Loose | None" = None
    since: Annotated[datetime, msgspec.Meta(tz=True)] | None = None
    odd: frozenset[int] = frozenset()


@pytest.mark.parametrize(
    ("document", "path", "message"),
    [
        ({"free": {"a": [0, float("inf")]}}, 'free["a"][1]', None),
        ({"free": {1: 2}, "level": -1}, "free[1]", "expected a key that is a string"),
        ({"free": {"a": {"b", "c"}}, "level": -1}, 'free["a"]', "expected a JSON value, got a set"),
        ({"free": 10**1000, "level": -1}, "free", "an integer of more than 1000 digits"),
        ({"free": [None, True, 1, "a", 0.5], "level": -1}, "level", "expected an integer from 0 to 9 or null, got -1"),
        ({"figures": {"a": 1.5}}, 'figures["a"]', "expected a share, got 1.5"),
        ({"figures": {"a": 1, "b": True}}, 'figures["b"]', "expected a share, got true"),
        ({"figures": {"a": float("nan")}}, 'figures["a"]', "expected a share, got NaN"),
        ({"figures": {"\ud800": 1}}, 'figures["\\ud800"]', "the key holds a lone surrogate, which is no Unicode text"),
        ({"figures": 3}, "figures", "expected an object, got 3"),
        ({"note": "four"}, "note", "expected a string of at most 3 characters or null, got a string of 4 characters"),
        ({"note": "\ud800"}, "note", "holds a lone surrogate, which is no Unicode text"),
        ({"several": []}, "several", "expected an array of 1 to 2 entries or null, got an empty array"),
        ({"several": ["a", 1]}, "several[1]", "expected a string, got 1"),
        ({"inner": {"level": 10}}, "inner.level", "expected an integer from 0 to 9 or null, got 10"),
        ({"inner": None, "note": None, "level": 10}, "level", "expected an integer from 0 to 9 or null, got 10"),
        ({"inner": []}, "inner", "expected an object or null, got an empty array"),
        ({"since": datetime(2026, 1, 1)}, "since", None),
        ({"since": datetime(2026, 1, 1, tzinfo=UTC), "level": 10**24}, "level", None),
        ({"since": b"2026"}, "since", None),
    ],
)
def test_any_kind_of_field_is_refused_in_plain_words(document: Any, path: str, message: str | None) -> None:
    if path.startswith("free"):
        fault = find_fault(document, msgspec.inspect.type_info(Loose))
        assert fault is not None
        found = fault.path, fault.message
    else:
        with pytest.raises(DocumentError) as refused:
            convert(document, Loose)
        found = refused.value.path, refused.value.message
    assert found == (path, found[1] if message is None else message)
    assert "`" not in found[1]


def test_a_field_that_stands_twice_is_found_inside_what_may_be_null() -> None:
    with pytest.raises(DocumentError) as refused:
        parse_as(b'{"inner": {"level": 1, "level": 2}}', Loose)
    assert refused.value.path == "inner.level"


class Switch(msgspec.Struct):
    on: bool = False


@pytest.mark.parametrize("value", [0, 1, "true", None, []])
def test_a_truth_is_refused_in_plain_words_when_it_is_something_else(value: Any) -> None:
    with pytest.raises(DocumentError, match=r"^on: expected true or false, got ") as refused:
        parse_as(json.dumps({"on": value}).encode(), Switch)
    assert refused.value.path == "on"
    assert parse_as(b'{"on": true}', Switch).on


def test_a_text_may_be_larger_than_one_document_when_the_reader_says_so() -> None:
    text = b'{"a": 1}' + b" " * MAX_BYTES
    assert read_object(text, MAX_BYTES + 100) == {"a": 1}
    with pytest.raises(DocumentError, match=f"at most {MAX_BYTES} are allowed"):
        read_object(text)


def test_a_fault_in_a_kind_of_field_that_has_no_words_is_told_in_msgspecs() -> None:
    with pytest.raises(DocumentError, match=r"Expected `int`, got `str` - at `\$.odd\[0\]`"):
        convert({"odd": ["a"]}, Loose)


def test_what_is_accepted_can_be_written_as_json() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    for free in (deep, {"a": {(1, 2): 3}}, "\ud800"):
        with pytest.raises(DocumentError) as refused:
            convert({"free": free}, Loose)
        assert refused.value.path.startswith("free")


def test_a_free_form_value_may_have_64_levels_and_no_more() -> None:
    value: list[Any] = []
    for _ in range(64):
        value = [value]
    assert find_json_fault(value, "free") is None
    fault = find_json_fault([value], "free")
    assert fault is not None
    assert fault.message == "nested too deeply; at most 64 levels are allowed"


def test_repeats_are_found_in_a_list_of_any_names() -> None:
    refuse_repeats([], "names[{}]")
    refuse_repeats(["a", "b"], "names[{}]")
    with pytest.raises(DocumentError) as refused:
        refuse_repeats(["a", "b", "c", "b", "a"], "names[{}]")
    assert str(refused.value) == "names[3]: repeats names[1]; remove one of them"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


class Free(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    values: Mapping[str, Any] = {}


@given(st.text(max_size=5), st.dictionaries(st.text(max_size=5), _JSON, max_size=3), st.data())
def test_a_text_as_we_write_it_reads_as_the_strict_way_reads_it(name: str, values: Any, data: st.DataObject) -> None:
    text = encode_document(Free(name, values))
    found = recognised(text, Free)
    assert found is None or found == convert(json.loads(text), Free)
    place = data.draw(st.integers(0, len(text) - 1))
    spoilt = text[:place] + data.draw(st.binary(max_size=2)) + text[place + 1 :]
    if (other := recognised(spoilt, Free)) is not None:
        assert other == convert(read_object(spoilt), Free)


@pytest.mark.parametrize(
    "text",
    [
        b'{"name":"a","name":"a","values":{}}',
        b'{"name":"a","values":{"b":1,"b":1}}',
        b'{"name":"a","values":{"b":1e999}}',
        b'{"name":"a","values":{"b":1.0e1}}',
        b'{"name":"a", "values":{}}',
        b'{"name":"a","values":{},"more":1}',
    ],
)
def test_a_text_that_we_would_not_write_is_left_to_the_strict_way(text: bytes) -> None:
    assert recognised(text, Free) is None
