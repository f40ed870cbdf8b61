"""The journal of one worker: a record is appended here before its reply leaves, with one write in a turn of the loop.

What `append` returned from survives the death of the process; what `sync` returned from survives the death of the
machine: with durability `process` that is, by itself, whatever is older than 50 ms or so, with `power` whatever was
awaited. A failed or short write and a failed sync are final: what the disk holds is then unknown, so the journal takes
nothing more and its worker has to be replaced.

Belongs here: appending, rotating and syncing. Never here: the format itself (`segment`), when to sync (`syncing`),
what a restarted worker finds (`recovery`), reading for the audit store (`tail`), or waiting on the request path.
"""

import fcntl
import os
import threading
import time
from asyncio import Future, get_running_loop
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Final, Literal

import msgspec

from gateway.arrival import Arrival
from gateway.chain import link
from gateway.errors import AuditUnavailable
from gateway.journal.frames import MAX_PAYLOAD_BYTES, frame_pieces
from gateway.journal.recovery import find_end
from gateway.journal.segment import SegmentHeader, pack_header, segment_path, sync_folder
from gateway.journal.syncing import Syncer
from gateway.logs import logger
from gateway.metrics import Board, Slot
from gateway.record import Record, encode_record
from gateway.sealing import content_pieces

Durability = Literal["process", "power"]
_REFUSAL: Final = "this prediction cannot be recorded, so it is withheld; send the request again"


_LARGE_GROUP: Final = 1 << 20
"""Bytes of frames that wait for the end of a turn of the loop; beyond that they are written at once."""


def _do_nothing() -> None:
    pass


class Journal:
    """The one writer of a journal.

    `folder` holds the journals of all workers; this one lives in `folder/name`, and the journal's own name begins with
    `gateway/name`. `append` and `enqueue` belong to one thread (`enqueue`, and with durability `power` both, to that of
    a running event loop); `sync` and `failed` may be called from any. `tick` is called every 50 ms or so in the
    journal's own thread.

    Raises (construction):
        AuditUnavailable: the folder cannot be written, or another process writes this journal.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        segment_bytes: int,
        board: Board,
        *,
        gateway: str,
        durability: Durability = "process",
        tick: Callable[[], None] = _do_nothing,
        telling: AbstractContextManager[None] | None = None,
    ) -> None:
        """Begin where the journal ends. `telling` is entered while those of one group are told."""
        self._folder = folder / name
        self._segment_bytes = segment_bytes
        self._board = board
        self._failed = False
        self._folder_unsynced = True
        self._retired: deque[int] = deque()
        self._frames: list[bytes] = []  # made in this turn of the loop and not written yet
        self._unwritten = 0
        self._group: Arrival[None] | None = None
        self._telling = telling if telling is not None else nullcontext()
        self._syncing = threading.Lock()
        self._switching = threading.Lock()
        self._closed = False
        with ExitStack() as undo:
            try:
                self._lock = _take(self._folder)
                undo.callback(os.close, self._lock)
                end = find_end(self._folder, f"{gateway}/{name}")
                self._name, self._sequence, self._segment, self._chain = (
                    end.journal,
                    end.sequence,
                    end.segment,
                    end.chain,
                )
                self._file, self._size = self._begin_segment()
                undo.callback(os.close, self._file)
                self._made_sequence, self._made_chain = self._sequence, self._chain
                self.sync()
                sync_folder(folder)
                sync_folder(folder.parent)
            except OSError as error:
                raise AuditUnavailable(f"journal {self._folder} cannot be written: {error}") from error
            undo.pop_all()
        board[Slot.JOURNAL_SEQUENCE] = self._sequence
        self._groups = durability == "power"
        self._syncer = Syncer(name, self.sync, tick, groups=self._groups)

    @property
    def name(self) -> str:
        """The journal's own name, which its frames carry in the audit store: `<gateway>/<worker>.<12 hex digits>`."""
        return self._name

    @property
    def sequence(self) -> int:
        """The sequence of the last record; 0 before the first."""
        return self._sequence

    @property
    def failed(self) -> bool:
        """Whether the journal is closed for good; the worker must go not ready and be replaced."""
        return self._failed

    def append(self, record: Record, request: bytes, response: bytes) -> Future[None] | None:
        """Make `record` survive the death of this process; with `power`, what is returned, awaited, that of the
        machine.

        Raises (here or when awaited):
            AuditUnavailable: it is not recorded; unless the record itself was at fault, nothing more will be.
        """
        if self._failed:
            raise AuditUnavailable(_REFUSAL)
        self._add(record, request, response)
        if (error := self._write()) is not None:
            raise error
        return self._syncer.join() if self._groups else None

    def enqueue(self, record: Record, request: bytes, response: bytes) -> Arrival[None]:
        """Append as `append` does, with all others of this turn of the event loop in one write at its end.

        Raises (here or when awaited):
            AuditUnavailable: as `append`.
        """
        if self._failed:
            raise AuditUnavailable(_REFUSAL)
        self._add(record, request, response)
        group = self._group
        if group is None:
            group = self._group = Arrival()
            get_running_loop().call_soon(self._end_group)
        elif self._unwritten >= _LARGE_GROUP:
            self._write()  # if that fails, the end of the group says so
        return group

    def sync(self) -> None:
        """Return when everything appended before the call survives the death of the machine.

        Raises:
            AuditUnavailable: the disk did not take it; the journal is closed for good.
        """
        with self._syncing:
            if self._failed:
                raise AuditUnavailable(_REFUSAL)
            with self._switching:
                retired, file, in_folder = list(self._retired), self._file, self._folder_unsynced
                self._folder_unsynced = False
            try:
                for descriptor in retired:
                    os.fdatasync(descriptor)
                    self._retired.popleft()  # first, so that it is never closed twice
                    os.close(descriptor)
                if in_folder:
                    sync_folder(self._folder)
                os.fdatasync(file)
            except Exception as error:  # noqa: BLE001 - whatever it was, nobody knows what the disk holds
                raise self._fail("sync", error) from None

    def close(self) -> None:
        """Write and sync what there is and let go of the files; afterwards `append` raises. May be called again."""
        if self._closed:
            return
        self._closed = True
        if self._group is not None:
            self._end_group()
        self._syncer.close()
        try:
            if not self._failed:
                self.sync()
        except AuditUnavailable:
            pass  # logged where it failed, and the records are in the hands of the kernel
        finally:
            self._failed = True
            for descriptor in (*self._retired, self._file, self._lock):
                os.close(descriptor)
            self._retired.clear()

    def _add(self, record: Record, request: bytes, response: bytes) -> None:
        """Make the next frame, to be written."""
        sealed = _sealed(record, len(request) + len(response))
        sequence = self._made_sequence = self._made_sequence + 1
        head, checked = frame_pieces(sequence, content_pieces(self._made_chain, sealed, request, response))
        self._made_chain = link(self._made_chain, sequence, sealed)
        self._frames += (head, checked)
        self._unwritten += len(checked)

    def _write(self) -> AuditUnavailable | None:
        """Write the frames that have been made. Return why that failed, if it did; then none of them counts."""
        frames, self._frames = self._frames, []
        self._unwritten = 0
        try:
            if self._size >= self._segment_bytes:
                self._rotate()
            data = b"".join(frames)
            written = os.write(self._file, data)
        except OSError as error:
            return self._fail("write", error)
        if written != len(data):
            return self._fail("write", f"{written} of {len(data)} bytes were written")
        self._size += written
        self._chain = self._made_chain
        self._sequence = self._board[Slot.JOURNAL_SEQUENCE] = self._made_sequence
        if not self._groups:
            self._syncer.touch()
        return None

    def _end_group(self) -> None:
        """Write what came in this turn of the loop, and tell those who wait; with `power`, once it is synced, too."""
        group, self._group = self._group, None
        if group is None:
            return  # closed meanwhile
        try:
            error = AuditUnavailable(_REFUSAL) if self._failed else self._write()
            if error is None and self._groups:
                self._syncer.join().add_done_callback(partial(_pass_on, group))
                return
        except AuditUnavailable as closing:
            error = closing
        with self._telling:
            if error is None:
                group.arrive(None)
            else:
                group.fail(error)

    def _begin_segment(self) -> tuple[int, int]:
        """Make the next segment and return its descriptor and size."""
        self._segment += 1
        path = segment_path(self._folder, self._segment)
        said = SegmentHeader(self._name, self._segment, self._sequence + 1, time.time_ns(), self._chain)
        header = pack_header(said)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            written = os.write(descriptor, header)
            if written != len(header):
                raise OSError(f"{written} of {len(header)} bytes of a segment's header were written")
        except OSError:
            os.close(descriptor)
            raise
        return descriptor, written

    def _rotate(self) -> None:
        full = self._file
        file, self._size = self._begin_segment()
        with self._switching:  # whoever syncs sees the full one as current or as retired, never as neither
            self._file = file
            # The thread that syncs closes it: here it would have to wait for the disk.
            self._retired.append(full)
            self._folder_unsynced = True

    def _fail(self, what: str, why: Exception | str) -> AuditUnavailable:
        self._failed = True
        logger().error("journal_failed", journal=self._name, segment=self._segment, at=what, why=str(why))
        return AuditUnavailable(_REFUSAL)


def _pass_on(group: Arrival[None], synced: Future[None]) -> None:
    error = synced.exception()
    if error is None:
        group.arrive(None)
    else:
        group.fail(AuditUnavailable(str(error)))


def _sealed(record: Record, parts: int) -> bytes:
    try:
        sealed = encode_record(record)
        if len(sealed) + parts > MAX_PAYLOAD_BYTES // 2:
            raise ValueError(f"{len(sealed) + parts} bytes are more than a journal takes of one record")
    except (ValueError, TypeError, OverflowError, msgspec.MsgspecError) as error:
        logger().error("record_unwritable", record_id=record.record_id, exc_info=error)
        raise AuditUnavailable(_REFUSAL) from None
    return sealed


def _take(folder: Path) -> int:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise AuditUnavailable(f"journal {folder} is being written by another process; stop that one first") from None
    return descriptor
