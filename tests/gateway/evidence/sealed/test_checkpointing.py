"""Checkpoints: when one is due, what it covers, and that what was signed once is never signed otherwise."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.chain import leaf, root_of
from gateway.errors import AuditUnavailable
from gateway.evidence import checkpointing
from gateway.evidence.checkpointing import Checkpointer
from gateway.evidence.statements import digest, is_signed_by, parse_listing, parse_statement
from gateway.evidence.uncovered import chain_after
from gateway.evidence.witness import FILE, Seen, read_witness
from gateway.ports import Batch, Filter, Place, SignedCheckpoint
from gateway.stores.audit_sqlite import SqliteAudit
from tests.gateway.evidence.sealed.world import GATEWAY, House, days_ago

ANY = Filter()
TODAY = days_ago(0)
YESTERDAY = days_ago(1)


def checkpoints_of(house: House) -> list[SignedCheckpoint]:
    return list(house.store.checkpoints())


def test_a_checkpoint_covers_every_record_that_was_committed_in_a_tree_by_journal(
    house: House, chance: random.Random
) -> None:
    for worker in ("w1", "w0"):
        house.serve(worker, 5, chance, TODAY)
    house.ship(TODAY)
    house.seal()

    (checkpoint,) = checkpoints_of(house)
    said, listing = parse_statement(checkpoint.statement), parse_listing(checkpoint.listing)
    leaves = [
        leaf(row.journal, row.sequence, chain_after(row))
        for stretch in listing
        for row in house.store.rows(stretch.journal, stretch.first, stretch.last)
    ]
    assert [stretch.journal for stretch in listing] == sorted(house.store.positions())
    assert (said.number, said.previous, said.day, said.gateway) == (1, "", TODAY, GATEWAY)
    assert (said.size, said.root, said.listing) == (
        len(leaves),
        root_of(leaves).hex(),
        digest(checkpoint.listing),
    )
    assert is_signed_by(house.key.public, checkpoint.statement, checkpoint.signature)


def test_each_checkpoint_is_bound_to_the_one_before_and_goes_on_where_it_ended(
    house: House, chance: random.Random
) -> None:
    for _ in range(3):
        house.serve("w0", 4, chance, TODAY)
        house.ship(TODAY)
        house.seal()

    found = checkpoints_of(house)
    said = [parse_statement(one.statement) for one in found]
    stretches = [parse_listing(one.listing)[0] for one in found]
    assert [one.number for one in said] == [1, 2, 3]
    assert [one.previous for one in said[1:]] == [digest(one.statement) for one in found[:-1]]
    assert [one.start for one in stretches[1:]] == [one.end for one in stretches[:-1]]
    assert [one.first for one in stretches[1:]] == [one.last + 1 for one in stretches[:-1]]


def test_nothing_is_sealed_when_nothing_was_committed(house: House, chance: random.Random) -> None:
    house.seal()
    assert checkpoints_of(house) == []

    house.serve("w0", 1, chance, TODAY)
    house.ship(TODAY)
    house.seal()
    house.seal()
    assert len(checkpoints_of(house)) == 1


def test_a_stretch_ends_where_sequences_are_missing(house: House, chance: random.Random) -> None:
    house.serve("w0", 9, chance, TODAY)
    house.ship(TODAY)
    frames = [kept.frame for chunk in house.store.scan(ANY, contents=False) for kept in chunk]
    house.checkpoints.committed(Batch(TODAY, [replace(frame, journal="g/w9.0") for frame in frames[:3]], ()))
    house.checkpoints.committed(Batch(TODAY, [replace(frame, journal="g/w9.0") for frame in frames[5:]], ()))
    house.seal()

    stretches = [one for one in parse_listing(checkpoints_of(house)[0].listing) if one.journal == "g/w9.0"]
    assert [(one.first, one.last) for one in stretches] == [(1, 3), (6, frames[-1].sequence)]
    assert stretches[1].start == frames[5].previous.hex()


def test_what_is_committed_twice_is_covered_once(house: House, chance: random.Random) -> None:
    house.serve("w0", 5, chance, TODAY)
    house.ship(TODAY)
    frames = [kept.frame for chunk in house.store.scan(ANY, contents=False) for kept in chunk]
    house.checkpoints.committed(Batch(TODAY, frames, ()))
    house.seal()

    assert parse_statement(checkpoints_of(house)[0].statement).size == len(frames)


def test_one_checkpoint_never_covers_two_days(house: House, chance: random.Random) -> None:
    house.serve("w0", 3, chance, YESTERDAY)
    house.ship(YESTERDAY)
    house.serve("w0", 2, chance, TODAY)
    frames_before = sum(one.records for one in house.store.holdings())
    house.ship(TODAY)
    house.seal()

    first, second = (parse_statement(one.statement) for one in checkpoints_of(house))
    assert (first.day, first.size) == (YESTERDAY, frames_before)
    assert second.day == TODAY


class Clock:
    """A monotonic time that only moves when it is told to."""

    def __init__(self) -> None:
        self.seconds = 1_000.0

    def __call__(self) -> float:
        return self.seconds


def test_one_is_due_after_ten_seconds_of_activity_and_not_while_nothing_happens(
    house: House, chance: random.Random
) -> None:
    clock = Clock()
    checkpoints = Checkpointer(house.store, house.key, GATEWAY, house.keys, monotonic=clock)
    checkpoints.begin()
    clock.seconds += 100
    assert not checkpoints.due()

    house.serve("w0", 1, chance, TODAY)
    house.ship(TODAY)
    checkpoints.begin()  # seals what came meanwhile
    house.serve("w0", 2, chance, TODAY)
    house.checkpoints = checkpoints
    house.ship(TODAY)
    assert not checkpoints.due()
    clock.seconds += 9.9
    assert not checkpoints.due()
    clock.seconds += 0.1
    assert checkpoints.due()
    checkpoints.seal()
    assert not checkpoints.due()


def test_one_is_due_at_once_after_so_many_records(
    house: House, chance: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkpointing, "RECORDS", 4)
    house.serve("w0", 3, random.Random(1), TODAY)
    house.ship(TODAY)
    assert house.checkpoints.due() == (sum(one.records for one in house.store.holdings()) >= 4)
    house.serve("w0", 3, chance, TODAY)
    house.ship(TODAY)

    assert house.checkpoints.due()


def test_a_killed_recorder_leaves_nothing_uncovered(house: House, chance: random.Random) -> None:
    """What was committed and not sealed is sealed at the next start: each row once, and gaps do not hide any."""
    house.serve("w0", 7, chance, YESTERDAY)
    house.serve("w1", 3, chance, YESTERDAY)
    house.ship(YESTERDAY)
    house.seal()
    house.serve("w0", 4, chance, YESTERDAY)
    house.serve("w2", 2, chance, YESTERDAY)
    house.ship(YESTERDAY)

    again = house.new_checkpointer()
    assert again.begin() == YESTERDAY

    first, second = checkpoints_of(house)
    held = {one.journal: (one.first, one.last) for one in house.store.holdings()}
    covered: dict[str, tuple[int, int]] = {}
    for stretch in (*parse_listing(first.listing), *parse_listing(second.listing)):
        begin, end = covered.get(stretch.journal, (stretch.first, stretch.first - 1))
        assert stretch.first == end + 1
        covered[stretch.journal] = (begin, stretch.last)
    assert covered == held
    assert parse_statement(second.statement).previous == digest(first.statement)
    assert again.begin() == YESTERDAY
    assert len(checkpoints_of(house)) == 2


def test_the_first_uncovered_record_is_found_wherever_it_is(house: House, chance: random.Random) -> None:
    for size in (1, 2, 5, 13, 3):
        house.serve("w0", size, chance, TODAY)
        house.ship(TODAY)
        house.seal()
        house.serve("w0", size, chance, TODAY)
        house.ship(TODAY)
        house.checkpoints = house.new_checkpointer()
        house.checkpoints.begin()

    stretches = [one for found in checkpoints_of(house) for one in parse_listing(found.listing)]
    assert len(stretches) == 10
    assert [one.first for one in stretches[1:]] == [one.last + 1 for one in stretches[:-1]]


def test_records_of_another_gateway_in_the_same_store_are_left_to_it(
    house: House, tmp_path: Path, chance: random.Random
) -> None:
    house.serve("w0", 3, chance, TODAY)
    house.ship(TODAY)
    other = House(tmp_path / "other", gateway="h")
    other.store.close()
    other.store = house.store
    other.checkpoints = other.new_checkpointer()
    other.checkpoints.begin()
    other.serve("w0", 2, chance, TODAY)
    other.ship(TODAY)
    other.seal()

    (checkpoint,) = checkpoints_of(house)
    assert checkpoint.gateway == "h"
    assert all(stretch.journal.startswith("h/") for stretch in parse_listing(checkpoint.listing))
    other.close()
    house.store = SqliteAudit(house.folder / "audit")


def test_a_store_that_fails_is_offered_the_very_same_checkpoint_again(house: House, chance: random.Random) -> None:
    house.serve("w0", 3, chance, TODAY)
    house.ship(TODAY)
    house.store.close()
    with pytest.raises(AuditUnavailable):
        house.seal()
    assert house.checkpoints.due()
    refused = house.checkpoints._offered

    house.store = SqliteAudit(house.folder / "audit")
    house.checkpoints._store = house.store
    house.seal()

    assert checkpoints_of(house) == [refused]
    assert not house.checkpoints.due()


def test_the_key_is_published_before_there_is_anything_to_verify(house: House) -> None:
    (key,) = house.store.keys()

    assert (key.gateway, key.key, key.pem) == (GATEWAY, house.key.id, house.key.public.pem)


def test_the_witness_remembers_the_newest_checkpoint(house: House, chance: random.Random) -> None:
    house.serve("w0", 3, chance, TODAY)
    house.ship(TODAY)
    house.seal()

    (checkpoint,) = checkpoints_of(house)
    assert read_witness(house.keys / FILE) == {GATEWAY: Seen(1, digest(checkpoint.statement))}


def test_numbers_go_on_after_the_witness_when_the_store_was_set_back(
    house: House, chance: random.Random, tmp_path: Path
) -> None:
    """A store without its newest checkpoints must not get others under their numbers: the gap is the evidence."""
    for _ in range(2):
        house.serve("w0", 3, chance, TODAY)
        house.ship(TODAY)
        house.seal()
    newest = checkpoints_of(house)[-1]
    empty = SqliteAudit(tmp_path / "restored")
    checkpoints = Checkpointer(empty, house.key, GATEWAY, house.keys)
    checkpoints.begin()
    house.serve("w0", 1, chance, TODAY)
    house.store.close()
    house.store, house.checkpoints = empty, checkpoints
    house.ship(TODAY)
    house.seal()

    said = parse_statement(checkpoints_of(house)[-1].statement)
    assert (said.number, said.previous) == (newest.number + 1, digest(newest.statement))


@pytest.mark.parametrize("spoil", [lambda path: path.write_bytes(b"{}"), lambda path: path.unlink()])
def test_a_witness_that_cannot_be_read_holds_nothing_up(
    house: House, chance: random.Random, spoil: Callable[[Path], object]
) -> None:
    house.serve("w0", 3, chance, TODAY)
    house.ship(TODAY)
    house.seal()
    spoil(house.keys / FILE)
    house.checkpoints = house.new_checkpointer()
    house.checkpoints.begin()
    house.serve("w0", 3, chance, TODAY)
    house.ship(TODAY)
    house.seal()

    assert [one.number for one in checkpoints_of(house)] == [1, 2]
    assert read_witness(house.keys / FILE)[GATEWAY].number == 2


def test_the_checkpoint_of_every_record_is_found(house: House, chance: random.Random) -> None:
    for _ in range(3):
        house.serve("w0", 4, chance, TODAY)
        house.ship(TODAY)
        house.seal()

    for checkpoint in checkpoints_of(house):
        for stretch in parse_listing(checkpoint.listing):
            for sequence in range(stretch.first, stretch.last + 1):
                assert house.store.checkpoint_of(Place(stretch.journal, sequence)) == checkpoint
