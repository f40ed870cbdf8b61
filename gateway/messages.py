"""What passes between wire, protocol, data plane and executor: one request on its way in and its answer on the way out.

Belongs here: shapes without behaviour. Never here: HTTP framework objects, or anything that is kept for longer than
one request (that is `record`).
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

from msgspec import Struct
from numpy.typing import NDArray

from gateway.catalog import Signature
from gateway.errors import GatewayError, RequestError
from gateway.record import Outcome

Lane = Literal["primary", "shadow"]
"""Whose work it is, so that copies can take nothing from requests that somebody waits for."""
Headers = tuple[tuple[str, str], ...]
HUNG_UP = "the caller hung up"
"""What the wire says when it cancels the work on a request whose caller is gone (`Task.cancel`'s message)."""


class WireRequest(Struct):
    """One request as it came over HTTP, free of any framework.

    `path` is percent-decoded; `headers` has lower-case names and the first value of each. `received_ns` is Unix time
    and `started_ns` the monotonic clock, both in ns, taken when the head of the request had arrived.
    `refused` is set when the wire already knows the answer (malformed, too large, too slow, caller gone); `body` is
    then empty and `declared_size` what the caller announced.
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


class WireReply(Struct):
    """One reply to send. `after_sent`, if given, is called once when the reply has left (shadows start there).

    `lines` are headers, too, and come before the others: as they are written, each with its line end.
    """

    status: int
    headers: Headers
    body: bytes
    after_sent: Callable[[], None] | None = None
    lines: str = ""


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
    failed at it.
    """

    body: bytes
    headers: Mapping[str, str]
    forward: Headers
    deadline_ns: int
    lane: Lane = "primary"
    timeout_ms: int = 0
    avoid: tuple[str, ...] = ()


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
