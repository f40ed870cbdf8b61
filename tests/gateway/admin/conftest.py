"""The whole control process behind the admin port, in this process: real Valkey, SQLite, journal, recorder, uvicorn.

with_admin      with_admin(test) runs `async test(at)` against it; `at` is an `Admin`
"""

import asyncio
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

from gateway.admin.app import build_admin
from gateway.admin.audit_parts import AuditParts
from gateway.admin.job_runner import JobRunner
from gateway.book import Book
from gateway.capture import capture
from gateway.catalog import Manifest
from gateway.config import dump_settings, load_settings
from gateway.control_records import ControlRecords
from gateway.controlplane import ControlPlane, StoreWatch
from gateway.evidence.checkpointing import Checkpointer
from gateway.evidence.erasure import Erasing
from gateway.evidence.keys import open_key
from gateway.evidence.pruning import Pruning
from gateway.evidence.rules_log import RulesLog
from gateway.gauges import BoardFolder
from gateway.journal import Journal
from gateway.metrics import Board, Slot
from gateway.ports import Acknowledgement, Head
from gateway.record import Payload, Record
from gateway.recorder import Recorder
from gateway.settings_audit import AuditSettings
from gateway.stores.audit_sqlite import SqliteAudit
from gateway.stores.revisions_sqlite import SqliteRevisions
from gateway.stores.rules_redis import RedisRules
from gateway.tasks import Tasks
from gateway.wire.serving import serve_until
from routing.types import Capture

PUBLISH_WAIT_S = 0.3


class Admin:
    """What a test has in its hands. `http` is a client of the admin port; `worker` stands for the only data worker."""

    def __init__(
        self,
        *,
        http: httpx2.AsyncClient,
        control: ControlPlane,
        store: RedisRules,
        journal: Journal,
        own_journal: Journal,
        audit: SqliteAudit,
        board: Board,
        jobs: JobRunner,
        stop_recorder: Callable[[], Awaitable[None]],
    ) -> None:
        self.http = http
        self.control = control
        self.store = store
        self.journal = journal
        self.own_journal = own_journal
        self.audit = audit
        self.board = board
        self.jobs = jobs
        self.stop_recorder = stop_recorder
        self.troubles: list[str] = []

    async def acknowledge(self, problems: Mapping[str, str] | None = None, revision: int | None = None) -> None:
        """Say, as a live worker would, that the rules of now (or of `revision`) are in force."""
        newest = await self.store.head()
        assert newest is not None
        head = newest if revision is None else Head(newest.epoch, revision)
        now = time.time_ns()
        await self.store.acknowledge(Acknowledgement("g/w0", head, problems or {}, since_ms=now // 1_000_000))
        for slot, value in (
            (Slot.READY, 1),
            (Slot.RULES_REVISION, min(head.revision, newest.revision)),
            (Slot.RULES_SINCE_NS, now),
            (Slot.RULES_CHECKED_NS, now),
        ):
            self.board[slot] = value

    @asynccontextmanager
    async def worker(self) -> AsyncIterator[None]:
        """Keep acknowledging whatever is newest, as a healthy worker does."""
        working = True

        async def follow() -> None:
            while working:
                await self.acknowledge()
                await asyncio.sleep(0.01)

        await self.acknowledge()
        following = asyncio.create_task(follow())
        try:
            yield
        finally:
            # Not cancelled: redis-py waits with `asyncio.wait_for`, which on Python 3.11 can swallow a cancellation.
            working = False
            await following
            await self.store.withdraw("g/w0")

    async def register(self, *versions: str, model: str = "fraud", **fields: Any) -> None:
        """Register complete versions with an HTTP backend."""
        async with self.worker():  # or each would wait for one
            for version in versions:
                document = self.manifest(version, model, **fields)
                answer = await self.http.post(f"/admin/v1/models/{model}/versions", json=document)
                assert answer.status_code in (201, 202), answer.text

    @staticmethod
    def manifest(version: str, model: str = "fraud", **fields: Any) -> dict[str, Any]:
        return {
            "model": model,
            "version": version,
            "backend": {"http": {"urls": ["http://127.0.0.1:1"]}},
            "code": {"git_commit": "9f2c9f2c"},
            "data": {"version": "2026-10-01"},
            "metrics": {"accuracy": 0.96},
            "owner": "risk",
            **fields,
        }

    def record(self, *records: Record, request: bytes | None = None, response: bytes | None = None) -> None:
        """Have records in the worker's journal, with these bodies if any."""
        for record in records:
            payloads: dict[str, Payload] = {}
            parts = {"request": b"", "response": b""}
            for name, body in (("request", request), ("response", response)):
                if body is not None:
                    payloads[name], parts[name] = capture(body, "full", Capture())
            self.journal.append(msgspec.structs.replace(record, **payloads), parts["request"], parts["response"])


Test = Callable[[Any], Awaitable[None]]


@pytest.fixture
def with_admin(valkey: Any, tmp_path: Path) -> Callable[..., None]:
    def run(test: Test, url: str = valkey.url) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(30), _admin(url, tmp_path) as at:
                await test(at)

        asyncio.run(bounded())

    return run


@asynccontextmanager
async def _admin(url: str, folder: Path) -> AsyncIterator[Admin]:
    for name in ("run", "journal"):
        (folder / name).mkdir()
    board = Board(folder / "run" / "worker-0.board")
    board.begin()
    journal = Journal(folder / "journal", "w0", 2**20, board, gateway="g")
    audit, book, store = SqliteAudit(folder / "audit"), Book(folder / "run"), RedisRules(url)
    key = open_key(folder / "keys")
    checkpoints = Checkpointer(audit, key, "g", folder / "keys")
    recorder = Recorder(folder / "journal", audit, checkpoints, book.observe, 600.0)
    own_board = Board(folder / "run" / "control.board")
    own_journal = Journal(folder / "journal", "control", 2**20, own_board, gateway="g")
    records = ControlRecords(own_journal, "g")
    book.watch(recorder)
    stopping, stop = threading.Event(), asyncio.Event()
    recording = threading.Thread(target=recorder.run, args=(stopping,), name="recorder")
    recording.start()

    async def stop_recorder() -> None:
        stopping.set()
        await asyncio.to_thread(recording.join)

    await store.initialise()
    archive, boards = SqliteRevisions(folder / "revisions.db"), BoardFolder(folder / "run")
    watch = StoreWatch(store, folder / "rules", boards)
    control = ControlPlane(
        store,
        audit,
        archive,
        _inspect,
        watch,
        boards,
        gateway="g",
        publish_wait_s=PUBLISH_WAIT_S,
        tell=RulesLog(records).tell,
    )
    settings = load_settings({"data_dir": folder, "redis_url": url, "gateway": "g"})
    jobs = JobRunner((sys.executable, "-m", "gateway.jobs"), dump_settings(settings))
    parts = AuditParts(
        store=audit,
        recorder=recorder,
        records=records,
        erasing=Erasing(audit, records, folder / "journal", lambda: recorder.catch_up(1.0)),
        pruning=Pruning(audit, records, AuditSettings()),
        jobs=jobs,
        gateway="g",
        data_dir=folder,
        key=key.public,
    )
    await watch.look()
    tasks = Tasks()
    tasks.start("rules store", watch.run())
    tasks.start("archivist", control.archivist.run())
    tasks.start("confirmations", control.confirmations.run())
    # Named as TCP, or asyncio would not switch Nagle's algorithm off: 40 ms for every answer of two writes.
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        base = f"http://127.0.0.1:{listening.getsockname()[1]}"
        http = httpx2.AsyncClient(base_url=base, timeout=20.0, verify=False, trust_env=False)
        at = Admin(
            http=http,
            control=control,
            store=store,
            journal=journal,
            own_journal=own_journal,
            audit=audit,
            board=board,
            jobs=jobs,
            stop_recorder=stop_recorder,
        )
        app = build_admin(control, parts, book, lambda: [*watch.troubles(), *at.troubles])
        serving = asyncio.create_task(serve_until(stop, app, listening, 1.0))
        try:
            yield at
        finally:
            await http.aclose()  # before the server, which would wait for an idle connection
            stop.set()
            await serving
            await jobs.close()
            await stop_recorder()
            await tasks.cancel()
            await store.close()
    for part in (journal, own_journal, audit, archive, book, boards, board, own_board):
        part.close()


async def _inspect(_: Manifest) -> None:
    """Load nothing: what these tests register lies behind HTTP."""
