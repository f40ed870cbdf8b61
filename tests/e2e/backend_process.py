"""A backend that is a process of its own, so that it can be killed with everything that it had begun.

    python -m tests.e2e.backend_process PORT

answers every inference with `backends.ANSWER` after a moment, and every question with an empty JSON object.
"""

import asyncio
import random
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from types import TracebackType
from typing import Self

from tests.e2e.backends import ANSWER, reply
from tests.e2e.running_gateway import wait_until


class BackendProcess:
    """One running backend; `start` brings it back on the same port."""

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()

    def start(self) -> None:
        self._process = subprocess.Popen([sys.executable, "-m", "tests.e2e.backend_process", str(self.port)])
        wait_until(self._listens, "the backend listens")

    def _listens(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
            return True
        return False

    def kill(self) -> None:
        """End it without a chance to tidy up (SIGKILL)."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(asyncio.IncompleteReadError, OSError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            lines = head.split(b"\r\n")
            await reader.readexactly(
                next((int(line.split(b":")[1]) for line in lines if line.startswith(b"content-length:")), 0)
            )
            if head.startswith(b"post"):
                await asyncio.sleep(random.random() * 0.01)
                writer.write(reply("200 OK", ANSWER))
            else:
                writer.write(reply("200 OK", b"{}"))
    writer.close()


async def _serve(port: int) -> None:
    server = await asyncio.start_server(_answer, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
