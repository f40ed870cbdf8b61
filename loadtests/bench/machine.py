"""What a figure was measured on: processor, kernel, interpreter, and the state of the source.

Belongs here: facts for a report. Never here: names of hosts or folders.
"""

import os
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path

from msgspec import Struct

_ROOT = Path(__file__).parents[2]


class Machine(Struct, frozen=True):
    """The machine and the day."""

    processor: str
    cores: int
    memory_gib: int
    system: str
    python: str
    day: str

    def __str__(self) -> str:
        return (
            f"{self.processor}, {self.cores} cores, {self.memory_gib} GiB, {self.system}, "
            f"Python {self.python}, {self.day}"
        )


def this_machine() -> Machine:
    """Return what this machine says of itself."""
    info = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    model = next((line.partition(":")[2].strip() for line in info if line.startswith("model name")), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return Machine(
        processor=model or platform.machine(),
        cores=os.cpu_count() or 0,
        memory_gib=round(memory),
        system=f"{platform.freedesktop_os_release().get('PRETTY_NAME', 'Linux')}, Linux {platform.release()}",
        python=platform.python_version(),
        day=time.strftime("%Y-%m-%d", time.gmtime()),
    )


def pointsman_version() -> str:
    """Return the version under test, with the commit where there is a repository, `+` when it was changed since."""
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--exclude=*", "--abbrev=10"],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.strip()
    return version("pointsman") + (f" ({described})" if described else "")
