"""Composition of everything about records in the control process: store, key, checkpoints, recorder, control journal.

Belongs here: connecting those, and ending them in the order in which nothing is lost. Never here: running the admin
port, or what any part does.
"""

import sys
import threading
from contextlib import AsyncExitStack

from gateway.admin.audit_parts import AuditParts
from gateway.admin.job_runner import JobRunner
from gateway.assembly import audit_store
from gateway.book import Book
from gateway.config import Settings, dump_settings
from gateway.control_records import ControlRecords
from gateway.evidence.checkpointing import Checkpointer
from gateway.evidence.erasure import Erasing
from gateway.evidence.keys import SigningKey, open_key
from gateway.evidence.pruning import Pruning
from gateway.evidence.publishing import CheckpointFile, CheckpointUrl, Publisher
from gateway.journal import Journal
from gateway.logs import logger
from gateway.metrics import Board, Sealing
from gateway.ports import AuditStore, SignedCheckpoint
from gateway.recorder import Recorder

_CATCH_UP_SECONDS = 5.0


def audit_parts(settings: Settings, book: Book, stack: AsyncExitStack) -> AuditParts:
    """Return what the calls about records work with; the recorder runs, and all of it ends with `stack`.

    Raises:
        AuditUnavailable: the store or the control journal cannot be opened.
        KeyUnusable: the signing key cannot be read or made.
    """
    store = audit_store(settings)
    stack.callback(store.close)
    key = open_key(settings.data_dir / "keys")
    logger().info("checkpoint_key", key=key.id, public_key=key.public.pem)
    recorder = _recorder(settings, store, key, book, stack)
    records = _control_records(settings, stack)
    jobs = JobRunner((sys.executable, "-m", "gateway.jobs"), dump_settings(settings))
    stack.push_async_callback(jobs.close)
    return AuditParts(
        store=store,
        recorder=recorder,
        records=records,
        erasing=Erasing(store, records, settings.data_dir / "journal", lambda: recorder.catch_up(_CATCH_UP_SECONDS)),
        pruning=Pruning(store, records, settings.audit),
        jobs=jobs,
        gateway=settings.gateway,
        data_dir=settings.data_dir,
        key=key.public,
    )


def _recorder(settings: Settings, store: AuditStore, key: SigningKey, book: Book, stack: AsyncExitStack) -> Recorder:
    """Return the recorder, running in a thread of its own until `stack` ends it."""
    keys = settings.data_dir / "keys"
    publishers = _publishers(settings, store, stack)

    def publish(checkpoint: SignedCheckpoint) -> None:
        for publisher in publishers:
            publisher.offer(checkpoint)

    journals = settings.data_dir / "journal"
    checkpoints = Checkpointer(
        store,
        key,
        settings.gateway,
        keys,
        journals=journals,
        seconds=settings.audit.checkpoint_seconds,
        sealed=publish,
    )
    recorder = Recorder(journals, store, checkpoints, book.observe, settings.audit.keep_segments_seconds)

    def sealing() -> Sealing:
        return Sealing(checkpoints.last_at_ns, sum(publisher.unpublished for publisher in publishers))

    book.watch(recorder, sealing)
    stopping = threading.Event()
    thread = threading.Thread(target=recorder.run, args=(stopping,), name="recorder")
    thread.start()
    stack.callback(thread.join)
    stack.callback(stopping.set)
    return recorder


def _publishers(settings: Settings, store: AuditStore, stack: AsyncExitStack) -> tuple[Publisher, ...]:
    audit, keys = settings.audit, settings.data_dir / "keys"
    made: list[Publisher] = []
    if audit.checkpoint_file is not None:
        destination = CheckpointFile(audit.checkpoint_file)
        made.append(Publisher(destination, keys / "published-file.json", store, settings.gateway))
    if audit.checkpoint_url is not None:
        url = CheckpointUrl(audit.checkpoint_url.get_secret_value())
        made.append(Publisher(url, keys / "published-url.json", store, settings.gateway))
    for publisher in made:
        stack.callback(publisher.close)
        publisher.start()
    return tuple(made)


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
