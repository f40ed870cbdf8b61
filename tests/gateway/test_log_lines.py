"""Log lines: one JSON object each, written whole, and never waited for."""

import fcntl
import json
import os
import subprocess
import sys

from gateway.logs import Outlet


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
