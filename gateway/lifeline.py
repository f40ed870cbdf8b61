"""A process that ends with the one that started it.

Belongs here: asking the kernel for that. Never here: starting or ending other processes.
"""

import ctypes
import os
import signal

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def end_with(parent: int) -> None:
    """Have the kernel send SIGTERM to this process when its parent `parent` dies (prctl(2), PR_SET_PDEATHSIG).

    The kernel means the thread that started this process, so that has to be one which lives as long as its process. If
    the parent is gone already, this process ends at once.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it died before the kernel knew
        os._exit(1)
