"""A process that has the processor soon after it wakes, also while another one of the gateway's is at work there.

The control process takes records out of the journals in bursts of a few ms. Where it shares a processor with a worker,
a request that arrives in a burst waits until the burst has had its slice, unless who wakes asks for a shorter one
(sched(7); Linux 6.12 and later: "custom slice", PREEMPT_SHORT). It gets no more time that way, only sooner.

Belongs here: asking the kernel for that. Never here: priorities, or which processor it is.
"""

import ctypes
import os
import struct
from typing import Final

SLICE_NS: Final = 100_000
"""The shortest that the kernel gives."""
_SCHED_SETATTR: Final = {"x86_64": 314, "aarch64": 274, "riscv64": 274}
"""Number of the system call, which libraries of the time do not wrap, by machine."""
_ATTRIBUTES: Final = struct.Struct("IIQiIQQQ")
"""`struct sched_attr`: size, policy, flags, nice, priority, runtime (the slice, in ns), deadline, period."""
_libc = ctypes.CDLL(None, use_errno=True)


def ask_for_short_slices() -> bool:
    """Ask for short slices for the calling thread and those that it will start; tell whether the kernel was asked.

    It is not where the machine is unknown, or the thread is not scheduled as usual, which somebody must have wanted.
    Kernels before 6.12 pass over what they are asked.
    """
    number = _SCHED_SETATTR.get(os.uname().machine)
    if number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False
    nice = os.getpriority(os.PRIO_PROCESS, 0)
    wanted = _ATTRIBUTES.pack(_ATTRIBUTES.size, os.SCHED_OTHER, 0, nice, 0, SLICE_NS, 0, 0)
    return bool(_libc.syscall(number, 0, wanted, 0) == 0)
