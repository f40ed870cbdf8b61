"""THE path of a request: one snapshot → resolve → execute → record → reply → shadow.

A streamed answer is on its way to the caller while it executes; what is left for the reply is then its end.

Belongs here: the order of those steps, once, for every wire protocol. Never here: SQL, Redis, names of protocols,
building HTTP, choosing a version in any way but `routing.resolve`, or what is asked besides (`inquiries`).
"""

import asyncio
from collections.abc import Iterator
from time import monotonic_ns

from gateway.attempt import attempt, refuse_crowded
from gateway.draws import Draws
from gateway.errors import (
    AuditUnavailable,
    ClientClosed,
    GatewayError,
    InternalError,
    Overloaded,
    Stopping,
    VersionNotAllowed,
)
from gateway.flight import Flight, Origin, begin
from gateway.guards import Guards
from gateway.identity import request_id_of
from gateway.inquiries import cut, no_such_model, no_such_version
from gateway.logs import logger
from gateway.messages import HUNG_UP, Answer, Headers, InferRequest, Rendered, Work
from gateway.metrics import Board, Slot
from gateway.ports import InferProtocol, RecordSink
from gateway.record import Record
from gateway.request_lines import RequestLines
from gateway.retrying import Retries
from gateway.shadow import Shadows
from gateway.snapshot import PreparedVersion, RouteEntry, Rules, Snapshot
from gateway.timeouts import deadline_of
from routing import Decision, VersionDenied, draw, resolve


class DataPlane:
    """Serves the requests of one worker."""

    def __init__(  # noqa: PLR0917 - the composition root names every part it connects
        self,
        rules: Rules,
        sink: RecordSink,
        shadows: Shadows,
        board: Board,
        origin: Origin,
        lines: RequestLines,
        guards: Guards | None = None,
    ) -> None:
        self._rules = rules.current
        self._sink = sink
        self._shadows = shadows
        self._board = board
        self._retries = Retries(board)
        self._draws = Draws()
        self._origin = origin
        self._lines = lines
        self._guards = guards if guards is not None else Guards(board)

    async def infer(self, request: InferRequest, protocol: InferProtocol) -> Answer:
        """Serve one request and record it. Never raises, but for cancellation: errors are in the answer."""
        guards = self._guards
        if guards.overload.pressed and request.refused is None and guards.sheds(request, self._rules.snapshot):
            return _shed(request, protocol)
        flight = begin(request)
        try:
            self._sink.check()
        except AuditUnavailable as error:
            return self._refuse_unrecorded(flight, error, protocol)
        self._board.add(Slot.IN_FLIGHT)
        try:
            self._begin(flight, protocol)
            rendered = await self._execute(flight, protocol)
        except GatewayError as error:
            flight.fail(error)
            rendered = protocol.render_error(error)
        except asyncio.CancelledError as cancelled:
            self._record_cancelled(flight, _why_cancelled(cancelled), protocol)
            raise
        except Exception as defect:  # noqa: BLE001 - a defect is one failed request with a record, never a dead worker
            logger().error("defect", record_id=flight.record_id, exc_info=defect)
            internal = InternalError(f"the gateway failed; its log has the details under record id {flight.record_id}")
            flight.fail(internal)
            rendered = protocol.render_error(internal)
        finally:
            self._board.add(Slot.IN_FLIGHT, -1)
            request.outlet = None
        return await self._finish(flight, rendered, protocol)

    def _begin(self, flight: Flight, protocol: InferProtocol) -> None:
        """Take the rules in force, and decide by them."""
        request = flight.request
        flight.snapshot = snapshot = self._rules.snapshot
        flight.entry = entry = snapshot.routes.get(request.model) if snapshot is not None else None
        if request.refused is not None:
            raise request.refused
        if snapshot is None or entry is None:
            raise no_such_model(request.model, snapshot)
        flight.decision = self._decide(flight, entry, snapshot)
        protocol.check(request.headers)
        flight.oip_id = protocol.peek(request.body)

    def _decide(self, flight: Flight, entry: RouteEntry, snapshot: Snapshot) -> Decision:
        started = monotonic_ns()
        braked = self._guards.brakes.braked(entry) if entry.route.brake is not None else ()
        facts = flight.collect(entry, braked)
        try:
            decision = resolve(entry.route, snapshot.cohorts, facts, self._draws.draw if facts.keyed else draw)
        except VersionDenied as denied:
            raise VersionNotAllowed(
                f"the route of model {entry.route.model} does not let callers name a version "
                f"(asked for {cut(str(denied))}); leave /versions/… out of the path"
            ) from None
        if (entry.route.model, decision.version) not in snapshot.versions:
            raise no_such_version(entry, decision.version, snapshot)
        flight.route_us = (monotonic_ns() - started) // 1000
        return decision

    async def _execute(self, flight: Flight, protocol: InferProtocol) -> Rendered:
        """Have the version that was decided answer, and if it fails, the route's fallbacks in order."""
        request, decision, entry, snapshot = flight.request, flight.decision, flight.entry, flight.snapshot
        assert decision is not None  # or it had been refused
        assert entry is not None
        assert snapshot is not None
        route = entry.route
        deadline_ns = deadline_of(request.headers, request.started_ns, route.timeout_ms)
        relay = flight if request.outlet is not None else None
        work = Work(
            request.body, request.headers, _forward_headers(flight), deadline_ns, "primary", route.timeout_ms, (), relay
        )
        version, prepared = decision.version, snapshot.versions[route.model, decision.version]
        others: Iterator[tuple[str, PreparedVersion]] | None = None
        while True:
            limit = prepared.limit
            if limit.in_flight < limit.most:
                limit.in_flight += 1
                try:
                    tried = await attempt(version, prepared, work, protocol)
                    flight.tried(tried)
                    if tried.outcome != "served":
                        tried = await self._retries.run(
                            tried,
                            version=version,
                            prepared=prepared,
                            work=work,
                            protocol=protocol,
                            route=route,
                            versions=snapshot.versions,
                            note=flight.tried,
                        )
                finally:
                    limit.in_flight -= 1
            else:
                limit.refused += 1
                tried = refuse_crowded(version, limit.most)
                flight.tried(tried)
            self._guards.tried(entry, snapshot, limit, tried, work)
            if tried.outcome == "served" or flight.streamed is not None:
                break
            if others is None:
                others = _fallbacks(decision, entry, snapshot)
            following = next(others, None) if tried.may_fall_back and monotonic_ns() < deadline_ns else None
            if following is None:
                break
            version, prepared = following
        if tried.rendered is None:
            assert tried.error is not None
            return protocol.render_error(tried.error)
        flight.served, flight.digest = version, prepared.manifest.digest
        return tried.rendered

    async def _finish(self, flight: Flight, rendered: Rendered, protocol: InferProtocol) -> Answer:
        record, asked, answered = flight.record(rendered, protocol.name, self._origin, self._rules.stale)
        recorded = True
        try:
            waiting = self._sink.append(record, asked, answered)
            if waiting is not None:
                await waiting
        except AuditUnavailable as error:
            self._board.add(Slot.REFUSED_UNRECORDED)
            flight.fail(error)
            recorded, rendered = False, protocol.render_error(error)
        self._write_line(flight, record, rendered.status)
        answer = _answer(flight, record, rendered)
        entry, snapshot = flight.entry, flight.snapshot
        if recorded and entry is not None and snapshot is not None and entry.route.shadows and flight.attempts:
            answer.launch_shadows = lambda: self._shadows.launch(snapshot, entry, flight.request, record, protocol)
        return answer

    def _refuse_unrecorded(self, flight: Flight, error: AuditUnavailable, protocol: InferProtocol) -> Answer:
        """Refuse a request of which no record can be kept now; it is counted on the board, where nothing can be
        lost.
        """
        self._board.add(Slot.REFUSED_UNRECORDED)
        flight.fail(error)
        rendered = protocol.render_error(error)
        record, _, _ = flight.record(rendered, protocol.name, self._origin, self._rules.stale)
        self._write_line(flight, record, rendered.status)
        return _answer(flight, record, rendered)

    def _record_cancelled(self, flight: Flight, why: GatewayError, protocol: InferProtocol) -> None:
        """Record a request that nobody waits for any more; so nobody waits for the disk, either."""
        flight.fail(why)
        rendered = protocol.render_error(why)
        record, asked, answered = flight.record(rendered, protocol.name, self._origin, self._rules.stale)
        try:
            self._sink.append(record, asked, answered)
        except AuditUnavailable:
            self._board.add(Slot.REFUSED_UNRECORDED)
        self._write_line(flight, record, rendered.status)

    def _write_line(self, flight: Flight, record: Record, status: int) -> None:
        self._lines.write(
            flight.outcome,
            request_id=record.request_id,
            record_id=record.record_id,
            model=record.model if record.known_model else cut(record.model),
            version=record.served,
            reason=record.reason,
            revision=record.revision,
            status=status if flight.streamed is None else record.status,
            total_us=record.total_us,
            error_code=flight.error_code,
        )

    def look(self) -> None:
        """Let go of what is known of rules that are no longer in force. To be called every moment."""
        self._guards.brakes.look(self._rules.snapshot)


def _shed(request: InferRequest, protocol: InferProtocol) -> Answer:
    """Return the refusal of a request of which nothing was looked at; it has no record, so it has no record id."""
    error = Overloaded("the gateway has more to do than it can; send the request again a little later")
    return Answer(
        rendered=protocol.render_error(error),
        record_id="",
        request_id=request_id_of(request.headers, ""),
        outcome="failed",
        model=request.model,
        served=None,
        digest=None,
        revision=None,
        reason=None,
        cohort=None,
        route_us=0,
        queue_us=0,
        infer_us=0,
        total_us=0,
        error=error,
    )


def _why_cancelled(cancelled: asyncio.CancelledError) -> GatewayError:
    if HUNG_UP in cancelled.args:
        return ClientClosed("the caller hung up before it had its answer")
    return Stopping("the gateway stopped before the request had ended; send it again")


def _fallbacks(decision: Decision, entry: RouteEntry, snapshot: Snapshot) -> Iterator[tuple[str, PreparedVersion]]:
    """Yield the route's fallbacks in order, unless the caller named the version; none that was tried already."""
    tried = {decision.version}
    for name in entry.route.fallback if decision.reason != "explicit" else ():
        prepared = snapshot.versions.get((entry.route.model, name))
        if prepared is not None and name not in tried:
            tried.add(name)
            yield name, prepared


def _forward_headers(flight: Flight) -> Headers:
    trace = flight.request.headers.get("traceparent")
    names = ("x-request-id", flight.request_id)
    return (names, ("traceparent", trace)) if trace is not None else (names,)


def _answer(flight: Flight, record: Record, rendered: Rendered) -> Answer:
    return Answer(
        rendered,
        record.record_id,
        record.request_id,
        flight.outcome,
        record.model,
        record.served,
        record.digest,
        record.revision,
        record.reason,
        record.cohort,
        record.route_us,
        record.queue_us,
        record.infer_us,
        record.total_us,
        flight.error,
    )
