"""Ports: sockets that are already bound, served until told to stop.

Belongs here: listening, draining, changing certificates, and how uvicorn is configured and stopped. Never here: what
is said over a connection (`server`), what an application does, or signals (the composition root owns those).

The admin port is uvicorn's. The data port is not, for three reasons: uvicorn's server makes one TLS context and keeps
it; at the end of a drain it cancels what still runs and returns at once, before the records of that are written; and it
wakes ten times a second for what our deadlines do anyway.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterable, Iterator
from typing import Any

import uvicorn

from gateway.config import TlsSettings
from gateway.wire.certificates import Certificates
from gateway.wire.port import Port
from gateway.wire.server import ServerProtocol

_LAST_WORDS_SECONDS = 0.3
"""What requests have for their records and replies when they are stopped at the end of a drain."""
_LOOK_SECONDS = 1.0
_ACCEPTED_AT_ONCE = 16
"""Connections accepted in one turn of the loop. libuv accepts one for each listener, so that processes which share a
socket get alike; but a busy loop takes some 100 turns a second, and then a probe for health would have to wait behind
every connection that came before it. More listeners on the same socket cost a failed accept each."""


async def serve_data_until(
    stop: asyncio.Event, port: Port, listening: socket.socket, tls: TlsSettings, drain_seconds: float
) -> None:
    """Serve `port` on `listening` until `stop` is set, then let requests in flight end for `drain_seconds`.

    New connections are refused as soon as `stop` is set; idle ones are closed. Files of `tls` that change are in force
    for new connections within a second or two.

    Raises:
        SettingsError: the files of `tls` cannot be used.
    """
    certificates = Certificates(tls) if tls.cert is not None else None
    port.scheme = "https" if certificates is not None else "http"
    servers = await _listen(port, listening, certificates)
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        while not stopping.done():
            await asyncio.wait({stopping}, timeout=None if certificates is None else _LOOK_SECONDS)
            if certificates is not None and certificates.changed():
                # Another listener on the same socket: connections that wait to be accepted are the socket's, those
                # that are open have their context already, and nobody sees a port that is closed.
                before, servers = servers, await _listen(port, listening, certificates)
                _close(before)
    finally:
        stopping.cancel()
        _close(servers)
        listening.close()
    await _drain(port, drain_seconds)


async def _listen(port: Port, listening: socket.socket, certificates: Certificates | None) -> list[asyncio.Server]:
    seconds = port.limits.head_seconds
    tls: dict[str, Any] = {}
    if certificates is not None:
        tls = {"ssl": certificates.context, "ssl_handshake_timeout": seconds, "ssl_shutdown_timeout": seconds}
    return [
        await port.loop.create_server(lambda: ServerProtocol(port), sock=listening.dup(), backlog=2048, **tls)
        for _ in range(_ACCEPTED_AT_ONCE)
    ]


def _close(servers: Iterable[asyncio.Server]) -> None:
    for server in servers:
        server.close()


async def _drain(port: Port, seconds: float) -> None:
    port.draining = True
    for connection in list(port.connections):
        connection.close_when_idle()
    await _emptied(port, seconds)
    for connection in list(port.connections):
        connection.stop()
    await _emptied(port, _LAST_WORDS_SECONDS)
    for connection in list(port.connections):
        connection.abort()
    await port.farewells.drain(_LAST_WORDS_SECONDS)
    port.deadlines.close()


async def _emptied(port: Port, seconds: float) -> None:
    """Wait until no connection is left, up to `seconds`."""
    port.emptied.clear()
    if port.connections:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await port.emptied.wait()


# ── the admin port ───────────────────────────────────────────────────────────────────────────────────────────────


class _Server(uvicorn.Server):
    """uvicorn without its own signal handling, which would take SIGTERM away from our drain."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the composition root."""
        yield


async def serve_until(stop: asyncio.Event, application: Any, listening: socket.socket, drain_seconds: float) -> None:
    """Serve `application` on `listening` until `stop` is set, then let requests in flight end for `drain_seconds`.

    New connections are refused as soon as `stop` is set; idle ones are closed.
    """
    server = _Server(
        uvicorn.Config(
            application,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=max(1, round(drain_seconds)),
            timeout_keep_alive=75,
        )
    )
    serving = asyncio.create_task(server.serve(sockets=[listening]), name="uvicorn")
    stopping = asyncio.create_task(stop.wait(), name="stop")
    await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    server.should_exit = True
    stopping.cancel()
    await serving
