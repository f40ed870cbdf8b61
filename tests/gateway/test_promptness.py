"""What the kernel is asked for, as it tells it."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.promptness import SLICE_NS

_KERNEL = tuple(int(part) for part in platform.release().split("-")[0].split(".")[:2])
_ASK = "from gateway.promptness import ask_for_short_slices as ask; print(ask(), open('/proc/self/sched').read())"


def _asked(*how: str) -> tuple[bool, str]:
    run = subprocess.run([*how, sys.executable, "-c", _ASK], capture_output=True, text=True, check=True)
    done, _, sched = run.stdout.partition(" ")
    return done == "True", next((line.split()[-1] for line in sched.splitlines() if line.startswith("se.slice")), "")


@pytest.mark.skipif(not Path("/proc/self/sched").exists(), reason="this kernel does not tell how it schedules")
@pytest.mark.skipif(_KERNEL < (6, 12), reason="kernels before 6.12 have no slices to ask for")
def test_the_kernel_gives_short_slices_to_who_asks() -> None:
    assert _asked() == (True, str(SLICE_NS))


@pytest.mark.skipif(not Path("/proc/self/sched").exists(), reason="this kernel does not tell how it schedules")
def test_a_process_that_was_started_with_another_policy_keeps_it() -> None:
    done, given = _asked("chrt", "--batch", "0")
    assert not done
    assert given != str(SLICE_NS)


def test_niceness_is_kept() -> None:
    code = "import os; from gateway.promptness import ask_for_short_slices as ask; ask(); print(os.nice(0))"
    run = subprocess.run(["nice", "-n", "7", sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str(os.nice(0) + 7)
