"""Erasures, stubs and dropped days: changed, or claimed without a control record of it."""

import random
from typing import Any

from gateway.chain import link
from gateway.columns import packed_id
from gateway.identity import new_record_id
from gateway.record import decode_record
from tests.gateway.evidence.sealed.tampering.raw import (
    NOT_ERASED,
    PLACES,
    Mutation,
    Store,
    anywhere,
    at,
    flipped,
)


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
        sql = f"{PLACES} JOIN erasures USING (number) WHERE erasure = ?"
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
        sql = "SELECT name, min(sequence), max(sequence), count(*) FROM records JOIN journals ON id = journal"
        rows = store.run(day, f"{sql} GROUP BY name")
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
