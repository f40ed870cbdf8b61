import json
import re

import pytest

from loadtests.bench.asking import Answer, complaint_of
from loadtests.bench.backend import CHAT_ANSWER, OIP_ANSWER
from loadtests.bench.paced import run_paced
from loadtests.peers.all import PEERS, label
from loadtests.peers.environment import LISTS, pinned
from loadtests.peers.loads import BODY_BYTES, chat_load, digits_load, forward_load
from tests.e2e.backends import Backend, answers, overloaded

DIGITS_ANSWER = {
    "outputs": [
        {"name": "label", "shape": [1], "data": [0]},
        {"name": "probabilities", "shape": [1, 10], "data": [[1.0] + [0.0] * 9]},
    ]
}


def _answer(document: object) -> Answer:
    return Answer(200, {}, json.dumps(document).encode())


def test_every_forwarded_body_has_half_a_kilobyte() -> None:
    for load in (forward_load(), chat_load()):
        assert {len(one.body) for one in load.asks} == {BODY_BYTES}
        assert json.loads(load.asks[0].body)


def test_an_answer_is_judged_by_its_body() -> None:
    assert forward_load().complaint(0, _answer(OIP_ANSWER)) == ""
    assert forward_load().complaint(0, _answer({**OIP_ANSWER, "outputs": []})) != ""
    assert chat_load().complaint(0, _answer(CHAT_ANSWER)) == ""
    wrong = {**CHAT_ANSWER, "choices": [{"message": {"content": "no"}}]}
    assert chat_load().complaint(0, _answer(wrong)) != ""


def test_a_digit_is_judged_by_label_and_probabilities() -> None:
    load = digits_load()
    verdicts = {load.complaint(number, _answer(DIGITS_ANSWER)) == "" for number in range(50)}
    assert verdicts == {True, False}, "one answer must be right for some digits and wrong for others"
    unsure = {"outputs": [DIGITS_ANSWER["outputs"][0], {"name": "probabilities", "data": [0.1] * 10}]}
    assert all(load.complaint(number, _answer(unsure)) for number in range(50))


def test_what_is_no_answer_at_all_is_a_complaint() -> None:
    assert "no answer" in complaint_of("http://127.0.0.1:9", forward_load(), 0)
    with Backend(overloaded) as backend:
        assert "503" in complaint_of(backend.url, forward_load(), 0)


def test_a_paced_load_sends_every_request_and_times_the_answers() -> None:
    with Backend(answers) as backend:
        found = run_paced(backend.url, [one.wire() for one in forward_load().asks], rate=200, seconds=0.5)
        assert (found.sent, found.failed) == (100, 0)
        assert len(backend.requests) == 100
    assert 80 <= len(found.latencies_ms) <= 100
    assert 0 < found.percentile(0.5) <= found.percentile(0.99)


def test_a_paced_load_counts_refusals_as_failed() -> None:
    with Backend(overloaded) as backend:
        found = run_paced(backend.url, [forward_load().asks[0].wire()], rate=200, seconds=0.2)
    assert (found.sent, found.failed) == (40, 40)


@pytest.mark.parametrize("name", sorted(path.stem for path in LISTS.glob("*.txt")))
def test_every_package_of_a_peer_is_pinned(name: str) -> None:
    assert pinned(name)
    for line in pinned(name):
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+]+|(@[a-z0-9-]+/)?[a-z0-9._-]+@[0-9][a-z0-9.-]*", line), line


def test_no_two_peers_share_a_label() -> None:
    assert len({label(peer) for peer in PEERS}) == len(PEERS)
