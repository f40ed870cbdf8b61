"""Composition of the control process: admin port, recorder, checkpoints, figures, and the watch over the rules store.

Belongs here: connecting those and ending them in order. Never here: request logic, or parts that workers have too
(`assembly`).
"""

import asyncio
import socket
import sys
import threading
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from gateway import logs
from gateway.admin.app import build_admin
from gateway.admin.audit_parts import AuditParts
from gateway.admin.job_runner import JobRunner
from gateway.assembly import audit_store, executor_factory, on_sigterm, redis_url, upstream_client
from gateway.book import Book
from gateway.catalog import Manifest, Signature
from gateway.config import Settings, dump_settings
from gateway.control_records import ControlRecords
from gateway.controlplane import ControlPlane, StoreWatch
from gateway.evidence.checkpointing import Checkpointer
from gateway.evidence.erasure import Erasing
from gateway.evidence.keys import open_key
from gateway.evidence.pruning import Pruning
from gateway.evidence.rules_log import RulesLog
from gateway.gauges import BoardFolder
from gateway.journal import Journal
from gateway.metrics import Board
from gateway.ports import AuditStore, ExecutorFactory
from gateway.recorder import Recorder
from gateway.stores.revisions_sqlite import SqliteRevisions
from gateway.stores.rules_redis import RedisRules
from gateway.tasks import Tasks
from gateway.wire.serving import serve_until

_ADMIN_DRAIN_SECONDS = 1.0
_CATCH_UP_SECONDS = 5.0
_WATCH_SECONDS = 0.05


async def run_control(settings: Settings, listening: socket.socket) -> int:
    """Run the control process until SIGTERM; return its exit code, 1 when its own journal failed."""
    logs.configure(settings.log_level, gateway=settings.gateway, worker="control")
    tasks = Tasks()
    async with AsyncExitStack() as stack:
        rules = RedisRules(redis_url(settings))
        stack.push_async_callback(rules.close)
        client = upstream_client(settings)
        stack.push_async_callback(client.close)
        factory = executor_factory(settings, client, stack)
        store = audit_store(settings)
        stack.callback(store.close)
        book = Book(settings.data_dir / "run")
        stack.callback(book.close)
        recorder = _recorder(settings, store, book, stack)
        records = _control_records(settings, stack)
        archive = SqliteRevisions(settings.data_dir / "revisions.db")
        stack.callback(archive.close)
        boards = BoardFolder(settings.data_dir / "run")
        stack.callback(boards.close)
        watch = StoreWatch(rules, settings.data_dir / "rules", boards)
        plane = ControlPlane(
            rules,
            store,
            archive,
            _inspector(factory),
            watch,
            boards,
            gateway=settings.gateway,
            publish_wait_s=settings.rules.publish_wait_ms / 1000,
            tell=RulesLog(records).tell,
        )
        pruning = Pruning(store, records, settings.audit)
        jobs = JobRunner((sys.executable, "-m", "gateway.jobs"), dump_settings(settings))
        stack.push_async_callback(jobs.close)
        parts = AuditParts(
            store=store,
            recorder=recorder,
            records=records,
            erasing=Erasing(
                store, records, settings.data_dir / "journal", lambda: recorder.catch_up(_CATCH_UP_SECONDS)
            ),
            pruning=pruning,
            jobs=jobs,
        )
        stack.push_async_callback(tasks.cancel)
        tasks.start("rules store", watch.run())
        tasks.start("archivist", plane.archivist.run())
        tasks.start("confirmations", plane.confirmations.run())
        tasks.start("retention", pruning.run())
        stop = asyncio.Event()
        on_sigterm(stop.set)
        tasks.start("control journal", _stop_when_failed(records, stop))
        await serve_until(stop, build_admin(plane, parts, book, watch.troubles), listening, _ADMIN_DRAIN_SECONDS)
        return 1 if records.failed else 0


def _recorder(settings: Settings, store: AuditStore, book: Book, stack: AsyncExitStack) -> Recorder:
    """Return the recorder, running in a thread of its own until `stack` ends it."""
    keys = settings.data_dir / "keys"
    checkpoints = Checkpointer(store, open_key(keys), settings.gateway, keys, seconds=settings.audit.checkpoint_seconds)
    recorder = Recorder(
        settings.data_dir / "journal", store, checkpoints, book.observe, settings.audit.keep_segments_seconds
    )
    book.watch(recorder)
    stopping = threading.Event()
    thread = threading.Thread(target=recorder.run, args=(stopping,), name="recorder")
    thread.start()
    stack.callback(thread.join)
    stack.callback(stopping.set)
    return recorder


def _control_records(settings: Settings, stack: AsyncExitStack) -> ControlRecords:
    board = Board(settings.data_dir / "run" / "control.board")
    stack.callback(board.close)
    journal = Journal(
        settings.data_dir / "journal",
        "control",
        settings.audit.segment_bytes,
        board,
        gateway=settings.gateway,
        durability=settings.audit.durability,
    )
    stack.callback(journal.close)
    return ControlRecords(journal, settings.gateway)


async def _stop_when_failed(records: ControlRecords, stop: asyncio.Event) -> None:
    """End the process when nothing can be recorded any more: the supervisor makes a new one."""
    while not records.failed:  # noqa: ASYNC110 - the journal's own thread may set it
        await asyncio.sleep(_WATCH_SECONDS)
    stop.set()


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
