"""The sockets of serving: wire protocols, executors, and the client that calls backends.

Belongs here: the shape of each as the data plane wants it. Never here: an implementation, or a library behind it.
"""

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Any, Protocol

from msgspec import Struct
from numpy.typing import NDArray

from gateway.catalog import Manifest, Signature
from gateway.errors import GatewayError
from gateway.messages import Flow, Headers, Readiness, Rendered, Result, Tensors, Work

Flows = Callable[[int, Headers], bool]
"""Tells by the status and the headers of a backend's answer, names in lower case, whether to hand it on as it comes."""


class InferProtocol(Protocol):
    """One wire protocol's half of an inference: bodies to tensors and back, errors to bodies."""

    @property
    def name(self) -> str:
        """The name that records carry."""

    def check(self, headers: Mapping[str, str]) -> None:
        """Refuse what the protocol's headers announce and the gateway does not speak. Raises `RequestError`."""

    def peek(self, body: bytes) -> str | None:
        """Return the body's own id after checking that it is well-formed. Raises `MalformedBody`."""

    def decode(self, body: bytes, signature: Signature) -> Tensors:
        """Return the tensors of a body. Raises `MalformedBody` or `InvalidInput`."""

    def encode(
        self, model: str, version: str, oip_id: str | None, outputs: Sequence[tuple[str, str, NDArray[Any]]]
    ) -> bytes:
        """Return the body of an answer; `outputs` are (name, datatype, array)."""

    def render_error(self, error: GatewayError) -> Rendered:
        """Return an error with the protocol's status for its code."""


class Executor(Protocol):
    """One version, however it runs."""

    @property
    def active(self) -> int:
        """How many of its requests are under way at backends elsewhere; 0 for what runs in process."""

    async def prepare(self) -> None:
        """Load, verify and warm up; afterwards `execute` may be called. Raises `ArtifactError`."""

    async def ready(self) -> Readiness:
        """Tell whether the version can serve now, with its signature."""

    async def execute(self, work: Work, protocol: InferProtocol) -> Result:
        """Run one request. Raises `RequestError` or `ServingError` (with its `backend`)."""

    async def release(self) -> None:
        """Give back what `prepare` took. Called once, when no request can reach the version any more."""


ExecutorFactory = Callable[[Manifest], Executor]


class UpstreamReply(Struct, frozen=True):
    """A backend's answer. Header names are lower-case. With a `flow`, its `body` is empty and still to come."""

    status: int
    headers: Headers
    body: bytes
    flow: Flow | None = None


class UpstreamStream(Protocol):
    """A backend's answer that is read as it comes: iterate for the pieces of its body. Header names are lower-case.

    A backend that sends faster than it is read has to wait.
    """

    status: int
    headers: Headers

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Return an iterator over the pieces that are still to come. It raises what `UpstreamClient` raises."""


class UpstreamClient(Protocol):
    """A pooled HTTP client.

    Raises `BackendUnreachable`, `BackendProtocolError`, `DeadlineExceeded`, `Overloaded` or `Stopping`. Each `lane`
    (`primary`, `shadow`, `probe`) has connections of its own.
    """

    async def request(
        self,
        *,
        method: str,
        url: str,
        headers: Headers,
        body: bytes,
        deadline_ns: int,
        lane: str,
        flows: Flows | None = None,
    ) -> UpstreamReply:
        """Send one request and return the whole answer before `deadline_ns` (monotonic).

        Of an answer that `flows`, going by status and headers, only the head is waited for, unless all is there with
        it. Who is given its flow starts it at once or closes it; the deadline is for all of it.
        """

    def stream(
        self,
        *,
        method: str,
        url: str,
        headers: Headers,
        body: bytes | AsyncIterator[bytes],
        deadline_ns: int,
        lane: str,
    ) -> AbstractAsyncContextManager[UpstreamStream]:
        """Send one request, its body whole or piece by piece, and give the answer as it comes.

        The whole answer has to come before `deadline_ns` (monotonic); leaving the block ends it.
        """

    async def close(self) -> None:
        """Close every connection."""
