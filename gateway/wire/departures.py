"""Requests on their way to backends, which leave at the end of the turn of the event loop in which they came.

Why together: `gateway.together`. And before they leave, one question to the kernel tells for all of them whether
anything has come on their connections since the last reply; asked for each, that costs as much as writing its head.

Belongs here: when requests leave, and that question. Never here: what becomes of a request or its connection.
"""

import select

from gateway.together import Together
from gateway.wire.connection import Connection


class Departures:
    """The departures of one client. Belongs to the thread of a running event loop."""

    def __init__(self) -> None:
        self._arrivals = select.epoll()
        self._watched: set[Connection] = set()
        self._together: Together[Connection] = Together(self._leave)

    def add(self, connection: Connection) -> None:
        """Have the request that a connection was given leave at the end of this turn."""
        self._together.add(connection)

    def watch(self, connection: Connection) -> None:
        """Look out for what comes on a connection from now on."""
        self._arrivals.register(connection.descriptor, select.EPOLLIN)
        self._watched.add(connection)

    def forget(self, connection: Connection) -> None:
        """Take note that a connection is closed, if it was watched. The kernel has forgotten it by then, and its number
        may be another's.
        """
        self._watched.discard(connection)

    def close(self) -> None:
        """Look out no more, once every connection is closed."""
        self._arrivals.close()

    def _leave(self, connections: list[Connection]) -> None:
        heard: set[int] = set()
        if self._watched:
            for descriptor, _ in self._arrivals.poll(0, len(self._watched)):
                heard.add(descriptor)
        for connection in connections:
            connection.depart(connection.descriptor in heard)
