"""Malformed messages over real sockets: one answer of 4xx, a closed connection, and nothing of what follows is seen."""

import asyncio
import json

import pytest

from tests.gateway.wire.malformed import CASES, SMUGGLED, Case
from tests.gateway.wire.open_port import INFER, Opened, ask, on_port, post, replies_in, tell


def test_the_corpus_names_its_cases_and_has_more_than_sixty() -> None:
    assert len({case.name for case in CASES}) == len(CASES) > 60
    assert len({case.message for case in CASES}) == len(CASES)


def _pieces(case: Case, size: int) -> list[bytes]:
    message = case.message if case.whole else case.message + SMUGGLED * 2
    return [message[at : at + size] for at in range(0, len(message), size)]


def _check_refusal(case: Case, data: bytes) -> int:
    """Check that `data` ends with the one refusal that is due, and return how many requests were answered before it."""
    replies = replies_in(data)
    refusals = [reply for reply in replies if reply.status != 200]
    assert [reply.status for reply in refusals] == ([] if case.status is None else [case.status])
    assert replies[-1:] == refusals, "an answer follows a refusal"
    for reply in refusals:
        assert reply.headers["connection"] == "close"
        assert reply.headers["content-type"] == "application/json"
        assert list(json.loads(reply.body)) == ["error"]
    return len(replies) - len(refusals)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_malformed_message_is_answered_once_and_ends_the_connection(case: Case) -> None:
    async def check(opened: Opened) -> None:
        for size in (2**21, 16_000, 7):
            if len(case.message) / size < 5_000:
                opened.echo.seen.clear()
                data = await tell(opened.number, _pieces(case, size), half_close=case.whole)
                answered = _check_refusal(case, data)
                assert not any("smuggled" in seen.path for seen in opened.echo.seen)
                assert len([seen for seen in opened.echo.seen if seen.refused is None]) == answered
                for seen in opened.echo.seen:
                    assert seen.refused is None or (seen.path, seen.body) == (INFER, b"")

    on_port(check)


def test_all_of_them_at_once_disturb_no_honest_caller() -> None:
    async def check(opened: Opened) -> None:
        telling = [
            asyncio.create_task(tell(opened.number, _pieces(case, 2**21), half_close=case.whole)) for case in CASES
        ]
        honest = [await ask(opened, post(INFER, b"%d" % n, "Connection: close")) for n in range(50)]
        assert [reply.echoed["body"] for (reply,) in honest] == [str(n) for n in range(50)]
        for case, data in zip(CASES, await asyncio.gather(*telling), strict=True):
            _check_refusal(case, data)

    on_port(check)


def test_a_refusal_that_can_be_told_to_be_an_inferences_is_handed_on_to_be_recorded() -> None:
    async def check(opened: Opened) -> None:
        for late in (b"B: \0", b"Content-Length: x", b"Expect: nothing", b"Host: again"):
            opened.echo.seen.clear()
            lines = b"X-Request-Id: r-1\r\nC: d\r\n" + late + b"\r\n\r\n"
            await tell(opened.number, f"POST {INFER} HTTP/1.1\r\nHost: test\r\n".encode() + lines)
            (seen,) = opened.echo.seen
            assert seen.refused is not None
            assert (seen.method, seen.path, seen.headers["x-request-id"]) == ("POST", INFER, "r-1")
            assert seen.received_ns > 0

    on_port(check)
