"""Checkpoints and public keys in PostgreSQL, and the stretches of journals that each checkpoint covers.

Belongs here: their statements. Never here: signatures, or what a checkpoint says beyond its stretches.
"""

from collections.abc import Iterator, Sequence
from datetime import date
from typing import Any, Final

import msgspec
from msgspec import Struct

from gateway.errors import AuditUnavailable
from gateway.ports import Dropped, Gap, Place, PublicKey, SignedCheckpoint
from gateway.stores.audit_postgres_days import parse_day
from gateway.stores.audit_postgres_rows import column_text, escaped, plain_text
from gateway.stores.postgres_connection import Lend, Link

_CHUNK: Final = 50  # each has a few bytes for every record that it covers
_COLUMNS: Final = "checkpoints.gateway, checkpoints.number, day, at_ns, statement, listing, signature, key"
_SEAL: Final = """
INSERT INTO checkpoints (gateway, number, day, at_ns, statement, listing, signature, key)
VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING RETURNING 1
"""
_CHECKPOINTS: Final = f"SELECT {_COLUMNS} FROM checkpoints "  # noqa: S608 - names of ours
_ONE: Final = _CHECKPOINTS + "WHERE gateway = %s AND number = %s"
_LAST: Final = _CHECKPOINTS + "WHERE gateway = %s ORDER BY number DESC LIMIT 1"
_NEXT: Final = f"""
{_CHECKPOINTS}
WHERE (gateway, number) > (%(above)s, %(number)s) AND (%(gateway)s::text IS NULL OR gateway = %(gateway)s)
AND (%(day)s::date IS NULL OR day = %(day)s) ORDER BY gateway, number LIMIT %(limit)s
"""
_COVER: Final = (
    "INSERT INTO covers (journal, last, first, gateway, number) VALUES (%s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"
)
_COVERING: Final = f"""
SELECT {_COLUMNS} FROM covers JOIN checkpoints USING (gateway, number)
WHERE journal = %(journal)s AND last >= %(sequence)s AND first <= %(sequence)s ORDER BY last LIMIT 1
"""  # noqa: S608 - names of ours
_PUBLISH: Final = "INSERT INTO public_keys (gateway, key, pem, since_ns) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING"
_KEYS: Final = "SELECT gateway, key, pem, since_ns FROM public_keys ORDER BY since_ns, gateway, key"
_GAPS: Final = 'SELECT journal, first, count, segment, "offset", why, at_ns FROM gaps ORDER BY journal, first'
_DROPPED: Final = "SELECT day, journal, first, last, records, pruning FROM dropped ORDER BY day, journal, first"


class _Stretch(Struct, frozen=True):
    journal: str
    first: int
    last: int


def seal(connection: Link, checkpoint: SignedCheckpoint) -> None:
    """Add a checkpoint, in the transaction that is open.

    Raises:
        AuditUnavailable: another one of its gateway and number is kept.
    """
    gateway = column_text(checkpoint.gateway)
    row = (
        gateway,
        checkpoint.number,
        date.fromisoformat(checkpoint.day),
        checkpoint.at_ns,
        checkpoint.statement,
        checkpoint.listing,
        checkpoint.signature,
        column_text(checkpoint.key),
    )
    if not connection.rows(_SEAL, row):
        if [_checkpoint(kept) for kept in connection.rows(_ONE, row[:2])] != [checkpoint]:
            raise AuditUnavailable(
                f"checkpoint {checkpoint.number} of gateway {checkpoint.gateway} is kept, and is another one"
            )
        return
    with connection.cursor() as cursor:
        cursor.executemany(
            _COVER,
            [
                (column_text(one.journal), one.last, one.first, gateway, checkpoint.number)
                for one in _stretches(checkpoint.listing)
            ],
        )


def _stretches(listing: bytes) -> list[_Stretch]:
    """Return the stretches of a listing; of one that is none of ours, nothing."""
    try:
        return msgspec.json.decode(listing, type=list[_Stretch])
    except (msgspec.DecodeError, UnicodeDecodeError):
        return []


def last_checkpoint(connection: Link, gateway: str) -> SignedCheckpoint | None:
    """Return the newest checkpoint of a gateway, or None."""
    rows = connection.rows(_LAST, (column_text(gateway),))
    return _checkpoint(rows[0]) if rows else None


def checkpoints(lend: Lend, gateway: str | None, day: str | None) -> Iterator[SignedCheckpoint]:
    """Yield the checkpoints in order of gateway and number. No connection is held between two of them."""
    values: dict[str, Any] = {
        "gateway": column_text(gateway) if gateway is not None else None,
        "day": parse_day(day) if day is not None else None,
        "limit": _CHUNK,
        "above": "",
        "number": 0,
    }
    if day is not None and values["day"] is None:
        return
    while True:
        with lend() as connection:
            rows = connection.rows(_NEXT, values)
        yield from (_checkpoint(row) for row in rows)
        if len(rows) < _CHUNK:
            return
        values["above"], values["number"] = rows[-1][:2]


def checkpoint_of(connection: Link, place: Place) -> SignedCheckpoint | None:
    """Return the checkpoint that covers a place, or None while there is none."""
    values = {"journal": column_text(place.journal), "sequence": place.sequence}
    rows = connection.rows(_COVERING, values)
    return _checkpoint(rows[0]) if rows else None


def _checkpoint(row: tuple[Any, ...]) -> SignedCheckpoint:
    gateway, number, day, at_ns, statement, listing, signature, key = row
    return SignedCheckpoint(
        plain_text(gateway), number, day.isoformat(), at_ns, statement, listing, signature, plain_text(key)
    )


def publish_key(connection: Link, key: PublicKey) -> None:
    """Keep a public key; one that is there is left as it is."""
    connection.execute(_PUBLISH, (column_text(key.gateway), column_text(key.key), escaped(key.pem), key.since_ns))


def keys(connection: Link) -> Sequence[PublicKey]:
    """Return every public key that was published, oldest first."""
    return [
        PublicKey(plain_text(gateway), plain_text(key), plain_text(pem), since_ns)
        for gateway, key, pem, since_ns in connection.rows(_KEYS)
    ]


def gaps(connection: Link) -> Sequence[Gap]:
    """Return every gap that was ever committed, in order of journal and sequence."""
    return [
        Gap(plain_text(journal), first, count, segment, offset, plain_text(why), at_ns)
        for journal, first, count, segment, offset, why, at_ns in connection.rows(_GAPS)
    ]


def dropped(connection: Link) -> Sequence[Dropped]:
    """Return what was dropped with whole days, in order of day and journal."""
    return [
        Dropped(day.isoformat(), plain_text(journal), first, last, records, plain_text(pruning))
        for day, journal, first, last, records, pruning in connection.rows(_DROPPED)
    ]
