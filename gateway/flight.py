"""What is known so far of one request in flight; its record is made from this, however the request ends.

Belongs here: collecting facts on the way, those of a streamed answer as it passes among them, and turning them into a
record. Never here: deciding or executing.
"""

from asyncio import CancelledError
from collections.abc import Mapping
from time import monotonic_ns
from typing import Final

from msgspec import Struct

from gateway.attempt import Tried
from gateway.capture import SALT_BYTES, capture, capture_unseen, quotes_body, told
from gateway.errors import GatewayError, ServingError
from gateway.identity import new_record_id, new_salts, request_id_of, trace_id_of
from gateway.messages import Answer, Begun, InferRequest, Rendered
from gateway.record import Attempt, Outcome, Record
from gateway.snapshot import RouteEntry, Snapshot
from gateway.streaming import Stream
from routing import Capture, Decision, Facts, routing_key, unit_digest

_DEFAULT_CAPTURE: Final = Capture()
_NO_HEADERS: Final[Mapping[str, str]] = {}
_LONGEST_NAME: Final = 256  # beyond every legal name of a model or version
LONGEST_ID: Final = 1024
"""How much of a body's own id a record keeps, in characters; such a request is found by the id so cut."""
_LONGEST_VALUE: Final = 1025  # one more than any value of a cohort's clause, so a cut value still matches none


class Origin(Struct, frozen=True):
    """Who writes the record: the gateway and the worker in it; and the lower-case names of the headers it may keep."""

    gateway: str
    worker: str
    record_headers: tuple[str, ...] = ()


class Flight(Struct, eq=False):
    """One request from its arrival to its record. Fields fill in as the request passes; none is ever taken back.

    It is the `messages.Relay` of its request. Once it is `streamed`, the caller has the head of the answer.
    """

    request: InferRequest
    record_id: str
    request_id: str
    snapshot: Snapshot | None = None
    entry: RouteEntry | None = None
    facts: Facts | None = None
    decision: Decision | None = None
    oip_id: str | None = None
    attempts: tuple[Attempt, ...] = ()
    served: str | None = None
    digest: str | None = None
    outcome: Outcome = "failed"
    error: GatewayError | None = None
    error_code: str | None = None
    route_us: int = 0
    queue_us: int = 0
    streamed: Stream | None = None

    def collect(self, entry: RouteEntry, braked: tuple[str, ...] = ()) -> Facts:
        """Gather the facts that the rules of `entry` look at, and nothing else of the request.

        `braked` are the versions that the brake diverts from now.
        """
        headers = self.request.headers
        key = routing_key(entry.route, headers)
        self.facts = Facts(
            unit_digest(key if key is not None else self.record_id),
            self.record_id,
            self.request.received_ns,
            key is not None,
            self.request.asked_version,
            {name: headers[name][:_LONGEST_VALUE] for name in entry.consulted if name in headers}
            if entry.consulted
            else _NO_HEADERS,
            braked=braked,
        )
        return self.facts

    def tried(self, tried: Tried) -> None:
        """Note one try; the last one noted says how the request ended."""
        self.attempts += (tried.attempt,)
        self.queue_us += tried.queue_us
        self.outcome = tried.outcome
        self.error = tried.error if tried.error is None else _without_frames(tried.error)
        self.error_code = tried.error_code

    def fail(self, error: GatewayError) -> None:
        """Note an error outside any try."""
        self.outcome = "failed" if isinstance(error, ServingError) else "refused"
        self.error = _without_frames(error)
        self.error_code = error.code

    async def pass_on(self, begun: Begun) -> None:
        """Have the caller sent an answer as it comes; see `messages.Relay`."""
        outlet, entry, decision = self.request.outlet, self.entry, self.decision
        assert outlet is not None  # or the answer would have been asked for whole
        assert entry is not None
        assert decision is not None
        now_ns = monotonic_ns()
        head_us = self.infer_us + (now_ns - begun.started_ns) // 1000
        answer = Answer(
            begun.rendered,
            self.record_id,
            self.request_id,
            "served",
            entry.route.model,
            begun.version,
            None,
            entry.revision,
            decision.reason,
            decision.cohort,
            self.route_us,
            self.queue_us,
            head_us,
            (now_ns - self.request.started_ns) // 1000,
        )
        try:
            send = outlet.begin(answer, begun.flow)
        except Exception:
            begun.flow.close()
            raise
        self.served = begun.version
        self.streamed = stream = Stream(begun, head_us, entry.route.capture, send)
        try:
            await stream.run()
        except CancelledError:
            self.attempts += (stream.given_up(),)
            raise

    @property
    def infer_us(self) -> int:
        """Time in executors, all tries together, in µs."""
        return sum(attempt.infer_us for attempt in self.attempts)

    def record(self, rendered: Rendered, protocol: str, origin: Origin, stale: bool) -> tuple[Record, bytes, bytes]:
        """Return the record of this request as answered by `rendered`, and the parts of request and response."""
        request, decision, facts, entry = self.request, self.decision, self.facts, self.entry
        policy = entry.route.capture if entry is not None else _DEFAULT_CAPTURE
        body, salts = request.body, new_salts()
        if request.declared_size > len(body):
            incoming, asked = capture_unseen(request.declared_size)
        else:
            incoming, asked = capture(body, policy.request, policy, salts[:SALT_BYTES])
        error, outcome, attempts = self.error, self.outcome, self.attempts
        kept = "digest" if error is not None and quotes_body(error, policy) else policy.response
        outgoing, answered = capture(rendered.body, kept, policy, salts[SALT_BYTES:])
        record = Record(
            record_id=self.record_id,
            request_id=self.request_id,
            role="primary",
            received_ns=request.received_ns,
            model=entry.route.model if entry is not None else _cut(request.model),
            protocol=protocol,
            outcome=outcome,
            status=rendered.status,
            request=incoming,
            response=outgoing,
            oip_id=_recordable_id(self.oip_id, policy) if self.oip_id is not None else None,
            asked_version=_cut(request.asked_version) if request.asked_version is not None else None,
            intended=decision.intended if decision is not None else None,
            served=self.served,
            digest=self.digest,
            revision=entry.revision if entry is not None else None,
            cohort_revision=entry.cohort_revision if entry is not None else None,
            rules_revision=self.snapshot.head.revision if self.snapshot is not None else None,
            reason=decision.reason if decision is not None else None,
            rule=decision.rule if decision is not None else None,
            cohort=decision.cohort if decision is not None else None,
            unit=facts.unit.hex() if facts is not None else None,
            keyed=facts.keyed if facts is not None else False,
            headers=facts.headers if facts is not None else _NO_HEADERS,
            known_model=entry is not None,
            error_code=self.error_code,
            error=told(error, policy) if error is not None else None,
            attempts=attempts,
            route_us=self.route_us,
            queue_us=self.queue_us,
            infer_us=attempts[0].infer_us if len(attempts) == 1 else self.infer_us,
            total_us=(monotonic_ns() - request.started_ns) // 1000,
            client=request.client,
            gateway=origin.gateway,
            worker=origin.worker,
            trace_id=trace_id_of(request.headers) if "traceparent" in request.headers else None,
            stale=stale,
            kept_headers=_allowed(request.headers, origin.record_headers) if origin.record_headers else _NO_HEADERS,
            braked=facts.braked if facts is not None else (),
        )
        if self.streamed is not None:
            record, answered = self.streamed.note(record, salts[SALT_BYTES:])
        return record, asked, answered


def begin(request: InferRequest) -> Flight:
    """Return the flight of a request that has just arrived."""
    record_id = new_record_id(request.received_ns)
    return Flight(request, record_id, request_id_of(request.headers, record_id))


def _without_frames(error: GatewayError) -> GatewayError:
    """Return an error that holds on to no frame of the request any more, which would hold on to the error in turn: with
    the connection, all of it would be left to the garbage collector.
    """
    error.__traceback__ = error.__context__ = error.__cause__ = None
    return error


def _cut(text: str) -> str:
    """Return a name as a caller gave it, cut where no legal name could be that long: a record stays small."""
    return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}…"


def _recordable_id(oip_id: str, policy: Capture) -> str | None:
    """Return the body's own id as the record keeps it: not at all when the policy redacts it, and never without end."""
    if "/id" in policy.redact:
        return None
    return oip_id if len(oip_id) <= LONGEST_ID else oip_id[:LONGEST_ID]


def _allowed(headers: Mapping[str, str], names: tuple[str, ...]) -> Mapping[str, str]:
    return {name: headers[name][:_LONGEST_VALUE] for name in names if name in headers}
