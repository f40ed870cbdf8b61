"""Composition: builds the parts of one process, connects them and runs them until it is told to stop.

Belongs here: which implementation stands behind which port. Never here: request logic, rules, or reading the
environment; settings arrive through a pipe from the supervisor.
"""

import asyncio
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack

import uvloop

from gateway import logs
from gateway.admin.app import build_admin
from gateway.book import Book
from gateway.catalog import Manifest, Signature
from gateway.config import Settings, read_settings
from gateway.controlplane import ControlPlane, StoreWatch
from gateway.dataplane import DataPlane
from gateway.errors import ArtifactInvalid, SettingsError
from gateway.executors.http import HttpExecutor
from gateway.flight import Origin
from gateway.gauges import BoardFolder
from gateway.journal import Journal
from gateway.metrics import Board, Slot, board_path
from gateway.ports import Executor, ExecutorFactory, UpstreamClient
from gateway.protocols.oip_v2 import OipV2Face
from gateway.recorder import Recorder
from gateway.shadow import Shadows
from gateway.snapshot import Rules
from gateway.stores.audit_sqlite import SqliteAudit
from gateway.stores.revisions_sqlite import SqliteRevisions
from gateway.stores.rules_redis import RedisRules
from gateway.tasks import Tasks
from gateway.wire.asgi import AsgiFace
from gateway.wire.client import HttpxClient
from gateway.wire.port import Port
from gateway.wire.serving import serve_data_until, serve_until

try:
    from gateway.executors.onnx import OnnxExecutor
except ModuleNotFoundError:  # the extra `onnx` is not installed; versions that need it are refused with words
    OnnxExecutor = None  # type: ignore[assignment,misc]

_SHADOW_DRAIN_SECONDS = 1.0
_READINESS_SECONDS = 0.02
_ADMIN_DRAIN_SECONDS = 1.0


async def _data_worker(settings: Settings, index: int, listening: socket.socket) -> int:
    """Run one data worker until SIGTERM; return its exit code, 1 when its journal failed and it must be replaced."""
    name = f"w{index}"
    logs.configure(settings.log_level, gateway=settings.gateway, worker=name)
    tasks = Tasks()
    async with AsyncExitStack() as stack:
        board = Board(board_path(settings.data_dir / "run", index))
        stack.callback(board.close)
        board.begin()
        journal = Journal(settings.data_dir / "journal", name, settings.audit.segment_bytes, board)
        stack.callback(journal.close)
        source = RedisRules(redis_url(settings))
        stack.push_async_callback(source.close)
        client = upstream_client(settings)
        stack.push_async_callback(client.close)
        factory = executor_factory(settings, client, stack)
        rules = Rules(source, factory, settings.data_dir / "rules", board, settings.rules, f"{settings.gateway}/{name}")
        stack.push_async_callback(rules.close)
        stack.push_async_callback(tasks.cancel)
        shadows = Shadows(settings.shadow, journal, board)
        plane = DataPlane(rules, journal, shadows, board, Origin(settings.gateway, name))
        stop = asyncio.Event()
        begin_drain = _drain(plane, board, stop, settings.shutdown.notice_seconds)
        on_sigterm(begin_drain)
        tasks.start("rules", _follow(rules))
        tasks.start("readiness", _show_readiness(plane, journal, board, begin_drain))
        face = OipV2Face(plane)
        port = Port(face, AsgiFace(face.handle, settings.limits.max_body_bytes), settings.limits)
        await serve_data_until(stop, port, listening, settings.tls, settings.shutdown.drain_seconds)
        await shadows.drain(_SHADOW_DRAIN_SECONDS)
        return 1 if journal.failed else 0


async def _follow(rules: Rules) -> None:
    # Rules of 10 000 models are a million objects that live long. Collections that look at all of them again and again
    # while they are made take half of a start, and each later one would stop requests for 0.4 s (measured).
    gc.disable()
    try:
        await rules.start()
    finally:
        gc.enable()
    gc.collect()
    gc.freeze()
    await rules.run()


def _drain(plane: DataPlane, board: Board, stop: asyncio.Event, notice_seconds: float) -> Callable[[], None]:
    def begin() -> None:
        """Go not ready at once, and close the port when load balancers have had time to see it."""
        plane.stopping = True
        board[Slot.READY] = 0
        asyncio.get_running_loop().call_later(notice_seconds, stop.set)

    return begin


async def _show_readiness(plane: DataPlane, journal: Journal, board: Board, begin_drain: Callable[[], None]) -> None:
    """Keep the board's READY slot true to the data plane; a worker whose journal failed makes way for a new one."""
    while not plane.stopping:
        board[Slot.READY] = int(plane.ready())
        if journal.failed:
            begin_drain()
        await asyncio.sleep(_READINESS_SECONDS)


async def _control(settings: Settings, listening: socket.socket) -> int:
    """Run the control process until SIGTERM: admin API, recorder and metrics."""
    logs.configure(settings.log_level, gateway=settings.gateway, worker="control")
    tasks = Tasks()
    async with AsyncExitStack() as stack:
        store = RedisRules(redis_url(settings))
        stack.push_async_callback(store.close)
        client = upstream_client(settings)
        stack.push_async_callback(client.close)
        factory = executor_factory(settings, client, stack)
        audit = SqliteAudit(settings.data_dir / "audit.db")
        stack.callback(audit.close)
        book = Book(settings.data_dir / "run")
        stack.callback(book.close)
        recorder = Recorder(settings.data_dir / "journal", audit, book.observe, settings.audit.keep_segments_seconds)
        book.watch(recorder)
        shipped = threading.Event()
        shipping = threading.Thread(target=recorder.run, args=(shipped,), name="recorder")
        shipping.start()
        stack.callback(shipping.join)
        stack.callback(shipped.set)
        archive = SqliteRevisions(settings.data_dir / "revisions.db")
        stack.callback(archive.close)
        boards = BoardFolder(settings.data_dir / "run")
        stack.callback(boards.close)
        watch = StoreWatch(store, settings.data_dir / "rules", boards)
        plane = ControlPlane(
            store,
            audit,
            archive,
            _inspector(factory),
            watch,
            boards,
            gateway=settings.gateway,
            publish_wait_s=settings.rules.publish_wait_ms / 1000,
        )
        stack.push_async_callback(tasks.cancel)
        tasks.start("rules store", watch.run())
        tasks.start("archivist", plane.archivist.run())
        tasks.start("confirmations", plane.confirmations.run())
        stop = asyncio.Event()
        on_sigterm(stop.set)
        await serve_until(
            stop, build_admin(plane, audit, recorder, book, watch.troubles), listening, _ADMIN_DRAIN_SECONDS
        )
        return 0


def _inspector(factory: ExecutorFactory) -> Callable[[Manifest], Awaitable[Signature | None]]:
    async def inspect(manifest: Manifest) -> Signature | None:
        """Prepare a version for a moment, so that what cannot be loaded is refused when it is registered."""
        executor = factory(manifest)
        try:
            await executor.prepare()
            return (await executor.ready()).signature if manifest.backend.onnx is not None else None
        finally:
            await executor.release()

    return inspect


# ── parts that both have ─────────────────────────────────────────────────────────────────────────────────────────


def redis_url(settings: Settings) -> str:
    """Return the URL of the rules store; the supervisor has put the embedded one there if there was none."""
    if settings.redis_url is None:
        raise SettingsError("redis_url: missing; start the gateway with `pointsman serve`")
    return settings.redis_url.get_secret_value()


def upstream_client(settings: Settings) -> UpstreamClient:
    """Return the client for HTTP backends."""
    upstream = settings.upstream
    return HttpxClient(
        max_connections=upstream.max_connections,
        keepalive_seconds=upstream.keepalive_seconds,
        connect_timeout_ms=upstream.connect_timeout_ms,
    )


def executor_factory(settings: Settings, client: UpstreamClient, stack: AsyncExitStack) -> ExecutorFactory:
    """Return what makes the executor of a version; its thread pools end with `stack`."""
    pools = {
        lane: ThreadPoolExecutor(settings.onnx.pool_threads, thread_name_prefix=f"onnx-{lane}")
        for lane in ("primary", "shadow")
    }
    for pool in pools.values():
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)

    def make(manifest: Manifest) -> Executor:
        if manifest.backend.http is not None:
            return HttpExecutor(manifest, client)
        if OnnxExecutor is None:
            raise ArtifactInvalid("ONNX versions need onnxruntime: pip install 'pointsman[onnx]'")
        return OnnxExecutor(manifest, settings.onnx, pools)

    return make


def on_sigterm(act: Callable[[], None]) -> None:
    """Call `act` in the running loop when SIGTERM arrives. SIGINT is the supervisor's business."""
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, act)
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def main(arguments: Sequence[str]) -> int:
    """Run one process of a gateway: `worker|control INDEX LISTENING-FD SETTINGS-FD`, as the supervisor starts it."""
    role, index, listening_fd, settings_fd = arguments
    with os.fdopen(int(settings_fd), "rb") as pipe:
        settings = read_settings(pipe.read())
    listening = socket.socket(fileno=int(listening_fd))
    run = _data_worker(settings, int(index), listening) if role == "worker" else _control(settings, listening)
    try:
        return uvloop.run(run)
    except SettingsError as error:
        logs.logger().error("cannot_start", why=error.message)
        return SettingsError.exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
