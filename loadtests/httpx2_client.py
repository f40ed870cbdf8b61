"""The client that called backends before `gateway.wire.client`, on httpx2: what `client_cost.py` measures that against.

It keeps the same promises in another library's way, and is used nowhere else.
"""

import asyncio
import os
import time
from collections.abc import AsyncGenerator, AsyncIterable, Mapping
from contextlib import aclosing, suppress
from typing import Any, cast

import anyio
import httpx2

from gateway import __version__
from gateway.errors import BackendProtocolError, BackendUnreachable, DeadlineExceeded, ServingError, Stopping
from gateway.messages import Headers
from gateway.ports import UpstreamReply
from gateway.tasks import Tasks

LANES = ("primary", "shadow")
_OWN_HEADERS = ((b"user-agent", f"pointsman/{__version__}".encode()), (b"accept-encoding", b"identity"))
_CUT_OFF = ("Server disconnected", "peer closed connection")
"""How the library's messages begin when a connection ends early; for it that is a protocol error like any other."""

_Outcome = UpstreamReply | ServingError | None
"""How an exchange ends: the answer, the error that stands for it, or None when it was stopped first."""


class HttpxClient:
    """An `UpstreamClient` with one pool of connections per lane, so that no shadow ever takes a primary's connection.

    It sends what it is given and adds only `host`, `content-length`, `user-agent` and `accept-encoding: identity`; it
    follows no redirect, keeps no cookie, reads no proxy from the environment and hands the body on as it came.
    """

    def __init__(
        self,
        *,
        max_connections: int,
        keepalive_seconds: float,
        connect_timeout_ms: int,
        max_response_bytes: int = 256 * 2**20,
    ) -> None:
        """Open no connection yet. `max_connections` counts per lane, over all backends."""
        limits = httpx2.Limits(
            max_connections=max_connections,
            max_keepalive_connections=max_connections,
            keepalive_expiry=keepalive_seconds,
        )
        trusted = httpx2.create_ssl_context(trust_env=False)
        self._pools: Mapping[str, httpx2.AsyncHTTPTransport] = {
            lane: httpx2.AsyncHTTPTransport(verify=trusted, trust_env=False, limits=limits) for lane in LANES
        }
        self._connect_timeout_ms = connect_timeout_ms
        self._max_response_bytes = max_response_bytes
        self._exchanges = Tasks()

    async def request(
        self, *, method: str, url: str, headers: Headers, body: bytes, deadline_ns: int, lane: str
    ) -> UpstreamReply:
        """Send one request and return the whole answer before `deadline_ns` (monotonic clock).

        Raises:
            BackendUnreachable: no connection, or it was cut before the whole answer had come.
            BackendProtocolError: the answer is not HTTP, or larger than `max_response_bytes`.
            DeadlineExceeded: waiting for a connection, sending, or the answer took too long.
            Stopping: the client was closed first.
        """
        request = self._build(method, url, headers, body)
        backend = _origin(request.url)
        seconds = (deadline_ns - time.monotonic_ns()) / 1e9
        if seconds <= 0:
            raise DeadlineExceeded(f"no time was left to ask {backend}", backend)
        # The library cleans up behind its own shields, which hold against this scope but not against Task.cancel: a
        # caller that is cancelled while a connection goes back would leave it in the pool for ever. So the exchange
        # has a task of its own, and is only ever asked to stop through its scope.
        scope = anyio.CancelScope()
        exchange: asyncio.Task[_Outcome] = self._exchanges.start(
            f"upstream {backend}", self._exchange(scope, lane, request, backend)
        )
        try:
            done, _ = await asyncio.wait({exchange}, timeout=seconds)
        finally:
            scope.cancel()
        if not done:
            raise DeadlineExceeded(f"{backend} did not answer within {seconds * 1e3:.0f} ms", backend)
        if exchange.cancelled() or (outcome := exchange.result()) is None:
            raise Stopping(f"the gateway stopped before {backend} had answered", backend)
        if isinstance(outcome, ServingError):
            raise outcome
        return outcome

    async def close(self) -> None:
        """Stop what is still under way and close every connection."""
        await self._exchanges.cancel()
        for pool in self._pools.values():
            await pool.aclose()

    def _build(self, method: str, url: str, headers: Headers, body: bytes) -> httpx2.Request:
        raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
        timeouts = {"connect": self._connect_timeout_ms / 1e3}
        try:
            request = httpx2.Request(
                method, url, headers=[*raw, *_OWN_HEADERS], content=body, extensions={"timeout": timeouts}
            )
        except httpx2.InvalidURL as error:
            raise BackendUnreachable(f"{url} is no URL that can be called: {error}", url) from None
        if (request.url.port or 0) > 65_535:
            raise BackendUnreachable(f"{url} is no URL that can be called: there is no such port", url)
        return request

    async def _exchange(self, scope: anyio.CancelScope, lane: str, request: httpx2.Request, backend: str) -> _Outcome:
        with scope:
            try:
                response = await self._pools[lane].handle_async_request(request)
                try:
                    body = await self._read(response, backend)
                    _forbid_reuse_after_surplus(response)
                finally:
                    await response.aclose()
                return UpstreamReply(response.status_code, _decoded(response.headers.raw), body)
            except httpx2.HTTPError as error:
                return self._translated(error, backend)
            except ServingError as error:
                return error
        return None

    async def _read(self, response: httpx2.Response, backend: str) -> bytes:
        """Return the body, which must not grow beyond the bound while it comes."""
        if response.status_code < 200:
            raise BackendProtocolError(f"{backend} answered {response.status_code}, which ends no request", backend)
        chunks: list[bytes] = []
        size = 0
        # Not `aiter_raw`, which gives the connection back before it can be looked at.
        stream = aiter(cast(AsyncIterable[bytes], response.stream))
        async with aclosing(cast(AsyncGenerator[bytes, None], stream)) as parts:
            async for part in parts:
                size += len(part)
                if size > self._max_response_bytes:
                    allowed = f"the {self._max_response_bytes} bytes that are allowed"
                    raise BackendProtocolError(f"{backend} answered with more than {allowed}", backend)
                chunks.append(part)
        return b"".join(chunks)

    def _translated(self, error: httpx2.HTTPError, backend: str) -> ServingError:
        if isinstance(error, httpx2.ConnectTimeout):
            return BackendUnreachable(f"no connection to {backend} within {self._connect_timeout_ms} ms", backend)
        if isinstance(error, httpx2.ConnectError):
            return BackendUnreachable(f"no connection to {backend}: {_reason(error)}", backend)
        if isinstance(error, httpx2.NetworkError) or str(error).startswith(_CUT_OFF):
            return BackendUnreachable(f"{backend} closed the connection before its whole answer had come", backend)
        return BackendProtocolError(f"the exchange with {backend} is not HTTP/1.1: {error}", backend)


def _forbid_reuse_after_surplus(response: httpx2.Response) -> None:
    """Have the connection closed when bytes came after the answer's end.

    The library would keep them and take them for the answer to the next request on the connection, so that one caller
    got what was meant for another. It has no public way to ask; the tests notice when its inside changes.
    """
    stream: Any = response.stream
    with suppress(AttributeError):
        state = stream._httpcore_stream._stream._connection._h11_state
        surplus, _ = state.trailing_data
        if surplus:
            state.send_failed()  # h11's own word for "not to be used again"


def _origin(url: httpx2.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


def _decoded(raw: list[tuple[bytes, bytes]]) -> Headers:
    return tuple((name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in raw)


def _reason(error: BaseException) -> str:
    """Return the words of the deepest cause: the operating system's, under the library's layers."""
    while (cause := error.__cause__ or error.__context__) is not None:
        error = cause.exceptions[0] if isinstance(cause, BaseExceptionGroup) else cause
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno) if error.errno > 0 else str(error.strerror)  # a resolver's are negative
    return str(error) or type(error).__name__
