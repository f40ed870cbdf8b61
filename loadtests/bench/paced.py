"""Load at a constant rate, whether answers come or not (an open loop), and how long each answer took.

Belongs here: sending when it is due and timing. Never here: what is sent, or CPU time.

`wrk` sends the next request when an answer comes, so it cannot hold a rate, and Debian has no wrk2. A request is timed
from the moment it was *due*: one that had to wait for the sender counts as slow, as it would be for a caller (Gil
Tene's "coordinated omission"). One thread in select(2), which waits to the microsecond, not the millisecond.
"""

import gc
import select
import socket
import time
from collections.abc import Sequence
from urllib.parse import urlsplit

from msgspec import Struct

_MOST_CONNECTIONS = 400
_LAST_SECONDS = 10.0


class Paced(Struct, frozen=True):
    """What was sent and how long answers took. `failed` counts requests without an answer of status 200."""

    sent: int
    failed: int
    latencies_ms: list[float]

    def percentile(self, share: float) -> float:
        """Return a percentile of the times from due to answered, in ms."""
        ordered = sorted(self.latencies_ms)
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


class _Line:
    """One kept connection; `due` is when the request on it was to be sent, 0 while there is none."""

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, timeout=5)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.due = 0.0
        self._received = b""

    def send(self, request: bytes, due: float) -> None:
        self.socket.sendall(request)
        self.due, self._received = due, b""

    def read(self) -> bool | None:
        """Read what has come; return whether the whole answer is good, None while it is not there."""
        data = self.socket.recv(65_536)
        if not data:
            return False
        self._received += data
        head, found, body = self._received.partition(b"\r\n\r\n")
        if not found:
            return None
        lines = head.lower().split(b"\r\n")
        length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), -1)
        if length < 0:
            return False  # every server that is measured with this one says the length of its answers
        return b" 200 " in lines[0] + b" " if len(body) >= length else None


def run_paced(url: str, requests: Sequence[bytes], *, rate: float, seconds: float) -> Paced:
    """Send requests in turn at `rate` a second and return what came of them.

    Answers of the first tenth of the time are not timed.
    """
    parts = urlsplit(url)
    address = (parts.hostname or "", parts.port or 0)
    enabled = gc.isenabled()
    gc.disable()
    try:
        return _run(address, requests, rate, round(rate * seconds))
    finally:
        if enabled:
            gc.enable()


def _run(address: tuple[str, int], requests: Sequence[bytes], rate: float, count: int) -> Paced:
    idle = [_Line(address) for _ in range(8)]
    busy: dict[socket.socket, _Line] = {}
    failed = 0
    latencies: list[float] = []
    clock, sent = time.perf_counter, 0
    began = clock() + 0.1
    ends = began + count / rate + _LAST_SECONDS
    try:
        while (sent < count or busy) and (now := clock()) < ends:
            while sent < count and (due := began + sent / rate) <= now and len(busy) < _MOST_CONNECTIONS:
                line = idle.pop() if idle else _Line(address)
                line.send(requests[sent % len(requests)], due)
                busy[line.socket] = line
                sent += 1
            wait = max(0.0, began + sent / rate - clock()) if sent < count else 0.05
            for ready in select.select(list(busy), (), (), min(wait, 0.05))[0]:
                line = busy[ready]
                good = line.read()
                if good is None:
                    continue
                del busy[ready]
                if line.due >= began + 0.1 * count / rate:
                    latencies.append((clock() - line.due) * 1000)
                failed += not good
                (idle.append if good else _close)(line)
    finally:
        for line in (*idle, *busy.values()):
            _close(line)
    return Paced(sent, failed + len(busy) + count - sent, latencies)


def _close(line: _Line) -> None:
    line.socket.close()
