"""Accepting connections: those of a worker's own socket, and what its siblings leave waiting.

The kernel deals connections out whether or not the worker that a socket is for is there to take them. So each worker
looks at its siblings' sockets twenty times a second, and takes what waits there, too, when something did at two looks
in a row: a sibling that has time has emptied its queue in between, however large a burst was, and keeps what was dealt
to it. One that is gone, starting or stuck has not, nor one that has more to do than it can. So whoever connects is
accepted within some tenth of a second, without the workers knowing anything of each other.

A worker that `may` not accept (it has nothing to serve by, say) leaves its own socket to its siblings in the same way.

Own connections are accepted as they come, many in one turn of the event loop: what waits in the queue waits for whole
turns, and a probe for health is behind all that came before it.

Belongs here: when a connection is accepted, and from which socket. Never here: what is made of it.
"""

import asyncio
import errno
import random
import select
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from gateway.arrival import Run
from gateway.logs import logger
from gateway.wire.listening import Listening

_LOOK_SECONDS: Final = 0.05
_AT_ONCE: Final = 64
"""Connections accepted from one socket in one turn of the event loop; so many take some 3 ms. A probe behind a burst of
600 waits 100 ms with 64, 250 ms with 16, and hardly less than 100 ms with 256, since it is behind their requests, too.
"""
_REST_SECONDS: Final = 1.0
_NO_MEANS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
"""Errors that the next accept would meet as well. Every other is that of the connection, which is gone (accept(2))."""


class Accepting:
    """Gives every accepted socket to `connect`, whose error, if it is an OSError, is that of the caller.

    `may` is asked at every look; `has_room` only for connections of siblings, which somebody else may have room for.
    `begin` once, then `close`, and `abandon` when connections that are still being made are waited for no longer.
    """

    def __init__(
        self,
        listening: Listening,
        connect: Callable[[socket.socket], Awaitable[object]],
        *,
        may: Callable[[], bool] = lambda: True,
        has_room: Callable[[], bool] = lambda: True,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._listening = listening
        self._connect = connect
        self._may = may
        self._has_room = has_room
        self._siblings = {one.fileno(): one for one in listening.siblings}
        self._poll = select.poll()
        for descriptor in self._siblings:
            self._poll.register(descriptor, select.POLLIN)
        self._waiting: set[int] = set()
        self._helped: set[int] = set()
        self._open = False
        self._rests_until = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._making: dict[socket.socket, Run] = {}

    def begin(self) -> None:
        """Accept from now on, as soon as it may."""
        self._look()

    def close(self) -> None:
        """Accept no more, and let go of the sockets."""
        if self._timer is not None:
            self._timer.cancel()
        self._turn(False)
        self._listening.close()

    def abandon(self) -> None:
        """Cut off connections that are not yet made: handshakes that do not come to an end."""
        for making in list(self._making.values()):
            making.cancel()

    def _look(self) -> None:
        # Of several workers that look at the same queue, not always the same one is to come first.
        self._timer = self._loop.call_later(_LOOK_SECONDS * random.uniform(0.8, 1.2), self._look)  # noqa: S311
        may = self._may() and self._loop.time() >= self._rests_until
        self._turn(may)
        waiting = {descriptor for descriptor, _ in self._poll.poll(0)} if may and self._has_room() else set()
        for descriptor in (waiting & self._waiting) - self._helped:
            self._helped.add(descriptor)
            self._help(descriptor)
        self._waiting = waiting

    def _turn(self, to_open: bool) -> None:
        if to_open == self._open:
            return
        self._open = to_open
        own = self._listening.own
        if to_open:
            self._loop.add_reader(own, self._accept, own)
        else:
            self._loop.remove_reader(own)

    def _help(self, descriptor: int) -> None:
        """Take all that waits at a sibling's socket, with turns of the loop between."""
        if self._open and self._has_room() and self._accept(self._siblings[descriptor]):
            self._loop.call_soon(self._help, descriptor)
        else:
            self._helped.discard(descriptor)

    def _accept(self, listening: socket.socket) -> bool:
        """Accept what waits; tell whether there was as much as may be in one turn."""
        for _ in range(_AT_ONCE):
            try:
                accepted, _ = listening.accept()
            except BlockingIOError:
                return False
            except OSError as error:
                if error.errno in _NO_MEANS:
                    self._rest(error)
                    return False
            else:
                run = self._making[accepted] = Run(self._make(accepted))
                run.go()
        return True

    async def _make(self, accepted: socket.socket) -> None:
        try:
            await self._connect(accepted)
        except OSError:
            accepted.close()
        finally:
            del self._making[accepted]

    def _rest(self, error: OSError) -> None:
        """Leave the rest to siblings, and to later: it would be asked for again in every turn."""
        self._rests_until = self._loop.time() + _REST_SECONDS
        self._turn(False)
        logger().error("cannot_accept", why=error.strerror, again_in_seconds=_REST_SECONDS)
