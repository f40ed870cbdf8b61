"""What is a reply, where it ends and whether another may follow, whatever pieces its bytes come in."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway.wire import reply as reading
from gateway.wire.reply import MAX_HEAD_BYTES, MAX_HEADERS, MAX_INTERIM, NotHttp, ReplyReader, TooLarge
from tests.fuzzing import fuzzed

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
LENGTH = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n"
Verdict = tuple[str, int, tuple[tuple[str, str], ...], bytes, bool]
"""How a stream of bytes ended: what was said of it, status, headers, body, and whether another request may follow."""


def read(pieces: Sequence[bytes], head_only: bool = False, limit: int | None = 1000, ends: bool = False) -> Verdict:
    """Return the verdict on a reply that comes in `pieces`, after which the connection `ends` or not."""
    reader = ReplyReader()
    reader.begin(head_only, limit)
    said = "incomplete"
    try:
        for number, piece in enumerate(pieces):
            if reader.feed(piece):
                # More after a complete reply is the connection's to notice: it gives the reader nothing then.
                reader.reusable = reader.reusable and number + 1 == len(pieces)
                said = "complete"
                break
    except (NotHttp, TooLarge) as error:
        return type(error).__name__, 0, (), b"", False
    if ends and reader.end():
        said = "complete"
    return said, reader.status, reader.headers, b"".join(reader.parts), reader.reusable


def single(reply: bytes, **options: bool) -> tuple[str, int, bytes, bool]:
    said, status, _, body, reusable = read([reply], **options)
    return said, status, body, reusable


@pytest.mark.parametrize(
    ("reply", "body", "reusable"),
    [
        (LENGTH + b"ok", b"ok", True),
        (b"HTTP/1.1 200\r\ncontent-length: 2\r\n\r\nok", b"ok", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b"", True),
        (b"HTTP/1.1 200 OK\r\nCONTENT-LENGTH:2\r\n\r\nok", b"ok", True),
        (CHUNKED + b"2\r\nok\r\n0\r\n\r\n", b"ok", True),
        (CHUNKED + b"1\r\no\r\n1\r\nk\r\n0\r\n\r\n", b"ok", True),
        (CHUNKED + b'2;a=b;c="d"\r\nok\r\n0;e\r\n\r\n', b"ok", True),
        (CHUNKED + b"0\r\n\r\n", b"", True),
        (CHUNKED + b"0A\r\n0123456789\r\n0\r\n\r\n", b"0123456789", True),
        (CHUNKED + b"2\r\nok\r\n0\r\nx-sum: 1\r\nx-more: 2\r\n\r\n", b"ok", True),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok", True),
        (b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok", b"ok", False),
        (b"HTTP/1.1 200 OK\r\nconnection: x-hop, Close\r\ncontent-length: 2\r\n\r\nok", b"ok", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", b"ok", False),
        (b"HTTP/1.0 200 OK\r\nconnection: keep-alive\r\ncontent-length: 2\r\n\r\nok", b"ok", True),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + LENGTH + b"ok", b"ok", True),
        (b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 102 P\r\n\r\n" + LENGTH + b"ok", b"ok", True),
        (b"HTTP/1.1 100 Continue\r\ncontent-length: 9\r\n\r\n" + LENGTH + b"ok", b"ok", True),
        (LENGTH + b"okHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nstale", b"ok", False),
        (LENGTH + b"okH", b"ok", False),
        (LENGTH + b"ok\r\n", b"ok", False),
        (LENGTH + b"ok\n", b"ok", False),
        (LENGTH + b"\r\n", b"\r\n", True),
        (LENGTH + b"\r\n\r\n", b"\r\n", False),
        (CHUNKED + b"2\r\nok\r\n0\r\n\r\n\r\n", b"ok", False),
        (CHUNKED + b"2\r\nok\r\n0\r\n\r\n0\r\n\r\n", b"ok", False),
    ],
)
def test_reply_ends_where_its_framing_says(reply: bytes, body: bytes, reusable: bool) -> None:
    assert single(reply) == ("complete", 200, body, reusable)


@pytest.mark.parametrize("status", [204, 304])
@pytest.mark.parametrize("framing", [b"", b"content-length: 2\r\n", b"transfer-encoding: chunked\r\n"])
def test_reply_has_no_body_when_its_status_allows_none(status: int, framing: bytes) -> None:
    reply = b"HTTP/1.1 %d X\r\n%b\r\n" % (status, framing)
    assert single(reply) == ("complete", status, b"", True)
    assert single(reply + b"ok") == ("complete", status, b"", False)


@pytest.mark.parametrize("framing", [b"content-length: 2\r\n", b"transfer-encoding: chunked\r\n"])
def test_reply_to_head_ends_with_its_head(framing: bytes) -> None:
    reply = b"HTTP/1.1 200 OK\r\n%b\r\n" % framing
    assert single(reply, head_only=True) == ("complete", 200, b"", True)
    for surplus in (b"o", b"\r", b"\r\n", b"5", b"5\r\nhello\r\n"):
        _, _, _, reusable = single(reply + surplus, head_only=True)
        assert not reusable, surplus


def test_reply_without_length_ends_with_the_connection() -> None:
    reply = b"HTTP/1.1 200 OK\r\n\r\nsome\r\nbody"
    assert single(reply) == ("incomplete", 200, b"some\r\nbody", False)
    assert single(reply, ends=True) == ("complete", 200, b"some\r\nbody", False)


@pytest.mark.parametrize(
    "reply",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-le",
        b"HTTP/1.1 200 OK\r\n",
        LENGTH + b"o",
        CHUNKED + b"2\r\nok\r\n",
        CHUNKED + b"2\r\nok\r\n0\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
)
def test_reply_is_incomplete_when_the_connection_ends_before_its_framing_says(reply: bytes) -> None:
    assert read([reply] if reply else [], ends=True)[0] == "incomplete"


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param(b"SSH-2.0-OpenSSH_9.2\r\n", id="another protocol"),
        pytest.param(b"\r\n" + LENGTH + b"ok", id="an empty line first"),
        pytest.param(b"http/1.1 200 OK\r\n\r\n", id="in lower case"),
        pytest.param(b"HTTP/2.0 200 OK\r\ncontent-length: 2\r\n\r\nok", id="HTTP/2.0"),
        pytest.param(b"HTTP/1.2 200 OK\r\ncontent-length: 2\r\n\r\nok", id="HTTP/1.2"),
        pytest.param(b"HTTP/0.9 200 OK\r\ncontent-length: 2\r\n\r\nok", id="HTTP/0.9"),
        pytest.param(b"ICE/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok", id="ICE"),
        pytest.param(b"HTTP/1.1 100 C\r\n\r\nHTTP/2.0 200 OK\r\ncontent-length: 2\r\n\r\nok", id="HTTP/2.0 after 100"),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", id="a request"),
        pytest.param(b"HTTP/1.1 20 OK\r\n\r\n", id="two digits of status"),
        pytest.param(b"HTTP/1.1 2000 OK\r\n\r\n", id="four digits of status"),
        pytest.param(b"HTTP/1.1 099 OK\r\ncontent-length: 0\r\n\r\n", id="status 099"),
        pytest.param(b"HTTP/1.1 101 S\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n", id="101"),
        pytest.param(b"HTTP/1.1 101 S\r\n\r\n", id="bare 101"),
        pytest.param(b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok", id="bare line feeds"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: a\rcontent-length: 2\r\n\r\nok", id="bare carriage return"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: a\r\n b\r\ncontent-length: 2\r\n\r\nok", id="folded header"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 2\r\n\r\nok", id="NUL"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx : a\r\ncontent-length: 2\r\n\r\nok", id="space before the colon"),
        pytest.param(b"HTTP/1.1 200 OK\r\n: a\r\ncontent-length: 2\r\n\r\nok", id="header without name"),
        pytest.param(b"HTTP/1.1 200 OK\r\nxyz\r\n\r\n", id="header without colon"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok", id="two lengths"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok", id="a length twice"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nok", id="a list of lengths"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok", id="a signed length"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\nok", id="a negative length"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 0x2\r\n\r\nok", id="a length in hex"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length:\r\n\r\nok", id="an empty length"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: " + b"9" * 30 + b"\r\n\r\nok", id="an endless length"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            id="length and chunks",
        ),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n0\r\n\r\n",
            id="chunks and length",
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", id="gzip and chunks"),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\nok", id="identity"),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, gzip\r\n\r\nok", id="chunks within gzip"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            id="chunks twice",
        ),
        pytest.param(b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n", id="chunks in HTTP/1.0"),
        pytest.param(CHUNKED + b"zz\r\n", id="no chunk size"),
        pytest.param(CHUNKED + b"-2\r\nok\r\n", id="a negative chunk"),
        pytest.param(CHUNKED + b"2 \r\nok\r\n0\r\n\r\n", id="a space after the chunk size"),
        pytest.param(CHUNKED + b"2\nok\r\n0\r\n\r\n", id="a bare line feed after the chunk size"),
        pytest.param(CHUNKED + b"2\r\nok0\r\n\r\n", id="no line end after a chunk"),
        pytest.param(CHUNKED + b"1ffffffffffffffff\r\nok", id="an endless chunk"),
        pytest.param(CHUNKED + b"2\r\nok\r\n0\r\ncontent-length: 9\r\n\r\n", id="a length as trailer"),
    ],
)
def test_what_is_no_strict_http_is_refused_however_it_is_cut(reply: bytes) -> None:
    assert read([reply])[0] == "NotHttp"
    assert read([reply[at : at + 1] for at in range(len(reply))])[0] == "NotHttp"


@pytest.mark.parametrize(
    ("within", "beyond"),
    [
        pytest.param(LENGTH + b"ok", b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n", id="length"),
        pytest.param(CHUNKED + b"2\r\nok\r\n0\r\n\r\n", CHUNKED + b"2\r\nok\r\n1\r\n!", id="chunks"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\nok", b"HTTP/1.1 200 OK\r\n\r\nok!", id="to the end"),
    ],
)
def test_body_is_refused_as_soon_as_it_is_known_to_be_too_large(within: bytes, beyond: bytes) -> None:
    for cut in (1, 7, 1000):
        assert read(_cut(within, cut), limit=2)[0] != "TooLarge"
        assert read(_cut(beyond, cut), limit=2)[0] == "TooLarge"
        assert read(_cut(beyond, cut), limit=None)[0] != "TooLarge"


def test_body_in_the_smallest_chunks_takes_no_more_than_its_bytes_while_it_comes() -> None:
    reader = ReplyReader()
    reader.begin(False, 1_000_000)
    reader.feed(CHUNKED)
    for _ in range(10):
        assert not reader.feed(b"2\r\nab\r\n" * 10_000)
    assert len(reader.parts) <= 10
    assert reader.feed(b"0\r\n\r\n")
    assert b"".join(reader.parts) == b"ab" * 100_000


def _cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def _with_headers(count: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n" + b"x: y\r\n" * (count - 1) + b"\r\n"


@pytest.mark.parametrize("cut", [1000, 2**20])
def test_head_is_bounded_in_headers_and_bytes(cut: int) -> None:
    assert read(_cut(_with_headers(MAX_HEADERS), cut))[0] == "complete"
    assert read(_cut(_with_headers(MAX_HEADERS + 1), cut))[0] == "NotHttp"
    for size, said in ((MAX_HEAD_BYTES // 2, "complete"), (MAX_HEAD_BYTES, "NotHttp")):
        head = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx: " + b"a" * size + b"\r\n\r\nok"
        assert read(_cut(head, cut))[0] == said


@pytest.mark.parametrize(
    "endless",
    [
        pytest.param(b"HTTP/1.1 200 " + b"a" * 2**20, id="reason"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"a" * 2**20, id="name of a header"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: " + b"a" * 2**20, id="value of a header"),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"x: a\r\n" * 2**18, id="headers"),
        pytest.param(CHUNKED + b"2;" + b"a" * 2**20, id="chunk extension"),
        pytest.param(CHUNKED + b"2\r\nok\r\n0\r\nx: " + b"a" * 2**20, id="trailer"),
        pytest.param(CHUNKED + b"2\r\nok\r\n0\r\n" + b"x: a\r\n" * 2**18, id="trailers"),
        pytest.param(b"HTTP/1.1 102 P\r\n\r\n" * (MAX_INTERIM + 1), id="interim replies"),
    ],
)
def test_what_never_comes_to_the_body_is_given_up(endless: bytes) -> None:
    for limit in (1000, None):
        assert read(_cut(endless, 4096), limit=limit)[0] == "NotHttp"


def test_replies_are_read_one_after_the_other_and_nothing_of_one_shows_in_the_next() -> None:
    reader = ReplyReader()
    replies = [
        (False, CHUNKED + b"2\r\nok\r\n0\r\nx-trailer: 1\r\n\r\n", 200, b"ok"),
        (False, b"HTTP/1.1 204 No Content\r\nx-one: 1\r\n\r\n", 204, b""),
        (True, b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n", 200, b""),
        (False, b"HTTP/1.1 103 Hints\r\nlink: a\r\n\r\n" + LENGTH + b"ok", 200, b"ok"),
        (True, b"HTTP/1.1 404 X\r\ntransfer-encoding: chunked\r\n\r\n", 404, b""),
        (False, LENGTH + b"ok", 200, b"ok"),
    ]
    for head_only, reply, status, body in replies * 2:
        reader.begin(head_only, 1000)
        assert (reader.status, reader.headers, reader.parts, reader.reusable) == (0, (), [], False)
        assert reader.feed(reply)
        assert (reader.status, b"".join(reader.parts), reader.reusable) == (status, body, True)
        assert not {name for name, _ in reader.headers} & {"x-trailer", "link"}


def test_headers_come_with_names_in_lower_case_and_values_trimmed_in_their_order() -> None:
    head = b"HTTP/1.1 200 OK\r\nX-One:  a \t \r\nx-one:b\r\nX-Odd: \xe9\xa0\r\nEmpty:\r\nContent-Length: 0\r\n\r\n"
    expected = (("x-one", "a"), ("x-one", "b"), ("x-odd", "é\xa0"), ("empty", ""), ("content-length", "0"))
    assert read([head])[2] == expected


# ── any bytes, cut in any way ────────────────────────────────────────────────────────────────────────────────────

_token = st.text("abcXYZ019-_", min_size=1, max_size=8).filter(lambda name: name[0] in "abcXYZ")
_value = st.binary(max_size=12).map(lambda value: bytes(byte for byte in value if byte >= 32 and byte != 127))
_fields = st.lists(st.tuples(_token.map(str.encode), _value), max_size=4)
_bodies = st.binary(max_size=40)


@st.composite
def _replies(draw: st.DrawFn) -> bytes:
    """A reply that is framed in one of the ways there are, perhaps after interim ones, perhaps with something after."""
    interim = b"".join(
        draw(st.lists(st.sampled_from([b"HTTP/1.1 100 C\r\n\r\n", b"HTTP/1.1 103 H\r\na: b\r\n\r\n"]), max_size=2))
    )
    version = draw(st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0"]))
    status = draw(st.sampled_from([200, 204, 304, 404, 503]))
    fields = b"".join(b"%b: %b\r\n" % field for field in draw(_fields))
    closing = draw(st.sampled_from([b"", b"connection: close\r\n", b"Connection: Keep-Alive\r\n"]))
    body = draw(_bodies)
    framing = draw(st.sampled_from(["length", "chunks", "end"]))
    if framing == "length":
        fields, coded = fields + b"content-length: %d\r\n" % len(body), body
    elif framing == "chunks":
        pieces = _cut(body, draw(st.integers(1, 9)))
        trailers = draw(st.sampled_from([b"", b"x-t: 1\r\n", b"x-t: 1\r\ny-t: 22\r\n"]))
        coded = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n" + trailers + b"\r\n"
        fields += b"transfer-encoding: chunked\r\n"
    else:
        coded = body
    surplus = draw(st.sampled_from([b"", b"", b"\r\n", b"\n", b"H", b"HTTP/1.1 200 OK\r\n\r\n", b"0\r\n\r\n"]))
    return b"%b%b %d X\r\n%b%b\r\n%b%b" % (interim, version, status, fields, closing, coded, surplus)


def _pieces_of(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    places = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in pairwise(places)]


@given(_replies(), st.lists(st.integers(0, 10_000), max_size=12), st.booleans(), st.booleans())
@fuzzed(100)
@example(LENGTH + b"ok\r\n", [len(LENGTH) + 3], False, False)
@example(CHUNKED + b"2\r\nok\r\n0\r\nx-t: 1\r\n\r\n", list(range(90)), False, False)
@example(LENGTH + b"okHTTP/1.1 200 OK\r\n\r\n", [len(LENGTH) + 1], True, False)
def test_verdict_is_the_same_however_the_bytes_are_cut(
    reply: bytes, cuts: list[int], head_only: bool, ends: bool
) -> None:
    whole = read([reply], head_only=head_only, ends=ends)
    assert read(_pieces_of(reply, cuts), head_only=head_only, ends=ends) == whole
    assert read(_cut(reply, 1), head_only=head_only, ends=ends) == whole


@given(_replies(), st.integers(0, 400), st.integers(0, 255), st.lists(st.integers(0, 10_000), max_size=6))
@fuzzed(100)
def test_verdict_is_the_same_however_the_bytes_are_cut_when_one_is_wrong(
    reply: bytes, place: int, byte: int, cuts: list[int]
) -> None:
    place %= len(reply)
    wrong = reply[:place] + bytes([byte]) + reply[place + 1 :]
    assert read(_pieces_of(wrong, cuts)) == read([wrong])


@given(st.lists(st.binary(min_size=1, max_size=60), max_size=6), st.booleans())
@fuzzed(100)
def test_nothing_but_a_verdict_comes_of_any_bytes(pieces: list[bytes], head_only: bool) -> None:
    assert read(pieces, head_only=head_only, ends=True)[0] in {"incomplete", "complete", "NotHttp", "TooLarge"}


HEADS = [
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n",
    b"HTTP/1.1 503 X\r\nRetry-After: 1\r\nContent-Length: 3\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n",
    b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n",
    b"HTTP/1.1 204 No Content\r\ncontent-length: 2\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
]
BODIES = [b"", b"ok", b"ok\r\n", b"\n\n", b"abc", b"ok" + HEADS[0] + b"ok", b"2\r\nok\r\n0\r\n\r\n"]


@given(
    st.lists(
        st.tuples(st.sampled_from(HEADS), st.sampled_from(BODIES), st.booleans(), st.sampled_from([None, 2])),
        min_size=2,
        max_size=8,
    )
)
def test_a_head_that_has_come_before_is_read_as_it_was_the_first_time(
    replies: list[tuple[bytes, bytes, bool, int | None]],
) -> None:
    for head, body, head_only, limit in replies:
        known = read([head + body], head_only, limit)
        reading._heads.clear()
        assert read([head + body], head_only, limit) == known
        read([HEADS[0] + b"ok"])
        read([HEADS[2] + b"ok"])
