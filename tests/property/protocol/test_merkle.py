from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests import rfc9162
from validator.protocol.merkle import (
    compute_root,
    consistency_proof,
    inclusion_proof,
    verify_consistency,
    verify_inclusion,
)

digests = st.binary(min_size=32, max_size=32)


@st.composite
def trees(draw: st.DrawFn, smallest: int = 1) -> tuple[list[bytes], int]:
    """Leaves and a place among them."""
    leaves = draw(st.lists(digests, min_size=smallest, max_size=80))
    return leaves, draw(st.integers(0, len(leaves) - 1))


@given(tree=trees())
@settings(max_examples=100)
def test_both_versions_agree_and_proofs_hold(tree: tuple[list[bytes], int]) -> None:
    leaves, index = tree
    root = compute_root(leaves)
    assert root == rfc9162.tree_hash(leaves)
    proof = inclusion_proof(leaves, index)
    assert list(proof) == rfc9162.path(index, leaves)
    assert verify_inclusion(leaves[index], index, len(leaves), proof, root)
    grown = consistency_proof(leaves, index + 1)
    assert list(grown) == rfc9162.proof(index + 1, leaves)
    assert verify_consistency(index + 1, len(leaves), grown, compute_root(leaves[: index + 1]), root)


@given(leaf=digests, index=st.integers(-2, 2**70), size=st.integers(-2, 2**70), proof=st.lists(digests, max_size=80))
@settings(max_examples=100)
def test_an_invented_inclusion_proof_is_refused_quickly_whatever_its_numbers(
    leaf: bytes, index: int, size: int, proof: list[bytes]
) -> None:
    assert not verify_inclusion(leaf, index, size, proof, b"\x00" * 32)


@given(first=st.integers(1, 2**70), size=st.integers(-2, 2**70), proof=st.lists(digests, max_size=80))
@settings(max_examples=100)
def test_an_invented_consistency_proof_is_refused_quickly_whatever_its_numbers(
    first: int, size: int, proof: list[bytes]
) -> None:
    assert not verify_consistency(first, size, proof, b"\x01" * 32, b"\x00" * 32)


@given(tree=trees(smallest=2), other=digests)
@settings(max_examples=60)
def test_changing_any_leaf_changes_the_root(tree: tuple[list[bytes], int], other: bytes) -> None:
    leaves, index = tree
    changed = [*leaves[:index], other, *leaves[index + 1 :]]
    assert (compute_root(changed) == compute_root(leaves)) == (changed == leaves)
