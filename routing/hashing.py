"""Hashing of callers to versions: unit digests, weighted rendezvous scores and shadow sampling.

Belongs here: the exact byte formats that other languages must reproduce (see `tests/routing/cases/`).
Never here: documents, rules, or Python's own randomised `hash`.
"""

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from math import log
from typing import Final

_SEPARATOR: Final = b"\x1f"
_HASH_SPACE: Final = 2.0**64
_SAMPLE_SPACE: Final = 10_000


def unit_digest(unit: str) -> bytes:
    """Return `D`, the 16-byte BLAKE2b digest of a routing key or record id (UTF-8).

    Any text has a digest: a lone surrogate, which UTF-8 does not know, counts as its three bytes. No document and no
    header can hold one, but an `explain` typed by hand can, and that must not be an error of ours.
    """
    return blake2b(unit.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def score(h: int, weight: int) -> float:
    """Return the rendezvous score of a hash for a positive weight in basis points; the smallest score wins.

    Weighted rendezvous hashing, logarithmic method (Thaler and Ravishankar 1998; Schindelhauer and Schomaker 2005):
    with `h` uniform over 64 bits the logarithm is exponential, and divided by `weight` it has the rate `weight`. So the
    chance of having the smallest of several is the share of the weight, and a change of one weight moves no caller
    between two others.
    """
    return -log((h + 0.5) / _HASH_SPACE) / weight


def scores(salt: str, unit: bytes, split: Mapping[str, int]) -> list[tuple[str, float]]:
    """Return (version, score) for every version of positive weight.

    `unit` is a unit digest (16 bytes), `split` maps versions to weights in basis points.
    """
    prefix = salt.encode() + _SEPARATOR + unit + _SEPARATOR
    return [
        (version, score(int.from_bytes(blake2b(prefix + version.encode(), digest_size=8).digest(), "big"), weight))
        for version, weight in split.items()
        if weight > 0
    ]


def smallest(scored: Iterable[tuple[str, float]]) -> str:
    """Return the version of the smallest score; of equal scores, the smaller version name in byte order.

    Raises:
        ValueError: nothing is scored; no legal split has only versions of weight 0.
    """
    ranked = [(value, version) for version, value in scored]
    if not ranked:
        raise ValueError("no version of the split has a weight above 0")
    return min(ranked)[1]


def winner(salt: str, unit: bytes, split: Mapping[str, int]) -> str:
    """Return the version of the smallest of the `scores`, as `smallest` does. Raises as that does."""
    return smallest(scores(salt, unit, split))


def shadow_hit(salt: str, record_id: str, version: str, sample: int) -> bool:
    """Tell whether the request `record_id` is copied to the shadow `version`, for a sample in basis points."""
    data = salt.encode() + _SEPARATOR + b"shadow" + _SEPARATOR + record_id.encode() + _SEPARATOR + version.encode()
    h = int.from_bytes(blake2b(data, digest_size=8).digest(), "big")
    return h % _SAMPLE_SPACE < sample
