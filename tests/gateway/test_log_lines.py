"""Log lines: one JSON object each, written whole, and never waited for."""

import asyncio
import fcntl
import json
import os
import re
import subprocess
import sys
from typing import Any

from gateway.logs import Outlet
from gateway.request_lines import RequestLines


def _pipe() -> tuple[int, int]:
    """Return a pipe that holds one page, so that it is soon full."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    return reading, writing


def test_lines_come_out_whole_and_in_order() -> None:
    reading, writing = os.pipe()
    outlet = Outlet(writing)
    for number in range(3):
        outlet.write(b"line %d\n" % number)
    assert os.read(reading, 4096) == b"line 0\nline 1\nline 2\n"
    os.close(reading)
    os.close(writing)


def test_nobody_waits_for_a_reader_that_has_stopped_and_its_lines_come_later() -> None:
    reading, writing = _pipe()
    outlet = Outlet(writing)
    lines = [b"%05d " % number + b"x" * 500 + b"\n" for number in range(100)]
    for line in lines:
        outlet.write(line)  # a blocking write would hang this test
    seen = b""
    while len(seen) < sum(map(len, lines)):
        seen += os.read(reading, 65_536)
        outlet.flush()
    assert seen == b"".join(lines)
    os.close(reading)
    os.close(writing)


def test_lines_beyond_the_limit_are_dropped_and_counted() -> None:
    reading, writing = _pipe()
    outlet = Outlet(writing, limit=1000)
    for _ in range(100):
        outlet.write(b"y" * 499 + b"\n")
    seen = os.read(reading, 65_536)
    while b"log_lines_dropped" not in seen:
        outlet.flush()
        seen += os.read(reading, 65_536)
    told = json.loads(seen.splitlines()[-1])
    assert told["event"] == "log_lines_dropped"
    assert told["count"] + seen.count(b"y\n") == 100
    os.close(reading)
    os.close(writing)


def test_a_reader_that_has_gone_is_no_error() -> None:
    reading, writing = _pipe()
    os.close(reading)
    Outlet(writing).write(b"into the void\n")
    os.close(writing)


def test_a_line_of_the_product_is_one_json_object_with_the_bound_fields() -> None:
    script = (
        "import logging; from gateway import logs; logs.configure('info', gateway='g', worker='w0');"
        "logs.logger().info('served', status=200); logs.logger().debug('hidden');"
        "logging.getLogger('some.library').warning('beware %s', 'this')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, timeout=30)
    served, warned = (json.loads(line) for line in done.stdout.splitlines())
    assert (served["event"], served["status"], served["gateway"], served["worker"]) == ("served", 200, "g", "w0")
    assert served["level"] == "info"
    assert (warned["event"], warned["logger"], warned["level"]) == ("beware this", "some.library", "warning")


LINE: dict[str, Any] = {
    "request_id": "q-1", "record_id": "r-1", "model": "fraud", "version": "2", "reason": "split", "revision": 7,
    "status": 200, "total_us": 1_234, "error_code": None,
}  # fmt: skip


def written(level: str, *lines: tuple[str, dict[str, Any]]) -> tuple[list[bytes], list[dict[str, object]]]:
    """Write the lines of requests within one turn of a loop, each `LINE` but for what is said of it; return what was
    read from the pipe and the lines in it.
    """

    async def write() -> None:
        of_requests = RequestLines(level, Outlet(writing), gateway="g", worker="w0")
        for outcome, fields in lines:
            of_requests.write(outcome, **(LINE | fields))
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    reading, writing = os.pipe2(os.O_DIRECT)  # which keeps apart what was written apart
    asyncio.run(write())
    os.close(writing)
    pieces: list[bytes] = []
    while piece := os.read(reading, 65_536):
        pieces.append(piece)
    os.close(reading)
    return pieces, [json.loads(line) for line in b"".join(pieces).splitlines()]


def test_the_lines_of_requests_are_of_the_same_form_as_all_others_and_leave_once_in_a_turn_of_the_loop() -> None:
    nothing = {"version": None, "reason": None, "revision": None, "total_us": 2_000_007}
    pieces, lines = written("info", ("served", {}), ("failed", nothing | {"status": 500, "error_code": "model_failed"}))
    assert len(pieces) == 1
    stamps = [line.pop("time") for line in lines]
    same = {"request_id": "q-1", "record_id": "r-1", "model": "fraud", "gateway": "g", "worker": "w0"}
    served = {"version": "2", "reason": "split", "revision": 7, "status": 200, "latency_ms": 1.234}
    failed = {"version": None, "reason": None, "revision": None, "status": 500, "latency_ms": 2000.007}
    assert lines == [
        same | served | {"event": "served", "level": "info"},
        same | failed | {"event": "failed", "level": "warning", "error_code": "model_failed"},
    ]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", str(stamp)) for stamp in stamps)


def test_a_line_without_fields_of_its_process_is_one_json_object() -> None:
    reading, writing = os.pipe()

    async def write() -> None:
        lines = RequestLines("info", Outlet(writing))
        lines.write("refused", **LINE)
        lines.flush()
        await asyncio.sleep(0)

    asyncio.run(write())
    assert json.loads(os.read(reading, 4096))["event"] == "refused"
    os.close(reading)
    os.close(writing)


def test_the_lines_of_requests_stay_whole_beside_those_of_other_processes() -> None:
    pieces, lines = written("info", *(("served", {"revision": number, "model": "x" * 300}) for number in range(50)))
    assert [line["revision"] for line in lines] == list(range(50))
    assert len(pieces) > 1
    assert all(len(piece) <= 4096 and piece.endswith(b"\n") for piece in pieces)


def test_the_level_holds_for_the_lines_of_requests() -> None:
    both: list[tuple[str, dict[str, Any]]] = [("served", {}), ("failed", {})]
    assert [line["event"] for line in written("warning", *both)[1]] == ["failed"]
    assert written("error", *both)[1] == []


def test_a_request_of_the_strangest_text_has_its_line() -> None:
    strange = {"model": "\udcff", "version": '"}\n{', "status": 404}
    (line,) = written("info", ("refused", strange))[1]
    assert (line["model"], line["version"], line["status"]) == ("\\udcff", '"}\n{', 404)
