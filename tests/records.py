"""Records as a gateway makes them: ids that tell their time, bodies captured in parts, frames chained in a journal.

new_record(7)                              a primary request that a rule decided, received 7 ms after `NOON_NS`
chain = ChainedJournal()                   a journal that is being written
chain.frames(new_record(1), new_record(2)) the next frames of it, their bodies captured
batch(frames)                              one commit of the recorder, with the positions that these frames give
"""

import json
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import Any

from msgspec.structs import replace

from gateway.capture import capture
from gateway.chain import genesis
from gateway.ports import Batch, Gap, JournalPosition, Place, SignedCheckpoint
from gateway.record import Attempt, Frame, Payload, Record, encode_record
from gateway.sealing import frame_of
from routing.types import Capture

DAY = "2026-11-25"
NEXT_DAY = "2026-11-26"
NOON_NS = 1_795_608_000 * 10**9
"""Noon of `DAY`, Unix time in ns."""
JOURNAL = "gw-a/w0.0123456789ab"
OTHER_JOURNAL = "gw-a/w1.ba9876543210"


def record_id_at(received_ns: int, number: int) -> str:
    """Return a UUIDv7 of that time (Unix ns); the same number gives the same one."""
    random = int.from_bytes(sha256(b"%d" % number).digest()[:10], "big")
    high = (received_ns // 1_000_000) << 16 | 0x7000 | random >> 68
    low = 0x8000_0000_0000_0000 | random & 0x3FFF_FFFF_FFFF_FFFF
    digits = f"{high & (1 << 64) - 1:016x}{low:016x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def new_record(number: int, **fields: Any) -> Record:
    """Return a primary record that the split decided, received `number` ms after noon; `fields` replaces any field."""
    received_ns = fields.get("received_ns", NOON_NS + number * 1_000_000)
    record_id = fields.get("record_id", record_id_at(received_ns, number))
    given: dict[str, Any] = {
        "record_id": record_id,
        "request_id": record_id,
        "role": "primary",
        "received_ns": received_ns,
        "model": "fraud",
        "protocol": "oip-v2",
        "outcome": "served",
        "status": 200,
        "request": Payload(0),
        "response": Payload(0),
        "intended": "1",
        "served": "1",
        "reason": "split",
        "rule": "split",
        "unit": f"{number:032x}",
        "keyed": True,
        "revision": 4,
        "attempts": (Attempt("1", "onnx", 7, 200),),
        "gateway": "gw-a",
        "worker": "w0",
        "client": "127.0.0.1",
    }
    return Record(**(given | fields))


def shadow_of(primary: Record, number: int, **fields: Any) -> Record:
    """Return the record of a shadow of version 3: its own id, the primary's millisecond, caller and request id."""
    given: dict[str, Any] = {
        "record_id": record_id_at(primary.received_ns, 1_000_000 + number),
        "primary_id": primary.record_id,
        "role": "shadow",
        "intended": "3",
        "served": "3",
        "reason": "shadow",
        "rule": "shadows",
    }
    return replace(primary, **(given | fields))


def control_record(number: int, action: str, **fields: Any) -> Record:
    """Return the record of something that an auditor or SRE did."""
    nothing: dict[str, Any] = {"intended": None, "served": None, "reason": None, "rule": None, "unit": None}
    done = {"role": "control", "action": action, "actor": "auditor", "model": "", "attempts": (), "client": ""}
    return new_record(number, **(nothing | {"keyed": False, "revision": None, "protocol": ""} | done | fields))


class ChainedJournal:
    """A journal that is being written: it numbers and chains the frames that it makes."""

    def __init__(self, name: str = JOURNAL) -> None:
        self.name = name
        self.sequence = 0
        self.chain = genesis(name)

    def frame(
        self,
        record: Record,
        request: bytes | None = b'{"inputs":[1,2,3]}',
        response: bytes | None = b'{"outputs":[0.5]}',
        policy: Capture = Capture(),  # noqa: B008 - it is frozen
    ) -> Frame:
        """Return the next frame, the bodies captured by `policy`; with None the record has no part of its own there."""
        payloads: dict[str, Payload] = {}
        parts = {"request": b"", "response": b""}
        for name, body, mode in (("request", request, policy.request), ("response", response, policy.response)):
            if body is not None:
                payloads[name], parts[name] = capture(body, mode, policy)
        return self.sealed(encode_record(replace(record, **payloads)), **parts)

    def frames(self, *records: Record) -> list[Frame]:
        """Return the next frames, each with the same small bodies."""
        return [self.frame(record) for record in records]

    def sealed(self, sealed: bytes, request: bytes = b"", response: bytes = b"") -> Frame:
        """Return the next frame of these very bytes.

        Raises:
            msgspec.DecodeError: they are no record.
        """
        self.sequence += 1
        frame = frame_of(self.name, self.sequence, self.chain, sealed, request, response)
        self.chain = frame.chain
        return frame

    @property
    def position(self) -> JournalPosition:
        """Where this journal has been shipped to when all its frames are."""
        return position_of(self.name, self.sequence, self.chain)


def position_of(journal: str, sequence: int, chain: bytes = bytes(32), segment: int = 1) -> JournalPosition:
    """Return a position after `sequence` frames of 100 bytes in one segment."""
    return JournalPosition(journal, segment, sequence * 100, sequence, chain)


def batch(frames: Iterable[Frame], day: str = DAY, gaps: Sequence[Gap] = ()) -> Batch:
    """Return the batch that ships these frames, each journal's position being after its last one."""
    shipped = list(frames)
    last = {frame.journal: frame for frame in shipped}
    return Batch(day, shipped, [position_of(one.journal, one.sequence, one.chain) for one in last.values()], gaps)


def place_of(frame: Frame) -> Place:
    """Return where a frame stands."""
    return Place(frame.journal, frame.sequence)


def new_checkpoint(number: int, frames: Sequence[Frame], day: str = DAY, gateway: str = "gw-a") -> SignedCheckpoint:
    """Return a checkpoint whose listing covers these frames, which follow on each other in each journal.

    Its statement and signature are bytes of the right kind and length, no more.
    """
    stretches: dict[str, list[Frame]] = {}
    for frame in frames:
        stretches.setdefault(frame.journal, []).append(frame)
    listing = [
        {
            "end": found[-1].chain.hex(),
            "first": found[0].sequence,
            "journal": journal,
            "last": found[-1].sequence,
            "start": found[0].previous.hex(),
        }
        for journal, found in sorted(stretches.items())
    ]
    statement = json.dumps({"day": day, "gateway": gateway, "number": number}, separators=(",", ":")).encode()
    listed = json.dumps(listing, separators=(",", ":")).encode()
    return SignedCheckpoint(
        gateway, number, day, NOON_NS + number, statement, listed, bytes([number % 256]) * 64, "k-1"
    )


def new_gap(journal: str, first: int, **fields: Any) -> Gap:
    """Return a gap of three records; `fields` replaces any field."""
    return replace(Gap(journal, first, 3, 2, 4_096, "its checksum is wrong", NOON_NS), **fields)
