"""How we talk to Redis or Valkey: connections with short time-outs, and every error in our own words.

Belongs here: pools, time-outs, translation of errors. Never here: keys, documents, or what a command means; the forms
of URLs (`redis_url`), who is the primary (`redis_sentinel`).
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any

from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection, UnixDomainSocketConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    MovedError,
    NoPermissionError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

from gateway.errors import RulesUnavailable
from gateway.stores.redis_sentinel import PrimaryConnection, PrimaryTlsConnection, Sentinels
from gateway.stores.redis_url import RedisAddress, parse_redis_url

TIMEOUT_SECONDS = 1.0
_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"


class RedisLink:
    """A pool of connections to one server, or to whichever is the primary. Nothing is opened before the first command.

    A connection that breaks is replaced at the next call, and each new one finds out anew where its server is.
    """

    def __init__(self, url: str, connections: int, timeout_s: float = TIMEOUT_SECONDS) -> None:
        """`url` is in a form of `redis_url`; `timeout_s` bounds one small call, connecting included.

        Raises:
            SettingsError: the URL cannot be used. The message does not repeat it, as it may hold a password.
        """
        self._timeout_s = timeout_s
        address = parse_redis_url(url)
        self._secrets = address.secrets
        self.where = address.where
        self._pool = BlockingConnectionPool(
            max_connections=connections,
            timeout=None,  # a full pool makes callers wait, within their time-out; the plain one raises
            protocol=2,  # redis-py's RESP3 breaks its own recovery of connections that the server has closed
            retry=Retry(NoBackoff(), 0),  # its default retries stall for seconds; who calls knows when to try again
            # `calling` bounds the whole call. With a time-out of its own, redis-py sends through asyncio.wait_for,
            # which on Python 3.11 can swallow a cancellation, and then a worker that is to stop goes on polling.
            socket_timeout=None,
            socket_connect_timeout=timeout_s,
            decode_responses=False,
            **_kind_of_connection(address, timeout_s),
            **address.options,
        )
        # Its own types are unions over both protocols, decoded and not; our parsers of replies say what really comes.
        self.client: Any = Redis.from_pool(self._pool)

    @asynccontextmanager
    async def calling(self, patience: float = 1.0) -> AsyncIterator[Any]:
        """Give the client for one command or pipeline, bounded by `patience` times the time-out.

        Raises:
            RulesUnavailable: for whatever the library raises, without secrets and without its traceback.
        """
        with self._in_our_words(self._timeout_s * patience):
            try:
                async with asyncio.timeout(self._timeout_s * patience):
                    yield self.client
            except ReadOnlyError:
                # The server was the primary when we connected. Idle connections would go on talking to it.
                with suppress(RedisError, OSError):
                    await self._pool.disconnect(inuse_connections=False)
                raise

    async def listening(self, channel: str) -> AsyncGenerator[None, None]:
        """Yield once when subscribed to a channel and then at each message; the connection ends with the generator.

        Not redis-py's `PubSub`, which connects again by itself without saying so. A connection that has died silently
        yields nothing more; the keep-alive of TCP ends it after about 45 s.

        Raises:
            RulesUnavailable: the connection cannot be made, or is lost.
        """
        pool: Any = self._pool
        connection = pool.make_connection()
        try:
            with self._in_our_words(self._timeout_s):
                async with asyncio.timeout(self._timeout_s):
                    await connection.connect()
                    await connection.send_command("SUBSCRIBE", channel)
                    await connection.read_response()
            yield
            while True:
                with self._in_our_words(self._timeout_s):
                    await connection.read_response()
                yield
        finally:
            with suppress(RedisError, OSError):
                await connection.disconnect(nowait=True)

    @contextmanager
    def _in_our_words(self, seconds: float) -> Iterator[None]:
        try:
            yield
        except (RedisError, OSError) as error:
            raise RulesUnavailable(
                f"the rules store at {self.where} {self._complaint(error, seconds)}; the rules in force stay in force, "
                "and changes are refused until it answers"
            ) from None

    def _complaint(self, error: Exception, seconds: float) -> str:
        while error.args and isinstance(error.args[0], Exception):
            error = error.args[0]  # what went wrong while connecting comes wrapped in a ConnectionError
        match error:
            case TimeoutError() | RedisTimeoutError():
                return f"does not answer within {seconds:g} s"
            case BusyLoadingError():
                return "is still loading its data"
            case AuthenticationError() | NoPermissionError():
                return "refuses the user or password of redis_url"
            case ReadOnlyError():
                return "is a replica and takes no changes; if it was the primary, a new one is being chosen"
            case MovedError():
                return (
                    "is not the node of its cluster that has the rules; name that one in redis_url: "
                    f"{error.host}:{error.port}"
                )
            case ResponseError():
                return f"refuses the command ({self._masked(error)})"
            case _ if _UNTRUSTED in str(error):
                return (
                    f"shows a certificate that is not trusted ({self._masked(error)}); name the CA that signed it with "
                    "?ssl_ca_certs=/path in redis_url"
                )
            case _:
                return f"does not answer ({self._masked(error)})"

    def _masked(self, error: Exception) -> str:
        text = " ".join(str(error).split())
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    async def close(self) -> None:
        """Close every connection, also one whose server has gone."""
        with suppress(RedisError, OSError):
            await self.client.aclose()


def _kind_of_connection(address: RedisAddress, timeout_s: float) -> dict[str, Any]:
    plain = SSLConnection if address.tls else Connection
    if address.sentinels is not None:
        primary = PrimaryTlsConnection if address.tls else PrimaryConnection
        return {"connection_class": primary, "sentinels": Sentinels(address.sentinels, timeout_s, plain)}
    return {"connection_class": UnixDomainSocketConnection if "path" in address.options else plain}


def text(value: Any) -> str:
    """Return a reply of the server as text; bytes that are no UTF-8 stay visible as replacement characters."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
