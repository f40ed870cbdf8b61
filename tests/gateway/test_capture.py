"""What a record keeps of a body, beside it and in it: parts, commitments, cutting and redacting."""

import json
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.capture import (
    REDACTED,
    SALT_BYTES,
    Contents,
    capture,
    capture_unseen,
    fits,
    is_erased,
    open_part,
    quotes_body,
    told,
)
from gateway.errors import MalformedBody, ModelFailed, NotReady
from gateway.record import Payload
from routing import Capture

Mode = Literal["full", "digest", "none"]
BODY = b'{"id":"7","inputs":[{"name":"age","data":[41]},{"name":"name","data":["Ann"]}],"a/b":{"~c":1}}'
bodies = st.binary(max_size=200)
modes: st.SearchStrategy[Mode] = st.sampled_from(["full", "digest", "none"])
policies = st.builds(
    Capture,
    max_bytes=st.integers(0, 100),
    redact=st.lists(st.sampled_from(["/id", "/a", "/a/0", "/b~1c"]), unique=True).map(tuple),
)
# Also bodies that are JSON, so that the fields to redact are there, now and then.
any_bodies = bodies | st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["id", "a", "b/c", "x"]), inner),
    max_leaves=8,
).map(lambda document: json.dumps(document).encode())


def _kept(body: bytes, mode: Mode = "full", policy: Capture = Capture()) -> tuple[Payload, Contents]:  # noqa: B008 - it is frozen
    """Return what the record says and what its part holds, after checking that they belong together."""
    payload, part = capture(body, mode, policy)
    assert fits(part, payload)
    contents = open_part(part, payload)
    assert contents is not None
    assert (payload.size, contents.sha256) == (len(body), sha256(body).hexdigest())
    return payload, contents


def test_a_whole_body_is_kept_when_the_policy_is_full() -> None:
    payload, contents = _kept(BODY)
    assert (contents.body, payload.kept, payload.truncated, payload.redacted) == (BODY, True, False, False)


@pytest.mark.parametrize("mode", ["digest", "none"])
def test_no_body_is_kept_when_the_policy_says_so_but_size_and_digest_are(mode: Mode) -> None:
    payload, contents = _kept(BODY, mode)
    assert (contents.body, payload.kept, payload.truncated, payload.redacted) == (None, False, False, False)


@given(bodies, st.integers(0, 100))
def test_what_is_kept_never_exceeds_max_bytes_while_size_and_digest_are_of_the_whole(body: bytes, limit: int) -> None:
    payload, contents = _kept(body, "full", Capture(max_bytes=limit))
    assert contents.body == body[:limit]
    assert payload.truncated == (len(body) > limit)


@given(st.integers(0, 2**40))
def test_a_body_of_which_not_all_came_has_a_size_and_no_digest(size: int) -> None:
    payload, part = capture_unseen(size)
    contents = open_part(part, payload)
    assert fits(part, payload)
    assert contents is not None
    assert (payload.size, payload.kept, payload.truncated) == (size, False, True)
    assert (contents.sha256, contents.body) == ("", None)


# ── what binds a part to its record ──────────────────────────────────────────────────────────────────────────────


def test_part_and_commitment_are_made_as_the_format_says() -> None:
    payload, part = capture(BODY, "full", Capture(max_bytes=10))
    salt, digest, kept = part[:16], part[16:48], part[48:]
    assert (digest, kept) == (sha256(BODY).digest(), BODY[:10])
    assert payload.commitment == sha256(salt + digest + sha256(kept).digest()).digest()
    payload, part = capture(BODY, "digest", Capture())
    assert part[16:] == digest
    assert payload.commitment == sha256(part + bytes(32)).digest()
    payload, part = capture_unseen(7)
    assert part[16:] == bytes(32)
    assert payload.commitment == sha256(part + bytes(32)).digest()


@given(any_bodies, modes, policies, st.data())
def test_no_changed_cut_or_lengthened_part_fits_its_record(
    body: bytes, mode: Mode, policy: Capture, data: st.DataObject
) -> None:
    payload, part = capture(body, mode, policy)
    assert fits(part, payload)
    bit = data.draw(st.integers(0, len(part) * 8 - 1))
    flipped = bytearray(part)
    flipped[bit // 8] ^= 1 << bit % 8
    assert not fits(bytes(flipped), payload)
    assert not fits(part[: data.draw(st.integers(0, len(part) - 1))], payload)
    assert not fits(part + data.draw(st.binary(min_size=1, max_size=3)), payload)


@given(any_bodies, any_bodies, modes, policies)
def test_a_part_fits_no_other_record_not_even_one_of_the_same_body(
    body: bytes, other: bytes, mode: Mode, policy: Capture
) -> None:
    _, part = capture(body, mode, policy)
    payload, _ = capture(other, mode, policy)
    assert not fits(part, payload)


@given(bodies, modes)
def test_a_record_says_nothing_that_tells_a_guessed_body_from_another(body: bytes, mode: Mode) -> None:
    """The salt is in the part only, so two records of one body have nothing but its size in common."""
    salts = {capture(body, mode, Capture())[1][:SALT_BYTES] for _ in range(3)}
    payloads = [capture(body, mode, Capture())[0] for _ in range(3)]
    assert len(salts) == len({payload.commitment for payload in payloads}) == 3
    digest = sha256(body).digest()
    for payload in payloads:
        assert payload.commitment not in (digest, sha256(digest).digest(), sha256(digest + digest).digest())


def test_a_given_salt_is_the_one_that_is_used() -> None:
    salt = bytes(range(SALT_BYTES))
    assert capture(BODY, "full", Capture(), salt) == capture(BODY, "full", Capture(), salt)
    assert capture(BODY, "digest", Capture(), salt)[1][:SALT_BYTES] == salt


@given(any_bodies, modes, policies)
def test_an_erased_part_holds_nothing_and_does_not_fit(body: bytes, mode: Mode, policy: Capture) -> None:
    payload, part = capture(body, mode, policy)
    for erased in (bytes(len(part)), b""):
        assert is_erased(erased)
        assert open_part(erased, payload) is None
        assert not fits(erased, payload)
    assert not is_erased(part)


# ── redacting ────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("pointer", "where"),
    [
        ("/id", lambda document: document["id"]),
        ("/inputs/1/data", lambda document: document["inputs"][1]["data"]),
        ("/inputs/1/data/0", lambda document: document["inputs"][1]["data"][0]),
        ("/a~1b/~0c", lambda document: document["a/b"]["~c"]),
        ("/a~1b", lambda document: document["a/b"]),
    ],
)
def test_a_named_field_is_replaced_before_the_body_is_kept(pointer: str, where: Callable[[Any], object]) -> None:
    payload, contents = _kept(BODY, "full", Capture(redact=(pointer,)))
    assert payload.redacted
    assert where(json.loads(contents.body or b"")) == REDACTED


@pytest.mark.parametrize("pointer", ["/nobody", "/inputs/9/data", "/inputs/x", "/inputs/-", "/id/deeper", "/~0c"])
def test_a_body_without_the_named_field_is_kept_as_it_is(pointer: str) -> None:
    payload, contents = _kept(BODY, "full", Capture(redact=(pointer,)))
    assert (contents.body, payload.redacted) == (BODY, False)


@pytest.mark.parametrize(
    "body", [b"", b"not json", b"[" * 100_000, b"\xff", b'{"id":"canary"} trailing', b'{"id":' + b"9" * 5_000 + b"}"]
)
def test_a_body_that_is_not_json_is_not_kept_when_fields_are_to_be_redacted(body: bytes) -> None:
    payload, contents = _kept(body, "full", Capture(redact=("/id",)))
    assert (contents.body, payload.kept, payload.redacted) == (None, False, True)


@pytest.mark.parametrize(
    "body",
    [
        b'{"secret":"canary"}',
        b'{"secret":"canary","secret":"harmless"}',
        b'{"secret":"harmless","secret":"canary"}',
        b'{"\\u0073ecret":"canary"}',
        b'{"secret":"harmless","s\\u0065cret":"canary"}',
        b'{"secret":{"deep":["canary"]}}',
        b'{"nested":{"secret":"canary"},"secret":1}',
        b'{"list":[0,{"secret":"canary"}],"secret":1}',
        b'{"nested":{"secret":"canary","secret":"harmless"}}',
        b'{"nested":{"secret":"canary"},"nested":{"secret":"harmless"}}',
        b'{"secret":"can\\u0061ry"}',
        '{"secret":"canary"}'.encode("utf-16"),
        b"\xef\xbb\xbf" + b'{"secret":"canary"}',
        b' \n\t{ "secret" : "canary" } \r\n',
    ],
)
def test_the_secret_is_gone_however_its_field_is_written(body: bytes) -> None:
    policy = Capture(redact=("/secret", "/nested/secret", "/list/1/secret"))
    payload, contents = _kept(body, "full", policy)
    kept = contents.body or b""
    assert payload.redacted
    for encoding in ("utf-8", "utf-16-le", "utf-16-be", "utf-32-le"):
        assert "canary".encode(encoding) not in kept
    assert b"can\\u0061ry" not in kept
    if kept:
        json.loads(kept)


def test_what_is_not_named_is_kept_when_a_field_is_redacted() -> None:
    body = b'{"id":"7","secret":1,"n":1.5e-7,"text":"\\ud800 \\u00e9","list":[true,null,{"secret":2}]}'
    _, contents = _kept(body, "full", Capture(redact=("/secret",)))
    kept = json.loads(contents.body or b"")
    assert kept["secret"] == REDACTED
    assert (kept["id"], kept["n"], kept["list"]) == ("7", 1.5e-7, [True, None, {"secret": 2}])
    assert kept["text"].endswith(" é")


def test_a_cut_body_is_cut_after_it_was_redacted() -> None:
    body = json.dumps({"a": "x" * 30, "secret": "canary"}).encode()
    for limit in range(len(body) + 20):
        payload, contents = _kept(body, "full", Capture(max_bytes=limit, redact=("/secret",)))
        assert contents.body is not None
        assert len(contents.body) <= limit
        assert b"canary" not in contents.body
        assert payload.truncated == (limit < len(f'{{"a":"{"x" * 30}","secret":"{REDACTED}"}}'))


@given(st.text(min_size=1, alphabet=st.characters(exclude_categories=["Cs"])))
def test_a_secret_in_a_redacted_field_is_nowhere_in_what_is_kept(secret: str) -> None:
    marked = f"secret-{secret}"
    body = json.dumps({"inputs": [{"data": [marked]}]}).encode()
    _, contents = _kept(body, "full", Capture(redact=("/inputs/0/data",)))
    assert json.loads(contents.body or b"") == {"inputs": [{"data": REDACTED}]}


# ── what errors say ──────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "policy", [Capture(redact=("/inputs",)), Capture(request="digest"), Capture(request="none")], ids=str
)
def test_an_error_about_a_body_is_told_without_the_body_when_the_route_keeps_it_out(policy: Capture) -> None:
    error = MalformedBody("inputs[0].data: expected numbers, got 'canary'")
    assert quotes_body(error, policy)
    assert (told(error, policy) or "").startswith("inputs[0].data: malformed_body")
    for sentence in ("expected JSON, got canary", "inputs[0].canary!: no", "Canary: is no tensor"):
        assert "canary" not in (told(MalformedBody(sentence), policy) or "").lower()
    assert "canary" not in (told(ModelFailed("it failed on canary"), policy) or "")


def test_an_error_is_told_in_full_when_it_is_not_about_a_body_or_bodies_are_kept() -> None:
    assert told(None, Capture(request="none")) is None
    assert told(NotReady("no rules"), Capture(request="none")) == "no rules"
    assert told(MalformedBody("inputs: missing"), Capture()) == "inputs: missing"
