"""`status` when something is wrong, and `rules republish` and `accept`, against a peer that says what is needed."""

import json
import os
import pty
import re
import subprocess
import sys
from typing import Any

from typer.testing import CliRunner

from gateway.cli.app import app
from tests.gateway.cli.test_admin_client import answer

Peer = Any
HEAD = {"epoch": "e", "revision": 7}
WORKER = {
    "worker": "north/w0",
    "own": True,
    "alive": True,
    "ready": True,
    "revision": 7,
    "epoch": "e",
    "since_ns": 1_764_000_000_000_000_000,
    "rules_age_ms": 61_000,
    "said_ms": 10,
    "problems": {},
    "alarms": {},
}
SILENT = {**WORKER, "worker": "north/w1", "alive": False, "ready": False, "revision": None, "since_ns": None}
TROUBLES = ["the rules store is in doubt: it was emptied", "north/w1: silent for 9 s"]
STATUS = {
    "ok": False,
    "troubles": TROUBLES,
    "gateway": "north",
    "store": {"answering": True, "why": None, "head": None, "known": HEAD, "in_doubt": "it was emptied"},
    "workers": [{**WORKER, "alarms": {"head": "gone"}, "problems": {"digits": "no artifact"}}, SILENT],
    "impaired": [],
    "unconfirmed": [{"revision": 7, "remaining_ms": 90_000, "documents": [["route", "digits"], ["cohort", "beta"]]}],
}
CHANGES = [{"kind": "route", "name": "digits", "outcome": "made", "was": None}]
TRIED = answer(200, {"head": None, "changes": CHANGES, "published": None})
PUBLISHED = {"revision": 9, "changed": True, "in_force": True, "acknowledged": ["north/w0"], "laggards": {}}
DONE = answer(200, {"head": {"epoch": "f", "revision": 9}, "changes": CHANGES, "published": PUBLISHED})


def run(peer: Any, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["--admin-url", peer.url, *arguments])


def test_the_status_ends_with_1_and_says_what_is_wrong(peer: Peer) -> None:
    result = run(peer(answer(200, STATUS)), "status")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [f"pointsman: {trouble}" for trouble in TROUBLES]
    assert "in doubt: it lost rules that were in force" in result.stdout
    lines = {line.split()[0]: line.split() for line in result.stdout.splitlines() if line.startswith(("north", "  "))}
    assert lines["north/w0"][1:] == [
        "ready,",
        "alarm",
        "7",
        "2025-11-24T16:00:00Z",
        "1",
        "min",
        "1",
        "s",
        "ago",
        "digits",
    ]
    assert lines["north/w1"][1] == "silent"
    assert "route digits, cohort beta" in result.stdout
    assert "in 1 min 30 s" in result.stdout


def test_the_status_shows_versions_in_trouble_by_worker_also_when_all_else_is_well(peer: Peer) -> None:
    impaired = {
        "model": "fraud",
        "version": "2",
        "braked": {"north/w1": {"failures": 5, "of": 8, "since_ns": 1}},
        "ejected": {"north/w1": 1, "north/w0": 2},
        "unhealthy": {},
        "limited": {"north/w0": 8},
    }
    well = {**STATUS, "ok": True, "troubles": [], "workers": [WORKER], "impaired": [impaired]}
    result = run(peer(answer(200, well)), "status")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "all is well, but for versions in trouble" in result.stdout
    (row,) = [line for line in result.stdout.splitlines() if line.startswith("fraud")]
    assert re.split(" {2,}", row.strip()) == ["fraud", "2", "w1: 5 of 8 failed", "w0: 2, w1: 1", "–", "w0: at most 8"]


def test_the_status_for_programs_ends_with_1_too_when_something_is_wrong(peer: Peer) -> None:
    result = run(peer(answer(200, STATUS)), "status", "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (1, STATUS)


def test_a_dry_run_shows_what_would_become_of_the_documents_and_asks_for_nothing(peer: Peer) -> None:
    for verb, where in (("republish", "in the store"), ("accept", "of the rules in force")):
        api = peer(TRIED)
        result = run(api, "rules", verb, "--dry-run")
        assert result.exit_code == 0
        assert f"1 document {where} would change" in result.stdout
        assert "digits" in result.stdout
        assert "nothing was changed" in result.stdout
        assert api.requests[0].startswith(f"POST /admin/v1/rules/{verb} ")
        assert json.loads(api.requests[0].rpartition("\r\n\r\n")[2]) == {"dry_run": True}
    assert json.loads(run(peer(TRIED), "rules", "accept", "--dry-run", "--json").stdout)["changes"] == CHANGES


def test_rules_are_resettled_without_a_question_when_yes_is_said_beforehand(peer: Peer) -> None:
    api = peer(DONE, DONE)
    result = run(api, "rules", "republish", "--yes", "-m", "redis was emptied")
    assert result.exit_code == 0
    assert result.stdout == "the last good rules written to the store: in force everywhere, revision 9\n"
    assert api.headers("x-comment") == ["redis was emptied"]
    assert json.loads(run(api, "rules", "accept", "--yes", "--json").stdout)["head"]["epoch"] == "f"


def test_rules_resettled_but_not_in_force_everywhere_name_the_worker(peer: Peer) -> None:
    late = {**PUBLISHED, "in_force": False, "laggards": {"north/w1": "silent"}}
    result = run(peer(answer(202, {"head": HEAD, "changes": [], "published": late})), "rules", "accept", "--yes")
    assert result.exit_code == 1
    assert "north/w1: silent" in result.stderr


def test_rules_are_left_alone_when_nobody_can_be_asked(peer: Peer) -> None:
    api = peer(TRIED)
    result = run(api, "rules", "republish")
    assert result.exit_code == 2
    assert "Pass --yes" in result.stderr
    assert len(api.requests) == 1


def test_somebody_at_a_terminal_has_to_type_yes(peer: Peer) -> None:
    for typed, code, requests in ((b"y\n", 1, 1), (b"yes\n", 0, 2)):
        api = peer(TRIED, DONE)
        terminal, end = pty.openpty()
        command = [sys.executable, "-m", "gateway", "--admin-url", api.url, "rules", "republish"]
        process = subprocess.Popen(command, stdin=end, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        os.close(end)
        os.write(terminal, typed)
        said, complaint = process.communicate(timeout=30)
        os.close(terminal)
        assert process.returncode == code, complaint
        assert len(api.requests) == requests
        assert b"1 document in the store would change" in said
        assert (b"not confirmed; nothing was changed" in complaint) == bool(code)
