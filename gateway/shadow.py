"""Shadows: after the reply has left, copies of the request go to other versions and leave records of their own.

Belongs here: sampling, limits and deadlines of copies. Never here: anything the primary waits for or depends on.
"""

from time import monotonic_ns

import msgspec
from msgspec import Struct

from gateway.attempt import Tried, attempt
from gateway.capture import capture, quotes_body, told
from gateway.config import ShadowSettings
from gateway.errors import AuditUnavailable
from gateway.identity import new_record_id
from gateway.logs import logger
from gateway.messages import InferRequest, Work
from gateway.metrics import Board, Slot
from gateway.overload import Overload
from gateway.ports import InferProtocol, RecordSink
from gateway.record import Record
from gateway.snapshot import PreparedVersion, RouteEntry, Snapshot
from gateway.tasks import Tasks
from routing import shadows_for


class _Copy(Struct):
    """One copy on its way: what a shadow needs of the request that has already been answered."""

    version: str
    prepared: PreparedVersion
    entry: RouteEntry
    request: InferRequest
    primary: Record
    protocol: InferProtocol


class Shadows:
    """Runs the copies of one worker. What is not copied is counted by reason, never queued."""

    def __init__(
        self, settings: ShadowSettings, sink: RecordSink, board: Board, overload: Overload | None = None
    ) -> None:
        """Shadows are the first that an `overload` lets go of."""
        self._settings = settings
        self._overload = overload
        self._sink = sink
        self._board = board
        self._tasks = Tasks()
        self._stopping = False

    def launch(
        self, snapshot: Snapshot, entry: RouteEntry, request: InferRequest, primary: Record, protocol: InferProtocol
    ) -> None:
        """Start the copies that the route's samples choose for this request. Called once its reply has left."""
        for shadow in shadows_for(entry.route, primary.record_id, primary.served):
            prepared = snapshot.versions.get((entry.route.model, shadow.version))
            if reason := self._refusal(prepared, request):
                self._board.add(reason)
                continue
            assert prepared is not None
            self._board.add(Slot.SHADOWS_IN_FLIGHT)
            copy = _Copy(shadow.version, prepared, entry, request, primary, protocol)
            self._tasks.start(f"shadow {entry.route.model}/{shadow.version}", self._run(copy))

    def _refusal(self, prepared: PreparedVersion | None, request: InferRequest) -> Slot | None:
        if self._stopping:
            return Slot.SHADOW_DROPPED_STOPPING
        if self._overload is not None and self._overload.pressed:
            return Slot.SHADOW_DROPPED_OVERLOAD
        if len(self._tasks) >= self._settings.max_in_flight:
            return Slot.SHADOW_DROPPED_IN_FLIGHT
        if len(request.body) > self._settings.max_body_bytes:
            return Slot.SHADOW_DROPPED_BODY_SIZE
        if prepared is None or prepared.problem is not None:
            return Slot.SHADOW_DROPPED_NOT_READY
        return None

    async def _run(self, copy: _Copy) -> None:
        started = monotonic_ns()
        work = Work(
            body=copy.request.body,
            headers=copy.request.headers,
            forward=(("x-request-id", copy.primary.request_id),),
            deadline_ns=started + self._settings.timeout_ms * 1_000_000,
            lane="shadow",
        )
        try:
            tried = await attempt(copy.version, copy.prepared, work, copy.protocol)
        finally:
            self._board.add(Slot.SHADOWS_IN_FLIGHT, -1)
        record, answered = _shadow_record(copy, tried, (monotonic_ns() - started) // 1000)
        try:
            waiting = self._sink.append(record, b"", answered)
            if waiting is not None:
                await waiting
        except AuditUnavailable:
            logger().error("shadow_not_recorded", primary_id=copy.primary.record_id, version=copy.version)

    async def drain(self, seconds: float) -> None:
        """Start no more copies, give the running ones up to `seconds`, and cancel what is left."""
        self._stopping = True
        cancelled = await self._tasks.drain(seconds)
        self._board.add(Slot.SHADOW_DROPPED_STOPPING, cancelled)


def _shadow_record(copy: _Copy, tried: Tried, total_us: int) -> tuple[Record, bytes]:
    """Return the record of a copy and the part of its response. The request is the primary's, and kept with that."""
    primary, policy = copy.primary, copy.entry.route.capture
    rendered = tried.rendered
    if rendered is None:
        assert tried.error is not None
        rendered = copy.protocol.render_error(tried.error)
    kept = "digest" if quotes_body(tried.error, policy) else policy.response
    response, answered = capture(rendered.body, kept, policy)
    record = msgspec.structs.replace(
        primary,
        record_id=new_record_id(primary.received_ns),
        primary_id=primary.record_id,
        role="shadow",
        intended=copy.version,
        served=copy.version if tried.rendered is not None else None,
        digest=copy.prepared.manifest.digest,
        reason="shadow",
        rule="shadows",
        cohort=None,
        outcome=tried.outcome,
        status=rendered.status,
        response=response,
        error_code=tried.error_code,
        error=told(tried.error, policy),
        attempts=(tried.attempt,),
        route_us=0,
        queue_us=tried.queue_us,
        infer_us=tried.attempt.infer_us,
        total_us=total_us,
        streamed=None,
        head_us=0,
    )
    return record, answered
