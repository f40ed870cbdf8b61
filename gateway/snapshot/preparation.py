"""Versions on their way to being served: prepared a few at a time, tried again when they fail, released when unused.

Belongs here: the life of executors. Never here: routes, or the choice of what is put in force.
"""

import asyncio
import weakref
from collections import deque
from collections.abc import Callable, Set
from time import monotonic_ns

from gateway.catalog import Manifest
from gateway.errors import ArtifactInvalid, GatewayError, VersionNotReady
from gateway.logs import logger
from gateway.messages import Readiness, Result, Work
from gateway.ports import Executor, ExecutorFactory, InferProtocol
from gateway.snapshot.prepared import PreparedVersion
from gateway.tasks import Tasks

_AT_ONCE = 4
_FIRST_RETRY_SECONDS = 1.0
_LAST_RETRY_SECONDS = 30.0
_RELEASE_SECONDS = 5.0


class _Slot:
    """One version that is wanted: its manifest, and what came of the last try."""

    __slots__ = ("failures", "key", "manifest", "prepared", "retry")

    def __init__(self, key: tuple[str, str], manifest: Manifest) -> None:
        self.key = key
        self.manifest = manifest
        self.prepared: PreparedVersion | None = None
        self.failures = 0
        self.retry: asyncio.TimerHandle | None = None


class Preparations:
    """Prepares the versions that are wanted. `settled(model)` is called when a try for one of its versions ended."""

    def __init__(self, executor_for: ExecutorFactory, settled: Callable[[str], None]) -> None:
        self._executor_for = executor_for
        self._settled = settled
        self._slots: dict[str, dict[str, _Slot]] = {}
        self._queue: deque[_Slot] = deque()
        self._workers = Tasks()
        self._releases = Tasks()
        self._finalizers: dict[int, weakref.finalize[..., PreparedVersion]] = {}
        self._busy = 0
        self._untried = 0
        self._all_tried = asyncio.Event()
        self._all_tried.set()
        self._closed = False

    def want(self, model: str, version: str, manifest: Manifest) -> PreparedVersion | None:
        """Return the version, prepared or with the problem it has; None while its first try is waiting or running.

        The same object comes back, with the same executor, for as long as the manifest stays the same.
        """
        slots = self._slots.setdefault(model, {})
        slot = slots.get(version)
        if slot is None or slot.manifest != manifest:
            self._drop(slot)
            slot = slots[version] = _Slot((model, version), manifest)
            self._untried += 1
            self._all_tried.clear()
            self._enqueue(slot)
        return slot.prepared

    def retain(self, model: str, versions: Set[str]) -> None:
        """Want no versions of a model but these any more. Snapshots that hold others keep them alive."""
        slots = self._slots.get(model, {})
        for version in slots.keys() - versions:
            self._drop(slots.pop(version))
        if not slots:
            self._slots.pop(model, None)

    async def tried(self) -> None:
        """Wait until every wanted version has been tried once."""
        await self._all_tried.wait()

    async def close(self) -> None:
        """Stop preparing and release every executor."""
        self._closed = True
        for model in list(self._slots):
            self.retain(model, frozenset())
        await self._workers.cancel()
        for finalizer in list(self._finalizers.values()):
            finalizer()
        await asyncio.sleep(0)  # the releases start in the loop's next turn
        await self._releases.drain(_RELEASE_SECONDS)

    # ── trying ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _drop(self, slot: _Slot | None) -> None:
        if slot is None:
            return
        if slot.retry is not None:
            slot.retry.cancel()
        if slot.prepared is None:
            self._tried_one()
        slot.prepared = None

    def _tried_one(self) -> None:
        self._untried -= 1
        if self._untried == 0:
            self._all_tried.set()

    def _enqueue(self, slot: _Slot) -> None:
        self._queue.append(slot)
        if self._busy < _AT_ONCE and not self._closed:
            self._busy += 1
            self._workers.start("prepare versions", self._work())

    async def _work(self) -> None:
        try:
            while self._queue:
                slot = self._queue.popleft()
                if self._is_wanted(slot):
                    await self._try(slot)
        finally:
            self._busy -= 1

    def _is_wanted(self, slot: _Slot) -> bool:
        model, version = slot.key
        return self._slots.get(model, {}).get(version) is slot

    async def _try(self, slot: _Slot) -> None:
        started = monotonic_ns()
        prepared = await self._prepared(slot.manifest)
        if not self._is_wanted(slot):
            return  # nobody holds `prepared` any more, which releases it
        if slot.prepared is None:
            self._tried_one()
        slot.prepared = prepared
        self._note(slot, prepared.problem, (monotonic_ns() - started) // 1_000_000)
        self._settled(slot.key[0])

    async def _prepared(self, manifest: Manifest) -> PreparedVersion:
        executor: Executor = _Unmade()
        problem: GatewayError | None = None
        try:
            executor = self._executor_for(manifest)
            await executor.prepare()
        except asyncio.CancelledError:
            self._start_release(executor)
            raise
        except GatewayError as error:
            # Without the tracebacks of itself and of what caused it: their frames, and from Python 3.12 on the frames
            # that called those, would hold the executor longer than anybody needs it.
            problem = error.with_traceback(None)
            problem.__cause__ = problem.__context__ = None
        except Exception as error:  # noqa: BLE001 - a defect of one executor must not keep other versions from serving
            logger().error("executor_defect", model=manifest.model, version=manifest.version, exc_info=error)
            problem = ArtifactInvalid("its executor failed; the log has the details")
        prepared = PreparedVersion(manifest, executor, problem)
        self._release_when_unused(prepared)
        return prepared

    def _note(self, slot: _Slot, problem: GatewayError | None, milliseconds: int) -> None:
        model, version = slot.key
        if problem is None:
            slot.failures = 0
            # What is forwarded needs no preparing, and a start with 50 000 of those lines would take twice as long.
            if milliseconds:
                logger().info("version_prepared", model=model, version=version, prepare_ms=milliseconds)
            return
        pause = min(_FIRST_RETRY_SECONDS * 2**slot.failures, _LAST_RETRY_SECONDS)
        slot.failures += 1
        slot.retry = asyncio.get_running_loop().call_later(pause, self._enqueue, slot)
        logger().error(
            "version_not_prepared", model=model, version=version, why=problem.message, retry_in_seconds=pause
        )

    # ── releasing ────────────────────────────────────────────────────────────────────────────────────────────────

    def _release_when_unused(self, prepared: PreparedVersion) -> None:
        """Release the executor when the last holder of `prepared` is gone.

        Snapshots hold their versions, and requests hold their snapshot (shadows just the version), so the reference
        count knows exactly when no request can reach the executor any more. One finalizer per version rather than
        one per snapshot: a version lives through many snapshots, and only the last of them may end it.
        """
        loop = asyncio.get_running_loop()
        finalizer = weakref.finalize(prepared, self._schedule_release, loop, prepared.executor)
        finalizer.atexit = False
        self._finalizers[id(prepared.executor)] = finalizer

    def _schedule_release(self, loop: asyncio.AbstractEventLoop, executor: Executor) -> None:
        # A finalizer runs wherever the last reference is dropped: in the midst of any code, perhaps in a thread.
        if not loop.is_closed():
            loop.call_soon_threadsafe(self._start_release, executor)

    def _start_release(self, executor: Executor) -> None:
        self._finalizers.pop(id(executor), None)
        self._releases.start("release version", executor.release())


class _Unmade:
    """Stands in the place of an executor that could not even be made."""

    active = 0

    async def prepare(self) -> None:
        """Not called: the factory has failed already."""

    async def ready(self) -> Readiness:
        """Never ready."""
        return Readiness(False, "its executor could not be made")

    async def execute(self, work: Work, protocol: InferProtocol) -> Result:  # noqa: ARG002 - the shape of the port
        """Refuse: callers look at `problem` first."""
        raise VersionNotReady("its executor could not be made")

    async def release(self) -> None:
        """Nothing was taken."""
