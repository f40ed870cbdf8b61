"""Hashing of callers to versions: unit digests, weighted rendezvous scores and shadow sampling.

Belongs here: the exact byte formats that other languages must reproduce (see `tests/routing/cases/`).
Never here: documents, rules, or Python's own randomised `hash`.
"""

from hashlib import blake2b
from math import log

_SEPARATOR = b"\x1f"
_HASH_SPACE = 2.0**64


def unit_digest(unit: str) -> bytes:
    """Return `D`, the 16-byte BLAKE2b digest of a routing key or record id (UTF-8)."""
    return blake2b(unit.encode(), digest_size=16).digest()


def score(salt: str, unit: bytes, version: str, weight: int) -> float:
    """Return the rendezvous score of `version` for the caller with digest `unit`; the smallest score wins.

    Weighted rendezvous hashing, logarithmic method (Thaler and Ravishankar 1998; Schindelhauer and Schomaker 2005):
    with `h` uniform, `-ln(h) / weight` is exponential with rate `weight`, so the chance of having the smallest of
    several is the share of the weight, and a change of one weight moves no caller between two other versions.

    `weight` is in basis points and must be positive.
    """
    data = salt.encode() + _SEPARATOR + unit + _SEPARATOR + version.encode()
    h = int.from_bytes(blake2b(data, digest_size=8).digest(), "big")
    return -log((h + 0.5) / _HASH_SPACE) / weight


def shadow_hit(salt: str, record_id: str, version: str, sample: int) -> bool:
    """Tell whether the request `record_id` is copied to the shadow `version`, for a sample in basis points."""
    data = salt.encode() + _SEPARATOR + b"shadow" + _SEPARATOR + record_id.encode() + _SEPARATOR + version.encode()
    h = int.from_bytes(blake2b(data, digest_size=8).digest(), "big")
    return h % 10_000 < sample
