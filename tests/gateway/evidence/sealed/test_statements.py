"""Statements and listings: one way to write each, and every other refused."""

import json
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from gateway.evidence.keys import SigningKey
from gateway.evidence.statements import (
    MARK_BYTES,
    SIGNED_PREFIX,
    NotCanonical,
    Statement,
    Stretch,
    digest,
    encode_listing,
    encode_statement,
    is_signed_by,
    marks_in,
    marks_of,
    parse_listing,
    parse_statement,
    rfc3339,
    sign,
)

KEY = SigningKey.generate()
HASH = "5f" * 32
AT_NS = 1_795_632_170_123_456_789
SAID = Statement(
    version=1,
    gateway="g",
    number=2,
    previous=HASH,
    day="2026-11-25",
    at=rfc3339(AT_NS),
    at_ns=AT_NS,
    size=3,
    root=HASH,
    listing=HASH,
    key=KEY.id,
)
LISTED = (
    Stretch("g/w0.00", 1, 2, HASH, HASH),
    Stretch("g/w0.00", 5, 5, HASH, HASH),
    Stretch("g/w1.00", 1, 9, HASH, HASH, "1w8aBcde" * 9),
)

days = st.dates().map(lambda day: day.isoformat())
hashes = st.binary(min_size=32, max_size=32).map(bytes.hex)
huge = st.integers(10, 10**9)
times = st.integers(0, 4_000_000_000_000_000_000)


@st.composite
def statements(draw: st.DrawFn) -> Statement:
    number, at_ns = draw(st.integers(1, 2**63 - 1)), draw(times)
    return Statement(
        version=1,
        gateway=draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)),
        number=number,
        previous=draw(hashes) if number > 1 else "",
        day=draw(days),
        at=rfc3339(at_ns),
        at_ns=at_ns,
        size=draw(st.integers(1, 100_000)),
        root=draw(hashes),
        listing=draw(hashes),
        key=draw(st.binary(min_size=8, max_size=8)).hex(),
    )


@st.composite
def listings(draw: st.DrawFn) -> tuple[Stretch, ...]:
    found = []
    for journal in sorted(draw(st.sets(st.sampled_from(["g/control.01", "g/w0.ff", "g/w1.00"])))):
        at = 1
        for skip, size in draw(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9) | huge), max_size=4)):
            first = at + skip
            marks = marks_of([draw(st.binary(min_size=32, max_size=32)) for _ in range(size)]) if size < 10 else ""
            found.append(Stretch(journal, first, first + size - 1, draw(hashes), draw(hashes), marks))
            at = first + size
    return tuple(found)


@given(st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=9))
def test_a_stretch_has_the_first_bytes_of_each_leaf(leaves: list[bytes]) -> None:
    stretch = Stretch("g/w0.00", 7, 6 + len(leaves), HASH, HASH, marks_of(leaves))

    assert marks_in(stretch) == [one[:MARK_BYTES] for one in leaves]
    assert marks_in(structs.replace(stretch, marks="")) == []
    assert parse_listing(encode_listing([stretch])) == (stretch,)


def test_a_listing_of_before_there_were_marks_has_none() -> None:
    assert b"marks" not in encode_listing(LISTED[:2])
    assert b'"marks":"1w8a' in encode_listing(LISTED)


@given(statements())
def test_a_statement_is_read_back_as_it_was_written(statement: Statement) -> None:
    assert parse_statement(encode_statement(statement)) == statement


@given(listings())
def test_a_listing_is_read_back_as_it_was_written(listing: tuple[Stretch, ...]) -> None:
    assert parse_listing(encode_listing(listing)) == listing


def test_the_bytes_are_those_that_the_format_names() -> None:
    """Sorted names, no spaces: what Python's own encoder makes of the same."""
    for data in (encode_statement(SAID), encode_listing(LISTED)):
        assert data == json.dumps(json.loads(data), sort_keys=True, separators=(",", ":")).encode()
    assert rfc3339(0) == "1970-01-01T00:00:00.000Z"
    assert SAID.at == "2026-11-25T18:42:50.123Z"


@given(statements(), st.data())
def test_a_statement_with_one_byte_changed_is_refused_or_another(statement: Statement, data: st.DataObject) -> None:
    written = bytearray(encode_statement(statement))
    at = data.draw(st.integers(0, len(written) - 1))
    written[at] ^= data.draw(st.integers(1, 255))

    with suppress(NotCanonical):
        assert parse_statement(bytes(written)) != statement


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": 2}, "does not parse"),
        ({"number": 0, "previous": ""}, "number is out of range"),
        ({"number": 2**63}, "number is out of range"),
        ({"number": 1}, "previous is given"),
        ({"number": True}, "does not parse"),
        ({"previous": ""}, "previous is no SHA-256"),
        ({"previous": HASH.upper()}, "previous is no SHA-256"),
        ({"root": HASH[2:]}, "root is no SHA-256"),
        ({"listing": "x" * 64}, "listing is no SHA-256"),
        ({"size": 0}, "size is out of range"),
        ({"size": 1.5}, "does not parse"),
        ({"key": "k"}, "key is no id"),
        ({"day": "2026-13-25"}, "day is none"),
        ({"day": "20261125"}, "day is none"),
        ({"at": "2026-11-25T18:42:51.123Z"}, "not the same time"),
        ({"at_ns": -1}, "not the same time"),
        ({"gateway": ""}, "gateway is empty"),
        ({"more": 1}, "does not parse"),
    ],
)
def test_a_statement_that_says_what_none_can_say_is_refused(change: dict[str, Any], words: str) -> None:
    said = json.loads(encode_statement(SAID)) | change

    with pytest.raises(NotCanonical, match=words):
        parse_statement(json.dumps(said, sort_keys=True, separators=(",", ":")).encode())


def test_a_statement_without_one_of_its_fields_is_refused() -> None:
    for name in Statement.__struct_fields__:
        said = json.loads(encode_statement(SAID))
        del said[name]
        with pytest.raises(NotCanonical, match="does not parse"):
            parse_statement(json.dumps(said, sort_keys=True, separators=(",", ":")).encode())


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda data: b" " + data,
        lambda data: data + b"\n",
        lambda data: data.replace(b":", b": ", 1),
        lambda data: data.replace(b'"gateway":"g"', b'"gateway":"x","gateway":"g"'),
        lambda data: data.replace(b'"gateway":"g"', b'"gateway":"\\u0067"'),
        lambda data: (
            json.dumps(json.loads(data), separators=(",", ":"), sort_keys=True)[::1]
            .replace('"size":3,', "")
            .replace("{", '{"size":3,', 1)
            .encode()
        ),
    ],
)
def test_the_same_statement_in_other_bytes_is_refused(rewrite: Any) -> None:
    with pytest.raises(NotCanonical, match="not in canonical form"):
        parse_statement(rewrite(encode_statement(SAID)))


@pytest.mark.parametrize("data", [b"", b"null", b"[]", b"\xff", b"{" * 10_000, b"[" * 10_000])
def test_bytes_that_are_no_json_of_ours_are_refused(data: bytes) -> None:
    with pytest.raises(NotCanonical):
        parse_statement(data)
    if data != b"[]":
        with pytest.raises(NotCanonical):
            parse_listing(data)


@pytest.mark.parametrize(
    ("listing", "words"),
    [
        ((structs.replace(LISTED[0], first=0), *LISTED[1:]), "ends before it begins"),
        ((structs.replace(LISTED[0], last=0), *LISTED[1:]), "ends before it begins"),
        ((structs.replace(LISTED[2], last=2**63),), "ends before it begins"),
        ((structs.replace(LISTED[0], end="0"), *LISTED[1:]), "no SHA-256"),
        (LISTED[::-1], "not in order"),
        ((LISTED[0], LISTED[0]), "not in order"),
        ((structs.replace(LISTED[0], last=5), *LISTED[1:]), "not in order"),
        ((structs.replace(LISTED[2], marks="1w8aBcde" * 8),), "other marks"),
        ((structs.replace(LISTED[2], marks="1w8aBcde" * 9 + "\n"),), "other marks"),
        ((structs.replace(LISTED[2], marks="1w8aBcd=" * 9),), "other marks"),
        ((structs.replace(LISTED[2], marks="1w8aBcd-" * 9),), "other marks"),
    ],
)
def test_a_listing_out_of_order_or_of_nothing_is_refused(listing: tuple[Stretch, ...], words: str) -> None:
    with pytest.raises(NotCanonical, match=words):
        parse_listing(encode_listing(listing))


def test_a_listing_in_other_bytes_is_refused() -> None:
    with pytest.raises(NotCanonical, match="not in canonical form"):
        parse_listing(encode_listing(LISTED).replace(b",", b", ", 1))


def test_a_signature_is_over_the_statement_after_the_words_of_its_format() -> None:
    listing = encode_listing(LISTED)
    said = structs.replace(SAID, listing=digest(listing))

    signed = sign(said, listing, KEY)

    assert KEY.public.verifies(signed.signature, b"pointsman checkpoint v1\n" + encode_statement(said))
    assert SIGNED_PREFIX == b"pointsman checkpoint v1\n"
    assert is_signed_by(KEY.public, signed.statement, signed.signature)
    assert not is_signed_by(SigningKey.generate().public, signed.statement, signed.signature)
    assert not KEY.public.verifies(signed.signature, signed.statement)
    assert parse_statement(signed.statement) == said
    assert (signed.gateway, signed.number, signed.day, signed.at_ns, signed.key) == ("g", 2, said.day, AT_NS, KEY.id)
