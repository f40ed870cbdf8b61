"""What the connections of one port have in common.

Belongs here: shared things, and the shapes of what a connection talks to. Never here: a connection (`server`), or
listening (`serving`).
"""

import asyncio
import contextvars
from typing import Protocol

from gateway.config import LimitSettings
from gateway.errors import GatewayError
from gateway.messages import Answer, WireReply, WireRequest
from gateway.metrics import Board, Slot
from gateway.tasks import Tasks
from gateway.together import Row
from gateway.wire.asgi_calls import Application
from gateway.wire.deadlines import Deadlines


class Face(Protocol):
    """What answers requests, in the words of its protocol."""

    def is_inference(self, path: str) -> bool:
        """Tell whether requests of this percent-decoded path are for `handle`; others are for the application."""

    async def handle(self, request: WireRequest) -> WireReply:
        """Answer a request, also one that is refused already."""

    def reply(self, answer: Answer) -> WireReply:
        """Return the head of an answer that is sent as it comes. Raises `ValueError` if it cannot be written."""

    def refuse(self, error: GatewayError) -> WireReply:
        """Return an error in the protocol's form."""


class Connection(Protocol):
    """An open connection, as whoever closes the port sees it."""

    def close_when_idle(self) -> None:
        """Close at once if nothing is being received or served; otherwise the present reply is the last."""

    def stop(self) -> None:
        """End what is being served, which is answered with 503, and then the connection."""

    def abort(self) -> None:
        """Close at once, whatever has not been sent."""


class Port:
    """What connections share. While it is `draining`, each of them ends with its present reply.

    `emptied` is set whenever the last of the `connections` has gone. `farewells` are requests that nobody waits for any
    more, on their way to their records. `context` is what each request gets a copy of, so that none sees variables that
    the one before it has set. `scheme` is http or https.
    """

    def __init__(
        self,
        face: Face,
        application: Application,
        limits: LimitSettings,
        board: Board | None = None,
        row: Row | None = None,
    ) -> None:
        """To be made where a loop runs. `deadlines` are to be closed. `board` is told how many there are. In `row`,
        replies wait for each other.
        """
        self.loop = asyncio.get_running_loop()
        self.face = face
        self.application = application
        self.limits = limits
        self.scheme = "http"
        self.board = board
        self.row = row if row is not None else Row()
        self.context = contextvars.copy_context()
        self.deadlines = Deadlines(self.loop)
        self.connections: set[Connection] = set()
        self.emptied = asyncio.Event()
        self.farewells = Tasks()
        self.draining = False

    def welcome(self, connection: Connection) -> bool:
        """Take a connection that is made onto the list, and tell whether it is one of those that are served."""
        self.connections.add(connection)
        count = len(self.connections)
        crowded = count > self.limits.max_connections
        if self.board is not None:
            self.board[Slot.CONNECTIONS] = count
            if crowded:
                self.board.add(Slot.CONNECTIONS_REFUSED)
        return not crowded

    def forget(self, connection: Connection) -> None:
        """Take a connection that is lost off the list."""
        self.connections.discard(connection)
        if self.board is not None:
            self.board[Slot.CONNECTIONS] = len(self.connections)
        if not self.connections:
            self.emptied.set()
