"""What somebody with write access can do to a store and its journals: one mutation at a time, chosen by chance.

    mutation = tamper(folder, chance)     change something in a copy of a house; None when that house has no such thing
    mutation.named(verdict)               whether the first bad record that was named is the one that was changed

Everything that is changed is covered by a checkpoint. Not changed is what no signature can vouch for: the words of a
gap and its time, a gap among records that were dropped since, when a public key was published, when a stub's record was
received, when a segment was begun.
"""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import msgspec
from crc32c import crc32c
from msgspec import Struct

from gateway.capture import capture
from gateway.chain import genesis, leaf, link, root_of
from gateway.columns import packed_id
from gateway.evidence.findings import Verdict
from gateway.evidence.keys import SigningKey
from gateway.evidence.statements import (
    digest,
    encode_listing,
    encode_statement,
    parse_listing,
    parse_statement,
    sign,
)
from gateway.identity import new_record_id
from gateway.journal.segment import FRAME_OVERHEAD, Flaw, parse_header, read_frame
from gateway.record import Record, decode_record, encode_record
from gateway.sealing import parts_at
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


# ── records ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def flip_a_column(store: Store, chance: random.Random) -> Mutation | None:
    spot = store.spot()
    if spot is None:
        return None
    column = chance.choice(COLUMNS.split(", "))
    old = store.run(spot.day, f"SELECT {column} FROM records WHERE number = ?", spot.number)[0][0]
    new = b"\1\2\3" if old is None and column in {"unit", "headers"} else flipped(old, chance)
    store.run(spot.day, f"UPDATE records SET {column} = ? WHERE number = ?", new, spot.number)
    return Mutation(f"{column} of {spot}: {old!r} → {new!r}", at((spot.journal, spot.sequence)))


def flip_a_sealed_part(store: Store, chance: random.Random) -> Mutation | None:
    spot = store.spot()
    if spot is None:
        return None
    column = chance.choice(["previous", "sealed", "sealed"])
    previous, sealed = store.sealed(spot)
    new = flipped(previous if column == "previous" else sealed, chance)
    store.run(spot.day, f"UPDATE sealed SET {column} = ? WHERE number = ?", new, spot.number)
    return Mutation(f"{column} of {spot}", at((spot.journal, spot.sequence)))


def edit_a_sealed_part_and_its_columns(store: Store, chance: random.Random) -> Mutation | None:
    """What a careful forger does: the version that served, in the sealed part and in the columns."""
    spot = store.spot(where="role = 0")
    if spot is None:
        return None
    _, sealed = store.sealed(spot)
    forged = msgspec.structs.replace(decode_record(sealed), served="9", intended="9")
    write_record(store, spot, forged)
    return Mutation(f"forged {spot}", at((spot.journal, spot.sequence)))


def write_record(store: Store, spot: Spot, record: Record) -> None:
    def word(text: str) -> int:
        store.run(spot.day, "INSERT OR IGNORE INTO words (word) VALUES (?)", text)
        return int(store.run(spot.day, "SELECT id FROM words WHERE word = ?", text)[0][0])

    names = COLUMNS.split(", ")
    assigned = ", ".join(f"{name} = ?" for name in names)
    store.run(spot.day, f"UPDATE records SET {assigned} WHERE number = ?", *row_of(record, word), spot.number)
    store.run(spot.day, "UPDATE sealed SET sealed = ? WHERE number = ?", encode_record(record), spot.number)


def flip_a_part(store: Store, chance: random.Random) -> Mutation | None:
    column = chance.choice(["request", "response"])
    spot = store.spot(where=f"number IN (SELECT number FROM parts WHERE length({column}) > 0) AND {NOT_ERASED}")
    if spot is None:
        return None
    old = store.run(spot.day, f"SELECT {column} FROM parts WHERE number = ?", spot.number)[0][0]
    new = chance.choice([flipped(old, chance), old[:-1], b"", bytes(len(old)), old + b"\0"])
    store.run(spot.day, f"UPDATE parts SET {column} = ? WHERE number = ?", new, spot.number)
    return Mutation(f"{column} of {spot}: {len(old)} bytes → {len(new)}", at((spot.journal, spot.sequence)))


NOT_ERASED = "number NOT IN (SELECT number FROM erasures)"


def delete_a_record(store: Store, chance: random.Random) -> Mutation | None:
    spot = store.spot()
    if spot is None:
        return None
    tables = chance.choice([("records", "sealed", "parts"), ("records",), ("sealed",), ("records", "sealed")])
    for table in tables:
        store.run(spot.day, f"DELETE FROM {table} WHERE number = ?", spot.number)
    return Mutation(f"deleted {spot} from {tables}", at((spot.journal, spot.sequence)))


def delete_parts(store: Store, chance: random.Random) -> Mutation | None:
    spot = store.spot(where=f"number IN (SELECT number FROM parts WHERE length(response) > 0) AND {NOT_ERASED}")
    if spot is None:
        return None
    store.run(spot.day, "DELETE FROM parts WHERE number = ?", spot.number)
    return Mutation(f"deleted parts of {spot}", at((spot.journal, spot.sequence)))


def delete_many(store: Store, chance: random.Random) -> Mutation | None:
    spot = store.spot()
    if spot is None:
        return None
    upto = spot.sequence + chance.randrange(1, 9)
    journal = store.run(spot.day, "SELECT id FROM journals WHERE name = ?", spot.journal)[0][0]
    sql = "DELETE FROM records WHERE journal = ? AND sequence BETWEEN ? AND ?"
    store.run(spot.day, sql, journal, spot.sequence, upto)
    return Mutation(f"deleted {spot} and all up to {upto}", at((spot.journal, spot.sequence)))


def delete_and_close_ranks(store: Store, chance: random.Random) -> Mutation | None:
    """Take a record out and let those behind it, in its day, move up by one place."""
    spot = store.spot()
    if spot is None:
        return None
    journal = store.run(spot.day, "SELECT id FROM journals WHERE name = ?", spot.journal)[0][0]
    store.run(spot.day, "DELETE FROM records WHERE number = ?", spot.number)
    for sign in ("-", "-1 -"):  # past zero and back, since places are unique on the way, too
        sql = f"UPDATE records SET sequence = {sign} sequence WHERE journal = ? AND (sequence > ? OR sequence < 0)"
        store.run(spot.day, sql, journal, spot.sequence)
    return Mutation(f"deleted {spot}, closing ranks", at((spot.journal, spot.sequence)))


def move_a_record(store: Store, chance: random.Random) -> Mutation | None:
    spot = store.spot()
    if spot is None:
        return None
    there = {one.sequence for one in store.spots() if one.journal == spot.journal}
    to = chance.choice([max(there) + chance.randrange(1, 500), -spot.sequence, 0, 2**62])
    store.run(spot.day, "UPDATE records SET sequence = ? WHERE number = ?", to, spot.number)
    return Mutation(f"moved {spot} to {to}", at((spot.journal, spot.sequence), (spot.journal, to)))


def renumber_a_row(store: Store, chance: random.Random) -> Mutation | None:
    """Tear a record's row away from its sealed part."""
    spot = store.spot()
    if spot is None:
        return None
    store.run(spot.day, "UPDATE records SET number = ? WHERE number = ?", 10**6 + spot.number, spot.number)
    return Mutation(f"renumbered {spot}", at((spot.journal, spot.sequence)))


def give_a_record_to_another_journal(store: Store, chance: random.Random) -> Mutation | None:
    spot = store.spot()
    if spot is None:
        return None
    name = chance.choice(["g/w7.000000000000", "other/w0.000000000000", "", "g/w0"])
    store.run(spot.day, "INSERT OR IGNORE INTO journals (name) VALUES (?)", name)
    journal = store.run(spot.day, "SELECT id FROM journals WHERE name = ?", name)[0][0]
    store.run(spot.day, "UPDATE records SET journal = ? WHERE number = ?", journal, spot.number)
    return Mutation(f"gave {spot} to {name!r}", at((spot.journal, spot.sequence)))


def swap_two_records(store: Store, chance: random.Random) -> Mutation | None:
    """Exchange the places of two records of one journal and day, with everything that belongs to them."""
    one = store.spot()
    others = [other for other in store.spots() if one and (other.day, other.journal) == (one.day, one.journal)]
    others = [other for other in others if one and other.number != one.number]
    if one is None or not others:
        return None
    other = chance.choice(others)
    for spot, sequence in ((one, -1), (other, one.sequence), (one, other.sequence)):
        store.run(one.day, "UPDATE records SET sequence = ? WHERE number = ?", sequence, spot.number)
    first = min(one.sequence, other.sequence)
    return Mutation(f"swapped {one} and {other}", at((one.journal, first)))


def swap_two_sealed_parts(store: Store, chance: random.Random) -> Mutation | None:
    one = store.spot()
    others = [other for other in store.spots() if one and other.day == one.day and other.number != one.number]
    if one is None or not others:
        return None
    other = chance.choice(others)
    for spot, number in ((one, -1), (other, one.number), (one, other.number)):
        sql = "UPDATE sealed SET number = ? WHERE number = ?"
        store.run(one.day, sql, number, -1 if spot is one and number != -1 else spot.number)
    places = ((one.journal, one.sequence), (other.journal, other.sequence))
    return Mutation(f"swapped what is sealed of {one} and {other}", at(*places))


def splice_a_record(store: Store, chance: random.Random) -> Mutation | None:
    """Put a record of another day or journal, with its columns and its chain, in the place of one."""
    spot = store.spot(where="role = 0")
    others = [other for other in store.spots(where="role = 0") if spot and other != spot]
    others = [other for other in others if spot and (other.day, other.journal) != (spot.day, spot.journal)]
    if spot is None or not others:
        return None
    other = chance.choice(others)
    previous, sealed = store.sealed(other)
    write_record(store, spot, decode_record(sealed))
    if chance.random() < 0.5:
        store.run(spot.day, "UPDATE sealed SET previous = ? WHERE number = ?", previous, spot.number)
    store.run(spot.day, "DELETE FROM parts WHERE number = ?", spot.number)
    parts = store.run(other.day, "SELECT request, response FROM parts WHERE number = ?", other.number)
    for request, response in parts:
        store.run(spot.day, "INSERT INTO parts VALUES (?, ?, ?)", spot.number, request, response)
    return Mutation(f"{other} in the place of {spot}", at((spot.journal, spot.sequence)))


def insert_a_record(store: Store, chance: random.Random) -> Mutation | None:
    """Add a well-made record where there is none: in an unknown journal, or before, between and after known ones."""
    spot = store.spot()
    if spot is None or len(store.days) < 2:
        return None
    day = chance.choice(store.days[:-1])
    spots = store.spots()
    known = {one.journal: [other.sequence for other in spots if other.journal == one.journal] for one in spots}
    taken = {(one.journal, one.sequence) for table in ("records", "stubs") for one in store.spots(table)}
    journal = chance.choice(["g/w5.00000000abcd", *known])
    sequence = chance.choice([1, 0, max(known.get(journal, [0])) + 1, chance.randrange(1, 60)])
    if (journal, sequence) in taken:
        return None
    insert(store, day, journal, sequence, genesis(journal))
    return Mutation(f"inserted {journal} {sequence} into {day.name}", at((journal, sequence)))


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


def copy_a_record_into_another_day(store: Store, chance: random.Random) -> Mutation | None:
    spot = store.spot(where="role = 0")
    days = [day for day in store.days if spot and day != spot.day]
    if spot is None or not days:
        return None
    day = chance.choice(days)
    previous, sealed = store.sealed(spot)
    insert(store, day, spot.journal, spot.sequence, previous)
    (twin,) = (
        one for one in store.spots() if (one.day, one.journal, one.sequence) == (day, spot.journal, spot.sequence)
    )
    write_record(store, twin, decode_record(sealed))
    if chance.random() < 0.5:  # moved, not copied
        store.run(spot.day, "DELETE FROM records WHERE number = ?", spot.number)
    return Mutation(f"{spot} in {day.name}", of_journal(spot.journal))


def rename_a_journal(store: Store, chance: random.Random) -> Mutation | None:
    spot = store.spot()
    if spot is None:
        return None
    new = flipped(spot.journal, chance)
    store.run(spot.day, "UPDATE OR IGNORE journals SET name = ? WHERE name = ?", new, spot.journal)
    return Mutation(f"{spot.journal} is {new!r} in {spot.day.name}", anywhere)


def change_a_word(store: Store, chance: random.Random) -> Mutation | None:
    spot = store.spot()
    if spot is None:
        return None
    column = chance.choice(["model", "caller", "gateway"])
    word = store.run(spot.day, f"SELECT {column} FROM records WHERE number = ?", spot.number)[0][0]
    store.run(spot.day, "UPDATE words SET word = word || 'x' WHERE id = ?", word)
    return Mutation(f"the word for {column} of {spot}", anywhere)


# ── what is erased and pruned ────────────────────────────────────────────────────────────────────────────────────────


def change_an_erasure(store: Store, chance: random.Random) -> Mutation | None:
    spot = store.spot(where="number IN (SELECT number FROM erasures)")
    if spot is None:
        return None
    (old,) = store.run(spot.day, "SELECT erasure FROM erasures WHERE number = ?", spot.number)[0]
    if chance.random() < 0.5:
        store.run(spot.day, "DELETE FROM erasures WHERE number = ?", spot.number)
        # Of a record that had no parts anyway, an erasure is no news.
        kept = store.run(spot.day, "SELECT length(request) + length(response) FROM parts WHERE number = ?", spot.number)
        return Mutation(f"no erasure of {spot}", at((spot.journal, spot.sequence))) if kept and kept[0][0] else None
    new = flipped(old, chance)
    store.run(spot.day, "UPDATE erasures SET erasure = ? WHERE number = ?", new, spot.number)
    return Mutation(f"another erasure of {spot}", at((spot.journal, spot.sequence)))


def claim_an_erasure(store: Store, chance: random.Random) -> Mutation | None:
    """Take the contents of a record and say that an erasure did it: one that never was, or one of somebody else."""
    spot = store.spot(where=NOT_ERASED)
    if spot is None:
        return None
    real = [row[0] for day in store.days for row in store.run(day, "SELECT DISTINCT erasure FROM erasures")]
    unit = decode_record(store.sealed(spot)[1]).unit
    wrong = [one for one in real if not asked_for(store, one, unit)]
    by = chance.choice([*wrong, packed_id(new_record_id(10**18))])
    store.run(spot.day, "INSERT INTO erasures VALUES (?, ?)", spot.number, by)
    store.run(spot.day, "DELETE FROM parts WHERE number = ?", spot.number)
    places = {(spot.journal, spot.sequence)}
    for day in store.days:
        sql = "SELECT name, sequence FROM records JOIN journals ON id = journal JOIN erasures USING (number) WHERE erasure = ?"
        places |= {(name, sequence) for name, sequence in store.run(day, sql, by)}
    return Mutation(f"claimed that {spot} was erased by {by!r}", at(*places))


def asked_for(store: Store, erasure: Any, unit: str | None) -> bool:
    for day in store.days:
        for (sealed,) in store.run(
            day, "SELECT sealed FROM sealed JOIN records USING (number) WHERE record_id = ?", erasure
        ):
            return bool(decode_record(sealed).details.get("unit") == unit)
    return False


def change_a_stub(store: Store, chance: random.Random) -> Mutation | None:
    spot = store.spot("stubs")
    if spot is None:
        return None
    column = chance.choice(["previous", "chain", "pruning", "sequence", "delete"])
    if column == "delete":
        store.run(spot.day, "DELETE FROM stubs WHERE number = ?", spot.number)
    else:
        (old,) = store.run(spot.day, f"SELECT {column} FROM stubs WHERE number = ?", spot.number)[0]
        new = -old if column == "sequence" else flipped(old, chance)
        store.run(spot.day, f"UPDATE stubs SET {column} = ? WHERE number = ?", new, spot.number)
    places = [(spot.journal, spot.sequence), (spot.journal, -spot.sequence)]
    if column == "chain":  # two stubs side by side are bound by the tree alone, which does not say which of them it is
        return Mutation(f"{column} of stub {spot}", of_journal(spot.journal))
    return Mutation(f"{column} of stub {spot}", at(*places))


def prune_a_record_without_telling(store: Store, chance: random.Random) -> Mutation | None:
    """Replace a record by a stub with the right chain, and name a pruning: a real one, or one that never was."""
    spot = store.spot()
    if spot is None:
        return None
    previous, sealed = store.sealed(spot)
    real = [row[0] for day in store.days for row in store.run(day, "SELECT DISTINCT pruning FROM stubs")]
    pruning = chance.choice([*real, packed_id(new_record_id(10**18))])
    sql = "INSERT INTO stubs SELECT number, journal, sequence, received_ns, ?, ?, ? FROM records WHERE number = ?"
    store.run(spot.day, sql, previous, link(previous, spot.sequence, sealed), pruning, spot.number)
    for table in ("records", "sealed", "parts", "erasures"):
        store.run(spot.day, f"DELETE FROM {table} WHERE number = ?", spot.number)
    places = {(spot.journal, spot.sequence)}
    for day in store.days:
        sql = "SELECT name, sequence FROM stubs JOIN journals ON id = journal WHERE pruning = ?"
        places |= {(name, sequence) for name, sequence in store.run(day, sql, pruning)}
    return Mutation(f"pruned {spot} by {pruning!r}", at(*places))


def drop_a_day_without_telling(store: Store, chance: random.Random) -> Mutation | None:
    if len(store.days) < 2:
        return None
    day = chance.choice(store.days[:-1])
    if not store.run(day, "SELECT 1 FROM records LIMIT 1"):
        return None
    told = chance.choice(["nothing", "the index"])
    if told == "the index":
        rows = store.run(
            day,
            "SELECT name, min(sequence), max(sequence), count(*) FROM records JOIN journals ON id = journal GROUP BY name",
        )
        for name, first, last, count in rows:
            by = packed_id(new_record_id(10**18))
            store.run(store.folder / "index.db", "INSERT INTO dropped VALUES (?, ?, ?, ?, ?, ?)",
                      day.stem, name, first, last, count, by)  # fmt: skip
    for path in store.folder.glob(f"{day.name}*"):
        path.unlink()
    return Mutation(f"dropped {day.name}, telling {told}", anywhere)


def change_what_is_told_of_a_dropped_day(store: Store, chance: random.Random) -> Mutation | None:
    index = store.folder / "index.db"
    rows = store.run(index, "SELECT day, journal, pruning FROM dropped")
    if not rows:
        return None
    key = chance.choice(rows)
    column = chance.choice(["day", "journal", "first", "last", "records", "pruning", "delete"])
    where = "WHERE day = ? AND journal = ? AND pruning = ?"
    if column == "delete":
        store.run(index, f"DELETE FROM dropped {where}", *key)
    else:
        (old,) = store.run(index, f"SELECT {column} FROM dropped {where}", *key)[0]
        store.run(index, f"UPDATE dropped SET {column} = ? {where}", flipped(old, chance), *key)
    return Mutation(f"{column} of what was dropped: {key}", anywhere)


# ── checkpoints, keys, positions, gaps ───────────────────────────────────────────────────────────────────────────────


def change_a_checkpoint(store: Store, chance: random.Random) -> Mutation | None:
    found = [(day, *row) for day in store.days for row in store.run(day, "SELECT gateway, number FROM checkpoints")]
    if not found:
        return None
    day, gateway, number = chance.choice(found)
    columns = ["gateway", "number", "day", "at_ns", "statement", "listing", "signature", "key", "delete"]
    column = chance.choice(columns)
    if column == "delete":
        store.run(day, "DELETE FROM checkpoints WHERE number = ?", number)
        return Mutation(f"deleted checkpoint {number}", anywhere)
    (old,) = store.run(day, f"SELECT {column} FROM checkpoints WHERE number = ?", number)[0]
    new = flipped(old, chance)
    if column == "number":
        new = number + 10_000
    store.run(day, f"UPDATE checkpoints SET {column} = ? WHERE number = ?", new, number)
    named = of_checkpoint(number, number + 1, 10_000 + number)
    return Mutation(f"{column} of checkpoint {number}", anywhere if column in {"gateway", "number"} else named)


def truncate(store: Store, chance: random.Random) -> Mutation | None:
    """Set the store back: the newest checkpoint with all it covers is gone, and the positions are as before it."""
    newest = store.days[-1]
    rows = store.run(newest, "SELECT number, listing FROM checkpoints ORDER BY number DESC LIMIT 1")
    if not rows:
        return None
    number, listing = rows[0]
    store.run(newest, "DELETE FROM checkpoints WHERE number = ?", number)
    store.run(newest, "DELETE FROM covers WHERE number = ?", number)
    for stretch in parse_listing(listing):
        journal = store.run(newest, "SELECT id FROM journals WHERE name = ?", stretch.journal)[0][0]
        sql = "DELETE FROM records WHERE journal = ? AND sequence BETWEEN ? AND ?"
        store.run(newest, sql, journal, stretch.first, stretch.last)
        sql = "UPDATE positions SET sequence = ?, chain = ? WHERE journal = ?"
        store.run(newest, sql, stretch.first - 1, bytes.fromhex(stretch.start), stretch.journal)
    return Mutation(f"truncated checkpoint {number}", lambda verdict: verdict.findings[0].checkpoint == number)


def rewrite_and_sign_again(store: Store, chance: random.Random) -> Mutation | None:
    """Forge a record, bring the chains, every later statement and listing in line, and sign with a key of one's own."""
    spots = store.spots(where="role = 0 AND number > 0")
    found = [(day, *row) for day in store.days for row in store.run(day, "SELECT number, listing FROM checkpoints")]
    if not spots or not found:
        return None
    spot, forger = chance.choice(spots), SigningKey.generate()
    _, sealed = store.sealed(spot)
    write_record(store, spot, msgspec.structs.replace(decode_record(sealed), served="9", intended="9"))
    rechain(store, spot.journal, spot.sequence)
    sign_all(store, forger)
    if chance.random() < 0.7:
        index = store.folder / "index.db"
        if chance.random() < 0.5:
            store.run(index, "DELETE FROM keys")
        store.run(index, "INSERT INTO keys VALUES ('g', ?, ?, ?)", forger.id, forger.public.pem, 5)
    return Mutation(f"rewrote the log from {spot} on", anywhere)


def rechain(store: Store, journal: str, sequence: int) -> None:
    """Let every record of a journal after one follow on the one before it again."""
    spots = sorted((one for one in store.spots() if one.journal == journal), key=lambda one: one.sequence)
    before: tuple[int, bytes] | None = None
    for spot in spots:
        if spot.sequence < sequence:
            continue
        previous, sealed = store.sealed(spot)
        if before is not None and before[0] == spot.sequence - 1:
            previous = before[1]
            store.run(spot.day, "UPDATE sealed SET previous = ? WHERE number = ?", previous, spot.number)
        before = spot.sequence, link(previous, spot.sequence, sealed)


def sign_all(store: Store, key: SigningKey) -> None:
    """Make every statement anew from what the store holds now."""
    chains: dict[tuple[str, int], tuple[bytes, bytes]] = {}
    for spot in store.spots():
        previous, sealed = store.sealed(spot)
        chains[spot.journal, spot.sequence] = previous, link(previous, spot.sequence, sealed)
    for day in store.days:
        sql = "SELECT name, sequence, previous, chain FROM stubs JOIN journals ON id = journal"
        chains |= {(name, sequence): (previous, chain) for name, sequence, previous, chain in store.run(day, sql)}
    before = ""
    for day in store.days:
        for number, statement, listing in store.run(
            day, "SELECT number, statement, listing FROM checkpoints ORDER BY number"
        ):
            said, stretches, leaves = parse_statement(statement), [], []
            for one in parse_listing(listing):
                start, end = chains[one.journal, one.first][0], chains[one.journal, one.last][1]
                stretches.append(msgspec.structs.replace(one, start=start.hex(), end=end.hex()))
                leaves += [leaf(one.journal, at, chains[one.journal, at][1]) for at in range(one.first, one.last + 1)]
            new_listing = encode_listing(stretches)
            new = msgspec.structs.replace(
                said,
                previous=before or said.previous,
                listing=digest(new_listing),
                root=root_of(leaves).hex(),
                key=key.id,
            )
            signed = sign(new, new_listing, key)
            store.run(
                day, "UPDATE checkpoints SET statement = ?, listing = ?, signature = ?, key = ? WHERE number = ?",
                signed.statement, new_listing, signed.signature, key.id, number,
            )  # fmt: skip
            before = digest(encode_statement(new))


def change_a_key(store: Store, chance: random.Random) -> Mutation | None:
    index = store.folder / "index.db"
    column = chance.choice(["gateway", "key", "pem", "delete"])
    if column == "delete":
        store.run(index, "DELETE FROM keys")
    else:
        (old,) = store.run(index, f"SELECT {column} FROM keys")[0]
        new = SigningKey.generate().public.pem if column == "pem" else flipped(old, chance)
        store.run(index, f"UPDATE keys SET {column} = ?", new)
    return Mutation(f"{column} of the public key", anywhere)


def change_a_position(store: Store, chance: random.Random) -> Mutation | None:
    newest = store.days[-1]
    rows = store.run(newest, "SELECT journal, sequence FROM positions WHERE sequence > 0")
    if not rows:
        return None
    journal, _ = chance.choice(rows)
    column = chance.choice(["journal", "segment", '"offset"', "sequence", "chain", "delete"])
    if column == "delete":
        store.run(newest, "DELETE FROM positions WHERE journal = ?", journal)
    else:
        (old,) = store.run(newest, f"SELECT {column} FROM positions WHERE journal = ?", journal)[0]
        store.run(newest, f"UPDATE positions SET {column} = ? WHERE journal = ?", flipped(old, chance), journal)
    return Mutation(f"{column} of the position of {journal}", anywhere)


def change_a_gap(store: Store, chance: random.Random) -> Mutation | None:
    newest = store.days[-1]
    rows = store.run(newest, 'SELECT journal, first, segment, "offset" FROM gaps WHERE count > 0')
    gone = store.run(store.folder / "index.db", "SELECT journal, first, last FROM dropped")
    rows = [row for row in rows if not any(row[0] == one[0] and one[1] <= row[1] <= one[2] for one in gone)]
    if not rows:
        return None
    key = chance.choice(rows)
    column = chance.choice(["journal", "first", "count", "segment", '"offset"', "delete"])
    where = 'WHERE journal = ? AND first = ? AND segment = ? AND "offset" = ?'
    if column == "delete":
        store.run(newest, f"DELETE FROM gaps {where}", *key)
    else:
        (old,) = store.run(newest, f"SELECT {column} FROM gaps {where}", *key)[0]
        new = 0 if column == "count" and old == 1 else flipped(old, chance)
        if column == "count" and new == 0:
            return None  # then it says that nobody can tell how many, which is no less true
        store.run(newest, f"UPDATE gaps SET {column} = ? {where}", new, *key)
    return Mutation(f"{column} of gap {key}", anywhere)


def change_where_a_checkpoint_is_found(store: Store, chance: random.Random) -> Mutation | None:
    found = [(day, *row) for day in store.days for row in store.run(day, "SELECT journal, first, number FROM covers")]
    if not found:
        return None
    day, journal, first, number = chance.choice(found)
    store.run(day, "DELETE FROM covers WHERE journal = ? AND number = ?", journal, number)
    return Mutation(f"where checkpoint {number} is found from {journal} {first}", of_journal(journal))


# ── the journals on the disk ─────────────────────────────────────────────────────────────────────────────────────────


class Shipped(Struct, frozen=True):
    """A good frame that has been shipped: its segment, where it begins and ends, and its place."""

    path: Path
    start: int
    end: int
    journal: str
    sequence: int


def frames_of(store: Store) -> list[Shipped]:
    """Every good frame that has been shipped."""
    shipped = {row[0]: row[1] for row in store.run(store.days[-1], "SELECT journal, sequence FROM positions")}
    found = []
    for path in sorted((store.folder.parent / "journal").glob("*/*.journal")):
        data = path.read_bytes()
        header, at_ = parse_header(data)
        expected = header.first_sequence
        while at_ < len(data):
            frame = read_frame(memoryview(data), at_)
            if isinstance(frame, Flaw):
                break
            end = at_ + FRAME_OVERHEAD + len(frame[1])
            if frame[0] <= shipped.get(header.journal, 0):
                found.append(Shipped(path, at_, end, header.journal, frame[0]))
            at_, expected = end, frame[0] + 1
    return found


def segment_named(frame: Shipped) -> Named:
    """The first finding names the place or the segment of a frame."""
    name = f"{frame.path.parent.name}/{frame.path.name}"
    return lambda verdict: (
        verdict.first is not None
        and ((verdict.first.journal, verdict.first.sequence) == (frame.journal, frame.sequence))
        or any(one.segment == name for one in verdict.findings)
    )


def flip_a_byte_of_a_frame(store: Store, chance: random.Random) -> Mutation | None:
    frames = frames_of(store)
    if not frames:
        return None
    frame = chance.choice(frames)
    data = bytearray(frame.path.read_bytes())
    data[chance.randrange(frame.start, frame.end)] ^= 1 << chance.randrange(8)
    frame.path.write_bytes(data)
    return Mutation(f"a byte of {frame}", segment_named(frame))


def forge_a_frame(store: Store, chance: random.Random) -> Mutation | None:
    """Change a byte of a frame's content and give it the checksum that then fits."""
    frames = frames_of(store)
    if not frames:
        return None
    frame = chance.choice(frames)
    data = bytearray(frame.path.read_bytes())
    body = frame.start + FRAME_OVERHEAD
    data[chance.randrange(body, frame.end)] ^= 1 << chance.randrange(8)
    write_checksum(data, frame)
    frame.path.write_bytes(data)
    return Mutation(f"forged {frame}", segment_named(frame))


def write_checksum(data: bytearray, frame: Shipped) -> None:
    checksum = crc32c(
        bytes(data[frame.start + FRAME_OVERHEAD : frame.end]), crc32c(bytes(data[frame.start + 8 : frame.start + 16]))
    )
    data[frame.start + 4 : frame.start + 8] = checksum.to_bytes(4, "little")


def erase_a_frame_without_telling(store: Store, chance: random.Random) -> Mutation | None:
    erased = {(one.journal, one.sequence) for one in store.spots(where="number IN (SELECT number FROM erasures)")}
    kept = {(one.journal, one.sequence) for one in store.spots()} - erased
    frames = [frame for frame in frames_of(store) if (frame.journal, frame.sequence) in kept]
    if not frames:
        return None
    frame = chance.choice(frames)
    data = bytearray(frame.path.read_bytes())
    body = frame.start + FRAME_OVERHEAD
    start, _, _, end = parts_at(bytes(data[body : frame.end]))
    if start == end:
        return None
    data[body + start : body + end] = bytes(end - start)
    write_checksum(data, frame)
    frame.path.write_bytes(data)
    return Mutation(f"erased {frame}", segment_named(frame))


def swap_two_frames(store: Store, chance: random.Random) -> Mutation | None:
    frames = frames_of(store)
    pairs = [(one, other) for one, other in zip(frames, frames[1:], strict=False) if one.path == other.path]
    if not pairs:
        return None
    one, other = chance.choice(pairs)
    data = one.path.read_bytes()
    swapped = data[other.start : other.end] + data[one.start : one.end]
    one.path.write_bytes(data[: one.start] + swapped + data[other.end :])
    return Mutation(f"swapped {one} and the next", segment_named(one))


def cut_out_a_frame(store: Store, chance: random.Random) -> Mutation | None:
    frames = frames_of(store)
    if not frames:
        return None
    frame = chance.choice(frames)
    data = frame.path.read_bytes()
    end = chance.choice([frame.end, len(data)])  # it alone, or all from there to the end
    frame.path.write_bytes(data[: frame.start] + data[end:])
    return Mutation(f"cut out {frame} up to {end}", anywhere)


def take_away_a_segment(store: Store, chance: random.Random) -> Mutation | None:
    """Take away any segment but the oldest of a worker, which the recorder deletes when its time has come."""
    paths = [
        path for folder in (store.folder.parent / "journal").iterdir() for path in sorted(folder.glob("*.journal"))[1:]
    ]
    shipped = {frame.path for frame in frames_of(store)}
    paths = [path for path in paths if path in shipped]
    if not paths:
        return None
    path = chance.choice(paths)
    path.unlink()
    return Mutation(f"took away {path}", anywhere)


def swap_two_segments(store: Store, chance: random.Random) -> Mutation | None:
    folders = [
        folder for folder in (store.folder.parent / "journal").iterdir() if len(list(folder.glob("*.journal"))) > 1
    ]
    if not folders:
        return None
    one, other = chance.sample(sorted(chance.choice(sorted(folders)).glob("*.journal")), 2)
    data = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(data)
    return Mutation(f"swapped {one} and {other}", anywhere)


def flip_a_byte_of_a_header(store: Store, chance: random.Random) -> Mutation | None:
    path = chance.choice([frame.path for frame in frames_of(store)] or [None])
    if path is None:
        return None
    data = bytearray(path.read_bytes())
    _, end = parse_header(bytes(data))
    data[chance.randrange(end)] ^= 1 << chance.randrange(8)
    path.write_bytes(data)
    return Mutation(f"a byte of the header of {path}", anywhere)


def put_a_segment_of_another_journal(store: Store, chance: random.Random) -> Mutation | None:
    paths = sorted({frame.path for frame in frames_of(store)})
    pairs = [(one, other) for one in paths for other in paths if one.parent != other.parent]
    if not pairs:
        return None
    one, other = chance.choice(pairs)
    shutil.copyfile(other, one)
    return Mutation(f"{other} in the place of {one}", anywhere)


MUTATIONS: tuple[Callable[[Store, random.Random], Mutation | None], ...] = (
    flip_a_column,
    flip_a_sealed_part,
    edit_a_sealed_part_and_its_columns,
    flip_a_part,
    delete_a_record,
    delete_parts,
    delete_many,
    delete_and_close_ranks,
    move_a_record,
    renumber_a_row,
    give_a_record_to_another_journal,
    swap_two_records,
    swap_two_sealed_parts,
    splice_a_record,
    insert_a_record,
    copy_a_record_into_another_day,
    rename_a_journal,
    change_a_word,
    change_an_erasure,
    claim_an_erasure,
    change_a_stub,
    prune_a_record_without_telling,
    drop_a_day_without_telling,
    change_what_is_told_of_a_dropped_day,
    change_a_checkpoint,
    truncate,
    rewrite_and_sign_again,
    change_a_key,
    change_a_position,
    change_a_gap,
    change_where_a_checkpoint_is_found,
    flip_a_byte_of_a_frame,
    forge_a_frame,
    erase_a_frame_without_telling,
    swap_two_frames,
    cut_out_a_frame,
    take_away_a_segment,
    swap_two_segments,
    flip_a_byte_of_a_header,
    put_a_segment_of_another_journal,
)


def tamper(house: Path, index: int, chance: random.Random) -> Mutation | None:
    """Apply mutation `index` (any number, they come in turn) to a closed house, in place."""
    return MUTATIONS[index % len(MUTATIONS)](Store(house / "audit", chance), chance)
