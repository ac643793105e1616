"""Trees over leaf hashes: root; proofs of inclusion, of a range, of consistency; their checks (RFC 9162 section 2.1).

The caller hashes its objects (``leaves``) and brings the leaf hashes in order; here they are only
paired. A level's last node without a partner moves up unchanged, which gives the same tree as the RFC's split at
the largest power of two below the size. Proofs of one leaf and of consistency are hashes from the bottom up, those of a
range are the roots of what lies outside, from the left. A proof is checked with a size that
the checker knows from elsewhere, never from the prover. Vectors: tests/vectors/merkle.json.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from struct import unpack

from validator.protocol.hashing import EMPTY_ROOT, hash_node, hash_pairs
from validator.protocol.model import Digest, Root

Proof = tuple[Digest, ...]
CHUNK_LEAVES = 4096
"""A power of two, so that the root over a chunk of leaves is a node of the tree over all."""
KEPT_LEAVES = 256
"""The same of a tree that is kept: 12.5 kB of nodes for 100 000 leaves, and at most so many leaves at either end."""


def compute_root(leaf_hashes: Sequence[bytes]) -> Root:
    """Root over leaf hashes in order; of nothing: SHA-256 of the empty string."""
    if not leaf_hashes:
        return EMPTY_ROOT
    level: Sequence[bytes] = leaf_hashes
    while len(level) > 1:
        level = hash_pairs(level)
    return Root(bytes(level[0]))


def inclusion_proof(leaf_hashes: Sequence[bytes], index: int) -> Proof:
    """Siblings on the way from leaf ``index`` to the root (RFC 9162 section 2.1.3.1). Raises IndexError."""
    if not 0 <= index < len(leaf_hashes):
        raise IndexError(f"leaf {index} of {len(leaf_hashes)}")
    proof: list[Digest] = []
    level: Sequence[bytes] = leaf_hashes
    while len(level) > 1:
        sibling = index ^ 1
        if sibling < len(level):
            proof.append(Digest(level[sibling]))
        level = hash_pairs(level)
        index >>= 1
    return tuple(proof)


def verify_inclusion(leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes) -> bool:
    """Whether ``leaf`` is number ``index`` of the ``size`` leaves under ``root`` (RFC 9162 section 2.1.3.2)."""
    return compute_root_above(leaf, index, size, proof) == root


def compute_root_above(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> Root | None:
    """The root that a leaf, its place and its path lead to; None where these do not belong together."""
    if not 0 <= index < size:
        return None
    computed = leaf
    last = size - 1
    used = 0
    while last:
        if index & 1 or index < last:
            if used == len(proof):
                return None
            sibling = proof[used]
            used += 1
            computed = hash_node(sibling, computed) if index & 1 else hash_node(computed, sibling)
        index >>= 1
        last >>= 1
    return Root(bytes(computed)) if used == len(proof) else None


def range_proof(leaf_hashes: Sequence[bytes], first: int, end: int) -> Proof:
    """The roots of the largest subtrees outside leaves [first, end), from the left. Raises IndexError.

    At most two a level, however many leaves lie in the range.
    """
    if not 0 <= first < end <= len(leaf_hashes):
        raise IndexError(f"leaves {first} to {end} of {len(leaf_hashes)}")
    return tuple(Digest(compute_root(leaf_hashes[a:b])) for a, b in _outside(first, end, 0, len(leaf_hashes)))


def compute_root_around(leaf_hashes: Sequence[bytes], first: int, size: int, proof: Sequence[bytes]) -> Root | None:
    """The root that leaves from number ``first`` on and what lies around them lead to; None where these do not fit.

    No leaves lead to the empty tree only.
    """
    if not leaf_hashes and not first and not size and not proof:
        return EMPTY_ROOT
    end = first + len(leaf_hashes)
    if not 0 <= first < end <= size or size >> 64:
        return None
    if len(proof) != sum(1 for _ in _outside(first, end, 0, size)):
        return None
    rest = iter(proof)

    def compute(low: int, high: int) -> bytes:
        if high <= first or end <= low:
            return next(rest)
        if first <= low and high <= end:
            return compute_root(leaf_hashes[low - first : high - first])
        split = low + _split(high - low)
        left = compute(low, split)
        return hash_node(left, compute(split, high))

    return Root(compute(0, size))


def consistency_proof(leaf_hashes: Sequence[bytes], first: int) -> Proof:
    """Proof that the tree over the first ``first`` leaves is a prefix of the whole (RFC 9162 section 2.1.4.1).

    Empty where ``first`` is 0 or the whole. Raises IndexError.
    """
    size = len(leaf_hashes)
    if not 0 <= first <= size:
        raise IndexError(f"first {first} of {size} leaves")
    if first in (0, size):
        return ()
    return tuple(_subproof(first, leaf_hashes, whole=True))


def verify_consistency(first: int, size: int, proof: Sequence[bytes], first_root: bytes, root: bytes) -> bool:
    """Whether ``root`` over ``size`` leaves extends ``first_root`` over ``first`` (RFC 9162 section 2.1.4.2).

    The empty tree is a prefix of every tree, proven by nothing.
    """
    if not 0 <= first <= size:
        return False
    if first == 0:
        return not proof and first_root == EMPTY_ROOT and (size > 0 or root == EMPTY_ROOT)
    if first == size:
        return not proof and first_root == root
    path = list(proof)
    if first & (first - 1) == 0:
        path.insert(0, Digest(bytes(first_root)))
    if not path:
        return False
    index, last = first - 1, size - 1
    while index & 1:
        index >>= 1
        last >>= 1
    old = new = path[0]
    for node in path[1:]:
        if last == 0:
            return False
        if index & 1 or index == last:
            old = hash_node(node, old)
            new = hash_node(node, new)
            while index & 1 == 0 and index != 0:
                index >>= 1
                last >>= 1
        else:
            new = hash_node(new, node)
        index >>= 1
        last >>= 1
    return last == 0 and old == first_root and new == root


def _split(size: int) -> int:
    """The largest power of two below the size of two leaves or more."""
    return 1 << ((size - 1).bit_length() - 1)


def _outside(first: int, end: int, low: int, high: int) -> Iterator[tuple[int, int]]:
    """Of the subtree over [low, high): the largest subtrees that share nothing with [first, end)."""
    if high <= first or end <= low:
        yield low, high
    elif low < first or end < high:
        split = low + _split(high - low)
        yield from _outside(first, end, low, split)
        yield from _outside(first, end, split, high)


def _subproof(first: int, leaves: Sequence[bytes], *, whole: bool) -> list[Digest]:
    """SUBPROOF of the RFC, one step of the descent at a time; the hashes come out from the bottom up."""
    proof: list[Digest] = []
    while first != len(leaves):
        split = _split(len(leaves))
        if first <= split:
            proof.append(Digest(compute_root(leaves[split:])))
            leaves = leaves[:split]
        else:
            proof.append(Digest(compute_root(leaves[:split])))
            leaves = leaves[split:]
            first -= split
            whole = False
    if not whole:
        proof.append(Digest(compute_root(leaves)))
    proof.reverse()
    return proof


class KeptTree:
    """A tree of which one level is kept: ranges of many leaves are proven from it and from the leaves at their ends."""

    __slots__ = ("_nodes", "size")

    def __init__(self, nodes: Sequence[bytes], size: int) -> None:
        """``nodes``: roots over each ``KEPT_LEAVES`` leaves from the left, the last one over fewer."""
        self._nodes = nodes
        self.size = size

    def root(self) -> Root:
        return compute_root(self._nodes)

    def holds(self, number: int, leaf_hashes: Sequence[bytes]) -> bool:
        """Whether these are the leaves of chunk ``number``."""
        return 0 <= number < len(self._nodes) and compute_root(leaf_hashes) == self._nodes[number]

    def range_proof(self, first: int, end: int, load: Callable[[int], Sequence[bytes]]) -> Proof:
        """As ``range_proof``. ``load`` gives the leaves of a chunk by its number: of two chunks at most. IndexError."""
        if not 0 <= first < end <= self.size:
            raise IndexError(f"leaves {first} to {end} of {self.size}")
        return tuple(Digest(self._root_of(low, high, load)) for low, high in _outside(first, end, 0, self.size))

    def _root_of(self, low: int, high: int, load: Callable[[int], Sequence[bytes]]) -> Root:
        number, at = divmod(low, KEPT_LEAVES)
        if at == 0 and (high % KEPT_LEAVES == 0 or high == self.size):
            return compute_root(self._nodes[number : -(-high // KEPT_LEAVES)])
        return compute_root(load(number)[at : at + high - low])


class RunningRoot:
    """Root over leaf hashes that come in pieces. A full chunk's root is a node of the tree over all."""

    __slots__ = ("_nodes", "_waiting")

    def __init__(self) -> None:
        self._waiting = bytearray()
        self._nodes: list[bytes] = []

    def add(self, leaf_hashes: Iterable[bytes]) -> None:
        self.add_joined(b"".join(leaf_hashes))

    def add_joined(self, leaf_hashes: bytes) -> None:
        """Of 32 bytes each, one behind the other."""
        waiting = self._waiting
        waiting += leaf_hashes
        while len(waiting) >= CHUNK_LEAVES << 5:
            self._nodes.append(_root_of_joined(bytes(waiting[: CHUNK_LEAVES << 5])))
            del waiting[: CHUNK_LEAVES << 5]

    def root(self) -> Root:
        nodes = [*self._nodes, _root_of_joined(bytes(self._waiting))] if self._waiting else self._nodes
        return compute_root(nodes)


def _root_of_joined(leaf_hashes: bytes) -> Root:
    return compute_root(unpack("32s" * (len(leaf_hashes) >> 5), leaf_hashes))
