"""What verification is held against: keys, the witness, exported checkpoints, days; and what it leaves alone."""

import random
import threading
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.evidence.findings import KEPT_FINDINGS, Verdict
from gateway.evidence.keys import SigningKey, open_key
from gateway.evidence.verification import verify
from gateway.ports import Batch, Filter
from gateway.stores.audit_sqlite import SqliteAudit
from tests.gateway.evidence.sealed.tampering.raw import Store, flipped
from tests.gateway.evidence.sealed.tampering.signed import sign_all
from tests.gateway.evidence.sealed.world import House, days_ago

ANYTHING = Filter()
TODAY, YESTERDAY, BEFORE = days_ago(0), days_ago(1), days_ago(2)


@pytest.fixture
def three_days(house: House, chance: random.Random) -> House:
    """A house with two sealed checkpoints on each of three days."""
    for day in (BEFORE, YESTERDAY, TODAY):
        for _ in range(2):
            house.serve("w0", 5, chance, day)
            house.ship(day)
            house.seal()
    return house


def verdict_on(house: House, **fields: object) -> Verdict:
    return verify(house.store, house.against(**fields))


def words(verdict: Verdict) -> str:
    return " | ".join(one.what for one in verdict.findings)


def test_an_empty_store_holds(house: House) -> None:
    verdict = verdict_on(house)

    assert verdict.holds
    assert (verdict.records, verdict.checkpoints, verdict.first) == (0, 0, None)


def test_records_after_the_newest_checkpoint_are_counted_as_not_covered_yet(
    three_days: House, chance: random.Random
) -> None:
    covered = verdict_on(three_days).records
    three_days.serve("w0", 3, chance, TODAY)
    three_days.serve("w4", 2, chance, TODAY)
    three_days.ship(TODAY)
    held = sum(one.records for one in three_days.store.holdings())

    verdict = verdict_on(three_days)

    assert verdict.holds, words(verdict)
    assert (verdict.records, verdict.uncovered) == (covered, held - covered)


def test_progress_is_told_up_to_the_last_record(three_days: House) -> None:
    told: list[tuple[int, int]] = []

    verdict = verify(three_days.store, three_days.against(), lambda done, total: told.append((done, total)))

    assert told == sorted(told)
    assert told[-1] == (verdict.records, verdict.records)
    assert len(told) == verdict.checkpoints + 1


def test_the_key_that_the_auditor_has_counts_and_no_other(three_days: House) -> None:
    mine, other = three_days.key.public, SigningKey.generate().public

    assert verdict_on(three_days, public_keys=(other, mine)).holds
    verdict = verdict_on(three_days, public_keys=(other,))
    assert not verdict.holds
    assert "not among those given" in words(verdict)


def test_a_log_that_is_signed_anew_with_a_published_key_is_found_by_the_own_key_the_witness_or_an_export(
    three_days: House,
) -> None:
    forger = SigningKey.generate()
    store = Store(three_days.folder / "audit", random.Random(1))
    sign_all(store, forger)
    sql = "INSERT INTO keys VALUES ('g', ?, ?, ?)"
    store.run(three_days.folder / "audit" / "index.db", sql, forger.id, forger.public.pem, 5)

    nothing: dict[str, object] = {"own": None, "witness": None}
    assert verdict_on(three_days, **nothing).holds, "without anything from outside there is nothing to find it by"
    assert "own key" in words(verdict_on(three_days, witness=None))
    assert "remembered outside" in words(verdict_on(three_days, own=None))
    by_export = verdict_on(three_days, **nothing, exported=three_days.exported, public_keys=(three_days.key.public,))
    assert "not among those given" in words(by_export)


def test_checkpoints_that_were_taken_away_are_found_by_an_export(three_days: House) -> None:
    lines = three_days.exported.read_bytes().splitlines(keepends=True)
    assert verdict_on(three_days, exported=three_days.exported).holds
    store = Store(three_days.folder / "audit", random.Random(1))
    for table in ("checkpoints", "covers"):
        store.run(store.days[-1], f"DELETE FROM {table} WHERE number = 6")

    verdict = verdict_on(three_days, witness=None, exported=three_days.exported)

    assert len(lines) == 6
    assert "checkpoint 6 was signed and is not in the store any more" in words(verdict)


def test_a_line_that_a_crash_cut_short_is_no_finding_when_it_was_written_again(three_days: House) -> None:
    lines = three_days.exported.read_bytes().splitlines(keepends=True)
    three_days.exported.write_bytes(b"".join((*lines[:3], lines[3][:40] + b"\n", *lines[3:], lines[5])))

    assert verdict_on(three_days, exported=three_days.exported).holds


def test_an_export_that_was_changed_is_found_whatever_was_changed(three_days: House, tmp_path: Path) -> None:
    lines = three_days.exported.read_bytes().splitlines(keepends=True)
    chance = random.Random(5)
    for _ in range(60):
        number = chance.randrange(len(lines))
        changed = flipped(lines[number][:-1], chance) + b"\n"
        path = tmp_path / "changed.jsonl"
        path.write_bytes(b"".join((*lines[:number], changed, *lines[number + 1 :])))

        assert not verdict_on(three_days, exported=path).holds, changed


def test_only_the_days_that_were_asked_for_are_walked(three_days: House) -> None:
    whole, yesterday = verdict_on(three_days), verdict_on(three_days, first_day=YESTERDAY, last_day=YESTERDAY)
    since = verdict_on(three_days, first_day=YESTERDAY)

    assert (whole.count, yesterday.count, since.count) == (0, 0, 0)
    assert (whole.checkpoints, yesterday.checkpoints, since.checkpoints) == (6, 2, 4)
    assert 0 < yesterday.records < since.records < whole.records


def test_what_is_wrong_on_another_day_is_not_looked_for(three_days: House) -> None:
    store = Store(three_days.folder / "audit", random.Random(3))
    store.run(store.days[0], "UPDATE records SET status = 999 WHERE number = 2")

    assert verdict_on(three_days, first_day=YESTERDAY).holds
    verdict = verdict_on(three_days, last_day=BEFORE)
    assert verdict.first is not None
    assert verdict.first.sequence == 2
    assert verdict.first.record_id
    assert verdict.first.day == BEFORE
    assert "status" in verdict.first.what


def test_an_erasure_is_accounted_for_on_days_before_the_one_that_tells_of_it(
    house: House, chance: random.Random
) -> None:
    house.serve("w0", 40, chance, BEFORE)
    house.ship(BEFORE)
    house.ship(TODAY)
    house.erase_caller("u-3", TODAY)
    not_yet = verdict_on(house, first_day=BEFORE, last_day=BEFORE, patience_seconds=0.0)
    house.seal()
    verdict = verdict_on(house, first_day=BEFORE, last_day=BEFORE)

    assert "no checkpoint covers" in words(not_yet)
    assert verdict.holds, words(verdict)
    assert verdict.erased > 0
    assert verdict_on(house).holds


def test_one_erasure_after_another_of_the_same_caller_is_accounted_for(
    three_days: House, chance: random.Random
) -> None:
    three_days.erase_caller("u-3", TODAY)
    three_days.serve("w0", 30, chance, TODAY)
    three_days.ship(TODAY)
    three_days.erase_caller("u-3", TODAY)
    three_days.seal()

    verdict = verdict_on(three_days)
    assert verdict.holds, words(verdict)


def test_the_first_bad_record_is_named_and_the_others_are_counted(three_days: House) -> None:
    store = Store(three_days.folder / "audit", random.Random(3))
    spots = sorted((one for one in store.spots()), key=lambda one: (one.journal, one.sequence))
    for spot in (spots[2], spots[9], spots[-1]):
        previous, sealed = store.sealed(spot)
        store.run(spot.day, "UPDATE sealed SET sealed = ? WHERE number = ?", sealed + b"\0", spot.number)
        assert previous

    verdict = verdict_on(three_days, journals=None)

    assert verdict.count == 3
    assert [one.sequence for one in verdict.findings] == [spots[2].sequence, spots[9].sequence, spots[-1].sequence]


def test_findings_are_bounded_and_still_counted(house: House, chance: random.Random) -> None:
    house.serve("w0", 110, chance, TODAY)
    house.ship(TODAY)
    house.seal()
    store = Store(house.folder / "audit", random.Random(3))
    store.run(store.days[0], "UPDATE records SET caller = 999")

    verdict = verdict_on(house)

    assert verdict.count >= 110
    assert [one.sequence for one in verdict.findings] == list(range(1, KEPT_FINDINGS + 1))


def test_a_new_key_takes_over_from_one_that_was_lost(three_days: House, chance: random.Random) -> None:
    old = three_days.key
    (three_days.keys / "signing-key.pem").unlink()
    three_days.key = open_key(three_days.keys)
    assert three_days.key.id != old.id
    three_days.checkpoints = three_days.new_checkpointer()
    three_days.checkpoints.begin()
    assert verdict_on(three_days).holds, "before the new key has signed anything"
    three_days.serve("w0", 3, chance, TODAY)
    three_days.ship(TODAY)
    three_days.seal()

    assert verdict_on(three_days).holds
    assert not verdict_on(three_days, public_keys=(three_days.key.public,)).holds
    assert verdict_on(three_days, public_keys=(three_days.key.public, old.public)).holds


def test_records_that_a_recorder_committed_over_are_found(three_days: House, chance: random.Random) -> None:
    """The store keeps what stands in a place; the checkpoint is of what came from the journal."""
    three_days.serve("w0", 2, chance, TODAY)
    three_days.ship(TODAY)
    last = three_days.store.positions()[next(iter(three_days.store.positions()))]
    (row,) = three_days.store.rows(last.journal, last.sequence, last.sequence)
    assert row.sealed is not None
    store = Store(three_days.folder / "audit", random.Random(3))
    store.run(store.days[-1], "UPDATE sealed SET sealed = ? WHERE sealed = ?", row.sealed + b"\0", row.sealed)
    three_days.seal()

    verdict = verdict_on(three_days)
    assert verdict.first is not None
    assert (verdict.first.journal, verdict.first.sequence) == (last.journal, last.sequence)


def test_a_batch_of_another_gateway_that_never_published_a_key_is_found(
    three_days: House, chance: random.Random, tmp_path: Path
) -> None:
    stranger = House(tmp_path / "stranger", gateway="s")
    stranger.serve("w0", 1, chance, TODAY)
    stranger.ship(TODAY)
    frames = [kept.frame for chunk in stranger.store.scan(ANYTHING, contents=True) for kept in chunk]
    three_days.store.write(Batch(TODAY, frames, list(stranger.store.positions().values())))
    stranger.close()

    assert "never published a key" in words(verdict_on(three_days))


def test_positions_that_were_never_shipped_are_no_finding(house: House) -> None:
    house.journal("w0")
    house.ship(TODAY)

    assert verdict_on(house).holds
    assert replace(house.store.positions()[next(iter(house.store.positions()))]).sequence == 0


def test_another_gateway_in_the_same_store_has_its_journals_elsewhere(
    three_days: House, chance: random.Random, tmp_path: Path
) -> None:
    """Both have a worker `w0`; each verifies the whole store, and the segments on its own disk."""
    other = House(tmp_path / "other", gateway="h", store=three_days.store)
    for _ in range(3):
        other.serve("w0", 9, chance, TODAY)
        other.ship(TODAY)
        other.seal()

    for house in (three_days, other):
        verdict = verdict_on(house)
        assert verdict.holds, words(verdict)
        assert verdict.checkpoints == 9
    both = (three_days.key.public, other.key.public)
    assert verdict_on(other, public_keys=both).holds
    assert not verdict_on(other, public_keys=both[:1]).holds
    for tail in other._tails.values():
        tail.close()


def test_a_gateway_that_is_given_another_name_goes_on_with_its_journals(
    three_days: House, chance: random.Random
) -> None:
    """As in a container whose host name is another one each time; also what the old name left unsealed is covered."""
    three_days.serve("w0", 4, chance, TODAY)
    three_days.ship(TODAY)
    three_days.serve("w0", 2, chance, TODAY)
    three_days.close()
    renamed = House(three_days.folder, gateway="renamed")
    renamed.serve("w0", 5, chance, TODAY)
    renamed.ship(TODAY)
    renamed.seal()

    verdict = verdict_on(renamed)
    records = {kept.frame.record.gateway for chunk in renamed.store.scan(ANYTHING, contents=False) for kept in chunk}
    renamed.close()

    assert verdict.holds, words(verdict)
    assert verdict.uncovered == 0
    assert verdict.frames == verdict.records
    assert records == {"g", "renamed"}


def test_nothing_is_found_while_records_come_and_are_erased_and_pruned(
    three_days: House, chance: random.Random
) -> None:
    """Another process verifies over and over while this one serves, ships, seals, erases and prunes."""
    old = days_ago(250)
    stop, verdicts = threading.Event(), []

    def keep_verifying() -> None:
        while not stop.is_set():
            store = SqliteAudit(three_days.folder / "audit", read_only=True)
            verdicts.append(verify(store, three_days.against()))
            store.close()

    verifying = threading.Thread(target=keep_verifying)
    verifying.start()
    try:
        for number in range(30):
            three_days.serve(chance.choice(["w0", "w1", f"w{number}"]), 7, chance, old)
            three_days.ship(TODAY)
            three_days.seal()
            if number % 5 == 4:
                three_days.erase_caller(f"u-{chance.randrange(8)}", TODAY)
                three_days.seal()
    finally:
        stop.set()
        verifying.join()

    assert len(verdicts) > 1
    assert [one.findings for one in verdicts if not one.holds] == []
