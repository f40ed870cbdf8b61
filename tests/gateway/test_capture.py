"""What a record keeps of a body."""

import json
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.capture import REDACTED, capture
from routing import Capture

BODY = b'{"id":"7","inputs":[{"name":"age","data":[41]},{"name":"name","data":["Ann"]}],"a/b":{"~c":1}}'


def test_a_whole_body_is_kept_when_the_policy_is_full() -> None:
    kept = capture(BODY, "full", Capture())
    assert (kept.body, kept.size, kept.sha256) == (BODY, len(BODY), sha256(BODY).hexdigest())
    assert not kept.truncated
    assert not kept.redacted


@pytest.mark.parametrize("mode", ["digest", "none"])
def test_no_body_is_kept_when_the_policy_says_so_but_size_and_digest_are(mode: str) -> None:
    kept = capture(BODY, mode, Capture())  # type: ignore[arg-type]
    assert (kept.body, kept.size, kept.sha256) == (None, len(BODY), sha256(BODY).hexdigest())


@given(st.binary(max_size=200), st.integers(0, 100))
def test_what_is_kept_never_exceeds_max_bytes_while_size_and_digest_are_of_the_whole(body: bytes, limit: int) -> None:
    kept = capture(body, "full", Capture(max_bytes=limit))
    assert kept.body == body[:limit]
    assert kept.truncated == (len(body) > limit)
    assert (kept.size, kept.sha256) == (len(body), sha256(body).hexdigest())


@pytest.mark.parametrize(
    ("pointer", "where"),
    [
        ("/id", lambda document: document["id"]),
        ("/inputs/1/data", lambda document: document["inputs"][1]["data"]),
        ("/inputs/1/data/0", lambda document: document["inputs"][1]["data"][0]),
        ("/a~1b/~0c", lambda document: document["a/b"]["~c"]),
    ],
)
def test_a_named_field_is_replaced_before_the_body_is_kept(pointer: str, where) -> None:  # type: ignore[no-untyped-def]
    kept = capture(BODY, "full", Capture(redact=(pointer,)))
    assert kept.redacted
    assert kept.body is not None
    assert where(json.loads(kept.body)) == REDACTED


@pytest.mark.parametrize("pointer", ["/nobody", "/inputs/9/data", "/inputs/x", "/id/deeper"])
def test_a_body_without_the_named_field_is_kept_as_it_is(pointer: str) -> None:
    kept = capture(BODY, "full", Capture(redact=(pointer,)))
    assert (kept.body, kept.redacted) == (BODY, False)


@pytest.mark.parametrize("body", [b"", b"not json", b"[" * 100_000, b"\xff"])
def test_a_body_that_is_not_json_is_not_kept_when_fields_are_to_be_redacted(body: bytes) -> None:
    kept = capture(body, "full", Capture(redact=("/id",)))
    assert (kept.body, kept.redacted, kept.size) == (None, True, len(body))


@given(st.text(min_size=1, alphabet=st.characters(exclude_categories=["Cs"])))
def test_a_secret_in_a_redacted_field_is_nowhere_in_what_is_kept(secret: str) -> None:
    marked = f"secret-{secret}"
    body = json.dumps({"inputs": [{"data": [marked]}]}).encode()
    kept = capture(body, "full", Capture(redact=("/inputs/0/data",)))
    assert kept.body is not None
    assert json.loads(kept.body) == {"inputs": [{"data": REDACTED}]}
