"""Serving an ASGI application with uvicorn on a socket that is already bound, until told to stop.

Belongs here: how uvicorn is configured and stopped. Never here: what the application does, or signals (the
composition root owns those).
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn


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
