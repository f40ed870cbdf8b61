"""Receipts: each proves its record offline, and proves nothing as soon as anything in it is another."""

import base64
import copy
import json
import random
from hashlib import sha256
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.capture import capture
from gateway.errors import DocumentNotFound, NotCovered, NotProven
from gateway.evidence.keys import SigningKey
from gateway.evidence.receipts import MOST_BYTES, place_of, receipt, verify_receipt
from gateway.ports import AuditStore, Filter, Place
from gateway.record import Record
from routing.types import Capture
from tests.gateway.evidence.sealed.tampering.raw import Store, flipped
from tests.gateway.evidence.sealed.world import House, days_ago

TODAY, BEFORE = days_ago(0), days_ago(250)


@pytest.fixture
def served(house: House, chance: random.Random) -> list[Record]:
    """Records that a checkpoint covers, in two journals."""
    made = house.serve("w0", 9, chance, TODAY) + house.serve("w1", 4, chance, TODAY)
    house.ship(TODAY)
    house.seal()
    return made


def made(house: House, record_id: str) -> bytes:
    return receipt(house.store, place_of(house.store, record_id), house.key.public)


def refused(document: Any, house: House) -> str:
    data = document if isinstance(document, bytes) else json.dumps(document).encode()
    with pytest.raises(NotProven) as caught:
        verify_receipt(data, house.key.public)
    return caught.value.message


def records_of(store: AuditStore) -> list[Record]:
    return [kept.frame.record for chunk in store.scan(Filter(), contents=False) for kept in chunk]


def test_every_record_that_is_covered_has_a_receipt_that_proves_it(house: House, served: list[Record]) -> None:
    for record in records_of(house.store):
        proven = verify_receipt(made(house, record.record_id), house.key.public)

        assert proven.record == record
        assert proven.place == place_of(house.store, record.record_id)
        assert proven.statement.gateway == "g"
    assert served


def test_a_receipt_can_be_read_and_holds_no_body(house: House) -> None:
    body, answer = b'{"amount": 17.5, "iban": "DE02"}', b'{"outputs": [0.25]}'
    asked, request = capture(body, "full", Capture())
    answered, response = capture(answer, "full", Capture())
    record, _, _ = house.new_record("w0", random.Random(2), 10**18)
    house.journal("w0").append(replace(record, request=asked, response=answered), request, response)
    house.ship(TODAY)
    house.seal()

    data = made(house, record.record_id)
    document = json.loads(data)

    assert document["record"]["model"] == record.model
    assert document["record"]["served"] == "1"
    assert document["request"]["sha256"] == sha256(body).hexdigest()
    assert document["response"]["kept_sha256"] == sha256(answer).hexdigest()
    for secret in (body, b"DE02", base64.b64encode(body)[:-4], answer):
        assert secret not in data


def test_a_receipt_is_checked_with_the_key_that_is_given_not_the_one_it_brings(
    house: House, served: list[Record]
) -> None:
    data = made(house, served[0].record_id)

    with pytest.raises(NotProven, match="signed by the key"):
        verify_receipt(data, SigningKey.generate().public)


def test_a_receipt_with_one_byte_changed_proves_nothing_or_the_same(house: House, served: list[Record]) -> None:
    """White space, the public key that is there for information, and unused bits of base64 may be others."""
    data = made(house, served[3].record_id)
    proven = verify_receipt(data, house.key.public)
    refusals = 0
    for at in range(0, len(data), 7):
        changed = data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
        try:
            assert verify_receipt(changed, house.key.public) == proven
        except NotProven:
            refusals += 1

    assert refusals > len(data) / 7 * 0.8


@pytest.mark.parametrize(
    ("path", "words"),
    [
        (("sequence",), "not among those"),
        (("index",), "not among those"),
        (("size",), "another size"),
        (("previous",), "not among those"),
        (("proof", 0), "not among those"),
        (("journal",), "another gateway|not among those"),
        (("record", "served"), 'under "record"'),
        (("request", "sha256"), "commits to|no receipt"),
        (("response", "salt"), "commits to"),
        (("checkpoint", "signature"), "signature"),
        (("checkpoint", "statement"), "statement|signature|signed"),
        (("format",), "no receipt"),
    ],
)
def test_what_is_wrong_with_a_receipt_is_said(
    house: House, served: list[Record], path: tuple[Any, ...], words: str
) -> None:
    with_both = next(
        json.loads(data)
        for record in served
        if b'"request": null' not in (data := made(house, record.record_id)) and b'"response": null' not in data
    )
    import re

    document = copy.deepcopy(with_both)
    *parents, last = path
    inner = document
    for name in parents:
        inner = inner[name]
    old = inner[last]
    inner[last] = old + 1 if isinstance(old, int) else ("0" if old[0] != "0" else "1") + old[1:]

    assert re.search(words, refused(document, house))


def test_a_receipt_for_a_record_of_another_receipt_proves_nothing(house: House, served: list[Record]) -> None:
    one, other = (json.loads(made(house, record.record_id)) for record in served[:2])

    assert "not among those" in refused(one | {"sealed": other["sealed"], "record": other["record"]}, house)


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b"nothing", b"\xff\xfe", b"[" * 50_000, b" " * (MOST_BYTES + 1), b'{"format":1,"format":2}'],
)
def test_what_is_no_receipt_is_refused_in_words(house: House, data: bytes) -> None:
    assert refused(data, house).startswith(("it is no receipt", "it has"))


def test_a_name_that_stands_twice_is_refused(house: House, served: list[Record]) -> None:
    data = made(house, served[0].record_id)

    assert "twice" in refused(b'{"index": 1, ' + data.lstrip()[1:], house)


def test_a_record_that_no_checkpoint_covers_yet_is_told_so(house: House, chance: random.Random) -> None:
    (record,) = house.serve("w0", 1, chance, TODAY)
    house.ship(TODAY)

    with pytest.raises(NotCovered, match="no checkpoint covers record 1 of journal g/w0"):
        made(house, record.record_id)
    house.seal()
    assert verify_receipt(made(house, record.record_id), house.key.public).record == record


def test_an_erased_record_is_proven_without_its_bodies(house: House, served: list[Record]) -> None:
    assert served[0].unit is not None
    house.erase_request(served[0].record_id, TODAY)

    document = json.loads(made(house, served[0].record_id))

    assert (document["request"], document["response"]) == (None, None)


def test_a_pruned_record_has_no_receipt_and_its_neighbours_still_have(house: House, chance: random.Random) -> None:
    some = house.serve("w0", 12, chance, BEFORE)
    house.ship(BEFORE)
    house.seal()
    house.serve("w0", 1, chance, TODAY)
    house.ship(TODAY)
    places = {record.record_id: place_of(house.store, record.record_id) for record in some}
    house.prune(TODAY)
    gone = [record for record in some if record.model == "churn"]
    left = [record for record in some if record.model != "churn"]

    with pytest.raises(NotCovered, match="pruned"):
        receipt(house.store, places[gone[0].record_id], house.key.public)
    for record in left:
        assert verify_receipt(made(house, record.record_id), house.key.public).record == record


def test_a_record_that_is_not_there_is_told_so(house: House, served: list[Record]) -> None:
    assert served
    with pytest.raises(DocumentNotFound, match="no record has that record id"):
        place_of(house.store, "01a21438-9ef5-7bab-97e9-5be2001d994a")
    with pytest.raises(DocumentNotFound, match="there is no record 99"):
        receipt(house.store, Place("g/w0.000000000000", 99), house.key.public)


def test_another_kind_of_id_names_the_records_that_it_finds(house: House, chance: random.Random) -> None:
    record, request, response = house.new_record("w0", chance, 10**18)
    house.journal("w0").append(replace(record, request_id="order-7"), request, response)
    house.ship(TODAY)

    with pytest.raises(DocumentNotFound, match=record.record_id):
        place_of(house.store, "order-7")


def test_a_store_that_was_changed_gives_no_receipt(house: House, served: list[Record]) -> None:
    store = Store(house.folder / "audit", random.Random(1))
    spot = store.spots(where="role = 0")[0]
    _, sealed = store.sealed(spot)
    store.run(spot.day, "UPDATE sealed SET sealed = ? WHERE number = ?", flipped(sealed, store.chance), spot.number)

    with pytest.raises(NotProven, match="audit verify names what was changed"):
        receipt(house.store, place_of(house.store, served[5].record_id), house.key.public)


@pytest.mark.parametrize("size", [4_000, 18_000, 30_000, 40_000])
@pytest.mark.parametrize("letter", ["x", "\u0416", "\x07", "random"])
def test_a_receipt_stays_below_its_size_however_long_the_record(house: House, size: int, letter: str) -> None:
    """Up to headers of 32 kB of noise, more than a gateway takes in the head of a request."""
    chance = random.Random(size)
    text = "".join(chance.choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", k=size))
    value = text if letter == "random" else letter * (size // len(letter.encode()))
    record, request, response = house.new_record("w0", random.Random(2), 10**18)
    house.journal("w0").append(replace(record, headers={"x-tenant": value}), request, response)
    house.ship(TODAY)
    house.seal()

    data = made(house, record.record_id)

    assert len(data) <= MOST_BYTES < 2**16
    assert verify_receipt(data, house.key.public).record.headers == {"x-tenant": value}


def test_a_compressed_receipt_that_swells_is_refused(house: House, served: list[Record]) -> None:
    import zlib

    document = json.loads(made(house, served[0].record_id))
    document |= {"sealed": base64.b64encode(zlib.compress(bytes(2**24), 9)).decode(), "compressed": True}

    assert "larger than any" in refused(document, house)
    document["sealed"] = base64.b64encode(b"no zlib").decode()
    assert "cannot be decompressed" in refused(document, house)


def test_a_proof_grows_with_the_logarithm_of_what_is_covered(house: House, chance: random.Random) -> None:
    for size in (1, 200):
        some = house.serve("w0", size, chance, TODAY)
        house.ship(TODAY)
        house.seal()
        document = json.loads(made(house, some[-1].record_id))
        assert len(document["proof"]) <= (document["size"] - 1).bit_length()
