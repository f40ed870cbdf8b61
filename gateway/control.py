"""Composition of the control process: admin port, figures, the rules store and the watch over it, and the records.

Belongs here: connecting those and ending them in order. Never here: request logic, or parts that workers have too
(`assembly`), or those that keep records (`audit_assembly`).
"""

import asyncio
import gc
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from gateway import logs
from gateway.admin.app import build_admin
from gateway.assembly import executor_factory, on_sigterm, redis_url, upstream_client
from gateway.audit_assembly import audit_parts
from gateway.book import Book
from gateway.catalog import Manifest, Signature
from gateway.config import Settings
from gateway.control_records import ControlRecords
from gateway.controlplane import ControlPlane, StoreWatch
from gateway.evidence.rules_log import RulesLog
from gateway.gauges import BoardFolder
from gateway.ports import ExecutorFactory
from gateway.profiling import permit_profiling
from gateway.stores.revisions_sqlite import SqliteRevisions
from gateway.stores.rules_redis import RedisRules
from gateway.tasks import Tasks
from gateway.wire.serving import serve_until

_ADMIN_DRAIN_SECONDS = 1.0
_WATCH_SECONDS = 0.25


async def run_control(settings: Settings, listening: socket.socket) -> int:
    """Run the control process until SIGTERM; return its exit code, 1 when its own journal failed."""
    logs.configure(settings.log_level, gateway=settings.gateway, worker="control")
    if settings.profile:
        permit_profiling()
    tasks = Tasks()
    async with AsyncExitStack() as stack:
        rules = RedisRules(redis_url(settings))
        stack.push_async_callback(rules.close)
        client = upstream_client(settings)
        stack.push_async_callback(client.close)
        factory = executor_factory(settings, client, stack)
        book = Book(settings.data_dir / "run")
        stack.callback(book.close)
        parts = audit_parts(settings, book, stack)
        archive = SqliteRevisions(settings.data_dir / "revisions.db")
        stack.callback(archive.close)
        boards = BoardFolder(settings.data_dir / "run")
        stack.callback(boards.close)
        watch = StoreWatch(rules, settings.data_dir / "rules", boards)
        plane = ControlPlane(
            rules,
            parts.store,
            archive,
            _inspector(factory),
            watch,
            boards,
            gateway=settings.gateway,
            publish_wait_s=settings.rules.publish_wait_ms / 1000,
            tell=RulesLog(parts.records).tell,
        )
        stack.push_async_callback(tasks.cancel)
        tasks.start("rules store", watch.run())
        tasks.start("archivist", plane.archivist.run())
        tasks.start("confirmations", plane.confirmations.run())
        tasks.start("brakes", plane.braking.run())
        tasks.start("retention", parts.pruning.run())
        stop = asyncio.Event()
        on_sigterm(stop.set)
        tasks.start("control journal", _stop_when_failed(parts.records, stop))
        _collect_less()
        await serve_until(stop, build_admin(plane, parts, book, watch.troubles), listening, _ADMIN_DRAIN_SECONDS)
        return 1 if parts.records.failed else 0


def _collect_less() -> None:
    """Have garbage collections leave alone what is there by now, and come less often.

    A batch of records makes thousands of objects that live for a moment and are in no cycle: the usual thresholds take
    four percent of what a record costs here.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


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
