"""How we talk to Redis or Valkey: connections with short time-outs, and every error in our own words.

Belongs here: URLs, pools, time-outs, translation of errors. Never here: keys, documents, or what a command means.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    NoPermissionError,
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from gateway.errors import RulesUnavailable, SettingsError

TIMEOUT_SECONDS = 1.0


class RedisLink:
    """A pool of connections to one server. Nothing is opened before the first command."""

    def __init__(self, url: str, connections: int, timeout_s: float = TIMEOUT_SECONDS) -> None:
        """`url` is redis://, rediss:// or unix://; `timeout_s` bounds one small call, connecting included.

        Raises:
            SettingsError: the URL cannot be used. The message does not repeat it, as it may hold a password.
        """
        self._timeout_s = timeout_s
        try:
            pool = BlockingConnectionPool.from_url(
                url,
                max_connections=connections,
                timeout=None,  # a full pool makes callers wait, within their time-out; the plain one raises
                protocol=2,  # redis-py's RESP3 breaks its own recovery of connections that the server has closed
                retry=Retry(NoBackoff(), 0),  # its default retries stall for seconds; who calls knows when to try again
                # `calling` bounds the whole call. With a time-out of its own, redis-py sends through asyncio.wait_for,
                # which on Python 3.11 can swallow a cancellation, and then a worker that is to stop goes on polling.
                socket_timeout=None,
                socket_connect_timeout=timeout_s,
                decode_responses=False,
            )
        except ValueError:
            raise SettingsError(
                "redis_url: not a URL that can be used; expected redis://[user:password@]host:port/0, rediss://… for "
                "TLS or unix:///path/to/socket, special characters in user and password percent-encoded"
            ) from None
        options = pool.connection_kwargs
        self._secret = str(options.get("password") or "")
        self.where = options.get("path") or f"{options.get('host', 'localhost')}:{options.get('port', 6379)}"
        # Its own types are unions over both protocols, decoded and not; our parsers of replies say what really comes.
        self.client: Any = Redis.from_pool(pool)

    @asynccontextmanager
    async def calling(self, patience: float = 1.0) -> AsyncIterator[Any]:
        """Give the client for one command or pipeline, bounded by `patience` times the time-out.

        Raises:
            RulesUnavailable: for whatever the library raises, without secrets and without its traceback.
        """
        try:
            async with asyncio.timeout(self._timeout_s * patience):
                yield self.client
        except (RedisError, OSError) as error:
            raise RulesUnavailable(
                f"the rules store at {self.where} {self._complaint(error)}; the rules in force stay in force, and "
                "changes are refused until it answers"
            ) from None

    def _complaint(self, error: Exception) -> str:
        while error.args and isinstance(error.args[0], Exception):
            error = error.args[0]  # what went wrong while connecting comes wrapped in a ConnectionError
        match error:
            case TimeoutError() | RedisTimeoutError():
                return f"does not answer within {self._timeout_s:g} s"
            case BusyLoadingError():
                return "is still loading its data"
            case AuthenticationError() | NoPermissionError():
                return "refuses the user or password of redis_url"
            case ResponseError():
                return f"refuses the command ({self._masked(error)})"
            case _:
                return f"does not answer ({self._masked(error)})"

    def _masked(self, error: Exception) -> str:
        text = " ".join(str(error).split())
        return text.replace(self._secret, "***") if self._secret else text

    async def close(self) -> None:
        """Close every connection, also one whose server has gone."""
        with suppress(RedisError, OSError):
            await self.client.aclose()


def text(value: Any) -> str:
    """Return a reply of the server as text; bytes that are no UTF-8 stay visible as replacement characters."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
