"""What the record of a stream says: of its bytes what it would of a body in one piece, and how it came to its end."""

from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.admin.shown import explained, shown_record
from gateway.capture import capture, capture_passed, fits, open_part
from gateway.evidence.decisions import judge_primary, then_of
from gateway.evidence.exporting import row_of
from gateway.evidence.inputs import answer_of
from gateway.ports import Kept
from gateway.record import decode_record, encode_record
from routing import Capture, RouteRules
from tests.gateway.streaming.world import World, on_world
from tests.records import DAY, ChainedJournal

SALT = bytes(range(16))
policies = st.builds(
    Capture,
    response=st.sampled_from(["full", "digest", "none"]),
    max_bytes=st.integers(0, 40),
    redact=st.sampled_from([(), ("/id",)]),
)


@given(
    st.binary(max_size=60) | st.just(b'{"id": 1}') | st.just(b'{"id": "much longer than most bounds are"}'), policies
)
def test_a_body_that_passed_is_kept_as_one_that_was_there_at_once(body: bytes, policy: Capture) -> None:
    passed = capture_passed(body[: policy.max_bytes], len(body), sha256(body).digest(), policy, SALT)
    payload, part = passed
    assert fits(part, payload)
    contents = open_part(part, payload)
    assert contents is not None
    assert (payload.size, contents.sha256) == (len(body), sha256(body).hexdigest())
    if policy.redact and policy.response == "full" and len(body) > policy.max_bytes:
        assert (contents.body, payload.redacted) == (None, True)  # nobody could tell what is to be replaced
    else:
        assert passed == capture(body, policy.response, policy, SALT)


@pytest.mark.parametrize(
    ("policy", "kept"),
    [
        ({"response": "digest"}, None),
        ({"response": "none"}, None),
        ({"max_bytes": 12}, b"data: 0\n\ndat"),
        ({"max_bytes": 0}, b""),
        ({"redact": ["/id"]}, None),
    ],
)
def test_the_capture_of_the_route_holds_for_streams(tmp_path: Path, policy: dict[str, Any], kept: bytes | None) -> None:
    async def check(world: World) -> None:
        call, answering = await world.begun()
        for number in range(5):
            answering.send(b"data: %d\n\n" % number)
            await call.piece()
        answering.end()
        await call.rest()
        body = b"".join(b"data: %d\n\n" % number for number in range(5))
        record = await world.record()
        assert record.response.size == len(body)
        assert world.response().sha256 == sha256(body).hexdigest()
        assert world.response().body == kept

    on_world(tmp_path, check, route={"capture": policy})


@pytest.mark.parametrize("end", ["complete", "cut", "hung up"])
def test_an_auditor_finds_the_decision_of_a_stream_right_however_it_ended(tmp_path: Path, end: str) -> None:
    async def check(world: World) -> None:
        call = await world.call()
        refusing = await world.backends["1"].next()
        refusing.write(b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n")
        refusing.over.set()
        answering = await world.backends["2"].next()
        answering.begin()
        await call.head()
        answering.send(b"data: 1\n\n")
        await call.piece()
        if end == "complete":
            answering.end()
        elif end == "cut":
            answering.cut()
        else:
            call.hang_up()
        record = await world.record()
        assert record.served == "2"
        assert [attempt.version for attempt in record.attempts] == ["1", "2"]
        assert decode_record(encode_record(record)) == record
        snapshot = world.rules.snapshot
        assert snapshot is not None
        then = then_of(RouteRules(snapshot.routes["talk"].route, snapshot.cohorts))
        assert then is not None
        assert judge_primary(record, then) is None

    on_world(tmp_path, check, route={"fallback": ["2"]}, versions=("1", "2"))


def test_what_broke_off_is_told_apart_from_a_whole_answer(tmp_path: Path) -> None:
    rows: list[Kept] = []

    async def check(world: World) -> None:
        for number in range(2):
            call, answering = await world.begun()
            answering.send(b"data: 1\n\n")
            await call.piece()
            answering.end() if number else answering.cut()
            record = await world.record(number)
            frame = ChainedJournal().sealed(encode_record(record), *world.kept.parts[number])
            rows.append(Kept(frame, DAY))

    on_world(tmp_path, check)
    broken, whole = rows
    assert answer_of(whole).body == b"data: 1\n\n"
    assert (answer_of(broken).body, answer_of(broken).sha256) == (None, answer_of(whole).sha256)
    assert "broke off" in answer_of(broken).why
    assert [row_of(row)["streamed"] for row in rows] == ["broken_off", "complete"]
    assert all(0 < row_of(row)["head_us"] <= row_of(row)["infer_us"] for row in rows)
    assert explained(broken.frame.record).endswith("broke off when the caller had been sent 9 bytes of it.")
    assert "broke off" not in explained(whole.frame.record)
    assert shown_record(broken.frame.record)["streamed"] == "broken_off"
