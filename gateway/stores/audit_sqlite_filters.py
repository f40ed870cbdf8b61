"""Which keys a chunk of records may have, in a few bits for each: a blocked Bloom filter.

A filter is made of blocks of 512 bytes, and a key looks at bits of one block only, so one read tells whether a chunk is
worth opening. (Bloom 1970; in blocks: Putze, Sanders and Singler 2007.) With 12 bits for each key and 7 bits set by
one, about 1 of 200 look-ups of a key that is not there is told "maybe".

Belongs here: bits. Never here: where keys come from, or where filters are kept.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

BLOCK_BYTES: Final = 512
_BLOCK_BITS: Final = 8 * BLOCK_BYTES
_BITS_OF_A_KEY: Final = 12
_LOOKED_AT: Final = 7
# The low bits of a key choose the block, so those inside it come from the high ones, stirred once more.
_STIR: Final = 0x9E37_79B9_7F4A_7C15
_ALL: Final = 2**64 - 1


def block_count(keys: int) -> int:
    """Return how many blocks the filter of so many keys has: at least one."""
    return max(1, -(-keys * _BITS_OF_A_KEY // _BLOCK_BITS))


def block_of(key: int, blocks: int) -> int:
    """Return in which block of a filter the bits of a key (64 bits with a sign) are."""
    return (key & _ALL >> 1) % blocks


def looked_at(key: int) -> Sequence[tuple[int, int]]:
    """Return the bits that a key looks at, the same in any block: the byte and the mask in it."""
    return [(bit >> 3, 0x80 >> (bit & 7)) for bit in _bits(key)]


def may_have(bits: Sequence[tuple[int, int]], block: bytes) -> bool:
    """Tell whether a filter may have been made of the key that looks at these bits of its block; False is certain."""
    for byte, mask in bits:  # noqa: SIM110 - a generator would cost as much as the loop, and there are many blocks
        if not block[byte] & mask:
            return False
    return True


def filter_of(keys: NDArray[np.int64]) -> list[bytes]:
    """Return the blocks of the filter of these keys."""
    blocks = block_count(len(keys))
    unsigned: NDArray[np.uint64] = keys.astype(np.int64).view(np.uint64)
    chosen = (unsigned & np.uint64(_ALL >> 1)) % np.uint64(blocks)
    stirred = unsigned * np.uint64(_STIR)
    first = stirred >> np.uint64(52)
    step = stirred >> np.uint64(40) & np.uint64(_BLOCK_BITS - 1) | np.uint64(1)
    bits: NDArray[Any] = np.zeros((blocks, _BLOCK_BITS), dtype=np.uint8)
    for nth in range(_LOOKED_AT):
        bits[chosen, (first + np.uint64(nth) * step) % np.uint64(_BLOCK_BITS)] = 1
    return [row.tobytes() for row in np.packbits(bits, axis=1)]


def _bits(key: int) -> Iterator[int]:
    stirred = (key & _ALL) * _STIR & _ALL
    bit, step = stirred >> 52, stirred >> 40 & _BLOCK_BITS - 1 | 1
    for _ in range(_LOOKED_AT):
        yield bit
        bit = (bit + step) & _BLOCK_BITS - 1
