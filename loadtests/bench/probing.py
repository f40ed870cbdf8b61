"""Asks whether a server is alive, from a process of its own: a busy load generator must not look like a slow answer.

    python -m loadtests.bench.probing URL…

asks each URL in turn every 100 ms until it is ended and prints, for each answer, its status and its time in ms.

Belongs here: asking and timing. Never here: a bound.
"""

import http.client
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from loadtests.bench.programs import Program

_SECONDS = 0.1
_PATIENCE_SECONDS = 5.0


class Probing(Program):
    """The running prober."""

    def __init__(self, urls: list[str], folder: Path, core: int) -> None:
        """Start it on `core`."""
        command = [sys.executable, "-u", "-m", "loadtests.bench.probing", *urls]
        super().__init__(command, log=folder / "probing.log", cores=[core])

    def answers(self) -> list[tuple[int, float]]:
        """Return status and ms of every answer so far; status 0 is none within 5 s."""
        lines = (line.split() for line in self.log.read_text().splitlines(keepends=True) if line.endswith("\n"))
        return [(int(status), float(ms)) for status, ms in lines]


def _ask(url: str) -> tuple[int, float]:
    parts = urlsplit(url)
    began = time.perf_counter()
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_PATIENCE_SECONDS)
    try:
        connection.request("GET", parts.path)
        answer = connection.getresponse()
        answer.read()
        status = answer.status
    except (OSError, http.client.HTTPException):
        status = 0
    finally:
        connection.close()
    return status, 1000 * (time.perf_counter() - began)


def main() -> None:
    """Ask until ended."""
    while True:
        for url in sys.argv[1:]:
            status, ms = _ask(url)
            print(status, f"{ms:.2f}")
            time.sleep(_SECONDS)


if __name__ == "__main__":
    main()
