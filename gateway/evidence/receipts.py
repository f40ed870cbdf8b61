"""A receipt: one JSON document that proves one record, offline, to whoever has the gateway's public key.

    {"format": "pointsman receipt v1",
     "record": what the record says, for reading (null where that would make the receipt too large),
     "sealed": the record itself, base64 (with "compressed": true, as zlib, RFC 1950),
     "journal", "sequence", "previous": the chain before it, hex,
     "index", "size", "proof": where its leaf stands in the checkpoint's tree, and the hashes from there to the root,
     "checkpoint": {"statement": text, "signature": base64}, "public_key": PEM, for information,
     "request", "response": {"salt", "sha256", "kept_sha256"}, hex, or null where the record has none any more}

`sha256` is of the whole body ("": not all of it came), `kept_sha256` of the bytes that were kept ("": none were). They
are bound to the record by its commitments, so whoever has the body can prove that it is the one; the receipt itself
never holds a body. It proves that the gateway's key signed a statement which covers this very record in this very
place, before the time of the statement.

Belongs here: making and checking receipts. Never here: whose key is to be trusted, files, HTTP.
"""

import base64
import binascii
import json
import zlib
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Final, Literal

import msgspec
from msgspec import Struct

from gateway.capture import SALT_BYTES, open_part
from gateway.chain import leaf, link, proves
from gateway.errors import DocumentNotFound, NotCovered, NotProven
from gateway.evidence.glance import UNREADABLE
from gateway.evidence.inclusion import include
from gateway.evidence.keys import VerifyingKey
from gateway.evidence.statements import NotCanonical, Statement, is_signed_by, parse_statement
from gateway.ports import AuditStore, Place
from gateway.record import Payload, Record, decode_record

FORMAT: Final = "pointsman receipt v1"
MOST_BYTES: Final = 64_000
"""No receipt is larger than this."""
_LARGEST_SEALED = 2**20
_NO_DIGEST = bytes(32)


class BodyDigests(Struct, frozen=True, forbid_unknown_fields=True):
    """What a receipt says of a body: salt, SHA-256 of the whole and of the kept bytes (hex; "": there is none)."""

    salt: str
    sha256: str
    kept_sha256: str


class _Signed(Struct, frozen=True, forbid_unknown_fields=True):
    statement: str
    signature: str


class _Receipt(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    format: Literal["pointsman receipt v1"]
    record: dict[str, Any] | None
    sealed: str
    compressed: bool = False
    journal: str
    sequence: int
    previous: str
    index: int
    size: int
    proof: list[str]
    checkpoint: _Signed
    public_key: str
    request: BodyDigests | None
    response: BodyDigests | None


class Proven(Struct, frozen=True):
    """What a receipt proves: the record, its place, the statement that covers it, and its bodies' digests."""

    record: Record
    place: Place
    statement: Statement
    request: BodyDigests | None
    response: BodyDigests | None


def place_of(store: AuditStore, record_id: str) -> Place:
    """Return where the record with this record id stands.

    Raises:
        DocumentNotFound: there is none, or the id is another kind of id; then the message names the records it finds.
        AuditUnavailable: the store fails.
    """
    found = store.find(record_id)
    for kept in found:
        if kept.frame.record.record_id == record_id:
            return Place(kept.frame.journal, kept.frame.sequence)
    if not found:
        raise DocumentNotFound("no record has that record id")
    named = ", ".join(kept.frame.record.record_id for kept in found[:5])
    raise DocumentNotFound(f"a receipt is of one record, and that is no record id; it finds the records {named}")


def receipt(store: AuditStore, place: Place, key: VerifyingKey) -> bytes:
    """Return the receipt of the record in a place, made of what the store holds and checked with `key`.

    Raises:
        DocumentNotFound: there is no such record.
        NotCovered: no checkpoint covers it yet, or it was pruned.
        NotProven: the store no longer proves it; verification says why.
        AuditUnavailable: the store fails.
    """
    row = next(iter(store.rows(place.journal, place.sequence, place.sequence)), None)
    if row is None:
        raise DocumentNotFound(f"there is no record {place.sequence} of journal {place.journal}")
    if row.sealed is None:
        raise NotCovered("the record was pruned when its time was over; what is left of it proves only its neighbours")
    found = include(store, place)
    try:
        record = decode_record(row.sealed)
    except UNREADABLE as error:
        raise NotProven(f"the record is damaged: {error}; audit verify says more") from None
    document = _Receipt(
        format=FORMAT,
        record=_readable(record),
        sealed=base64.b64encode(row.sealed).decode(),
        journal=place.journal,
        sequence=place.sequence,
        previous=row.previous.hex(),
        index=found.index,
        size=found.statement.size,
        proof=[one.hex() for one in found.path],
        checkpoint=_Signed(found.checkpoint.statement.decode(), base64.b64encode(found.checkpoint.signature).decode()),
        public_key=key.pem,
        request=_digests(row.request, record.request),
        response=_digests(row.response, record.response),
    )
    made = _fitted(document, row.sealed)
    verify_receipt(made, key)
    return made


def verify_receipt(document: bytes, key: VerifyingKey) -> Proven:
    """Return what a receipt proves, given the public key of the gateway that made it. Needs nothing else.

    Raises:
        NotProven: it proves nothing; the message is the first reason why.
    """
    given = _parse(document)
    sealed = _sealed(given)
    try:
        statement = parse_statement(given.checkpoint.statement.encode())
    except NotCanonical as error:
        raise NotProven(str(error)) from None
    if statement.key != key.id:
        raise NotProven(f"its checkpoint is signed by the key {statement.key}; the key that was given is {key.id}")
    if not is_signed_by(key, given.checkpoint.statement.encode(), _base64(given.checkpoint.signature, "signature")):
        raise NotProven("the signature of its checkpoint does not hold")
    if given.size != statement.size:
        raise NotProven("its proof is of a tree of another size than the one that was signed")
    if not 0 < given.sequence < 2**63:
        raise NotProven("its sequence is out of range")
    mine = leaf(given.journal, given.sequence, link(_hash(given.previous, "previous"), given.sequence, sealed))
    path = [_hash(one, "proof") for one in given.proof]
    if not proves(mine, given.index, given.size, path, bytes.fromhex(statement.root)):
        raise NotProven("the record is not among those that its checkpoint covers, or it was changed")
    try:
        record = decode_record(sealed)
    except UNREADABLE as error:
        raise NotProven(f"what it proves is no record: {error}") from None
    if given.record is not None and given.record != _readable(record):
        raise NotProven('what it says under "record" is not what the sealed record says')
    for name, digests, payload in (
        ("request", given.request, record.request),
        ("response", given.response, record.response),
    ):
        if digests is not None and not _commits(digests, payload):
            raise NotProven(f"what it says of the {name} is not what the record commits to")
    return Proven(record, Place(given.journal, given.sequence), statement, given.request, given.response)


def _readable(record: Record) -> dict[str, Any]:
    """Return a record as JSON has it, bytes in base64."""
    made: dict[str, Any] = json.loads(msgspec.json.encode(record))
    return made


def _fitted(document: _Receipt, sealed: bytes) -> bytes:
    """Return the document in at most `MOST_BYTES`: without its readable part if need be, then compressed as well."""
    for attempt in (
        document,
        msgspec.structs.replace(document, record=None),
        msgspec.structs.replace(
            document, record=None, sealed=base64.b64encode(zlib.compress(sealed, 9)).decode(), compressed=True
        ),
    ):
        made = json.dumps(msgspec.to_builtins(attempt), ensure_ascii=False, indent=1).encode("utf-8")
        if len(made) <= MOST_BYTES:
            return made
    raise NotProven(f"the record alone has {len(sealed)} bytes, which is more than a receipt takes")


def _digests(part: bytes, payload: Payload) -> BodyDigests | None:
    contents = open_part(part, payload)
    if contents is None:
        return None
    kept = sha256(contents.body).hexdigest() if contents.body is not None else ""
    return BodyDigests(contents.salt.hex(), contents.sha256, kept)


def _commits(digests: BodyDigests, payload: Payload) -> bool:
    try:
        salt, whole = bytes.fromhex(digests.salt), bytes.fromhex(digests.sha256) or _NO_DIGEST
        kept = bytes.fromhex(digests.kept_sha256) or _NO_DIGEST
    except ValueError:
        return False
    if len(salt) != SALT_BYTES or len(whole) != len(kept) or len(kept) != len(_NO_DIGEST):
        return False
    return payload.kept == bool(digests.kept_sha256) and sha256(salt + whole + kept).digest() == payload.commitment


def _parse(document: bytes) -> _Receipt:
    if len(document) > MOST_BYTES:
        raise NotProven(f"it has {len(document)} bytes; a receipt never has more than {MOST_BYTES}")
    try:
        # By the standard library: its integers have no bound, as those of a record have none.
        return msgspec.convert(json.loads(document, object_pairs_hook=_once), _Receipt)
    except (ValueError, RecursionError) as error:
        raise NotProven(f"it is no receipt: {error}") from None


def _once(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        raise ValueError("a name stands in it twice")
    return made


def _sealed(given: _Receipt) -> bytes:
    sealed = _base64(given.sealed, "sealed")
    if not given.compressed:
        return sealed
    try:
        opening = zlib.decompressobj()
        plain = opening.decompress(sealed, _LARGEST_SEALED)
    except zlib.error as error:
        raise NotProven(f"its sealed record cannot be decompressed: {error}") from None
    if not opening.eof:
        raise NotProven("its sealed record is larger than any that a gateway makes")
    return plain


def _base64(text: str, name: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise NotProven(f"its {name} is not in base64") from None


def _hash(text: str, name: str) -> bytes:
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) != 32:
        raise NotProven(f"its {name} is no SHA-256 in hex")
    return found
