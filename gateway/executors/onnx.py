"""Versions that run in process with ONNX Runtime: fast runs on the event loop, the others in a pool of threads.

Belongs here: preparing a version, when and where it runs, and stopping it at its deadline. Never here: what ONNX
Runtime says of a model (`onnx_session`), how long a run should take (`onnx_pace`), when the fast ones have their turn
(`onnx_inline`), rules, records.

Threads: every method belongs to one event loop. What leaves it for a thread (`timed_run`, and the reading of large
bodies) has all it needs in its arguments: a session (which takes any number of runs at once), bytes or arrays that
nobody changes, and run options of its own, of which the loop sets `terminate` and nothing else.
"""

import asyncio
import statistics
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from time import monotonic_ns
from typing import Any, Final, TypeVar

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from gateway.catalog import Manifest, Signature
from gateway.config import OnnxSettings
from gateway.errors import (
    ArtifactError,
    ArtifactInvalid,
    DeadlineExceeded,
    GatewayError,
    Overloaded,
    VersionNotReady,
)
from gateway.executors.onnx_batching import Batcher, Started, can_batch
from gateway.executors.onnx_inline import InlineRuns
from gateway.executors.onnx_pace import Pace
from gateway.executors.onnx_runs import BACKEND, Feed, TimedRun, timed_run
from gateway.executors.onnx_session import DTYPES, FATAL, Loaded, load
from gateway.logs import logger
from gateway.messages import Readiness, Rendered, Result, Tensors, Work
from gateway.ports import InferProtocol
from gateway.tasks import in_task, within

_WARM_UP_RUNS: Final = 5
_WARM_UP_ENOUGH_NS: Final = 50_000_000
_WARM_UP_LIMIT_NS = 10_000_000_000

_BATCHES_AT_ONCE: Final = 2
"""Shared runs under way at once: the next batch gathers while one runs, and a second thread may take it."""
_LARGE_BODY: Final = 256 * 1024
"""Bodies above this many bytes take milliseconds to read, too long for the event loop."""

T = TypeVar("T")


class OnnxExecutor:
    """One version whose backend is an ONNX file; a `ports.Executor`.

    `pools` has a pool of threads for each lane, shared by all versions of a worker, so that slow shadows can take no
    thread from primaries. Cancelling `execute`, or its deadline, stops the run between two nodes of the graph; the
    thread then ends by itself.
    """

    def __init__(
        self,
        manifest: Manifest,
        settings: OnnxSettings,
        pools: Mapping[str, ThreadPoolExecutor],
        inline: InlineRuns | None = None,
    ) -> None:
        """`inline` is where fast runs meet those of other versions; None has this one's among themselves."""
        self._fast_runs = inline if inline is not None else InlineRuns()
        self._manifest = manifest
        self._settings = settings
        self._pools = pools
        self._pace = Pace()
        self._inline_below_ns = settings.inline_below_ms * 1e6
        self._loaded: Loaded | None = None
        self._batchers: Mapping[str, Batcher] = {}
        self._queued = dict.fromkeys(pools, 0)
        self._why = "not prepared yet"

    @property
    def active(self) -> int:
        """Nothing is under way elsewhere."""
        return 0

    async def prepare(self) -> None:
        """Read, verify, load and warm up the artifact, off the event loop.

        Raises:
            ArtifactMissing, DigestMismatch, ArtifactInvalid: with words that say what to do.
        """
        try:
            loaded = await asyncio.to_thread(load, self._manifest, self._settings)
        except ArtifactError as error:
            self._why = error.message
            raise
        await self._warm_up(loaded)
        self._batchers = self._batchers_of(loaded)
        self._loaded = loaded

    def _batchers_of(self, loaded: Loaded) -> Mapping[str, Batcher]:
        """Return what batches the slow runs of each lane; nothing, when the manifest does not ask for it."""
        manifest, backend = self._manifest, self._manifest.backend.onnx
        if backend is None or backend.batching is None:
            return {}
        if not can_batch(loaded.signature):
            self._why = (
                f"version {manifest.version} of model {manifest.model}: backend.onnx.batching needs a free first "
                "dimension in every input and output; leave it out"
            )
            raise ArtifactInvalid(self._why)
        name = f"{manifest.model}/{manifest.version}"
        return {
            lane: Batcher(
                name,
                backend.batching,
                partial(_start_run, loaded.session, pool),
                at_once=_BATCHES_AT_ONCE,
                depth=self._settings.queue_depth,
            )
            for lane, pool in self._pools.items()
        }

    async def ready(self) -> Readiness:
        """Tell whether the version is loaded, with its signature."""
        loaded = self._loaded
        return Readiness(False, self._why) if loaded is None else Readiness(True, "", loaded.signature)

    async def execute(self, work: Work, protocol: InferProtocol) -> Result:
        """Run one request.

        Raises:
            VersionNotReady: not prepared, or released.
            DeadlineExceeded: the deadline passed before or during the run.
            Overloaded: too many requests wait for a thread already.
            MalformedBody, UnsupportedEncoding, InvalidInput: the body does not fit the signature, or its values the
                model.
            ModelFailed: the model failed on input that fits its signature.
        """
        loaded = self._loaded
        if loaded is None:
            raise VersionNotReady(f"version {self._manifest.version} does not run here: {self._why}", BACKEND)
        if monotonic_ns() >= work.deadline_ns:
            raise DeadlineExceeded("the time-out had passed before the model could run", BACKEND)
        tensors = await self._decode(work, protocol, loaded.signature)
        names = tensors.outputs or tuple(loaded.datatypes)
        elements = _elements(tensors.inputs)
        submitted = monotonic_ns()
        if self._pace.expected_ns(elements) < self._inline_below_ns:
            run = self._fast_runs.submit(loaded.session, names, tensors.inputs, work.deadline_ns)
            (arrays, started, ended), taken_ns = await run
            self._pace.observe(elements, taken_ns)
        else:
            batcher = self._batchers.get(work.lane)
            if batcher is not None and batcher.splits:
                arrays, started, ended = await in_task(
                    "batched run", batcher.submit(names, tensors.inputs, work.deadline_ns)
                )
            else:
                arrays, started, ended = await self._run_in_thread(loaded.session, names, tensors.inputs, work)
                self._pace.observe(elements, ended - started)
        outputs = [(name, loaded.datatypes[name], array) for name, array in zip(names, arrays, strict=True)]
        body = protocol.encode(self._manifest.model, self._manifest.version, tensors.oip_id, outputs)
        return Result(Rendered(200, body), BACKEND, started - submitted, ended - started)

    async def release(self) -> None:
        """Drop the session. Runs that still hold it end as they would have; the last one frees it."""
        last: list[object] = [self._loaded, self._batchers]
        batchers, self._batchers = self._batchers, {}
        self._loaded, self._why = None, "released"
        for batcher in batchers.values():
            await batcher.close()
        del batchers
        await asyncio.to_thread(last.clear)  # freeing a large model takes too long for the event loop

    async def _decode(self, work: Work, protocol: InferProtocol, signature: Signature) -> Tensors:
        """Return the tensors of a body; a large one is read in a thread, beside the event loop."""
        if len(work.body) <= _LARGE_BODY:
            return protocol.decode(work.body, signature)
        return await self._in_thread(work, lambda: protocol.decode(work.body, signature))

    async def _run_in_thread(self, session: Any, names: Sequence[str], feed: Feed, work: Work) -> TimedRun:
        options = onnxruntime.RunOptions()
        options.log_severity_level = FATAL
        try:
            return await self._in_thread(work, lambda: timed_run(session, names, feed, options))
        finally:
            options.terminate = True  # nothing waits for this run any more; one that has ended does not mind

    async def _in_thread(self, work: Work, call: Callable[[], T]) -> T:
        """Return what `call` returns in a thread of the lane, unless the deadline comes first."""
        depth = self._settings.queue_depth
        if self._queued[work.lane] >= depth:
            raise Overloaded(f"{depth} requests wait for this version already; try again shortly", BACKEND)
        self._queued[work.lane] += 1
        try:
            job = self._pools[work.lane].submit(call)
            seconds = (work.deadline_ns - monotonic_ns()) / 1e9
            return await in_task("run in a thread", within(seconds, asyncio.wrap_future(job)))
        except TimeoutError:
            raise DeadlineExceeded("the request was stopped at its time-out", BACKEND) from None
        finally:
            self._queued[work.lane] -= 1

    async def _warm_up(self, loaded: Loaded) -> None:
        """Run the model on made-up input to bring it up to speed and to learn how long a run takes.

        A model that fails on every made-up input is accepted all the same: its runs start in threads.
        """
        deadline = monotonic_ns() + _WARM_UP_LIMIT_NS
        why = ""
        for fill in (1, 0):  # ones first: a loop that runs zero times would teach that the model is fast
            feed = _made_up(loaded.signature, fill)
            try:
                self._pace.observe(_elements(feed), await self._typical_ns(loaded, feed, deadline))
            except GatewayError as error:
                why = error.message
            else:
                return
        version = self._manifest.version
        logger().info("warm_up_failed", model=self._manifest.model, version=version, why=why)

    async def _typical_ns(self, loaded: Loaded, feed: Feed, deadline_ns: int) -> int:
        work = Work(b"", {}, (), deadline_ns)
        names = tuple(loaded.datatypes)
        times: list[int] = []
        while len(times) < _WARM_UP_RUNS and sum(times) < _WARM_UP_ENOUGH_NS:
            _, started, ended = await self._run_in_thread(loaded.session, names, feed, work)
            times.append(ended - started)
        return int(statistics.median(times))


def _start_run(session: Any, pool: ThreadPoolExecutor, names: Sequence[str], feed: Feed) -> Started:
    """Start a run that others may share, in a thread."""
    options = onnxruntime.RunOptions()
    options.log_severity_level = FATAL

    def stop() -> None:
        options.terminate = True  # one that has ended does not mind

    return Started(asyncio.wrap_future(pool.submit(timed_run, session, names, feed, options)), stop)


def _elements(feed: Feed) -> int:
    """Return the size of an input: elements, and for strings their characters."""
    total = 0
    for array in feed.values():
        total += array.size
        if array.dtype == np.object_:
            total += sum(map(len, array.flat))
    return total


def _made_up(signature: Signature, fill: int) -> dict[str, NDArray[Any]]:
    """Return input of batch 1 for the warm-up: every free dimension 1, every element `fill`, strings empty."""
    feed: dict[str, NDArray[Any]] = {}
    for spec in signature.inputs:
        shape = tuple(1 if size == -1 else size for size in spec.shape)
        dtype = DTYPES[spec.datatype]
        feed[spec.name] = np.full(shape, "" if spec.datatype == "BYTES" else fill, dtype=dtype)
    return feed
