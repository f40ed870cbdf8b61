"""Ports: sockets that are already bound, served until told to stop.

Belongs here: serving, draining, changing certificates, and how uvicorn is configured and stopped. Never here: what is
said over a connection (`server`), when one is accepted (`accepting`), what an application does, or signals (the
composition root owns those).

The admin port is uvicorn's. The data port is not, for three reasons: uvicorn's server makes one TLS context and keeps
it; at the end of a drain it cancels what still runs and returns at once, before the records of that are written; and it
wakes ten times a second for what our deadlines do anyway.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import uvicorn

from gateway.config import TlsSettings
from gateway.wire.accepting import Accepting
from gateway.wire.certificates import Certificates
from gateway.wire.listening import Listening
from gateway.wire.port import Port
from gateway.wire.server import ServerProtocol

_LAST_WORDS_SECONDS = 0.3
"""What requests have for their records and replies when they are stopped at the end of a drain."""
_LOOK_SECONDS = 1.0


async def serve_data_until(
    stop: asyncio.Event,
    port: Port,
    listening: Listening,
    tls: TlsSettings,
    drain_seconds: float,
    *,
    may_accept: Callable[[], bool] = lambda: True,
) -> None:
    """Serve `port` on `listening` until `stop` is set, then let requests in flight end for `drain_seconds`.

    No more connections are accepted as soon as `stop` is set; idle ones are closed. None is while `may_accept` says so,
    which is asked several times a second. Files of `tls` that change are in force for new connections within a second
    or two.

    Raises:
        SettingsError: the files of `tls` cannot be used.
    """
    certificates = Certificates(tls) if tls.cert is not None else None
    port.scheme = "https" if certificates is not None else "http"
    accepting = Accepting(
        listening,
        partial(_connect, port, certificates),
        may=may_accept,
        has_room=lambda: len(port.connections) < port.limits.max_connections,
    )
    accepting.begin()
    stopping = asyncio.create_task(stop.wait(), name="stop")
    try:
        while not stopping.done():
            await asyncio.wait({stopping}, timeout=None if certificates is None else _LOOK_SECONDS)
            if certificates is not None:
                certificates.changed()
    finally:
        stopping.cancel()
        accepting.close()
    await asyncio.sleep(0)  # what was accepted in this very turn is a connection in the next
    await _drain(port, drain_seconds)
    accepting.abandon()


async def _connect(port: Port, certificates: Certificates | None, accepted: socket.socket) -> None:
    """Make a connection of an accepted socket, by the certificates that are in force now."""
    seconds = port.limits.head_seconds
    tls: dict[str, Any] = {}
    if certificates is not None:
        tls = {"ssl": certificates.context, "ssl_handshake_timeout": seconds, "ssl_shutdown_timeout": seconds}
    connect: Any = port.loop.connect_accepted_socket  # which asks a protocol for its methods, and for no base
    await connect(lambda: ServerProtocol(port), accepted, **tls)


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
