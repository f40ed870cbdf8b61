"""Letting profilers look into a process: `pointsman serve --profile`.

Belongs here: what a process has to permit or prepare for sampling from outside, which costs requests (nearly) nothing.
Never here: measuring, or anything that runs when nobody has asked for it.
"""

import ctypes
import os
import sys

from gateway.logs import logger

_PR_SET_PTRACER = 0x59616D61
_ANYONE = ctypes.c_ulong(-1)


def permit_profiling() -> None:
    """Let samplers attach to this process, and say in the log how.

    Any process of the same user may then trace this one, which Linux (Yama, prctl(2): PR_SET_PTRACER) else leaves to
    parents and root. From Python 3.12 on, `perf` sees Python's functions by name (`sys.activate_stack_trampoline`).
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PTRACER, _ANYONE, 0, 0, 0)  # fails where Yama is not there: fine
    pid = os.getpid()
    ways = [f"py-spy record --pid {pid} --output profile.svg", f"py-spy top --pid {pid}"]
    if sys.version_info >= (3, 12) and sys.platform == "linux":
        sys.activate_stack_trampoline("perf")
        ways.append(f"perf record -F 499 -g --pid {pid}")
    logger().warning("profile_this_process", pid=pid, ways=ways)
