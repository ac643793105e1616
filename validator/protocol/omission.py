"""Proofs against a broker that leaves something out: two adjacent leaves enclose the place where a message is missing.

A broker that signs a root over leaves in canonical order (a claim, an answer's trailer) has said what it holds and what
it does not. Whoever has the leaves behind the root shows, with one range proof, the two neighbours of a message's
place: if they follow each other, the message is not there. Whoever shows besides that an earlier root of the same
broker had the message (``HeldProof``), or that it was told of it, has shown that it was withheld.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn

from validator.protocol.codec.message import decode_message, leaf_of
from validator.protocol.codec.slice_claim import SliceClaim
from validator.protocol.errors import MalformedInput
from validator.protocol.hashing import EMPTY_ROOT
from validator.protocol.merkle import (
    Proof,
    compute_root_around,
    inclusion_proof,
    range_proof,
    verify_inclusion,
)
from validator.protocol.model import Digest, Message

Order = tuple[int, int, bytes, bytes, bytes]
"""Canonical order within a partition: timestamp, sequence number, publisher, chain id in UTF-8, leaf."""


@dataclass(frozen=True, slots=True)
class OmissionProof:
    """Canonical bytes of the leaves before and behind the missing one's place; None at the ends of the set.

    ``index``: number of the first leaf that is shown; ``path`` leads from those shown to the root.
    """

    before: bytes | None
    after: bytes | None
    index: int
    path: Proof


@dataclass(frozen=True, slots=True)
class HeldProof:
    """A message is number ``index`` of the set."""

    index: int
    path: Proof


def order_of(message: Message, leaf: bytes) -> Order:
    m = message
    return (m.timestamp_ms, m.sequence_number, m.publisher_id, m.msg_chain_id.encode(), leaf)


def build_omission(leaves: Sequence[bytes], load: Callable[[int], bytes], missing: bytes) -> OmissionProof:
    """Proof that the message ``missing`` (canonical bytes) is none of the set with these leaves, in canonical order.

    ``load`` gives a message's canonical bytes by its number; it is asked for about log2 of their count.

    Raises:
        ValueError: the message is there.
        MalformedInput: the message is not canonical.
    """
    place = bisect_left(range(len(leaves)), _order(missing), key=lambda number: _order(load(number)))
    if place < len(leaves) and leaves[place] == _order(missing)[4]:
        raise ValueError("the message is there")
    before = load(place - 1) if place else None
    after = load(place) if place < len(leaves) else None
    start, stop = max(place - 1, 0), min(place + 1, len(leaves))
    return OmissionProof(before, after, start, range_proof(leaves, start, stop) if leaves else ())


def verify_omission(proof: OmissionProof, claim: SliceClaim, missing: bytes) -> Message:
    """The message, if it belongs in the claim's range and is none of what is claimed. The claim's signature and the
    message's are the caller's to check.

    Raises:
        MalformedInput: a message is not canonical, or the proof does not show this.
    """
    message = _in_range(missing, claim)
    place = _order(missing)
    shown: list[bytes] = []
    if proof.before is not None:
        if not _order_in(proof.before, claim) < place:
            _refuse("before", "not before the missing message")
        shown.append(_order(proof.before)[4])
    elif proof.index:
        _refuse("before", "left out, and the set does not begin here")
    if proof.after is not None:
        if not place < _order_in(proof.after, claim):
            _refuse("after", "not behind the missing message")
        shown.append(_order(proof.after)[4])
    elif proof.index + len(shown) != claim.count:
        _refuse("after", "left out, and the set does not end here")
    root = compute_root_around(shown, proof.index, claim.count, proof.path) if shown or claim.count else EMPTY_ROOT
    if root != claim.root or (not shown and (proof.path or proof.index)):
        _refuse("path", "does not lead to the root")
    return message


def build_held(leaves: Sequence[bytes], index: int) -> HeldProof:
    """Raises IndexError if the set has no such leaf."""
    return HeldProof(index, inclusion_proof(leaves, index))


def verify_held(proof: HeldProof, claim: SliceClaim, canonical: bytes) -> Message:
    """The message, if it is among what is claimed.

    Raises:
        MalformedInput: it is not canonical, or the proof does not show this.
    """
    message = _in_range(canonical, claim)
    if not verify_inclusion(leaf_of(message, canonical), proof.index, claim.count, proof.path, claim.root):
        _refuse("path", "does not lead to the root")
    return message


def _order(canonical: bytes) -> Order:
    message = decode_message(canonical)
    return order_of(message, Digest(leaf_of(message, canonical)))


def _order_in(canonical: bytes, claim: SliceClaim) -> Order:
    _in_range(canonical, claim)
    return _order(canonical)


def _in_range(canonical: bytes, claim: SliceClaim) -> Message:
    message = decode_message(canonical)
    if message.stream_part != claim.part or not claim.from_ms <= message.timestamp_ms < claim.until_ms:
        _refuse("message", "not of the claim's partition and range")
    return message


def _refuse(field: str, reason: str) -> NoReturn:
    raise MalformedInput(f"omission.{field}", reason)
