"""How connections to backends are opened: names resolved each time, addresses raced, TLS with verification.

Belongs here: from a host and port to an open connection. Never here: what goes over it, or how many there are.

Every connection asks the resolver anew, so an address is in use no longer than the connections that it was found for.
"""

import asyncio
import ipaddress
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Sequence
from itertools import zip_longest
from typing import Any, Final, TypeVar

from gateway.errors import BackendUnreachable
from gateway.tasks import Tasks
from gateway.wire.target import Origin

_HEAD_START_S: Final = 0.25
"""How long an address has for itself before the next one is tried beside it (RFC 8305, section 5)."""
_TLS_CLOSE_S: Final = 1.0
"""How long a backend may take to say goodbye on a connection that is closed in order."""

Address = tuple[socket.AddressFamily, str]
Resolve = Callable[[str, int], Awaitable[Sequence[Address]]]
"""From a host and port to the host's addresses, those to be tried first at the front. Raises `OSError`."""
P = TypeVar("P")
Dialled = tuple[asyncio.Transport, P]


class Connector:
    """Opens connections within `timeout_ms` each, names and handshakes included; `tls` is for https backends."""

    def __init__(self, timeout_ms: int, tls: ssl.SSLContext, resolve: Resolve, tasks: Tasks) -> None:
        self._timeout_ms = timeout_ms
        self._tls = tls
        self._resolve = resolve
        self._tasks = tasks

    async def open(self, origin: Origin, make: Callable[[], P]) -> P:
        """Return the protocol of a new connection, made by `make`.

        Raises:
            BackendUnreachable: no address let itself be connected to, or not in time; the message says why.
        """
        why = ""
        try:
            async with asyncio.timeout(self._timeout_ms / 1e3) as limit:
                addresses = by_turns(await self._resolve(origin.host, origin.port))
                _, protocol = await race(addresses, lambda address: self._dial(origin, address, make), self._tasks)
                return protocol
        except (OSError, UnicodeError) as error:  # a name that can be none is a UnicodeError
            why = f" within {self._timeout_ms} ms" if limit.expired() else f": {reason(error)}"
        raise BackendUnreachable(f"no connection to {origin.name}{why}", origin.name)

    async def _dial(self, origin: Origin, address: Address, make: Callable[[], P]) -> Dialled[P]:
        family, host = address
        # What calls the protocol asks for its methods and for no base.
        connect: Any = asyncio.get_running_loop().create_connection
        if not origin.tls:
            made: Dialled[P] = await connect(make, host, origin.port, family=family)
            return made
        made = await connect(
            make,
            host,
            origin.port,
            family=family,
            ssl=self._tls,
            server_hostname=origin.host,
            ssl_shutdown_timeout=_TLS_CLOSE_S,
        )
        return made


async def resolve(host: str, port: int) -> Sequence[Address]:
    """Return the addresses that the system's resolver has for a host now; an address is its own."""
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        pass
    else:
        return [(socket.AF_INET if version == 4 else socket.AF_INET6, host)]
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, str(sockaddr[0])) for family, _, _, _, sockaddr in found]


def by_turns(addresses: Sequence[Address]) -> list[Address]:
    """Return addresses with their families taking turns, the first one's first (RFC 8305, section 4)."""
    first = [address for address in addresses if address[0] == addresses[0][0]]
    others = [address for address in addresses if address[0] != addresses[0][0]]
    return [address for pair in zip_longest(first, others) for address in pair if address is not None]


async def race(
    addresses: Sequence[Address], dial: Callable[[Address], Awaitable[Dialled[P]]], tasks: Tasks
) -> Dialled[P]:
    """Return the connection to the address that answers first, each having a head start on the next (RFC 8305).

    Those that lose are given up as `tasks` of their own.

    Raises:
        OSError: none answered; the message has the reasons of all.
    """
    if len(addresses) == 1:
        return await dial(addresses[0])
    connected: list[Dialled[P]] = []
    failures: list[str] = []
    over = False

    async def attempt(address: Address) -> None:
        try:
            dialled = await dial(address)
        except OSError as error:
            failures.append(reason(error))
        else:
            connected.append(dialled)
            if over:
                dialled[0].abort()

    to_try = list(reversed(addresses))
    trying: set[asyncio.Task[None]] = set()
    try:
        while to_try or trying:
            if to_try:
                address = to_try.pop()
                trying.add(tasks.start(f"connect {address[1]}", attempt(address)))
            head_start = _HEAD_START_S if to_try else None
            _, trying = await asyncio.wait(trying, timeout=head_start, return_when=asyncio.FIRST_COMPLETED)
            if connected:
                return connected.pop(0)
    finally:
        over = True
        for transport, _ in connected:
            transport.abort()
        for task in trying:
            task.cancel()
    raise OSError("; ".join(dict.fromkeys(failures)) or "it has no address")


def reason(error: Exception) -> str:
    """Return why a connection could not be had, in words without addresses."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"no TLS: {error.reason or error}"
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno) if error.errno > 0 else str(error.strerror)  # a resolver's are negative
    if isinstance(error, ConnectionError):  # which has no words of its own in the middle of a handshake
        return str(error) or "the backend closed it at once"
    return str(error) or type(error).__name__
