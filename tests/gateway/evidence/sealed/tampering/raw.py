"""The files of a store, open for raw changes, and words for which record a verdict has to name."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
from msgspec import Struct

from gateway.capture import capture
from gateway.evidence.findings import Verdict
from gateway.identity import new_record_id
from gateway.record import Record, encode_record
from gateway.stores.audit_sqlite_day import COLUMNS, INSERT, row_of
from routing.types import Capture

Named = Callable[[Verdict], bool]


class Mutation(Struct, frozen=True):
    """What was changed, and whether a verdict names it."""

    what: str
    named: Named


class Spot(Struct, frozen=True):
    """A record as it stands in a day's file."""

    day: Path
    number: int
    journal: str
    sequence: int


class Store:
    """The files of a store, open for raw changes."""

    def __init__(self, folder: Path, chance: random.Random) -> None:
        self.folder = folder
        self.chance = chance
        self.days = sorted(folder.glob("????-??-??.db"))

    def run(self, day: Path, sql: str, *values: Any) -> list[Any]:
        connection = apsw.Connection(str(day))
        connection.pragma("synchronous", "off")
        try:
            return connection.execute(sql, values).fetchall()
        finally:
            connection.close()

    def spots(self, table: str = "records", where: str = "1") -> list[Spot]:
        """Every row of a table that stands in a place."""
        sql = f"SELECT number, name, sequence FROM {table} JOIN journals ON journals.id = journal WHERE {where}"
        return [Spot(day, *row) for day in self.days for row in self.run(day, sql)]

    def spot(self, table: str = "records", where: str = "1") -> Spot | None:
        found = self.spots(table, where)
        return self.chance.choice(found) if found else None

    def sealed(self, spot: Spot) -> tuple[bytes, bytes]:
        row = self.run(spot.day, "SELECT previous, sealed FROM sealed WHERE number = ?", spot.number)[0]
        return row[0], row[1]


def at(*places: tuple[str, int]) -> Named:
    """The first finding names one of these places."""
    return lambda verdict: verdict.first is not None and (verdict.first.journal, verdict.first.sequence) in places


def of_journal(journal: str) -> Named:
    return lambda verdict: verdict.first is not None and verdict.first.journal == journal


def of_checkpoint(*numbers: int) -> Named:
    return lambda verdict: any(one.checkpoint in numbers for one in verdict.findings[:2])


def anywhere(verdict: Verdict) -> bool:
    return verdict.first is not None


def flipped(value: Any, chance: random.Random) -> Any:
    """The value with one bit or character changed; of None, something."""
    if value is None:
        return chance.choice([1, 7, 255])
    if isinstance(value, int):
        return value ^ (1 << chance.randrange(4))
    if isinstance(value, str):
        if not value:
            return "x"
        where = chance.randrange(len(value))
        return value[:where] + chr(ord(value[where]) ^ 1) + value[where + 1 :]
    changed = bytearray(value)
    if not changed:
        return b"\1"
    changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def write_record(store: Store, spot: Spot, record: Record) -> None:
    def word(text: str) -> int:
        store.run(spot.day, "INSERT OR IGNORE INTO words (word) VALUES (?)", text)
        return int(store.run(spot.day, "SELECT id FROM words WHERE word = ?", text)[0][0])

    names = COLUMNS.split(", ")
    assigned = ", ".join(f"{name} = ?" for name in names)
    store.run(spot.day, f"UPDATE records SET {assigned} WHERE number = ?", *row_of(record, word), spot.number)
    store.run(spot.day, "UPDATE sealed SET sealed = ? WHERE number = ?", encode_record(record), spot.number)


def insert(store: Store, day: Path, journal: str, sequence: int, previous: bytes) -> None:
    asked, request = capture(b"forged", "full", Capture())
    answered, response = capture(b"forged", "full", Capture())
    record_id = new_record_id(1_790_000_000 * 10**9)
    record = Record(
        record_id=record_id, request_id=record_id, role="primary", received_ns=1_790_000_000 * 10**9, model="fraud",
        protocol="oip-v2", outcome="served", status=200, request=asked, response=answered, gateway="g", worker="w5",
    )  # fmt: skip

    def word(text: str) -> int:
        store.run(day, "INSERT OR IGNORE INTO words (word) VALUES (?)", text)
        return int(store.run(day, "SELECT id FROM words WHERE word = ?", text)[0][0])

    store.run(day, "INSERT OR IGNORE INTO journals (name) VALUES (?)", journal)
    of = store.run(day, "SELECT id FROM journals WHERE name = ?", journal)[0][0]
    number = 1 + max([0, *(spot.number for table in ("records", "stubs") for spot in store.spots(table))])
    store.run(day, INSERT, number, of, sequence, *row_of(record, word))
    store.run(day, "INSERT INTO sealed VALUES (?, ?, ?)", number, previous, encode_record(record))
    store.run(day, "INSERT INTO parts VALUES (?, ?, ?)", number, request, response)


NOT_ERASED = "number NOT IN (SELECT number FROM erasures)"
PLACES = "SELECT name, sequence FROM records JOIN journals ON id = journal"
