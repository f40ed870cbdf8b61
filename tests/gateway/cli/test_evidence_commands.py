"""`audit recompute`, `replay` and `export` against a real gateway, and what they make of answers that go wrong."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner

from gateway.cli.app import app
from gateway.examples import digit_samples
from tests.e2e.running_gateway import RunningGateway, digit_request, manifest, register

Pointsman = Any
Peer = Any
SAMPLES = digit_samples()
REQUESTS = 40


@pytest.fixture(scope="module")
def traffic(pointsman: Pointsman, manifests: Callable[[str], list[Path]], gateway: RunningGateway) -> str:
    """A model of every kind of traffic: split, pins, versions named and refused, fallback, shadows; return its name."""
    model = "evidence"
    pointsman("versions", "register", *(str(folder) for folder in manifests(model)))
    register(gateway, manifest(model, "dead", {"http": {"urls": ["http://127.0.0.1:1"]}}))
    pointsman("cohorts", "set", "evidence-beta", "--key", "caller-3", "--match", "x-tenant=acme")
    routes: tuple[dict[str, Any], ...] = (
        {"split": {"1": 5000, "2": 5000}, "shadows": [{"version": "3", "sample": 5000}]},
        {"split": {"1": 5000, "2": 5000}, "pins": [{"cohort": "evidence-beta", "version": "3"}]},
        {"split": {"dead": 10_000, "1": 0}, "fallback": ["2", "1"]},
        {"split": {"1": 10_000}, "client_versions": "deny"},
    )
    for number, route in enumerate(routes):
        pointsman("routes", "apply", "-", text=json.dumps({"model": model, **route}))
        for request in range(REQUESTS // len(routes)):
            headers = {"x-request-id": f"evidence-{number}-{request}"}
            headers |= {"x-routing-key": f"caller-{request}"} if request % 2 else {}
            headers |= {"x-tenant": "acme"} if request % 5 == 0 else {}
            path = {7: "/versions/2", 8: "/versions/nine"}.get(request, "")
            gateway.infer(model, digit_request(SAMPLES[request].pixels), headers, path)
    return model


# ── recompute ────────────────────────────────────────────────────────────────────────────────────────────────────


def test_every_decision_of_a_real_gateway_follows_from_its_rules(pointsman: Pointsman, traffic: str) -> None:
    result = pointsman.json("audit", "recompute", "--from", "1h", "--model", traffic)
    assert (result["differ"], result["differences"], result["unchecked"]) == (0, [], {})
    assert result["checked"] == result["records"] > REQUESTS  # shadows, too
    assert result["archive"]["differences"] == []
    said = pointsman("audit", "recompute", "--model", traffic)
    assert re.match(
        rf"{result['checked']} checked, 0 differ, 0 could not be checked\n\d+ revisions of the rules ", said
    )


def streamed(*lines: object) -> bytes:
    body = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    head = "HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\nconnection: close\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def invoke(url: str, *arguments: str) -> Any:
    return CliRunner().invoke(app, ["--admin-url", url, "audit", *arguments])


RECOMPUTED = {
    "records": 12,
    "checked": 9,
    "differ": 2,
    "unchecked": {"revision 3 is not kept": 1},
    "undecided": {"refused before anything was decided (unknown_model)": 2},
    "differences": [
        {
            "record_id": "r-1",
            "request_id": "q-1",
            "role": "primary",
            "model": "digits",
            "revision": 4,
            "received_ns": 0,
            "why": "the record says version 1 by split; the rules give version 2 by split: smallest score",
        }
    ],
    "left_out": 1,
    "archive": {"agreed": 3, "differences": []},
}


def test_differences_are_named_with_both_sides_and_end_with_exit_code_1(peer: Peer) -> None:
    api = peer(*[streamed({"progress": {"done": 1, "total": 2}}, {"result": RECOMPUTED})] * 2)
    told = invoke(api.url, "recompute", "--from", "24h")
    assert told.exit_code == 1
    assert told.stderr == ""
    for words in (
        "9 checked, 2 differ, 1 could not be checked",
        "1 could not be checked: revision 3 is not kept",
        "2 more hold no decision",
        "2 refused before anything was decided (unknown_model)",
        "1970-01-01T00:00:00.000000Z   r-1      primary   digits          4   the record says version 1 by split; the",
        "and 1 more",
    ):
        assert words in told.stdout
    as_json = invoke(api.url, "recompute", "--json")
    assert (as_json.exit_code, json.loads(as_json.stdout)) == (1, RECOMPUTED)
    assert api.requests[0].startswith("POST /admin/v1/audit/recompute?from=24h HTTP/1.1")


def test_an_archive_that_is_not_as_the_log_tells_is_a_difference(peer: Peer) -> None:
    changed = {**RECOMPUTED, "differ": 0, "differences": [], "left_out": 0}
    changed["archive"] = {"agreed": 2, "differences": [{"revision": 7, "why": "its documents are others"}]}
    told = invoke(peer(streamed({"result": changed})).url, "recompute")
    assert told.exit_code == 1
    assert "7   its documents are others" in told.stdout


@pytest.mark.parametrize(
    ("last", "code", "words"),
    [
        ({"error": {"code": "audit_unavailable", "message": "the store is gone"}}, 1, "the store is gone"),
        ({"progress": {"done": 1, "total": 2}}, 2, "ended before its result"),
    ],
)
def test_a_stream_that_ends_without_a_result_says_why(peer: Peer, last: Any, code: int, words: str) -> None:
    told = invoke(peer(streamed({"progress": {"done": 0, "total": 2}}, last)).url, "recompute")
    assert (told.exit_code, told.stdout) == (code, "")
    assert words in told.stderr


def test_a_stream_that_is_cut_is_unreachable(peer: Peer) -> None:
    whole = streamed({"progress": {"done": 0, "total": 2}}, {"result": RECOMPUTED})
    told = invoke(peer(whole[:-200]).url, "recompute")
    assert told.exit_code == 2
    assert "was cut" in told.stderr


def test_no_gateway_at_all_is_said_so(nobody: str) -> None:
    told = invoke(nobody, "recompute")
    assert told.exit_code == 2
    assert "is `pointsman serve` running?" in told.stderr


def test_a_refusal_comes_with_its_words(pointsman: Pointsman) -> None:
    assert "from: expected a time with its zone" in pointsman("audit", "recompute", "--from", "yesterday", code=1)


def test_a_bar_is_shown_on_a_terminal_and_standard_output_stays_clean(
    pointsman: Pointsman, gateway: RunningGateway, traffic: str
) -> None:
    reading, writing = pty.openpty()
    command = [sys.executable, "-m", "gateway", "--admin-url", gateway.admin_url, "audit", "recompute", "--json"]
    with subprocess.Popen(
        [*command, "--model", traffic], stdout=subprocess.PIPE, stderr=writing, env={**os.environ, "TERM": "xterm"}
    ) as process:
        os.close(writing)
        shown = b"".join(_until_the_end(reading))
        assert process.stdout is not None
        printed = process.stdout.read()
    os.close(reading)
    assert process.returncode == 0
    assert b"deciding" in shown
    assert json.loads(printed)["differ"] == 0


def _until_the_end(descriptor: int) -> Iterator[bytes]:
    while True:
        try:
            data = os.read(descriptor, 65_536)
        except OSError:  # what a terminal says when nobody writes to it any more
            return
        yield data


# ── replay ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_record_is_replayed_to_the_very_bytes(pointsman: Pointsman, traffic: str) -> None:
    said = pointsman("audit", "replay", "evidence-0-1")
    assert re.search(r"the same again +identical bytes, in \d+\.\d{3} ms", said)
    assert re.search(r"recorded +version \d, sha256 [0-9a-f]{64}: 200 in", said)
    result = pointsman.json("audit", "replay", "evidence-2-1")
    assert (result["model"], result["recorded"]["version"], result["agrees"]) == (traffic, "2", True)


def test_another_version_is_shown_side_by_side(pointsman: Pointsman, traffic: str) -> None:
    flips = 0
    for request in (1, 3, 5, 9):
        result = CliRunner().invoke(
            app,
            ["--admin-url", pointsman.gateway.admin_url, "audit", "replay", f"evidence-0-{request}", "--version", "3"],
        )
        assert re.search(r"another version +version 3, sha256 ", result.stdout), result.stdout
        assert re.search(r"probabilities +FP32 +10 +10 +0\.\d+", result.stdout)
        flipped = "it flips: output label" in result.stdout
        assert result.exit_code == int(flipped)
        assert ("it agrees" in result.stdout) is not flipped
        flips += flipped
    assert flips < 4


def test_what_cannot_be_replayed_says_why(pointsman: Pointsman, traffic: str) -> None:
    assert "no version ran: it was refused" in pointsman("audit", "replay", "evidence-3-7", code=1)
    refused = pointsman("audit", "replay", "nobody-at-all", code=1)
    assert "no record has that request id" in refused
    assert "X-Record-Id" in refused
    assert "version 77 of model" in pointsman("audit", "replay", "evidence-0-1", "--version", "77", code=1)


def test_a_stretch_is_replayed_through_a_candidate(pointsman: Pointsman, traffic: str) -> None:
    arguments = ("audit", "replay", "--from", "1h", "--model", traffic, "--version", "2", "--sample", "20")
    result = CliRunner().invoke(app, ["--admin-url", pointsman.gateway.admin_url, *arguments])
    assert re.match(rf"\d+ of {REQUESTS} requests of {traffic} replayed \(", result.stdout), result.stdout
    assert re.search(r"version 2 agrees: [\d.]+ % \(\d+ agree, \d+ flip, 0 failed\)", result.stdout)
    assert re.search(r"the versions that had served: identical bytes \d+, others 0", result.stdout)
    for row in ("as recorded", "the same again", "version 2"):
        assert re.search(rf"^{row} +\d+ +[\d.]+ +[\d.]+$", result.stdout, re.MULTILINE)
    assert "no version had answered it" in result.stdout
    again = CliRunner().invoke(app, ["--admin-url", pointsman.gateway.admin_url, *arguments, "--json"])
    sums = json.loads(again.stdout)
    assert sums["agreed"] + sums["flipped"] == sums["sampled"] == 20
    assert again.exit_code == result.exit_code == int(sums["flipped"] > 0)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "Name a record, or --version"),
        (("r-1", "--sample", "5"), "--sample: is for many records"),
        (("r-1", "--from", "1h"), "--from: is for many records"),
    ],
)
def test_a_replay_that_makes_no_sense_asks_nobody(nobody: str, arguments: tuple[str, ...], words: str) -> None:
    told = invoke(nobody, "replay", *arguments)
    assert told.exit_code == 2
    assert words in told.stderr


# ── export ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_an_export_in_both_forms_has_the_same_records(pointsman: Pointsman, traffic: str, tmp_path: Path) -> None:
    lines, table = tmp_path / "r.jsonl", tmp_path / "r.parquet"
    said = pointsman("audit", "export", "--model", traffic, "-o", str(lines))
    pointsman("audit", "export", "--from", "1h", "--model", traffic, "--format", "parquet", "-o", str(table))
    records = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
    assert said == f"exported {len(records)} records to {lines}\n"
    served = [one for one in records if one["role"] != "control"]
    with duckdb.connect() as database:
        question = f"SELECT count(*), sum(total_us), sum(status), count(request_body) FROM '{table}'"
        found = database.execute(f"{question} WHERE role <> 'control'").fetchall()
        kinds = dict(database.execute(f"SELECT column_name, column_type FROM (DESCRIBE FROM '{table}')").fetchall())
    assert found == [
        (
            len(served),
            sum(one["total_us"] for one in served),
            sum(one["status"] for one in served),
            sum(one["request_body"] is not None for one in served),
        )
    ]
    assert (kinds["received"], kinds["total_us"], kinds["keyed"], kinds["day"]) == (
        "TIMESTAMP WITH TIME ZONE",
        "BIGINT",
        "BOOLEAN",
        "DATE",
    )
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.jsonl", "r.parquet"]
    assert lines.stat().st_mode & 0o777 == table.stat().st_mode & 0o777 == 0o600


def test_an_export_goes_to_standard_output_when_that_is_named(gateway: RunningGateway, traffic: str) -> None:
    command = [sys.executable, "-m", "gateway", "--admin-url", gateway.admin_url, "audit", "export"]
    told = subprocess.run([*command, "--model", traffic, "-o", "-"], capture_output=True, check=True)
    assert told.stderr == b""
    assert {json.loads(line)["model"] for line in told.stdout.splitlines()} == {traffic}


HEADING = {"export": {"format": 1, "records": 2, "columns": [{"name": "record_id", "type": "text"}]}}


@pytest.mark.parametrize(
    ("lines", "code", "words"),
    [
        (({"record_id": "r-1"},), 2, "the export was cut after 1 records, and nothing was kept"),
        (({"record_id": "r-1"}, {"end": {"records": 2}}), 2, "the export was cut after 1 records"),
        (({"record_id": "r-1"}, {"error": {"code": "internal_error", "message": "it died"}}), 1, "it died"),
    ],
)
def test_an_export_that_is_not_whole_leaves_no_file(
    peer: Peer, tmp_path: Path, lines: Any, code: int, words: str
) -> None:
    for form in ("jsonl", "parquet"):
        leaves_no_file(peer(streamed(HEADING, *lines)).url, form, tmp_path, code, words)


def leaves_no_file(url: str, form: str, tmp_path: Path, code: int, words: str) -> None:
    file = tmp_path / "out"
    file.write_text("from the last time", encoding="utf-8")
    told = invoke(url, "export", "--format", form, "-o", str(file))
    assert told.exit_code == code
    assert words in told.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert file.read_text(encoding="utf-8") == "from the last time"


def test_an_answer_that_is_no_export_is_not_taken_for_one(peer: Peer, tmp_path: Path) -> None:
    told = invoke(peer(streamed({"models": []})).url, "export", "-o", str(tmp_path / "out"))
    assert told.exit_code == 2
    assert "does not answer with an export" in told.stderr


def test_parquet_without_its_library_says_how_to_get_it(
    nobody: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    told = invoke(nobody, "export", "--format", "parquet", "-o", str(tmp_path / "r.parquet"))
    assert told.exit_code == 1
    assert "pip install 'pointsman[export]'" in told.stderr


def test_parquet_to_standard_output_and_files_that_cannot_be_are_refused(nobody: str, tmp_path: Path) -> None:
    told = invoke(nobody, "export", "--format", "parquet", "-o", "-")
    assert (told.exit_code, "Parquet cannot go to standard output" in told.stderr) == (2, True)
    told = invoke(nobody, "export", "-o", str(tmp_path / "no" / "such" / "folder"))
    assert told.exit_code == 1
    assert "cannot write" in told.stderr
