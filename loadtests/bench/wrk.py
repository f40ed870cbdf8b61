"""Load from `wrk` (Debian's), as fast as the answers come: how many, how fast, and how many went wrong.

Belongs here: running it and reading what it says. Never here: what is sent, or CPU time.
"""

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

_SCRIPT = Path(__file__).with_suffix(".lua")
_TIMEOUT_SECONDS = 10


class Spoken(Struct):
    """The line that `wrk.lua` writes; `status` counts answers of 400 and above, `socket` broken connections."""

    requests: int
    duration_us: int
    p50_us: int
    p99_us: int
    status: int
    socket: int
    timeout: int

    @property
    def per_second(self) -> float:
        """Requests answered in a second."""
        return self.requests / self.duration_us * 1e6

    @property
    def failed(self) -> int:
        """Requests that got no answer, or one that says they failed."""
        return self.status + self.socket + self.timeout


def write_requests(file: Path, requests: Sequence[bytes]) -> Path:
    """Write requests in the form that `wrk.lua` reads, and return the file."""
    with file.open("wb") as out:
        for request in requests:
            out.write(b"%d\n" % len(request) + request)
    return file


def run_wrk(url: str, requests: Path, *, cores: Sequence[int], seconds: float, connections: int) -> Spoken:
    """Load `url` from `cores` with a file of requests over keep-alive connections and return what came of it.

    Raises:
        RuntimeError: it did not run; the message has what it said.
    """
    options = ["-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", f"--timeout={_TIMEOUT_SECONDS}s"]
    command = [
        "setpriv",
        "--pdeathsig",
        "KILL",
        "taskset",
        "-c",
        ",".join(map(str, cores)),
        "wrk",
        *options,
        "-s",
        str(_SCRIPT),
    ]
    done = subprocess.run(
        [*command, url, "--", str(requests)],
        capture_output=True,
        text=True,
        timeout=seconds + 3 * _TIMEOUT_SECONDS,
        check=False,
    )
    line = done.stdout.rstrip().rpartition("\n")[2]
    if done.returncode != 0 or not line.startswith("{"):
        raise RuntimeError(f"wrk ended with {done.returncode}: {(done.stdout + done.stderr).strip()[-500:]}")
    return msgspec.json.decode(line, type=Spoken)


def require_tools() -> None:
    """End with a word of advice when a tool that every measurement needs is not installed."""
    packages = {"wrk": "wrk", "nginx": "nginx-light", "taskset": "util-linux", "setpriv": "util-linux"}
    if missing := sorted({package for tool, package in packages.items() if shutil.which(tool) is None}):
        sys.exit(f"not installed: {', '.join(missing)}; on Debian: apt-get install {' '.join(missing)}")
