"""One try at having a version answer, told as data: primaries, fallbacks and shadows all try through here.

Belongs here: turning whatever an executor does into one outcome. Never here: choosing the version or recording.
"""

import asyncio
from time import monotonic_ns
from typing import Final

from msgspec import Struct

from gateway.errors import BackendStatus, GatewayError, InternalError, Overloaded, ServingError, VersionNotReady
from gateway.logs import logger
from gateway.messages import Rendered, Work
from gateway.ports import InferProtocol
from gateway.record import Attempt, Outcome
from gateway.snapshot import PreparedVersion

FALLBACK_STATUSES: Final = frozenset({502, 503, 504})


class Tried(Struct):
    """What came of one try. Exactly one of `rendered` and `error` is set."""

    attempt: Attempt
    outcome: Outcome
    rendered: Rendered | None
    error: GatewayError | None
    error_code: str | None
    queue_us: int

    @property
    def took_us(self) -> int:
        """Time until it answered or failed, waiting for its turn included, in µs."""
        return self.attempt.infer_us + self.queue_us

    @property
    def may_fall_back(self) -> bool:
        """Whether another version may be tried: the version failed, and not by judging the request itself."""
        if self.error is not None:
            return isinstance(self.error, ServingError)
        return self.attempt.status in FALLBACK_STATUSES


def refuse_crowded(version: str, most: int) -> Tried:
    """Return the try that is not made, because the version has as many requests as it answers in its time."""
    message = f"version {version} answers no more than {most} requests at once in its usual time; try again shortly"
    return _failed(version, monotonic_ns(), Overloaded(message))


async def attempt(version: str, prepared: PreparedVersion, work: Work, protocol: InferProtocol) -> Tried:
    """Run `work` on a prepared version. Never raises, but for cancellation."""
    started = monotonic_ns()
    if prepared.problem is not None:
        message = f"version {version} could not be prepared: {prepared.problem.message}"
        return _failed(version, started, VersionNotReady(message))
    try:
        result = await prepared.executor.execute(work, protocol)
    except GatewayError as error:
        return _failed(version, started, error)
    except asyncio.CancelledError:
        raise
    except Exception as error:  # noqa: BLE001 - a defect of an executor is one failed request, never a dead worker
        logger().error("executor_defect", version=version, exc_info=error)
        return _failed(version, started, InternalError("the version's executor failed; the log has the details"))
    status = result.rendered.status
    return Tried(
        attempt=Attempt(version, result.backend, result.infer_ns // 1000, status),
        outcome="served" if status < 400 else "refused" if status < 500 else "failed",
        rendered=result.rendered,
        error=None,
        error_code=None if status < 400 else BackendStatus.code,
        queue_us=result.queue_ns // 1000,
    )


def _failed(version: str, started: int, error: GatewayError) -> Tried:
    backend = error.backend if isinstance(error, ServingError) else ""
    elapsed = (monotonic_ns() - started) // 1000
    return Tried(
        attempt=Attempt(version, backend, elapsed, error=error.code),
        outcome="failed" if isinstance(error, ServingError) else "refused",
        rendered=None,
        error=error,
        error_code=error.code,
        queue_us=0,
    )
