"""What passes between wire, protocol, data plane and executor: one request on its way in and its answer on the way out.

Belongs here: shapes without behaviour. Never here: HTTP framework objects, or anything that is kept for longer than
one request (that is `record`).
"""

from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, Protocol

from msgspec import Struct
from numpy.typing import NDArray

from gateway.arrival import Arrival
from gateway.catalog import Signature
from gateway.errors import GatewayError, RequestError
from gateway.record import Outcome

Lane = Literal["primary", "shadow"]
"""Whose work it is, so that copies can take nothing from requests that somebody waits for."""
Headers = tuple[tuple[str, str], ...]
HUNG_UP: Final = "the caller hung up"
"""What the wire says when it cancels the work on a request whose caller is gone (`Task.cancel`'s message)."""


class WireRequest(Struct):
    """One request as it came over HTTP, free of any framework.

    `path` is percent-decoded; `headers` has lower-case names and the first value of each. `received_ns` is Unix time
    and `started_ns` the monotonic clock, both in ns, taken when the head of the request had arrived.
    `refused` is set when the wire already knows the answer (malformed, too large, too slow, caller gone); `body` is
    then empty and `declared_size` what the caller announced. Without an `outlet`, every reply has to come whole.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    client: str
    received_ns: int
    started_ns: int
    refused: RequestError | None = None
    declared_size: int = 0
    outlet: "Outlet | None" = None


class WireReply(Struct):
    """One reply to send. `after_sent`, if given, is called once when the reply has left (shadows start there).

    `lines` are headers, too, and come before the others: as they are written, each with its line end. Of a reply that
    has been sent piece by piece, all that counts is whether it is `broken`: the caller must not take it for whole.
    """

    status: int
    headers: Headers
    body: bytes
    after_sent: Callable[[], None] | None = None
    lines: str = ""
    broken: bool = False


class InferRequest(Struct):
    """One inference request for the data plane. Names are as the caller gave them, checked by nobody yet.

    `refused` is an error found before the data plane; it is recorded like any other refusal.
    """

    model: str
    asked_version: str | None
    headers: Mapping[str, str]
    body: bytes
    client: str
    received_ns: int
    started_ns: int
    refused: RequestError | None = None
    declared_size: int = 0
    outlet: "Outlet | None" = None


class Rendered(Struct, frozen=True):
    """An answer or an error in the words of a protocol. `headers` are the backend's, already allow-listed."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Headers = ()


class Answer(Struct):
    """What the data plane answers: the rendered reply and what a protocol says about it in its headers.

    Times are in µs. Of a request without a record, `record_id` is empty, and `request_id` unless the caller named one.
    `launch_shadows` is called by the wire when the reply has left.
    """

    rendered: Rendered
    record_id: str
    request_id: str
    outcome: Outcome
    model: str
    served: str | None
    digest: str | None
    revision: int | None
    reason: str | None
    cohort: str | None
    route_us: int
    queue_us: int
    infer_us: int
    total_us: int
    error: GatewayError | None = None
    launch_shadows: Callable[[], None] | None = None


class Tensors(Struct):
    """The decoded inputs of a request: arrays by name, each of the shape and dtype of the signature.

    `outputs` are the names asked for, in order; empty means all. BYTES tensors are object arrays of `str`.
    """

    inputs: dict[str, NDArray[Any]]
    outputs: tuple[str, ...] = ()
    oip_id: str | None = None


class Work(Struct):
    """One execution for an executor. `deadline_ns` is on the monotonic clock. `forward` are headers for a backend.

    `timeout_ms` is what the route allows for the whole request, 0 where no route does; `avoid` are backends that have
    failed at it. Without a `relay`, every answer has to come whole.
    """

    body: bytes
    headers: Mapping[str, str]
    forward: Headers
    deadline_ns: int
    lane: Lane = "primary"
    timeout_ms: int = 0
    avoid: tuple[str, ...] = ()
    relay: "Relay | None" = None


class Result(Struct):
    """What an executor returns. Times are in ns. `backend` is `onnx` or the URL that answered.

    `rendered.status` below 400 is an answer, 4xx a backend's refusal, above that a backend's failure, passed on.
    """

    rendered: Rendered
    backend: str
    queue_ns: int
    infer_ns: int


class Readiness(Struct, frozen=True):
    """Whether a version can serve now, why not, and its signature if it is known."""

    ready: bool
    why: str = ""
    signature: Signature | None = None


# ── answers that come piece by piece ─────────────────────────────────────────────────────────────────────────────


class Flow(Protocol):
    """The body of an answer, as it comes. `paused` tells that its backend has to wait.

    Whoever is given one starts it at once, or closes it.
    """

    paused: bool

    def start(self, take: Callable[[bytes], None]) -> Arrival[None]:
        """Have every piece given to `take` as it comes, and return what tells when all have, or what broke it off
        (a `ServingError`).
        """

    def pause(self) -> None:
        """Let the backend wait; some of what it has sent may still come."""

    def resume(self) -> None:
        """Let it go on."""

    def close(self) -> None:
        """Want no more of it, so that the backend stops. Nothing happens if it has ended."""


class Outlet(Protocol):
    """Where a caller is sent an answer piece by piece. What ends it is the reply to the request."""

    def begin(self, answer: Answer, flow: Flow) -> Callable[[bytes], None]:
        """Send the head of an answer, and return what sends a piece of its body. While the caller takes nothing more,
        `flow` is paused.

        Raises:
            ValueError: the head cannot be written; nothing is sent.
        """


class Begun(Struct, frozen=True):
    """An answer whose head has come: of which version and backend, to a try begun at `started_ns` (monotonic).

    `rendered` has no body; that is in the flow.
    """

    rendered: Rendered
    version: str
    backend: str
    started_ns: int
    flow: Flow


class Relay(Protocol):
    """A request whose caller can be sent its answer as it comes."""

    async def pass_on(self, begun: Begun) -> None:
        """Send all of it on, and return when it has come to its end.

        Raises:
            ServingError: what broke it off.
            ClientClosed: the caller was too slow to take it in time.
        """
