"""Sockets that listen: bound by the supervisor, which holds them for as long as the gateway lives.

Every worker has one of its own, all of the same address, and the kernel deals new connections out among them by a hash
of the caller's address and port (socket(7), SO_REUSEPORT). Of one socket for all, the process that happens to be awake
would take nearly every connection. A socket outlives the worker that it is for: what waits there when that dies is
taken by the others, or by the one that follows it (`accepting`).

Belongs here: opening and naming sockets. Never here: accepting connections.
"""

import socket
from typing import Any

from msgspec import Struct

from gateway.errors import SettingsError

_BACKLOG = 2048


class Listening(Struct, frozen=True):
    """What a worker accepts from: the socket of its `own`, and those of its siblings. None of them blocks."""

    own: socket.socket
    siblings: tuple[socket.socket, ...] = ()

    def close(self) -> None:
        """Close this process's hold of them; they go on listening for others who hold them."""
        for one in (self.own, *self.siblings):
            one.close()


def bind(host: str, port: int, setting: str) -> socket.socket:
    """Return a socket that listens, to be inherited: a process that is started again loses no connection.

    Raises:
        SettingsError: the address cannot be bound; the message names the setting.
    """
    return _open(_resolved(host, port, setting), setting, shared=False)


def bind_for_each(count: int, host: str, port: int, setting: str) -> tuple[socket.socket, ...]:
    """Return `count` sockets that listen on one address; of port 0, all on the one that the first was given.

    Raises:
        SettingsError: the address cannot be bound, also when another gateway has bound it in the same way.
    """
    family, address = _resolved(host, port, setting)
    if address[1]:
        # A socket that shares its address does so with anybody's of the same user; one that does not finds them.
        _bound(family, address, setting, shared=False).close()
    opened: list[socket.socket] = []
    try:
        for _ in range(count):
            opened.append(_open((family, address), setting, shared=True))
            address = opened[0].getsockname()
    except SettingsError:
        for one in opened:
            one.close()
        raise
    return tuple(opened)


def url_of(listening: socket.socket, scheme: str = "http") -> str:
    """Return the URL of a listening socket."""
    host, port = listening.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def _resolved(host: str, port: int, setting: str) -> tuple[int, Any]:
    """Return the family and the address to bind, of a name the first that it has."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except OSError as error:
        raise SettingsError(f"{setting}: cannot use {host}:{port}: {error}") from None
    return found[0], found[4]


def _open(resolved: tuple[int, Any], setting: str, *, shared: bool) -> socket.socket:
    family, address = resolved
    opened = _bound(family, address, setting, shared=shared)
    try:
        opened.listen(_BACKLOG)
    except OSError as error:
        opened.close()
        raise _refused(address, setting, error) from None
    return opened


def _bound(family: int, address: Any, setting: str, *, shared: bool) -> socket.socket:
    try:
        bound = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise SettingsError(f"{setting}: cannot use {address[0]}:{address[1]}: {error}") from None
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(address)
        bound.setblocking(False)
    except OSError as error:
        bound.close()
        raise _refused(address, setting, error) from None
    return bound


def _refused(address: Any, setting: str, error: OSError) -> SettingsError:
    words = f"{setting}: cannot listen on {address[0]}:{address[1]}: {error.strerror}; choose another"
    return SettingsError(words)
