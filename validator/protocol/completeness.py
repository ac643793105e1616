"""An answer about the past, checked to the end: nothing is missing from it, and nothing was added.

An answer of a stream partition for [from_ms, until_ms) is rows in canonical order, each with the set that holds it (a
window, the late set of a bundle, or none: tail), and one proof for every set that may hold some. Which sets those are
the checker knows without the answer: windows from the network's file, late sets from the contract, which holds the
roots of the bundles too. Rows come and go one by one; only leaf hashes are kept until their set is proven, so the
proofs may follow each set's last row or stand at the end. Where they follow, memory does not grow with the span: sets
are looked up as they come, and a proven one is forgotten.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from validator.protocol.errors import MalformedInput
from validator.protocol.model import Digest, InstanceId, InstanceKind, PartitionEntry, StreamPart
from validator.protocol.proof import AbsenceProof, RangeProof, verify_absence, verify_range_of_leaves

RootOf = Callable[[int], bytes]
"""The root that the contract holds of a bundle, by its number. Raises KeyError where it holds none."""


@dataclass(frozen=True, slots=True)
class SetProof:
    """What one window or late set has of a span, as it is proven up to the root of a bundle."""

    bundle: int
    instance: InstanceId
    proof: RangeProof | AbsenceProof


@dataclass(frozen=True, slots=True)
class SetCommitment:
    """What one window or late set has of a partition, said and not proven; ``entry`` None: it has no entry for it."""

    bundle: int
    instance: InstanceId
    entry: PartitionEntry | None


class CompletenessCheck:
    """Checks one answer as it comes. What it finds wrong is a MalformedInput that names the set and the reason."""

    def __init__(
        self, part: StreamPart, from_ms: int, until_ms: int, sets: Iterable[InstanceId], root_of: RootOf
    ) -> None:
        """``sets``: those that must be proven, each once; others are none of this answer's. They are asked for as rows
        and proofs name them, so those that may come at any time belong before those that come in order.
        """
        self._part = part
        self._span = (from_ms, until_ms)
        self._root_of = root_of
        self._coming = iter(sets)
        self._leaves: dict[InstanceId, list[Digest]] = {}
        """Of sets that are not proven yet, as far as ``sets`` was read."""

    def add(self, instance: InstanceId, timestamp_ms: int, leaf: Digest) -> None:
        """The next row that is said to be in this set; its leaf was made from the message itself.

        Raises:
            MalformedInput: the set is none of this answer's, or proven already; or the row lies outside the span.
        """
        leaves = self._leaves_of(instance)
        if not self._span[0] <= timestamp_ms < self._span[1]:
            raise MalformedInput(f"answer {instance}", f"a message of {timestamp_ms}, outside the range")
        leaves.append(leaf)

    def prove(self, said: SetProof) -> PartitionEntry | None:
        """The set's entry, if the rows so far are all that it has of the span; None: it has none for the partition.

        Raises:
            MalformedInput: a row is missing, was added or altered, or the proof does not lead to the bundle's root.
        """
        leaves = self._leaves_of(said.instance)
        entry = verify_set(said, self._part, *self._span, leaves, self._root_of)
        del self._leaves[said.instance]
        return entry

    def finish(self) -> None:
        """Raises MalformedInput where a set was not proven."""
        for instance in chain(self._leaves, self._coming):
            raise MalformedInput(f"answer {instance}", "not proven")

    def _leaves_of(self, instance: InstanceId) -> list[Digest]:
        while instance not in self._leaves:
            coming = next(self._coming, None)
            if coming is None:
                raise MalformedInput(
                    f"answer {instance}", "proven already, or none of the sets that reach into the range"
                )
            self._leaves[coming] = []
        return self._leaves[instance]


def verify_set(
    said: SetProof, part: StreamPart, from_ms: int, until_ms: int, leaves: Sequence[Digest], root_of: RootOf
) -> PartitionEntry | None:
    """The set's entry, if these leaf hashes are all that it has of the span, in order. Raises MalformedInput."""
    instance, proof = said.instance, said.proof
    what = f"answer {instance}"
    if instance.kind is InstanceKind.LATE and instance.number != said.bundle:
        raise MalformedInput(what, f"bundle {said.bundle} holds no late set of another")
    if proof.bundle is None:
        raise MalformedInput(what, "its proof does not go up to a bundle")
    try:
        root = root_of(said.bundle)
    except KeyError:
        raise MalformedInput(what, f"the contract holds no bundle {said.bundle}") from None
    try:
        if isinstance(proof, RangeProof):
            return verify_range_of_leaves(proof, instance, part, from_ms, until_ms, leaves, root)
        if leaves:
            raise MalformedInput("messages", "some, where there is proven to be none")
        verify_absence(proof, instance, part, root)
    except MalformedInput as error:
        raise MalformedInput(what, error.message) from error
    return None
