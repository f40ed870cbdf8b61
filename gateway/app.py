"""One process of a gateway: a data worker or the control process, run until it is told to stop.

Belongs here: which of them, and its exit code. Never here: what it is built from (`worker`, `control`), or reading the
environment; settings arrive through a pipe from the supervisor.
"""

import os
import socket
import sys
from collections.abc import Sequence

import uvloop

from gateway import logs
from gateway.config import read_settings
from gateway.control import run_control
from gateway.errors import GatewayError, KeyUnusable, SettingsError
from gateway.wire.listening import Listening
from gateway.worker import run_worker


def main(arguments: Sequence[str]) -> int:
    """Run one process of a gateway: `worker|control INDEX LISTENING-FDS SETTINGS-FD`, as the supervisor starts it.

    Of several descriptors, with commas between, the first is the process's own, the others are its siblings'.
    """
    role, index, listening_fds, settings_fd = arguments
    with os.fdopen(int(settings_fd), "rb") as pipe:
        settings = read_settings(pipe.read())
    own, *siblings = (socket.socket(fileno=int(descriptor)) for descriptor in listening_fds.split(","))
    if role == "worker":
        run = run_worker(settings, int(index), Listening(own, tuple(siblings)))
    else:
        run = run_control(settings, own)
    try:
        return uvloop.run(run)
    except (SettingsError, KeyUnusable) as error:
        logs.logger().error("cannot_start", why=error.message)
        return SettingsError.exit_code
    except GatewayError as error:  # it may be gone at the next start: a store that is down, a disk that is full
        logs.logger().error("cannot_run", why=error.message)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
