"""The last good rules on disk, for a start without Redis: a few generations, each a base and a log of changes.

A change costs one line of the log and one sync, however many models there are. A log that grows long is replaced by a
new base, in the background. The workers of a gateway share the folder: the first to have a revision appends it, the
others find it there.

Belongs here: which generation counts, and when a new one begins. Never here: deciding whether the files or Redis are
right. Everything here blocks; call it in a thread.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import monotonic

from gateway.logs import logger
from gateway.ports import Head
from gateway.snapshot.lastgood_base import Saved, base_path, read_base, read_base_header, write_base
from gateway.snapshot.lastgood_folder import base_lock, bases, lock, revision_of, sync_folder, tidy, unfinished
from gateway.snapshot.lastgood_generation import Generation, Identity, identity_of, write_log
from gateway.snapshot.lastgood_log import Line, Step, is_reached, leads_on, pack_json

_LOOKS = 3  # so often a folder is looked at whose files others remove meanwhile
_AGAIN_SECONDS = 5.0  # after a base could not be written


class LastGood:
    """The last good rules in one folder, as one process knows them. One thread at a time appends and writes."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._generation: Generation | None = None
        self._refused: set[Identity] = set()
        self._failed: tuple[float, str] | None = None
        self._stopping = False

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────

    def newest(self) -> Saved | None:
        """Return the newest rules that are intact, or None. What is refused is named in the log, and why."""
        for _ in range(_LOOKS):
            with suppress(FileNotFoundError):  # removed by whoever wrote a newer one
                return self._newest()
        return None

    def _newest(self) -> Saved | None:
        for base in bases(self._folder):
            identity = identity_of(base)
            try:
                saved, header = read_base(base)
                generation = Generation(base, identity, header, empty=not saved.documents)
                with self._reading():
                    saved = generation.replay(saved)
            except FileNotFoundError:
                raise
            except (OSError, ValueError) as error:
                self._refuse(identity, error)
                continue
            self._generation = generation
            return saved
        return None

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with ExitStack() as held:
            # Without the lock (nobody ever wrote, or its holder is stopped) a line that is being written is refused.
            with suppress(OSError):
                held.enter_context(lock(self._folder, shared=True))
            yield

    def _refuse(self, identity: Identity, error: OSError | ValueError) -> None:
        self._refused.add(identity)
        logger().error("last_good_refused", file=identity[0], why=str(error))

    # ── a change ─────────────────────────────────────────────────────────────────────────────────────────────────

    def append(self, step: Step) -> bool:
        """Return True when the rules that a step leads to are on the disk: appended here, or by another worker.

        False: nothing on the disk leads to them, so they have to be written whole.

        Raises:
            OSError: it could not be appended; what was there before is still there.
        """
        if not self._folder.is_dir():
            return False
        with lock(self._folder):
            generation = self._current()
            if generation is None:
                return False
            if is_reached(step, generation.tail):
                generation.sync()
                return True
            if not leads_on(step, generation.tail):
                return False
            generation.append(pack_json(step))
            return True

    def _current(self) -> Generation | None:
        """Return the newest generation, caught up with; None when none can be used. The lock is held."""
        if self._generation is not None and self._generation.failed:
            self._refused.add(self._generation.identity)
        for base in bases(self._folder):
            identity = identity_of(base)
            if identity in self._refused:
                continue
            if self._generation is None or self._generation.identity != identity:
                try:
                    header, has_documents = read_base_header(base)
                except (OSError, ValueError) as error:
                    self._refuse(identity, error)
                    continue
                self._generation = Generation(base, identity, header, empty=not has_documents)
            self._generation.catch_up()
            return self._generation
        self._generation = None
        return None

    # ── everything ───────────────────────────────────────────────────────────────────────────────────────────────

    def write(self, saved: Saved) -> None:
        """Write rules whole, unless they are there, or there are none to keep and never were.

        Raises:
            OSError: they could not be written; what was there before is still there.
        """
        if not saved.documents and not bases(self._folder):
            return
        self._check_failed()
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with base_lock(self._folder, wait=True):
                with lock(self._folder):
                    generation = self._current()
                    if generation is not None and is_reached(_whole(saved), generation.tail):
                        return generation.sync()
                self._begin(saved, None)
        except OSError as error:
            self._failed = monotonic() + _AGAIN_SECONDS, str(error)
            raise
        self._failed = None

    def _check_failed(self) -> None:
        if self._failed is not None and monotonic() < self._failed[0]:
            raise OSError(f"{self._failed[1]} (moments ago; tried again {_AGAIN_SECONDS:g} s after that)")

    def is_outgrown(self, head: Head) -> bool:
        """Tell whether rules at `head`, just appended, should be written whole, as their log has become long."""
        generation = self._generation
        return generation is not None and generation.outgrown and generation.tail.head == head

    def rewrite(self, saved: Saved) -> None:
        """Begin a new generation with rules that a log has led to, unless another worker is doing so.

        Lines that are appended meanwhile, by anybody, go along.

        Raises:
            OSError: it could not be written; the old generation goes on.
        """
        with ExitStack() as held:
            try:
                held.enter_context(base_lock(self._folder, wait=False))
            except TimeoutError:
                return
            with lock(self._folder):
                generation = self._current()
            if generation is not None and generation.outgrown:
                self._begin(saved, generation)

    def stop(self) -> None:
        """Let a `rewrite` that is under way end soon, undone."""
        self._stopping = True

    def _begin(self, saved: Saved, before: Generation | None) -> None:
        """Write a base, and put it in its place; `before` is the generation whose later lines go along."""
        path, new = base_path(self._folder, saved.head.revision), unfinished(self._folder, saved.head.revision)
        mark = before.find(saved) if before is not None else None
        if before is not None and mark is None:
            return
        try:
            header = write_base(new, saved, lambda: not self._stopping)
            if header is None:
                return
            with lock(self._folder):
                later: Sequence[Line] | None = ()
                if before is not None and mark is not None:
                    later = before.lines_after(mark) if self._current() is before else None
                if later is None:
                    return
                write_log(path, header, later)
                new.replace(path)
                sync_folder(self._folder)
                self._generation = None
                self._current()
                tidy(self._folder, path)
        finally:
            new.unlink(missing_ok=True)


def last_known_revision(folder: Path) -> int:
    """Return the newest revision that was ever in force here, as far as files tell; 0 when there was none."""
    newest = 0
    for base in bases(folder):
        newest = max(newest, revision_of(base))
        with suppress(OSError, ValueError):
            header, has_documents = read_base_header(base)
            generation = Generation(base, identity_of(base), header, empty=not has_documents)
            generation.catch_up()
            newest = max(newest, generation.tail.head.revision)
    return newest


def _whole(saved: Saved) -> Step:
    return Step(None, True, saved.head, saved.operation_id, {}, len(saved.documents))
