"""The forms of `redis_url`, parsed at the door: what cannot be used is refused before anything connects.

    redis://[user:password@]host[:port][/db]
    rediss://…                                                TLS; the server's certificate is verified
    unix://[user:password@]/path/to/socket[?db=…]
    redis+sentinel://[user:password@]host[:port],…/service[/db]   the primary of a service, found through its Sentinels
    rediss+sentinel://…                                       TLS to the Sentinels and to the servers

Options behind a `?`: `db`; with TLS `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile` (paths), `ssl_check_hostname` (true
or false) and `ssl_cert_reqs` (required or none); with Sentinel `sentinel_username` and `sentinel_password`.

Belongs here: the grammar, and files that it names. Never here: a connection. An option that redis-py knows and this
grammar does not is refused, because some of them (time-outs, protocol) would undo what `redis_link` relies on.
"""

import ssl
from collections.abc import Callable, Mapping
from typing import Any, Final, NoReturn
from urllib.parse import parse_qsl, unquote

from msgspec import Struct

from gateway.errors import SettingsError

_SCHEMES: Final = ("redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel")
_TRUTHS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_TLS_OPTIONS: Final = frozenset({"ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "ssl_check_hostname", "ssl_cert_reqs"})
_SENTINEL_OPTIONS: Final = frozenset({"sentinel_username", "sentinel_password"})
_LARGEST_PORT = 65_535
_NOT_A_URL = (
    "not a URL that can be used; expected redis://[user:password@]host:port/0, rediss://… for TLS, "
    "unix:///path/to/socket or redis+sentinel://[user:password@]host:port,host:port/service, "
    "special characters in user and password percent-encoded"
)

Place = tuple[str, int]
"""Host and port."""


class SentinelGroup(Struct, frozen=True):
    """Who is asked for the primary of `service`; `options` are the keywords of redis-py's connections to them."""

    service: str
    places: tuple[Place, ...]
    options: Mapping[str, Any]


class RedisAddress(Struct, frozen=True):
    """Where the rules are. `where` names it without secrets; `options` are keywords of redis-py's connections.

    `secrets` are the words that no message may repeat. With `sentinels`, `options` has no host and port.
    """

    where: str
    tls: bool
    options: Mapping[str, Any]
    secrets: tuple[str, ...]
    sentinels: SentinelGroup | None = None


def parse_redis_url(url: str) -> RedisAddress:
    """Return what a `redis_url` says.

    Raises:
        SettingsError: it cannot be used. The message does not repeat it, as it may hold a password.
    """
    scheme, separator, rest = url.partition("://")
    rest, _, query = rest.partition("?")
    if not separator or scheme not in _SCHEMES or "#" in url:
        _refuse(_NOT_A_URL)
    authority, slash, path = rest.partition("/")
    credentials, _, hosts = authority.rpartition("@")
    options = _options(query, scheme)
    login = _credentials(credentials)
    secrets = tuple(word for word in (login.get("password"), options.get("sentinel_password")) if word)
    if scheme == "unix":
        if hosts or not path:
            _refuse(_NOT_A_URL)
        name = unquote(slash + path)
        return RedisAddress(name, False, login | _database("", options) | {"path": name}, secrets)
    tls = scheme.startswith("rediss")
    transport = _transport(options) if tls else {}
    if scheme.endswith("+sentinel"):
        service, _, path = path.partition("/")
        group = _group(service, hosts, options, transport)
        return RedisAddress(_told(group), tls, login | transport | _database(path, options), secrets, group)
    host, port = _place(hosts, 6379)
    place = {"host": host, "port": port}
    return RedisAddress(f"{host}:{port}", tls, login | transport | _database(path, options) | place, secrets)


def _group(service: str, hosts: str, options: Mapping[str, str], transport: Mapping[str, Any]) -> SentinelGroup:
    if not service:
        _refuse("names no service; expected redis+sentinel://host:port,host:port/service")
    places = tuple(_place(host, 26_379) for host in hosts.split(","))
    names = {"username": "sentinel_username", "password": "sentinel_password"}
    login = {name: options[option] for name, option in names.items() if option in options}
    return SentinelGroup(unquote(service), places, {**login, **transport})


def _told(group: SentinelGroup) -> str:
    return f"{group.service} (as told by the Sentinels at {', '.join(f'{host}:{port}' for host, port in group.places)})"


def _refuse(words: str) -> NoReturn:
    raise SettingsError(f"redis_url: {words}")


def _credentials(text: str) -> dict[str, Any]:
    username, _, password = text.partition(":")
    found = {"username": unquote(username), "password": unquote(password)}
    return {name: word for name, word in found.items() if word}


def _place(text: str, default_port: int) -> Place:
    bracketed = text.startswith("[")
    host, _, port = text[1:].partition("]") if bracketed else text.partition(":")
    if bracketed:
        port = port.removeprefix(":")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) <= _LARGEST_PORT):
        _refuse(_NOT_A_URL)
    return unquote(host) or "localhost", int(port or default_port)


def _database(path: str, options: Mapping[str, str]) -> dict[str, Any]:
    number = path.rstrip("/") or options.get("db", "0")
    if not (number.isascii() and number.isdigit()):
        _refuse("the database is not a number; expected …/0")
    return {"db": int(number)}


def _options(query: str, scheme: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=True) if query else []
    except ValueError:
        _refuse(_NOT_A_URL)
    options = dict(pairs)
    if len(options) < len(pairs):
        _refuse("an option stands twice")
    known = {"db"} | (_TLS_OPTIONS if scheme.startswith("rediss") else set())
    known |= _SENTINEL_OPTIONS if scheme.endswith("+sentinel") else set()
    if options.keys() - known:  # not repeated: what stands there may be the rest of a password
        _refuse(f"an option is unknown; {scheme}:// takes {', '.join(sorted(known))}")
    return options


def _transport(options: Mapping[str, str]) -> dict[str, Any]:
    """Return the keywords of a TLS connection after trying the files that they name."""
    transport: dict[str, Any] = {name: options[name] for name in _TLS_OPTIONS & options.keys()}
    if "ssl_check_hostname" in transport:
        chosen = _TRUTHS.get(transport["ssl_check_hostname"].lower())
        if chosen is None:
            _refuse("ssl_check_hostname: expected true or false")
        transport["ssl_check_hostname"] = chosen
    if transport.get("ssl_cert_reqs", "required") not in ("required", "none"):
        _refuse("ssl_cert_reqs: expected required or none")
    context = ssl.create_default_context()
    if "ssl_ca_certs" in transport:
        _try("ssl_ca_certs", lambda: context.load_verify_locations(transport["ssl_ca_certs"]))
    if "ssl_keyfile" in transport and "ssl_certfile" not in transport:
        _refuse("ssl_keyfile: needs ssl_certfile beside it")
    if "ssl_certfile" in transport:
        files = (transport["ssl_certfile"], transport.get("ssl_keyfile"))
        # An encrypted key would make OpenSSL ask on the terminal; an empty password makes it an error.
        _try("ssl_certfile", lambda: context.load_cert_chain(*files, password=""))
    return transport


def _try(option: str, load: Callable[[], None]) -> None:
    try:
        load()
    except OSError as error:  # ssl.SSLError is one
        _refuse(f"{option}: the file cannot be used: {error.strerror or error}")
