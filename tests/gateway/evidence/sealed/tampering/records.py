"""Records, their columns and parts: flipped, forged, deleted, moved, swapped, spliced, inserted."""

import random

import msgspec

from gateway.chain import genesis
from gateway.record import decode_record
from gateway.stores.audit_sqlite_day import COLUMNS
from tests.gateway.evidence.sealed.tampering.raw import (
    NOT_ERASED,
    Mutation,
    Store,
    anywhere,
    at,
    flipped,
    insert,
    of_journal,
    write_record,
)


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


def flip_a_part(store: Store, chance: random.Random) -> Mutation | None:
    column = chance.choice(["request", "response"])
    spot = store.spot(where=f"number IN (SELECT number FROM parts WHERE length({column}) > 0) AND {NOT_ERASED}")
    if spot is None:
        return None
    old = store.run(spot.day, f"SELECT {column} FROM parts WHERE number = ?", spot.number)[0][0]
    new = chance.choice([flipped(old, chance), old[:-1], b"", bytes(len(old)), old + b"\0"])
    store.run(spot.day, f"UPDATE parts SET {column} = ? WHERE number = ?", new, spot.number)
    return Mutation(f"{column} of {spot}: {len(old)} bytes → {len(new)}", at((spot.journal, spot.sequence)))


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
    for minus in ("-", "-1 -"):  # past zero and back, since places are unique on the way, too
        sql = f"UPDATE records SET sequence = {minus} sequence WHERE journal = ? AND (sequence > ? OR sequence < 0)"
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
