"""Work that takes seconds to hours runs in a process of its own, so that nothing else of this one waits for it.

Belongs here: starting such a process, passing on what it writes, and ending it. Never here: what it does.

What is asked goes to the process through its standard input, never by arguments or environment, which others may read:
with it go the settings, and they may hold passwords. It answers with lines of JSON on its standard output. What it logs
goes where this process logs.
"""

import asyncio
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from typing import Final

import msgspec
import orjson
from msgspec import Struct

from gateway.errors import (
    AuditUnavailable,
    CannotReplay,
    DocumentNotFound,
    GatewayError,
    InternalError,
    InvalidInput,
    KeyUnusable,
    Overloaded,
    RulesUnavailable,
    Stopping,
)
from gateway.evidence.asked import Asked

AT_ONCE: Final = 2
"""Jobs that run at the same time; the machine also serves."""
_CHUNK = 64 * 1024
_LOG = 1
_ERROR = b'{"error":'
_LONGEST_ERROR = 1024 * 1024
_KINDS: Final[Mapping[str, type[GatewayError]]] = {
    kind.code: kind
    for kind in (AuditUnavailable, CannotReplay, DocumentNotFound, InvalidInput, KeyUnusable, RulesUnavailable)
}


class Order(Struct, frozen=True):
    """What a job reads on its standard input: who started it, the settings as JSON, and what is asked."""

    parent: int
    settings: msgspec.Raw
    asked: msgspec.Raw


class Problem(Struct, frozen=True):
    """The error of a line `{"error": …}`."""

    code: str
    message: str


class _Line(Struct, frozen=True):
    error: Problem


class Job:
    """One job under way; `gone` is called when its process has ended.

    Whoever has it calls `kill` in the end, however it ended.
    """

    def __init__(self, process: subprocess.Popen[bytes], gone: Callable[["Job"], None]) -> None:
        self._process = process
        self._reader = asyncio.StreamReader()
        self._pipe: asyncio.ReadTransport | None = None
        self._gone = gone
        self._exit: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._first = b""
        descriptor = os.pidfd_open(process.pid)
        asyncio.get_running_loop().add_reader(descriptor, self._reap, descriptor)

    def _reap(self, descriptor: int) -> None:
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
        self._exit.set_result(self._process.wait())
        self._gone(self)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    async def begin(self) -> None:
        """Wait for the first that it says. Raises what it could not do, if that is all it says."""
        loop = asyncio.get_running_loop()
        self._pipe, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(self._reader), self._process.stdout
        )
        while len(self._first) < len(_ERROR) and (chunk := await self._reader.read(_CHUNK)):
            self._first += chunk
        if self._first.startswith(_ERROR):
            while len(self._first) < _LONGEST_ERROR and (chunk := await self._reader.read(_CHUNK)):
                self._first += chunk
            raise _error_of(self._first)
        if not self._first:
            raise _ended_early(await self.ended())

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield what it writes, as it comes; should it die, the last line says so."""
        last = self._first
        yield self._first
        while chunk := await self._reader.read(_CHUNK):
            last = chunk
            yield chunk
        code = await self.ended()
        if code not in (0, 1):
            error = _ended_early(code)
            start = b"" if last.endswith(b"\n") else b"\n"
            yield start + orjson.dumps({"error": {"code": error.code, "message": error.message}}) + b"\n"

    def kill(self) -> None:
        """End it now, if it has not ended; what it has written and nobody has read is gone."""
        self._process.kill()
        if self._pipe is not None:
            self._pipe.close()
        elif self._process.stdout is not None:
            self._process.stdout.close()

    async def ended(self) -> int:
        """Wait until it has ended and return its exit code, negative for a signal."""
        return await asyncio.shield(self._exit)


class JobRunner:
    """Starts jobs: `command` and the job's name, with `settings` as `dump_settings` has them."""

    def __init__(self, command: Sequence[str], settings: bytes) -> None:
        self._command = command
        self._settings = settings
        self._running: set[Job] = set()
        self._closed = False

    @property
    def running(self) -> Collection[Job]:
        """The jobs that are under way."""
        return tuple(self._running)

    def check(self) -> None:
        """Raise `Overloaded` when no job can be started now, `Stopping` when none ever will."""
        if self._closed:
            raise Stopping("the gateway is stopping; ask again when it is back")
        if len(self._running) >= AT_ONCE:
            raise Overloaded(
                f"{AT_ONCE} jobs (verify, recompute, replay, export) are running already; try again when one has ended"
            )

    async def start(self, name: str, asked: Asked) -> Job:
        """Start a job and return it once it has begun to answer.

        Raises:
            Overloaded, Stopping: none can be started now.
            GatewayError: what the job could not do.
        """
        self.check()
        job = self._spawn(name, asked)
        try:
            await job.begin()
        except BaseException:
            job.kill()
            raise
        return job

    async def close(self) -> None:
        """End every job; none is started any more."""
        self._closed = True
        running = self.running
        for job in running:
            job.kill()
        await asyncio.gather(*(job.ended() for job in running))

    def _spawn(self, name: str, asked: Asked) -> Job:
        order = Order(os.getpid(), msgspec.Raw(self._settings), msgspec.Raw(msgspec.json.encode(asked)))
        # Not a pipe: what is asked may be longer than one holds, and this process must not wait until it is read.
        with os.fdopen(os.memfd_create("order"), "w+b") as paper:
            paper.write(msgspec.json.encode(order))
            paper.seek(0)
            process = subprocess.Popen(  # noqa: S603 - our own command, no shell
                [*self._command, name], stdin=paper, stdout=subprocess.PIPE, stderr=_LOG
            )
        job = Job(process, self._running.discard)
        self._running.add(job)
        return job


def _error_of(line: bytes) -> GatewayError:
    try:
        problem = msgspec.json.decode(line.partition(b"\n")[0], type=_Line).error
    except msgspec.DecodeError:
        return InternalError("the job failed; the gateway's log has the details")
    kind = _KINDS.get(problem.code, InternalError)
    return kind(problem.message)


def _ended_early(code: int) -> InternalError:
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return InternalError(f"the job {how} before it was done; the gateway's log may say why")
