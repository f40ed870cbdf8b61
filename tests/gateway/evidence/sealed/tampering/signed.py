"""Checkpoints, keys, positions and gaps: changed, truncated, signed again with another key."""

import random

import msgspec

from gateway.chain import leaf, link, root_of
from gateway.evidence.keys import SigningKey
from gateway.evidence.statements import (
    digest,
    encode_listing,
    encode_statement,
    marks_of,
    parse_listing,
    parse_statement,
    sign,
)
from gateway.record import decode_record
from tests.gateway.evidence.sealed.tampering.raw import (
    Mutation,
    Store,
    anywhere,
    at,
    flipped,
    of_checkpoint,
    of_journal,
    write_record,
)


def change_a_checkpoint(store: Store, chance: random.Random) -> Mutation | None:
    found = [(day, *row) for day in store.days for row in store.run(day, "SELECT gateway, number FROM checkpoints")]
    if not found:
        return None
    day, _, number = chance.choice(found)
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


def rewrite_what_follows(store: Store, chance: random.Random) -> Mutation | None:
    """Forge a record and bring the chains of all records behind it in line; no signature can be."""
    spots = store.spots(where="role = 0 AND number > 0")
    if not spots:
        return None
    spot = chance.choice(spots)
    _, sealed = store.sealed(spot)
    write_record(store, spot, msgspec.structs.replace(decode_record(sealed), served="9", intended="9"))
    rechain(store, spot.journal, spot.sequence)
    return Mutation(f"rewrote the records from {spot} on", at((spot.journal, spot.sequence)))


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
                own = [leaf(one.journal, at, chains[one.journal, at][1]) for at in range(one.first, one.last + 1)]
                stretches.append(msgspec.structs.replace(one, start=start.hex(), end=end.hex(), marks=marks_of(own)))
                leaves += own
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
