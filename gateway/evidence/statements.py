"""What a checkpoint says and what it covers, as bytes that can be signed, and back again, strictly.

    statement = {"at", "at_ns", "day", "gateway", "key", "listing", "number", "previous", "root", "size", "version": 1}
    listing   = [{"end", "first", "journal", "last", "marks", "start"}, …]

Both are canonical JSON: names sorted, no spaces, nothing that could be written in another way; bytes that are not
exactly that are refused. `listing` is the SHA-256 of the listing, `previous` that of the statement before ("" for
number 1), `root` the root of the Merkle tree (`gateway.chain`) over the leaves of all records listed, in the order of
the listing, and `size` how many those are. A stretch of a journal holds every sequence from `first` to `last`; `start`
is the chain before it and `end` the chain after it. All hashes are hex. `marks` are the first 6 bytes of each of its
leaves, one after another, in base64 (left out in listings of before there were any): the root proves whether all
records are those that were signed, the marks tell which is not. The signature is Ed25519 over

    "pointsman checkpoint v1\\n" ‖ statement

Belongs here: the format. Never here: a store, or what becomes of a checkpoint.
"""

import re
from base64 import b64decode, b64encode
from collections.abc import Sequence
from datetime import UTC, date, datetime
from hashlib import sha256
from typing import Final, Literal

import msgspec
from msgspec import Struct

from gateway.evidence.keys import SigningKey, VerifyingKey
from gateway.ports import SignedCheckpoint

SIGNED_PREFIX: Final = b"pointsman checkpoint v1\n"
_HASH = re.compile(r"[0-9a-f]{64}\Z")
MARK_BYTES: Final = 6
"""Enough that no record has another's mark by chance, and few beside what a record takes itself."""
_MARKS = re.compile(r"[0-9A-Za-z+/]*\Z")
_MARK_CHARACTERS: Final = MARK_BYTES * 4 // 3
_KEY = re.compile(r"[0-9a-f]{16}\Z")
_LARGEST = 2**63 - 1


class Stretch(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Records of one journal without a missing sequence, `first` to `last`; the chain before and after them (hex).

    `marks` has the first bytes of each one's leaf (base64); "" in listings of before there were marks.
    """

    journal: str
    first: int
    last: int
    start: str
    end: str
    marks: str = ""

    @property
    def size(self) -> int:
        """How many records it holds."""
        return self.last - self.first + 1


def marks_of(leaves: Sequence[bytes]) -> str:
    """Return the marks of a stretch that has these leaves."""
    return b64encode(b"".join([one[:MARK_BYTES] for one in leaves])).decode()


def marks_in(stretch: Stretch) -> Sequence[bytes]:
    """Return the mark of each record of a stretch, in order; nothing when it has none."""
    marks = b64decode(stretch.marks)
    return [marks[at : at + MARK_BYTES] for at in range(0, len(marks), MARK_BYTES)]


class Statement(Struct, frozen=True, forbid_unknown_fields=True):
    """What a checkpoint says; the module's docstring has every field. `at` is `at_ns` (Unix ns) in words (RFC 3339)."""

    version: Literal[1]
    gateway: str
    number: int
    previous: str
    day: str
    at: str
    at_ns: int
    size: int
    root: str
    listing: str
    key: str


class NotCanonical(ValueError):
    """The bytes are no statement or listing. The message says what is wrong."""


_encode = msgspec.json.Encoder(order="sorted").encode
_decode_statement = msgspec.json.Decoder(Statement).decode
_decode_listing = msgspec.json.Decoder(list[Stretch]).decode


def rfc3339(at_ns: int) -> str:
    """Return a time (Unix ns) as RFC 3339 has it, in UTC, cut to milliseconds."""
    seconds, rest = divmod(at_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest // 1_000_000:03d}Z"


def encode_statement(statement: Statement) -> bytes:
    """Return the bytes of a statement."""
    return _encode(statement)


def encode_listing(stretches: Sequence[Stretch]) -> bytes:
    """Return the bytes of a listing."""
    return _encode(stretches)


def parse_statement(data: bytes) -> Statement:
    """Return the statement of these bytes.

    Raises:
        NotCanonical: they are no statement, or could have been written in another way.
    """
    try:
        statement = _decode_statement(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise NotCanonical(f"the statement does not parse: {error}") from None
    if wrong := _wrong_statement(statement):
        raise NotCanonical(f"the statement's {wrong}")
    if _encode(statement) != data:
        raise NotCanonical("the statement is not in canonical form")
    return statement


def _wrong_statement(statement: Statement) -> str:
    if not 1 <= statement.number <= _LARGEST:
        return "number is out of range"
    if not 1 <= statement.size <= _LARGEST:
        return "size is out of range"
    for name in ("root", "listing"):
        if not _HASH.match(getattr(statement, name)):
            return f"{name} is no SHA-256 in hex"
    if statement.number > 1 and not _HASH.match(statement.previous):
        return "previous is no SHA-256 in hex"
    if statement.number == 1 and statement.previous:
        return "previous is given, though nothing comes before number 1"
    if not _KEY.match(statement.key):
        return "key is no id of a key"
    if not _is_day(statement.day):
        return "day is none, such as 2026-11-25"
    if not 0 <= statement.at_ns <= _LARGEST or statement.at != rfc3339(statement.at_ns):
        return "at and at_ns are not the same time"
    return "" if statement.gateway else "gateway is empty"


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def parse_listing(data: bytes) -> tuple[Stretch, ...]:
    """Return the stretches of a listing: each journal's in order, none overlapping another.

    Raises:
        NotCanonical: the bytes are no listing, or could have been written in another way.
    """
    try:
        stretches = _decode_listing(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise NotCanonical(f"the listing does not parse: {error}") from None
    before: Stretch | None = None
    for stretch in stretches:
        if not 1 <= stretch.first <= stretch.last <= _LARGEST:
            raise NotCanonical("a stretch of the listing ends before it begins")
        if not _HASH.match(stretch.start) or not _HASH.match(stretch.end):
            raise NotCanonical("a chain in the listing is no SHA-256 in hex")
        if stretch.marks and (len(stretch.marks) != _MARK_CHARACTERS * stretch.size or not _MARKS.match(stretch.marks)):
            raise NotCanonical("a stretch of the listing has other marks than one for each record")
        if before is not None and (stretch.journal, stretch.first) <= (before.journal, before.last):
            raise NotCanonical("the stretches of the listing are not in order")
        before = stretch
    if _encode(stretches) != data:
        raise NotCanonical("the listing is not in canonical form")
    return tuple(stretches)


def digest(data: bytes) -> str:
    """Return the SHA-256 (hex) by which a statement or listing is named."""
    return sha256(data).hexdigest()


def sign(statement: Statement, listing: bytes, key: SigningKey) -> SignedCheckpoint:
    """Return the checkpoint of a statement, whose `key` and `listing` must be those given."""
    said = encode_statement(statement)
    return SignedCheckpoint(
        gateway=statement.gateway,
        number=statement.number,
        day=statement.day,
        at_ns=statement.at_ns,
        statement=said,
        listing=listing,
        signature=key.sign(SIGNED_PREFIX + said),
        key=key.id,
    )


def is_signed_by(key: VerifyingKey, statement: bytes, signature: bytes) -> bool:
    """Tell whether `signature` over `statement` (its bytes) was made by `key`."""
    return key.verifies(signature, SIGNED_PREFIX + statement)
