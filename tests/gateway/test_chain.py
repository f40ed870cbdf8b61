"""The hash chain and the Merkle tree against the definitions of RFC 6962, its known answers, and wrong proofs."""

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.chain import HASH_BYTES, Tree, genesis, inclusion_proof, leaf, link, node, proves, root_of

# The inputs and roots that implementations of Certificate Transparency test themselves with.
KNOWN_LEAVES = ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
KNOWN_ROOTS = (
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
)
SIZES = range(1, 131)
hashes = st.binary(min_size=HASH_BYTES, max_size=HASH_BYTES)


def leaves_of(size: int) -> list[bytes]:
    return [sha256(b"leaf %d" % at).digest() for at in range(size)]


def half(size: int) -> int:
    """The largest power of two below `size`."""
    return 1 << (size - 1).bit_length() - 1


def defined_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, word for word, over leaves that are hashed already."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = half(len(leaves))
    return sha256(b"\x01" + defined_root(leaves[:k]) + defined_root(leaves[k:])).digest()


def defined_path(leaves: list[bytes], index: int) -> list[bytes]:
    """PATH of RFC 6962, section 2.1.1, word for word."""
    if len(leaves) == 1:
        return []
    k = half(len(leaves))
    if index < k:
        return [*defined_path(leaves[:k], index), defined_root(leaves[k:])]
    return [*defined_path(leaves[k:], index - k), defined_root(leaves[:k])]


@pytest.mark.parametrize("size", range(1, len(KNOWN_ROOTS) + 1))
def test_roots_are_the_known_answers_of_rfc_6962(size: int) -> None:
    leaves = [sha256(b"\0" + bytes.fromhex(data)).digest() for data in KNOWN_LEAVES[:size]]

    assert root_of(leaves).hex() == KNOWN_ROOTS[size - 1]


def test_the_root_of_nothing_is_the_digest_of_nothing() -> None:
    assert Tree().root() == root_of([]) == sha256(b"").digest()


@given(st.lists(hashes, max_size=200))
def test_roots_are_those_of_the_recursive_definition(leaves: list[bytes]) -> None:
    assert root_of(leaves) == defined_root(leaves)


@given(st.lists(hashes, min_size=1, max_size=60))
def test_a_growing_tree_has_the_root_of_what_was_added_so_far(leaves: list[bytes]) -> None:
    tree = Tree()
    for size, one in enumerate(leaves, start=1):
        tree.add(one)
        assert (tree.size, tree.root()) == (size, defined_root(leaves[:size]))


@given(st.lists(hashes, min_size=1, max_size=200), st.data())
def test_proofs_are_those_of_the_recursive_definition(leaves: list[bytes], data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(leaves) - 1))

    assert inclusion_proof(leaves, index) == defined_path(leaves, index)


@pytest.mark.parametrize("size", SIZES)
def test_every_leaf_of_a_tree_of_any_size_is_proven(size: int) -> None:
    leaves = leaves_of(size)
    root = root_of(leaves)

    for index in range(size):
        assert proves(leaves[index], index, size, inclusion_proof(leaves, index), root)


@pytest.mark.parametrize("size", SIZES)
def test_a_proof_fails_when_anything_in_it_is_another(size: int) -> None:
    leaves = leaves_of(size)
    root, other = root_of(leaves), sha256(b"another").digest()

    for index in {0, 1, half(size) if size > 1 else 0, size // 2, size - 2, size - 1} & set(range(size)):
        path = inclusion_proof(leaves, index)
        mine = leaves[index]
        assert not proves(other, index, size, path, root)
        assert not proves(mine, index, size, path, other)
        assert not proves(mine, index, size, [*path, other], root)
        assert not path or not proves(mine, index, size, path[:-1], root)
        for at in range(len(path)):
            assert not proves(mine, index, size, [*path[:at], other, *path[at + 1 :]], root)
        for elsewhere in set(range(size)) - {index}:
            assert not proves(mine, elsewhere, size, path, root)
        assert not proves(mine, index + size, size, path, root)
        assert not proves(mine, -1, size, path, root)


def test_no_proof_is_of_a_tree_without_leaves() -> None:
    assert not proves(sha256().digest(), 0, 0, [], sha256().digest())
    with pytest.raises(IndexError):
        inclusion_proof([], 0)


@given(hashes, hashes)
def test_a_leaf_is_never_taken_for_an_interior_node(left: bytes, right: bytes) -> None:
    assert leaf("g/w0.0", 1, left) != node(left, right)
    assert (node(left, right) == node(right, left)) == (left == right)


@given(st.text(min_size=1), st.integers(1, 2**64 - 2), st.binary(max_size=64), st.binary(max_size=64))
def test_a_chain_depends_on_the_journal_the_place_and_all_before_it(
    journal: str, sequence: int, sealed: bytes, another: bytes
) -> None:
    start = genesis(journal)
    chain = link(start, sequence, sealed)

    assert start != genesis(journal + "x")
    assert chain != link(start, sequence + 1, sealed)
    assert chain != link(genesis(journal + "x"), sequence, sealed)
    assert (link(start, sequence, another) == chain) == (another == sealed)
    assert leaf(journal, sequence, chain) != leaf(journal, sequence + 1, chain)


def test_the_hashes_are_those_that_the_format_names() -> None:
    """What another implementation has to reproduce, from the words of the module's docstring alone."""
    start = sha256(b"pointsman journal v1\ng/w0.00ff").digest()
    chain = sha256(start + (7).to_bytes(8, "big") + b"sealed").digest()

    assert genesis("g/w0.00ff") == start
    assert link(start, 7, b"sealed") == link(start, 7, memoryview(b"sealed")) == chain
    assert leaf("g/w0.00ff", 7, chain) == sha256(b"\0g/w0.00ff\0" + (7).to_bytes(8, "big") + chain).digest()
