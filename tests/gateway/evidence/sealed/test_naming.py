"""What verification names: the record that was changed, and no other, where the log itself can tell."""

import random

from msgspec.structs import replace

from gateway.evidence.statements import encode_listing, parse_listing
from gateway.evidence.verification import verify
from gateway.record import decode_record
from tests.gateway.evidence.sealed.tampering.journals import frames_of
from tests.gateway.evidence.sealed.tampering.raw import Store, write_record
from tests.gateway.evidence.sealed.tampering.signed import rechain
from tests.gateway.evidence.sealed.world import House, days_ago

TODAY = days_ago(0)


def test_records_that_were_rewritten_to_follow_on_a_forged_one_are_told_of_with_that_one(house: House) -> None:
    house.serve("w0", 40, random.Random(7), TODAY)
    house.ship(TODAY)
    house.seal()
    store = Store(house.folder / "audit", random.Random(3))
    spots = sorted(store.spots(), key=lambda one: one.sequence)
    forged = spots[11]
    _, sealed = store.sealed(forged)
    write_record(store, forged, replace(decode_record(sealed), served="9", intended="9"))
    rechain(store, forged.journal, forged.sequence)

    verdict = verify(house.store, house.against(journals=None))

    assert verdict.first is not None
    assert (verdict.first.journal, verdict.first.sequence) == (forged.journal, 12)
    assert verdict.first.record_id == decode_record(sealed).record_id
    assert f"all up to {spots[-1].sequence} were rewritten to follow on it" in verdict.first.what
    assert not any(one.sequence in range(13, spots[-1].sequence) for one in verdict.findings)


def test_what_a_listing_says_in_another_way_than_it_was_signed_names_no_record(house: House) -> None:
    """Marks that were changed would lay the blame on a record that is sound; the checkpoint is what is named."""
    house.serve("w0", 12, random.Random(7), TODAY)
    house.ship(TODAY)
    house.seal()
    store = Store(house.folder / "audit", random.Random(3))
    ((listing,),) = store.run(store.days[0], "SELECT listing FROM checkpoints")
    (stretch,) = parse_listing(listing)
    other = encode_listing([replace(stretch, marks=stretch.marks[8:] + stretch.marks[:8])])
    store.run(store.days[0], "UPDATE checkpoints SET listing = ?", other)

    verdict = verify(house.store, house.against())

    assert [one.what for one in verdict.findings] == ["checkpoint 1: its listing is not the one that was signed"]


def test_contents_that_still_stand_in_a_frame_that_was_erased_are_found(house: House) -> None:
    records = house.serve("w0", 12, random.Random(7), TODAY)
    house.ship(TODAY)
    house.erase_request(records[5].record_id, TODAY)
    house.seal()
    assert verify(house.store, house.against()).holds
    store = Store(house.folder / "audit", random.Random(3))
    erased = {one.sequence for one in store.spots(where="number IN (SELECT number FROM erasures)")}
    frame = next(one for one in frames_of(store) if one.sequence in erased)
    data = bytearray(frame.path.read_bytes())
    data[frame.end - 1] ^= 1
    frame.path.write_bytes(data)

    verdict = verify(house.store, house.against())

    assert [one.sequence for one in verdict.findings] == [frame.sequence]
    assert "something still stands where its contents were" in verdict.findings[0].what
