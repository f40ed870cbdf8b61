"""What binds records together so that no edit stays unseen: the hash chain of a journal and the Merkle tree of a batch.

    chain(0) = SHA-256("pointsman journal v1\\n" ‖ journal's name)
    chain(n) = SHA-256(chain(n-1) ‖ n as u64 big-endian ‖ sealed part of record n)
    leaf(n)  = SHA-256(0x00 ‖ journal's name ‖ 0x00 ‖ n as u64 big-endian ‖ chain(n))

The tree over a batch of leaves, its root and its inclusion proofs are those of RFC 6962, section 2.1 (interior nodes
are SHA-256(0x01 ‖ left ‖ right), the left subtree has the largest power of two of leaves that is smaller than all of
them); proofs are checked by the algorithm of RFC 9162, section 2.1.3.2.

Belongs here: hashes in, hashes out. Never here: records, files, keys, signatures.
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Final

HASH_BYTES: Final = 32
_GENESIS: Final = b"pointsman journal v1\n"


def genesis(journal: str) -> bytes:
    """Return the chain of a journal before its first record: 32 bytes that depend on its name."""
    return sha256(_GENESIS + journal.encode()).digest()


def link(previous: bytes, sequence: int, sealed: bytes | memoryview) -> bytes:
    """Return the chain (32 bytes) after record `sequence`, whose sealed part is `sealed`; `previous` is the one
    before.
    """
    return sha256(previous + sequence.to_bytes(8, "big") + sealed).digest()


def leaf(journal: str, sequence: int, chain: bytes) -> bytes:
    """Return the hash of a record as a leaf of its batch's tree: it says which record stands where in which journal."""
    return sha256(b"\0" + journal.encode() + b"\0" + sequence.to_bytes(8, "big") + chain).digest()


def node(left: bytes, right: bytes) -> bytes:
    """Return the hash of an interior node."""
    return sha256(b"\x01" + left + right).digest()


class Tree:
    """The root of a growing batch in constant memory per level: add the leaves in order, then ask for the root.

    A pair of subtrees of one size is joined as soon as both are there; what is left over at the end is joined from the
    smallest up, which is the shape that RFC 6962 defines.
    """

    def __init__(self) -> None:
        self.size = 0
        self._peaks: list[bytes] = []

    def add(self, leaf_hash: bytes) -> None:
        """Append a leaf."""
        self.size += 1
        size = self.size
        while size & 1 == 0:
            leaf_hash = node(self._peaks.pop(), leaf_hash)
            size >>= 1
        self._peaks.append(leaf_hash)

    def root(self) -> bytes:
        """Return the root of what was added so far; of nothing, SHA-256 of nothing (RFC 6962)."""
        if not self._peaks:
            return sha256().digest()
        root = self._peaks[-1]
        for peak in reversed(self._peaks[:-1]):
            root = node(peak, root)
        return root


def root_of(leaves: Sequence[bytes]) -> bytes:
    """Return the root of the tree over `leaves`."""
    tree = Tree()
    for one in leaves:
        tree.add(one)
    return tree.root()


def inclusion_proof(leaves: Sequence[bytes], index: int) -> list[bytes]:
    """Return the audit path of leaf `index`, from the leaf to the root: at most 64 hashes however many leaves there
    are.

    Raises:
        IndexError: there is no such leaf.
    """
    if not 0 <= index < len(leaves):
        raise IndexError(index)
    path: list[bytes] = []
    level = list(leaves)
    while len(level) > 1:
        if index ^ 1 < len(level):
            path.append(level[index ^ 1])
        # A last one without a partner goes up as it is; that gives the left-heavy shape of RFC 6962.
        above = [node(level[at], level[at + 1]) for at in range(0, len(level) - 1, 2)]
        if len(level) & 1:
            above.append(level[-1])
        level, index = above, index >> 1
    return path


def proves(leaf_hash: bytes, index: int, size: int, path: Sequence[bytes], root: bytes) -> bool:
    """Tell whether `path` leads from leaf `index` of `size` to `root` (RFC 9162, section 2.1.3.2)."""
    if not 0 <= index < size:
        return False
    at, last, found = index, size - 1, leaf_hash
    for sibling in path:
        if last == 0:
            return False
        if at & 1 or at == last:
            found = node(sibling, found)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            found = node(found, sibling)
        at, last = at >> 1, last >> 1
    return last == 0 and found == root
