"""The supervisor: starts, watches and restarts the processes of one gateway, and ends all of them.

Belongs here: life and death of processes, the sockets they share. Never here: requests, rules, records, or what a
process does once it runs.

Children run in their own process groups, so a Ctrl-C reaches only the supervisor, which stops them in order: workers
drain, then the control process ships what they left, then the embedded Valkey. Each child asks the kernel for a
SIGTERM when its parent dies (`lifeline`), so that a SIGKILL of the supervisor leaves no orphan.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway.config import Settings, dump_settings
from gateway.errors import SettingsError
from gateway.lifeline import end_with
from gateway.logs import logger
from gateway.metrics import Board, Slot, board_path
from gateway.stores.embedded_valkey import EmbeddedValkey, lock_data_folder
from gateway.wire.certificates import server_context
from gateway.wire.listening import bind, bind_for_each, url_of

_PAUSES = (0.0, 0.2, 0.5, 1.0, 2.0, 5.0)  # seconds before the n-th restart in a row
_STEADY_SECONDS = 30.0  # a child that lived so long starts again without a pause
_LAST_CHANCE_SECONDS = 2.0  # what control process and Valkey get beyond the drain


class Child:
    """One process that is to run until the gateway stops."""

    def __init__(self, name: str, argv: Callable[[], tuple[Sequence[str], Sequence[int]]]) -> None:
        """`argv` gives the command and the descriptors it inherits, the last of which is this start's own; it is
        called for every start.
        """
        self.name = name
        self._argv = argv
        self._running: subprocess.Popen[bytes] | None = None
        self._started = 0.0
        self._failures = 0
        self.ended = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """The process id, while there is one."""
        return self._running.pid if self._running is not None else None

    def start(self) -> None:
        """Start the process; `ended` is set when it has ended."""
        command, descriptors = self._argv()
        parent = os.getpid()
        self.ended.clear()
        try:
            self._running = subprocess.Popen(  # noqa: S603 - our own command, no shell
                command,
                pass_fds=descriptors,
                process_group=0,
                stdin=subprocess.DEVNULL,
                preexec_fn=lambda: end_with(parent),  # noqa: PLW1509 - runs prctl and nothing else
            )
        finally:
            for descriptor in descriptors[-1:]:
                os.close(descriptor)
        self._started = time.monotonic()
        descriptor = os.pidfd_open(self._running.pid)
        asyncio.get_running_loop().add_reader(descriptor, self._reap, descriptor)

    def _reap(self, descriptor: int) -> None:
        asyncio.get_running_loop().remove_reader(descriptor)
        os.close(descriptor)
        if self._running is not None:
            self._running.wait()
        self.ended.set()

    @property
    def exit_code(self) -> int | None:
        """The exit code of the process that ended, negative for a signal."""
        return self._running.returncode if self._running is not None else None

    def pause(self) -> float:
        """Return the seconds to wait before the next start, longer with every early death in a row."""
        steady = time.monotonic() - self._started >= _STEADY_SECONDS
        self._failures = 1 if steady else self._failures + 1
        return _PAUSES[min(self._failures, len(_PAUSES)) - 1]

    async def stop(self, seconds: float) -> None:
        """Send SIGTERM, wait up to `seconds`, then SIGKILL."""
        if self._running is None or self.ended.is_set():
            return
        self._running.terminate()
        try:
            async with asyncio.timeout(seconds):
                await self.ended.wait()
        except TimeoutError:
            logger().warning("killed", child=self.name, after_seconds=seconds)
            self._running.kill()
            await self.ended.wait()


class Supervisor:
    """Runs one gateway. `on_ready(data_url, admin_url)` is called once, in a thread, when it first serves."""

    def __init__(self, settings: Settings, on_ready: Callable[[str, str], None] | None = None) -> None:
        self._settings = settings
        self._on_ready = on_ready
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._fatal = False
        self._run_folder = settings.data_dir / "run"

    async def run(self) -> int:
        """Run until SIGTERM, SIGINT or SIGHUP; return 0, or 1 when a child could not be started at all."""
        if self._settings.tls.cert is not None:
            server_context(self._settings.tls)  # each worker makes its own, but what is wrong is best said before
        self._run_folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        lock = lock_data_folder(self._settings.data_dir)
        data = bind_for_each(self._settings.workers, self._settings.host, self._settings.port, "port")
        admin = bind(self._settings.admin_host, self._settings.admin_port, "admin_port")
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup(1) means it
                loop.add_signal_handler(number, self._asked_to_stop, number)
        try:
            return await self._run(data, admin)
        finally:
            _close(data)
            admin.close()
            lock.close()

    def _asked_to_stop(self, number: int) -> None:
        logger().info("stopping", signal=signal.Signals(number).name)
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    async def _run(self, data: Sequence[socket.socket], admin: socket.socket) -> int:
        settings = self._settings
        valkey: Child | None = None
        if settings.redis_url is None:
            embedded = EmbeddedValkey.prepare(settings.data_dir)
            settings = settings.model_copy(update={"redis_url": embedded.secret_url})
            valkey = Child("valkey", lambda: (embedded.argv, ()))
        payload = dump_settings(settings)
        control = Child("control", lambda: _role("control", 0, [admin], payload))
        workers = [
            Child(f"worker-{index}", lambda index=index: _role("worker", index, _own_first(data, index), payload))  # type: ignore[misc]
            for index in range(settings.workers)
        ]
        clear_boards(self._run_folder)
        urls = (url_of(data[0], "http" if settings.tls.cert is None else "https"), url_of(admin))
        (self._run_folder / "endpoints.json").write_text(
            json.dumps({"pid": os.getpid(), "data_url": urls[0], "admin_url": urls[1]}), encoding="utf-8"
        )
        children = [child for child in (valkey, control, *workers) if child is not None]
        keepers = [asyncio.create_task(self._keep(child), name=f"keep {child.name}") for child in children]
        announcing = asyncio.create_task(self._announce(urls, len(workers)), name="announce")
        await self._stop.wait()
        announcing.cancel()
        for keeper in keepers:
            keeper.cancel()
        await asyncio.gather(announcing, *keepers, return_exceptions=True)
        _close(data)  # so that callers are refused as soon as the last worker accepts no more
        await self._end(workers, control, valkey)
        logger().info("stopped")
        return 1 if self._fatal else 0

    async def _keep(self, child: Child) -> None:
        """Start a child and start it again whenever it ends."""
        while True:
            child.start()
            logger().info("started", child=child.name, child_pid=child.pid)
            await child.ended.wait()
            if child.exit_code == SettingsError.exit_code:
                logger().error("cannot_start", child=child.name, exit_code=child.exit_code)
                self._fatal = True
                self._stop.set()
                return
            pause = child.pause()
            logger().error("died", child=child.name, exit_code=child.exit_code, restart_in_seconds=pause)
            await asyncio.sleep(pause)

    async def _announce(self, urls: tuple[str, str], workers: int) -> None:
        """Wait until every worker is ready, say so once, and hand over to `on_ready`."""
        boards = [Board(board_path(self._run_folder, index)) for index in range(workers)]
        try:
            while not all(board[Slot.READY] for board in boards):  # noqa: ASYNC110 - other processes write there
                await asyncio.sleep(0.02)
        finally:
            for board in boards:
                board.close()
        logger().info("ready", data_url=urls[0], admin_url=urls[1], workers=workers)
        if self._on_ready is not None:
            threading.Thread(target=self._on_ready, args=urls, name="on_ready", daemon=True).start()

    async def _end(self, workers: Sequence[Child], control: Child, valkey: Child | None) -> None:
        shutdown = self._settings.shutdown
        patience = shutdown.notice_seconds + shutdown.drain_seconds + 1.0
        hurried = asyncio.create_task(self._kill_when_hurried([*workers, control]), name="hurry")
        await asyncio.gather(*(worker.stop(patience) for worker in workers))
        await control.stop(_LAST_CHANCE_SECONDS)
        if valkey is not None:
            await valkey.stop(_LAST_CHANCE_SECONDS)
        hurried.cancel()

    async def _kill_when_hurried(self, children: Sequence[Child]) -> None:
        await self._hurry.wait()
        await asyncio.gather(*(child.stop(0.0) for child in children))


def _role(
    role: str, index: int, listening: Sequence[socket.socket], settings: bytes
) -> tuple[Sequence[str], Sequence[int]]:
    """Return the command of one of our own processes. Settings travel through a pipe: they may hold a password."""
    reading, writing = os.pipe()
    os.write(writing, settings)
    os.close(writing)
    descriptors = [one.fileno() for one in listening]
    command = [sys.executable, "-m", "gateway.app", role, str(index), ",".join(map(str, descriptors)), str(reading)]
    return command, (*descriptors, reading)


def _own_first(listening: Sequence[socket.socket], index: int) -> Sequence[socket.socket]:
    return [listening[index], *listening[:index], *listening[index + 1 :]]


def _close(listening: Sequence[socket.socket]) -> None:
    for one in listening:
        one.close()


def clear_boards(run_folder: Path) -> None:
    """Forget the workers of an earlier run: they are not ready any more, and there may be fewer of them now.

    Records that they lost and did not live to tell of go to the first worker, which tells of them.
    """
    for path in run_folder.glob("worker-*.standings"):
        path.unlink()
    untold = 0
    found = list(run_folder.glob("worker-*.board"))
    for path in found:
        board = Board(path)
        untold += max(0, board[Slot.RECORDS_LOST] - board[Slot.LOSSES_RECORDED])
        board.close()
    first = board_path(run_folder, 0)
    if untold:
        making = first.with_suffix(".new")
        board = Board(making)
        board[Slot.RECORDS_LOST] = untold
        board.close()
        making.rename(first)
    for path in found:
        if path != first or not untold:
            path.unlink()
