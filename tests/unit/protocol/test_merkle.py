from __future__ import annotations

import hashlib

import pytest

from tests import rfc9162
from tests.rfc9162 import leaf_hash
from validator.protocol.hashing import EMPTY_ROOT, hash_body, hash_node
from validator.protocol.merkle import (
    KEPT_LEAVES,
    KeptTree,
    RunningRoot,
    compute_root,
    compute_root_around,
    consistency_proof,
    inclusion_proof,
    range_proof,
    verify_consistency,
    verify_inclusion,
)

# The test tree of certificate-transparency-go and its siblings: seven roots that RFC 6962/9162 readers share.
KNOWN_LEAVES = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"]
KNOWN_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
SIZES = range(1, 34)


def leaves_of(size: int) -> list[bytes]:
    return [leaf_hash(str(number).encode()) for number in range(size)]


def test_the_roots_that_certificate_transparency_publishes_are_ours() -> None:
    leaves = [leaf_hash(bytes.fromhex(leaf)) for leaf in KNOWN_LEAVES]
    assert [compute_root(leaves[: i + 1]).hex() for i in range(8)] == KNOWN_ROOTS


def test_the_tree_of_nothing_is_the_hash_of_nothing() -> None:
    assert compute_root([]) == EMPTY_ROOT == hashlib.sha256(b"").digest()


@pytest.mark.parametrize("size", SIZES)
def test_roots_and_proofs_are_those_of_the_definitions(size: int) -> None:
    leaves = leaves_of(size)
    assert compute_root(leaves) == rfc9162.tree_hash(leaves)
    for index in range(size):
        assert list(inclusion_proof(leaves, index)) == rfc9162.path(index, leaves)
    for first in range(1, size + 1):
        assert list(consistency_proof(leaves, first)) == rfc9162.proof(first, leaves)


@pytest.mark.parametrize("size", SIZES)
def test_every_inclusion_proof_holds_for_its_leaf_place_and_size_only(size: int) -> None:
    leaves = leaves_of(size)
    root = compute_root(leaves)
    for index in range(size):
        proof = inclusion_proof(leaves, index)
        assert verify_inclusion(leaves[index], index, size, proof, root)
        assert not verify_inclusion(leaf_hash(b"other"), index, size, proof, root)
        assert not verify_inclusion(leaves[index], index, size, (*proof, root), root)
        assert not verify_inclusion(leaves[index], index, size, proof, leaf_hash(b"other"))
        if proof:
            assert not verify_inclusion(leaves[index], index, size, proof[:-1], root)
            assert not verify_inclusion(leaves[index], index ^ 1, size, proof, root)


@pytest.mark.parametrize("size", range(1, 21))
def test_every_range_proof_holds_for_its_leaves_and_place_only(size: int) -> None:
    leaves = leaves_of(size)
    root = compute_root(leaves)
    other = leaf_hash(b"other")
    for first in range(size):
        for end in range(first + 1, size + 1):
            shown, proof = leaves[first:end], range_proof(leaves, first, end)
            assert compute_root_around(shown, first, size, proof) == root
            for place in (first - 1, first + 1):
                assert compute_root_around(shown, place, size, proof) != root
            wrong = [shown[:-1], shown[1:], [*shown, other], [other, *shown], [*shown[:-1], other]]
            wrong += [[*shown[:at], shown[at + 1], shown[at], *shown[at + 2 :]] for at in range(len(shown) - 1)]
            assert all(compute_root_around(these, first, size, proof) != root for these in wrong)
            forged = [proof[:-1], (*proof, other), (other, *proof)] if proof else [(other,)]
            forged += [(*proof[:at], other, *proof[at + 1 :]) for at in range(len(proof))]
            assert all(compute_root_around(shown, first, size, these) != root for these in forged)


def test_a_range_is_proven_by_two_hashes_a_level_whatever_its_length() -> None:
    leaves = leaves_of(1000)
    assert max(len(range_proof(leaves, first, first + 100)) for first in range(0, 900, 7)) <= 2 * 10
    assert range_proof(leaves, 0, 1000) == ()


def test_a_range_of_nothing_is_an_empty_tree() -> None:
    assert compute_root_around([], 0, 0, ()) == EMPTY_ROOT
    assert compute_root_around([], 0, 0, (EMPTY_ROOT,)) is None
    assert compute_root_around([], 0, 1, (EMPTY_ROOT,)) is None
    assert compute_root_around([], 1, 1, ()) is None
    for first, end in ((0, 0), (-1, 1), (2, 1), (0, 4)):
        with pytest.raises(IndexError):
            range_proof(leaves_of(3), first, end)


@pytest.mark.parametrize("size", SIZES)
def test_every_consistency_proof_holds_for_its_two_trees_only(size: int) -> None:
    leaves = leaves_of(size)
    root = compute_root(leaves)
    for first in range(size + 1):
        old = compute_root(leaves[:first])
        proof = consistency_proof(leaves, first)
        assert verify_consistency(first, size, proof, old, root)
        assert not verify_consistency(first, size, (*proof, root), old, root)
        assert not verify_consistency(first, size, proof, leaf_hash(b"other"), root)
        if first:
            assert not verify_consistency(first, size, proof, old, leaf_hash(b"other"))
        for at in range(len(proof)):
            forged = (*proof[:at], leaf_hash(b"other"), *proof[at + 1 :])
            assert not verify_consistency(first, size, forged, old, root)
            assert not verify_consistency(first, size, proof[:at], old, root)


def test_a_node_is_no_leaf() -> None:
    leaves = leaves_of(4)
    root = compute_root(leaves)
    left, right = hash_node(*leaves[:2]), hash_node(*leaves[2:])
    assert verify_inclusion(left, 0, 2, (right,), root)  # which is why the size must come from elsewhere
    assert not verify_inclusion(left, 0, 4, (right,), root)


def test_an_index_outside_the_tree_has_no_proof() -> None:
    for index in (-1, 3):
        with pytest.raises(IndexError):
            inclusion_proof(leaves_of(3), index)
        assert not verify_inclusion(leaves_of(3)[0], index, 3, (), compute_root(leaves_of(3)))
    for first in (-1, 4):
        with pytest.raises(IndexError):
            consistency_proof(leaves_of(3), first)
        assert not verify_consistency(first, 3, (), EMPTY_ROOT, compute_root(leaves_of(3)))


def test_the_empty_tree_holds_nothing_and_is_a_prefix_of_all() -> None:
    assert not verify_inclusion(EMPTY_ROOT, 0, 0, (), EMPTY_ROOT)
    assert verify_consistency(0, 0, (), EMPTY_ROOT, EMPTY_ROOT)
    assert verify_consistency(0, 5, (), EMPTY_ROOT, compute_root(leaves_of(5)))
    assert not verify_consistency(0, 5, (EMPTY_ROOT,), EMPTY_ROOT, compute_root(leaves_of(5)))
    assert not verify_consistency(0, 5, (), compute_root(leaves_of(1)), compute_root(leaves_of(5)))


@pytest.mark.parametrize("sizes", [[], [1], [3, 5, 1], [4096], [4095, 2], [4096, 4096, 1], [9_000, 1, 700]])
def test_a_root_over_leaves_that_come_in_pieces_is_the_root_over_all(sizes: list[int]) -> None:
    leaves = [hash_body(b"%d" % n) for n in range(sum(sizes))]
    running, at = RunningRoot(), 0
    for size in sizes:
        running.add(leaves[at : at + size])
        at += size
    assert running.root() == compute_root(leaves)


@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 511, 512, 700, 1030])
def test_a_kept_tree_proves_what_the_leaves_themselves_do_and_asks_for_those_at_the_ends_only(size: int) -> None:
    leaves = leaves_of(size)
    chunks = [leaves[at : at + KEPT_LEAVES] for at in range(0, size, KEPT_LEAVES)]
    tree = KeptTree([compute_root(chunk) for chunk in chunks], size)
    assert tree.root() == compute_root(leaves)
    assert all(tree.holds(number, chunk) for number, chunk in enumerate(chunks))
    assert (
        not tree.holds(0, leaves[1:KEPT_LEAVES]) and not tree.holds(len(chunks), []) and not tree.holds(-1, chunks[-1])
    )
    for first in range(0, size, 37):
        for end in sorted({first + 1, min(first + 256, size), (first + size + 1) // 2, size} - {first}):
            asked: set[int] = set()

            def load(number: int, asked: set[int] = asked) -> list[bytes]:
                asked.add(number)
                return chunks[number]

            assert tree.range_proof(first, end, load) == range_proof(leaves, first, end)
            assert asked <= {first // KEPT_LEAVES, (end - 1) // KEPT_LEAVES}
    for first, end in ((0, 0), (-1, 1), (0, size + 1)):
        with pytest.raises(IndexError):
            tree.range_proof(first, end, chunks.__getitem__)
