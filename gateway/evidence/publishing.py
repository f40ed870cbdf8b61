"""Sending checkpoints out of the host's reach, each once at least and in order: to a file, or to a URL.

A publisher works in a thread of its own, so a URL that does not answer never holds the recorder up. How far it got is
kept in a small file, so nothing is skipped over a restart; what piled up meanwhile is read from the store again.

Belongs here: order, retries, remembering. Never here: making checkpoints, or the format of a line (`exported`).
"""

import os
import threading
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, Protocol
from urllib.parse import urlsplit

import httpx2
import msgspec
from msgspec import Meta, Struct

from gateway.errors import AuditUnavailable
from gateway.evidence.exported import encode_line
from gateway.evidence.small_files import sync_folder, write_whole
from gateway.logs import logger
from gateway.ports import AuditStore, SignedCheckpoint

FIRST_RETRY_SECONDS = 1.0
LAST_RETRY_SECONDS = 60.0
POST_SECONDS = 5.0
_KEPT_WAITING = 20  # each has a few bytes for every record that it covers
_LAST_CHANCE_SECONDS = 6.0


class NotSent(Exception):
    """The checkpoint did not arrive; it will be sent again. The message holds no secret."""


class Destination(Protocol):
    """Where checkpoints go."""

    def send(self, checkpoint: SignedCheckpoint) -> None:
        """Return when the checkpoint has arrived to stay. Blocks. Raises `NotSent`."""

    def close(self) -> None:
        """Let go of what is open."""


class CheckpointFile:
    """A file that every checkpoint is appended to, as a line; best on a disk that is out of this machine's reach."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def send(self, checkpoint: SignedCheckpoint) -> None:
        """Append a checkpoint and sync it."""
        try:
            fresh = not self._path.exists()
            with self._path.open("a+b") as file:
                size = file.seek(0, os.SEEK_END)
                if size and os.pread(file.fileno(), 1, size - 1) != b"\n":
                    file.write(b"\n")  # the last line was cut short by a crash; it is written again below it
                file.write(encode_line(checkpoint) + b"\n")
                file.flush()
                os.fsync(file.fileno())
            if fresh:
                sync_folder(self._path.parent)
        except OSError as error:
            raise NotSent(f"the file {self._path} cannot be written: {error.strerror}") from None

    def close(self) -> None:
        """Nothing is open between two checkpoints."""


class CheckpointUrl:
    """A URL that every checkpoint is posted to, as JSON; any answer of 2xx means that it arrived."""

    def __init__(self, url: str) -> None:
        self._url = url
        # Credentials and the query may be secrets, so only this much of it is ever shown.
        parts = urlsplit(url)
        self._shown = f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
        self._client = httpx2.Client(timeout=POST_SECONDS, follow_redirects=False, trust_env=False)

    def send(self, checkpoint: SignedCheckpoint) -> None:
        """Post a checkpoint."""
        try:
            answer = self._client.post(
                self._url, content=encode_line(checkpoint), headers={"content-type": "application/json"}
            )
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise NotSent(f"{self._shown} does not take it: {type(error).__name__}") from None
        if not answer.is_success:
            raise NotSent(f"{self._shown} answers {answer.status_code}")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


class _Progress(Struct, frozen=True, forbid_unknown_fields=True):
    version: Literal[1]
    gateway: str
    number: Annotated[int, Meta(ge=0)]
    day: str


class Publisher:
    """Sends the checkpoints of one gateway to one destination. `offer` and `unpublished` may be called from any thread.

    `progress` is the file that remembers how far it got. After a failure it waits `first_retry_seconds`, then twice as
    long each time, up to `LAST_RETRY_SECONDS`.
    """

    def __init__(
        self,
        destination: Destination,
        progress: Path,
        store: AuditStore,
        gateway: str,
        *,
        first_retry_seconds: float = FIRST_RETRY_SECONDS,
    ) -> None:
        self._destination = destination
        self._progress = progress
        self._store = store
        self._gateway = gateway
        self._first_retry_seconds = first_retry_seconds
        self._sent = self._read_progress()
        self._newest = self._sent.number
        self._waiting: deque[SignedCheckpoint] = deque()
        self._behind = True
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"publisher-{progress.stem}", daemon=True)

    def start(self) -> None:
        """Begin where the last life ended."""
        self._thread.start()

    def offer(self, checkpoint: SignedCheckpoint) -> None:
        """Send this checkpoint, too, as soon as those before it have arrived. Never waits."""
        with self._lock:
            if len(self._waiting) >= _KEPT_WAITING:
                self._waiting.clear()
                self._behind = True  # the store has them all
            self._waiting.append(checkpoint)
            self._newest = max(self._newest, checkpoint.number)
        self._wake.set()

    @property
    def unpublished(self) -> int:
        """How many checkpoints have not arrived."""
        return max(0, self._newest - self._sent.number)

    def close(self) -> None:
        """Try once more to send what there is, for a few seconds, and end."""
        self._stopping.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join(_LAST_CHANCE_SECONDS)
        self._destination.close()

    # ── the publisher's own thread ───────────────────────────────────────────────────────────────────────────────

    def _run(self) -> None:
        retry_seconds = self._first_retry_seconds
        while True:
            last = self._stopping.is_set()
            try:
                self._send_what_there_is()
                retry_seconds = self._first_retry_seconds
                if not last:
                    self._wake.wait()
                    self._wake.clear()
            except (NotSent, AuditUnavailable, OSError) as error:
                logger().warning("checkpoint_not_published", again_in_seconds=retry_seconds, why=str(error))
                self._stopping.wait(retry_seconds)
                retry_seconds = min(retry_seconds * 2, LAST_RETRY_SECONDS)
            except Exception as defect:  # noqa: BLE001 - a defect must not end publishing for good
                logger().error("defect", task="publisher", exc_info=defect)
                self._stopping.wait(LAST_RETRY_SECONDS)
            if last:
                return

    def _send_what_there_is(self) -> None:
        if self._behind:
            self._behind = False
            try:
                for checkpoint in self._from_store():
                    self._send(checkpoint)
            except BaseException:
                self._behind = True
                raise
        while (waiting := self._first_waiting()) is not None:
            self._send(waiting)
            with self._lock:
                if self._waiting and self._waiting[0] is waiting:
                    self._waiting.popleft()

    def _from_store(self) -> Iterator[SignedCheckpoint]:
        """Yield what the store has and has not been sent, from the day on that was reached."""
        newest = self._store.last_checkpoint(self._gateway)
        if newest is None or newest.number <= self._sent.number:
            return
        self._newest = max(self._newest, newest.number)
        for day in (one.day for one in self._store.days() if one.day >= self._sent.day):
            yield from self._store.checkpoints(self._gateway, day)

    def _first_waiting(self) -> SignedCheckpoint | None:
        with self._lock:
            return self._waiting[0] if self._waiting and not self._behind else None

    def _send(self, checkpoint: SignedCheckpoint) -> None:
        if checkpoint.number <= self._sent.number:
            return
        self._destination.send(checkpoint)
        self._sent = _Progress(1, self._gateway, checkpoint.number, checkpoint.day)
        write_whole(self._progress, msgspec.json.encode(self._sent))

    def _read_progress(self) -> _Progress:
        nothing = _Progress(1, self._gateway, 0, "")
        try:
            found = msgspec.json.decode(self._progress.read_bytes(), type=_Progress)
        except FileNotFoundError:
            return nothing
        except (OSError, msgspec.MsgspecError) as error:
            # Sending some twice is harmless, and the only way to be sure that none is skipped.
            logger().warning("progress_unreadable", file=str(self._progress), why=str(error))
            return nothing
        return found if found.gateway == self._gateway else nothing
