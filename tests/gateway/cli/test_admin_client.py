import json
from typing import Any

import pytest

from gateway.cli.address import check_url, is_loopback
from gateway.cli.client import AdminClient
from gateway.cli.failures import Misuse, Refusal, Unreachable

CUT = b""
Peer = Any


def answer(status: int, document: object, *headers: str) -> bytes:
    body = json.dumps(document).encode()
    lines = [f"HTTP/1.1 {status} X", "content-type: application/json", f"content-length: {len(body)}", *headers]
    return "\r\n".join([*lines, "connection: close", "", ""]).encode() + body


MADE = answer(201, {"revision": 7, "changed": True, "in_force": True})


def client(url: str, **who: str) -> AdminClient:
    return AdminClient(url, **{"actor": "anna", **who})


def test_a_write_is_sent_again_under_the_same_key_when_the_connection_is_cut(peer: Peer) -> None:
    api = peer(CUT, CUT, MADE, MADE)
    with client(api.url) as admin:
        assert admin.put("routes", "m", document={"model": "m"}, expect=6).revision == 7
        admin.put("routes", "m", document={"model": "m"}, expect=7)
    first, second, third, other = api.headers("idempotency-key")
    assert first == second == third != other
    assert api.headers("if-match") == ['"6"', '"6"', '"6"', '"7"']


def test_a_write_says_that_its_fate_is_unknown_when_the_connection_is_cut_every_time(peer: Peer) -> None:
    api = peer(*[CUT] * 5)
    with client(api.url) as admin, pytest.raises(Unreachable, match="cut before its answer") as caught:
        admin.delete("cohorts", "beta", expect=3)
    assert "may have been made or not" in caught.value.advice
    assert caught.value.exit_code == 2
    assert len(set(api.headers("idempotency-key"))) == 1


def test_the_command_ends_with_2_when_nobody_listens(nobody: str) -> None:
    with client(nobody) as admin, pytest.raises(Unreachable, match=r"is `pointsman serve` running\?") as caught:
        admin.read("routes", "m")
    assert nobody in caught.value.message
    assert "--admin-url" in caught.value.advice


def test_the_proxy_of_the_environment_is_passed_by_when_the_gateway_is_on_this_machine(
    peer: Peer, nobody: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", nobody)
    monkeypatch.setenv("all_proxy", nobody)
    with client(peer(answer(200, {"a": 1})).url) as admin:
        assert admin.read("routes", "m").document == {"a": 1}


def test_who_and_why_are_sent_as_utf_8_with_every_write(peer: Peer) -> None:
    api = peer(MADE)
    with client(api.url, actor="Zoë", comment="half – and half") as admin:
        admin.put("routes", "m", document={}, expect=1)
    assert (api.headers("x-actor"), api.headers("x-comment")) == (["Zoë"], ["half – and half"])


@pytest.mark.parametrize("text", ["a\nX-Evil: 1", "a\rb", "a\x00", "\x7f"])
def test_a_comment_or_actor_is_refused_when_it_is_more_than_one_line(text: str) -> None:
    for option in ("comment", "actor"):
        with pytest.raises(Misuse, match=f"--{option}: expected one line"):
            client("http://127.0.0.1:1", **{option: text})


@pytest.mark.parametrize("reply", [answer(404, {"error": "no such path"}), answer(302, []), answer(500, "x")])
def test_a_server_that_is_no_admin_api_is_named_when_it_answers(peer: Peer, reply: bytes) -> None:
    with client(peer(reply).url) as admin, pytest.raises(Unreachable, match="not as the admin API does") as caught:
        admin.find("routes", "m")
    assert "data port" in caught.value.advice


@pytest.mark.parametrize("reply", [answer(200, [1]), b"HTTP/1.1 200 X\r\ncontent-length: 2\r\n\r\nhi"])
def test_an_answer_is_refused_when_it_is_no_json_object(peer: Peer, reply: bytes) -> None:
    with client(peer(reply).url) as admin, pytest.raises(Unreachable, match="does not answer in the admin API's JSON"):
        admin.read("routes", "m")


def test_a_refusal_names_the_field_and_what_to_do(peer: Peer) -> None:
    problem = {"code": "revision_conflict", "detail": "the route is newer", "path": "split", "revision": 9}
    with client(peer(answer(412, problem)).url) as admin, pytest.raises(Refusal) as caught:
        admin.put("routes", "m", document={}, expect=1)
    assert caught.value.message == "split: the route is newer"
    assert caught.value.revision == 9
    assert "run the command again" in caught.value.advice


def test_a_change_is_not_in_force_when_the_answer_is_202(peer: Peer) -> None:
    late = answer(202, {"revision": 8, "changed": True, "in_force": False, "laggards": {"w1": "no artifact"}})
    with client(peer(late).url) as admin:
        outcome = admin.put("routes", "m", document={}, expect=None)
    assert (outcome.in_force, outcome.laggards, outcome.created) == (False, {"w1": "no artifact"}, False)


def test_the_revision_is_read_from_the_etag_when_there_is_one(peer: Peer) -> None:
    for tag, revision in (('"41"', 41), ('W/"41"', 41), ('"x"', None)):
        with client(peer(answer(200, {}, f"etag: {tag}")).url) as admin:
            assert admin.read("routes", "m").revision == revision


@pytest.mark.parametrize(
    "url",
    [
        *("", "127.0.0.1:8081", "ftp://h", "http://", "http://h:x", "http://h:0", "http://h:99999", "http://[::1"),
        *("http://user:secret@h", "http://h?q", "http://h#f"),
    ],
)
def test_an_admin_url_is_refused_without_repeating_it_when_it_is_none(url: str) -> None:
    with pytest.raises(Misuse, match="--admin-url") as caught:
        client(url)
    assert "secret" not in caught.value.message
    assert "http://127.0.0.1:8081" in caught.value.advice


def test_loopback_is_this_machine_by_name_or_address() -> None:
    assert all(is_loopback(url) for url in ("http://localhost:1", "http://127.9.9.9", "http://[::1]:8081"))
    assert not any(is_loopback(url) for url in ("http://10.0.0.7", "http://localhost.example.org"))
    assert check_url("http://127.0.0.1:8081/", "--admin-url") == "http://127.0.0.1:8081"
