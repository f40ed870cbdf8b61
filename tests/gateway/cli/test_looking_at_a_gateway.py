"""Every command that reads, the demo and the printed examples, against a real gateway."""

import json
import os
import re
import shlex
import subprocess
import sys
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.cli.app import app
from gateway.cli.examples import install_examples, print_examples, show_examples
from gateway.examples import digit_samples
from tests.e2e.running_gateway import RunningGateway, digit_request, wait_until

Pointsman = Any
Peer = Any
SAMPLES = digit_samples()


def test_every_read_prints_json_and_nothing_else_when_asked(pointsman: Pointsman, gateway: RunningGateway) -> None:
    pointsman("cohorts", "set", "readers", "--key", "u-1")
    gateway.infer("digits", digit_request(SAMPLES[0].pixels), {"x-request-id": "json-1"})
    reads = ["versions list", "versions list digits", "versions show digits 2", "routes show digits"]
    reads += ["routes explain digits --key u-1", "cohorts list", "cohorts show readers", "audit show json-1"]
    for read in reads:
        printed = pointsman(*read.split(), "--json")
        assert isinstance(json.loads(printed), dict)
        assert printed.count("\n") == 1


def test_a_route_is_shown_with_its_shares_pins_and_shadows(pointsman: Pointsman, model: str) -> None:
    pointsman("cohorts", "set", "seen", "--match", "x-tenant=acme,other")
    pointsman("routes", "pin", model, "seen=3", "--expires", "2099-12-31T00:00:00Z", "--owner", "risk")
    pointsman("routes", "shadow", model, "3=12.5")
    shown = pointsman("routes", "show", model)
    assert re.search(r"1 +90 %\n2 +10 %", shown)
    assert re.search(r"0 +seen +3 +2099-12-31T00:00:00Z +risk +–", shown)
    assert re.search(r"3 +12\.5 %", shown)
    assert re.search(r"revision +\d+", shown)
    listed = pointsman("versions", "list", model)
    assert re.search(r"^2 +10 % ", listed, re.MULTILINE)
    assert re.search(r"^3 +pin seen, shadow 12\.5 % ", listed, re.MULTILINE)
    assert "accuracy 0.955556 (+3)" in listed
    assert re.search(rf"{model} +1, 2, 3 +1=90 2=10 +\d+", pointsman("versions", "list"))
    assert re.search(r"x-tenant +acme, other", pointsman("cohorts", "show", "seen"))
    assert re.search(r"seen +\d+ +0 +x-tenant in acme, other", pointsman("cohorts", "list"))


def test_a_version_is_shown_with_where_it_comes_from(pointsman: Pointsman) -> None:
    shown = pointsman("versions", "show", "digits", "2")
    for fact in ("LogisticRegression", "accuracy 0.955556", "pointsman-examples", "sklearn-digits-1797", "sha256"):
        assert fact in shown
    assert "incomplete" not in shown


def test_an_explanation_names_every_rule_with_its_reason_and_the_scores(pointsman: Pointsman, model: str) -> None:
    explained = pointsman("routes", "explain", model, "--key", "u-1")
    assert re.search(r"client_versions +no +the caller named no version", explained)
    assert re.search(r"split +yes +smallest rendezvous score of the routing key", explained)
    assert "scores of the split, the smallest wins" in explained
    chosen = pointsman.json("routes", "explain", model, "--key", "u-1")["decision"]["version"]
    assert f"version {chosen}, reason split, rule split" in explained
    named = pointsman("routes", "explain", model, "--version", "3")
    assert "version 3, reason explicit" in named
    assert "did not come to decide" in named
    route = pointsman.json("routes", "show", model)
    pointsman("routes", "apply", "-", text=json.dumps({**route, "client_versions": "deny"}))
    assert "refused: the route does not let callers name a version" in pointsman(
        "routes", "explain", model, "--version", "3"
    )


def test_an_explanation_agrees_with_the_gateway_about_a_caller(pointsman: Pointsman, gateway: RunningGateway) -> None:
    for key in ("u-1", "u-2", "u-3", "u-4"):
        answer = gateway.infer("digits", digit_request(SAMPLES[0].pixels), {"x-routing-key": key})
        explained = pointsman.json("routes", "explain", "digits", "--key", key)
        assert explained["decision"]["version"] == answer.headers["x-model-version"]


def test_a_card_says_which_version_answered_why_and_what_it_was_made_from(
    pointsman: Pointsman, gateway: RunningGateway
) -> None:
    answer = gateway.infer(
        "digits", digit_request(SAMPLES[1].pixels), {"x-request-id": "card-1", "x-routing-key": "u-1"}
    )
    version = answer.headers["x-model-version"]
    wait_until(lambda: gateway.audit("card-1")[0]["shadows"], "the shadow's record")
    card = pointsman("audit", "show", "card-1")
    assert f"request card-1: served by version {version} of digits" in card
    for fact in (
        f"gave version {version}.",
        f"split of route revision {answer.headers['x-route-revision']}",
        answer.headers["x-record-id"],
        answer.headers["x-model-digest"].removeprefix("sha-256="),
        "gateway/examples/digits/train.py",
        "sklearn-digits-1797",
        '{"inputs": [{"name": "pixels", "shape": [1, 64]',
    ):
        assert fact in card
    assert re.search(r"^3 +served +200 ", card, re.MULTILINE)
    assert "more; --full shows them)" in card
    assert "--full" not in pointsman("audit", "show", "card-1", "--full")


def test_a_card_cannot_command_the_terminal_when_a_stranger_sent_escape_codes(
    pointsman: Pointsman, gateway: RunningGateway
) -> None:
    gateway.infer("digits", b"\x1b[2J\x1b]0;owned\x07\xe2\x80\xae{", {"x-request-id": "evil-1"})
    card = pointsman("audit", "show", "evil-1")
    assert "request evil-1: refused" in card
    assert "malformed_body" in card
    assert r"\x1b[2J\x1b]0;owned\x07\u202e{" in card
    assert not {"\x1b", "\x07", "\u202e"} & set(card)


def test_a_request_that_nobody_made_is_not_found_and_the_message_says_which_ids_there_are(
    pointsman: Pointsman,
) -> None:
    missing = pointsman("audit", "show", "no/such id", code=1)
    assert "no record has the request id, record id or OIP id no/such id" in missing
    assert "X-Request-Id or X-Record-Id" in missing
    assert "pointsman routes apply FILE" in pointsman("routes", "show", "nothing", code=1)
    assert "pointsman versions list" in pointsman("versions", "show", "digits", "9", code=1)


def test_the_demo_shows_every_version_with_its_share_and_how_often_it_was_right(
    pointsman: Pointsman, gateway: RunningGateway
) -> None:
    shown = pointsman("demo", "--url", gateway.data_url, "--requests", "60")
    assert "60 digits answered" in shown
    rows = {line.split()[0]: line for line in shown.splitlines() if re.match(r"\d ", line)}
    assert set(rows) == {"1", "2", "3"}
    seen = {version: int(re.findall(r"\((\d+)\)", row)[0]) for version, row in rows.items()}
    assert seen["1"] + seen["2"] == seen["3"] == 60
    assert "90 %" in rows["1"]
    assert "% with 3" in rows["1"]
    assert "shadow 100 %" in rows["3"]
    assert re.search(r"measured from here p50 \d", shown)
    again = pointsman("demo", "--url", gateway.data_url, "--requests", "60")
    assert f"({seen['1']})" in again  # a caller keeps its version


def test_the_demo_ends_with_1_and_says_what_to_start_when_something_is_missing(
    pointsman: Pointsman, gateway: RunningGateway, nobody: str, peer: Peer
) -> None:
    assert f"cannot reach a gateway at {nobody}" in pointsman("demo", "--url", nobody, code=1)
    problem = b'{"code": "not_found", "detail": "there is no route of model digits"}'
    empty = peer(b"HTTP/1.1 404 X\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(problem) + problem)
    result = CliRunner().invoke(app, ["demo", "--admin-url", empty.url, "--url", gateway.data_url])
    assert result.exit_code == 1
    assert "no route for the model digits" in result.stderr
    assert "pointsman serve --examples" in result.stderr
    wrong = pointsman("demo", "--url", gateway.admin_url, "-n", "3", code=1)
    assert "no request to the model digits" in wrong
    assert "status 404" in wrong


def test_the_examples_are_installed_once_and_a_route_that_is_there_is_left_alone(
    pointsman: Pointsman, gateway: RunningGateway, capsys: pytest.CaptureFixture[str]
) -> None:
    before = pointsman.json("versions", "list", "digits")
    install_examples(gateway.admin_url)
    after = pointsman.json("versions", "list", "digits")
    assert after["route"] == before["route"]
    assert [v["revision"] for v in after["versions"]] == [v["revision"] for v in before["versions"]]
    assert before["route"]["split"] == {"1": 9000, "2": 1000}
    print_examples(gateway.data_url, gateway.admin_url)
    printed = capsys.readouterr()
    assert printed.out == ""  # standard output is the log's
    assert "version 1 90 %, version 2 10 %" in printed.err


def test_the_printed_lines_work_word_for_word(
    gateway: RunningGateway, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    print_examples(gateway.data_url, gateway.admin_url)
    lines = [line.strip() for line in capsys.readouterr().err.splitlines()]
    ask, look_up = [line for line in lines if line.startswith("curl ")]
    answered = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, timeout=20, check=True).stdout
    head, _, body = answered.partition("\n\n")
    assert "x-model-version: " in head
    assert json.loads(body)["outputs"][0]["data"] == [SAMPLES[0].label]
    found = subprocess.run(["bash", "-c", look_up], capture_output=True, text=True, timeout=20, check=True).stdout
    assert json.loads(found)["records"][0]["request_id"] == "hello-1"
    commands = [shlex.split(line) for line in lines if line.split(" ")[0].endswith("pointsman")]
    assert [" ".join(command[3:5]) for command in commands] == ["audit show", "demo --url", "routes weights"]
    shown = subprocess.run(commands[0], capture_output=True, text=True, timeout=20, check=True).stdout
    assert "request hello-1: served by version" in shown


def test_failing_examples_are_told_in_words_and_leave_the_gateway_alone(
    nobody: str, capsys: pytest.CaptureFixture[str]
) -> None:
    show_examples("http://127.0.0.1:1", nobody)
    assert "the example models are not installed: cannot reach the admin API" in capsys.readouterr().err


def test_nothing_is_coloured_or_cut_when_the_output_is_a_pipe(gateway: RunningGateway) -> None:
    environment = {**os.environ, "TERM": "xterm-256color", "POINTSMAN_ADMIN_URL": gateway.admin_url}
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "versions", "show", "digits", "2"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=30,
        check=True,
    )
    assert "\x1b" not in done.stdout
    assert "9bf088439c77bdceb042222960b085754676f7f64654816e12a1e10791400626" in done.stdout
    refused = subprocess.run(
        [sys.executable, "-m", "gateway", "routes", "show", "nothing"],
        capture_output=True,
        text=True,
        env=environment,
        timeout=30,
        check=False,
    )
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "\x1b" not in refused.stderr
