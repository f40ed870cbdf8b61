"""Checkpoints as they leave the host: one JSON object a line, in a file that is appended to or posted to a URL.

    {"gateway", "number", "statement": text, "listing": text, "signature": base64, "key"}

Whoever has these lines can tell later whether the store was changed since, whatever was changed in it.

Belongs here: the format of a line, and reading such a file. Never here: sending.
"""

import base64
import binascii
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from gateway.evidence.findings import Finding, Findings
from gateway.evidence.statements import NotCanonical, digest, is_signed_by, parse_statement
from gateway.evidence.trust import Trust
from gateway.evidence.witness import Seen
from gateway.ports import SignedCheckpoint


class Line(Struct, frozen=True, forbid_unknown_fields=True):
    """One exported checkpoint."""

    gateway: str
    number: int
    statement: str
    listing: str
    signature: str
    key: str


_decode = msgspec.json.Decoder(Line).decode


def encode_line(checkpoint: SignedCheckpoint) -> bytes:
    """Return the line of a checkpoint, without its end."""
    return msgspec.json.encode(
        Line(
            gateway=checkpoint.gateway,
            number=checkpoint.number,
            statement=checkpoint.statement.decode(),
            listing=checkpoint.listing.decode(),
            signature=base64.b64encode(checkpoint.signature).decode(),
            key=checkpoint.key,
        )
    )


def read_exported(path: Path, trust: Trust, findings: Findings) -> Iterator[tuple[str, Seen]]:
    """Yield the gateway of each checkpoint in an exported file, with its number and the digest of its statement.

    A line that is none, or whose signature does not hold, leaves a finding; one that was cut short and then written
    again whole, as after a crash, does not. Raises `OSError`.
    """
    cut = b""
    with path.open("rb") as file:
        for number, text in enumerate(file, start=1):
            line = text.strip()
            if cut and not line.startswith(cut):
                findings.add(Finding(f"line {number - 1} of {path.name} is no checkpoint"))
            cut = b""
            if not line:
                continue
            try:
                found = _decode(line)
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                cut = line
                continue
            if wrong := _wrong_line(found, trust):
                what = f"line {number} of {path.name} proves nothing: {wrong}"
                findings.add(Finding(what, gateway=found.gateway, checkpoint=found.number))
            else:
                yield found.gateway, Seen(found.number, digest(found.statement.encode()))
    if cut:
        findings.add(Finding(f"the last line of {path.name} is no checkpoint"))


def _wrong_line(line: Line, trust: Trust) -> str:
    try:
        statement = parse_statement(line.statement.encode())
        signature = base64.b64decode(line.signature, validate=True)
    except (NotCanonical, binascii.Error) as error:
        return str(error)
    if (statement.gateway, statement.number, statement.key) != (line.gateway, line.number, line.key):
        return "it is not of the checkpoint that it says"
    if digest(line.listing.encode()) != statement.listing:
        return "its listing is not the one that was signed"
    key = trust.key(line.gateway, line.key)
    if isinstance(key, str):
        return key
    return "" if is_signed_by(key, line.statement.encode(), signature) else "its signature does not hold"
