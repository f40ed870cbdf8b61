"""The form of `audit.url` for PostgreSQL, parsed at the door: what cannot be used is refused before anything connects.

    postgresql://[user[:password]@][host][:port][,host:port…][/database][?option=value&…]

It is libpq's own form, and every option of libpq (`sslmode`, `sslrootcert`, `passfile`, `target_session_attrs`, …) is
passed on to it as it stands, so is its environment (`PGPASSWORD`, …). Special characters are percent-encoded.

Belongs here: the grammar, and what we add where the URL says nothing. Never here: a connection.
"""

from collections.abc import Mapping
from typing import Final

import psycopg
from msgspec import Struct
from psycopg.conninfo import conninfo_to_dict

from gateway.errors import SettingsError

_SCHEMES: Final = ("postgresql://", "postgres://")
_SECRETS: Final = ("password", "sslpassword", "oauth_client_secret")
# A server that has gone without a word (no power, no route) is noticed within half a minute.
_DEFAULTS: Final[Mapping[str, str]] = {
    "connect_timeout": "5",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "25000",
    "fallback_application_name": "pointsman",
}


class PostgresAddress(Struct, frozen=True):
    """Where the audit store is. `where` names it without secrets; `options` are libpq's keywords.

    `secrets` are the words that no message may repeat.
    """

    where: str
    options: Mapping[str, str]
    secrets: tuple[str, ...]

    def masked(self, text: str) -> str:
        """Return a text on one line, without the secrets."""
        text = " ".join(text.split())
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


def parse_postgres_url(url: str) -> PostgresAddress:
    """Return what an `audit.url` says, with our defaults for what it leaves open.

    Raises:
        SettingsError: it cannot be used. The message does not repeat it, as it may hold a password.
    """
    try:
        given = conninfo_to_dict(url) if url.startswith(_SCHEMES) else {}
    except psycopg.Error as error:
        unknown = "invalid URI query parameter" in str(error)  # its name is not repeated: it may be part of a password
        why = "an option is unknown to libpq" if unknown else "not a URL that can be used"
        raise SettingsError(f"audit.url: {why}; {_expected()}") from None
    if not given:
        raise SettingsError(f"audit.url: not a URL that can be used; {_expected()}")
    options = {name: str(value) for name, value in given.items() if value is not None}
    secrets = tuple(options[name] for name in _SECRETS if options.get(name))
    return PostgresAddress(_told(options), {**_DEFAULTS, **options}, secrets)


def _expected() -> str:
    return (
        "expected postgresql://user:password@host:5432/database?sslmode=verify-full, special characters in user and "
        "password percent-encoded"
    )


def _told(options: Mapping[str, str]) -> str:
    hosts = (options.get("host") or options.get("hostaddr") or "the local socket").split(",")
    ports = options.get("port", "5432").split(",")
    if len(ports) < len(hosts):
        ports = ports * len(hosts)
    places = ",".join(f"{host}:{port}" for host, port in zip(hosts, ports, strict=False))
    return f"{places}/{options.get('dbname', '')}"
