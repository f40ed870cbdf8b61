"""Which server is the primary now, as the Sentinels tell.

Belongs here: asking them, and connections that go to whom they name. Never here: URLs, pools, keys.

redis-py's own `Sentinel` is not used: it asks one Sentinel after the other, so that a frozen first one uses up the
time of the whole call, it believes the first answer, also of a Sentinel that is cut off from the others, it bounds
calls with `asyncio.wait_for` (see `redis_link`), and its pool raises when it is full.
"""

import asyncio
from collections import Counter
from contextlib import suppress
from typing import Any

from redis.asyncio import Connection, SSLConnection
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError
from redis.exceptions import ConnectionError as RedisConnectionError

from gateway.stores.redis_url import Place, SentinelGroup

_SHARE_OF_TIME = 0.4  # of the time of a call, for what the Sentinels say; the rest is for the server


class Sentinels:
    """Asks all Sentinels at once, each on a connection that lasts for the question."""

    def __init__(self, group: SentinelGroup, timeout_s: float, connection: type[Connection]) -> None:
        """`timeout_s` is the time of the whole call that needs the answer; `connection` is how they are reached."""
        self._group = group
        self._timeout_s = timeout_s * _SHARE_OF_TIME
        self._connection = connection

    async def primary(self) -> Place:
        """Return where the primary is: what most of the Sentinels say, as soon as most of them have.

        When there is no such majority, because they are silent or do not agree, what is said most often.

        Raises:
            redis.exceptions.ConnectionError: none of them names one.
            redis.exceptions.AuthenticationError: they refuse the user or password.
        """
        votes: Counter[Place] = Counter()
        failed: list[Exception] = []
        async with asyncio.TaskGroup() as group:
            asking = {group.create_task(self._ask(place), name=f"ask sentinel {place}") for place in self._group.places}
            while asking and not self._is_majority(votes):
                answered, asking = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
                for answer in (task.result() for task in answered):
                    if isinstance(answer, Exception):
                        failed.append(answer)
                    elif answer is not None:
                        votes[answer] += 1
            for task in asking:
                task.cancel()
        if votes:
            return votes.most_common(1)[0][0]
        raise self._silence(failed)

    def _is_majority(self, votes: Counter[Place]) -> bool:
        return bool(votes) and 2 * votes.most_common(1)[0][1] > len(self._group.places)

    def _silence(self, failed: list[Exception]) -> RedisError:
        refusals = (error for error in failed if isinstance(error, AuthenticationError | NoPermissionError))
        why = f" ({failed[0]})" if failed else ""
        return next(refusals, RedisConnectionError(f"no Sentinel names a primary of {self._group.service}{why}"))

    async def _ask(self, place: Place) -> Place | Exception | None:
        """Return what one Sentinel says, why it cannot be asked, or None when it does not know the service."""
        connection: Any = self._connection(
            host=place[0],
            port=place[1],
            protocol=2,
            socket_timeout=None,  # as in `redis_link`
            socket_connect_timeout=self._timeout_s,
            **self._group.options,
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                await connection.connect()
                await connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._group.service)
                reply = await connection.read_response()
            return (reply[0].decode(), int(reply[1])) if reply else None
        except (RedisError, OSError, ValueError) as error:
            return error
        finally:
            with suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)


class PrimaryConnection(Connection):
    """A connection to whichever server is the primary when it is opened."""

    def __init__(self, *, sentinels: Sentinels, **options: Any) -> None:
        super().__init__(**options)
        self._sentinels = sentinels

    async def _connect(self) -> None:
        self.host, self.port = await self._sentinels.primary()
        await super()._connect()  # type: ignore[no-untyped-call] # redis-py has no types here

    async def on_connect_check_health(self, check_health: bool = True) -> None:
        """Log in, then make sure of the server's role: one just demoted is still named for a moment.

        HELLO tells it and is allowed to every user, unlike ROLE and INFO; a server that has no HELLO is believed.
        """
        await super().on_connect_check_health(check_health=check_health)
        await self.send_command("HELLO", 2, check_health=False)
        try:
            reply = await self.read_response()
        except ResponseError:
            return
        told = dict(zip(reply[::2], reply[1::2], strict=False))
        if told.get(b"role", b"master") not in (b"master", b"primary"):
            raise RedisConnectionError(f"{self.host}:{self.port} is a replica; no new primary is known yet")


class PrimaryTlsConnection(PrimaryConnection, SSLConnection):
    """The same over TLS."""
