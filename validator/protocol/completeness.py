"""An answer about the past, checked to the end: nothing is missing from it, and nothing was added.

An answer of a stream partition for [from_ms, until_ms) is rows in canonical order, each with the set that holds it (a
window, the late set of a bundle, or none: tail), and one proof for every set that may hold some. Which sets those are
the checker knows without the answer: windows from the network's file, late sets from the contract, which holds the
roots of the bundles too. Rows come and go one by one; only leaf hashes are kept until their set is proven, so the
proofs may follow each set's last row or stand at the end. Where they follow, memory does not grow with the span: sets
are looked up as they come, and a proven one is forgotten.

Nothing is said twice. The way from a bundle's windows up to its root is one *climb* before the first of their proofs,
where there are several; a neighbour's publisher is left out where the message beside it has the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain

from validator.protocol.errors import MalformedInput
from validator.protocol.leaves import bundle_leaf, hash_publisher
from validator.protocol.merkle import Proof as Path
from validator.protocol.merkle import compute_root_around
from validator.protocol.model import Digest, InstanceId, InstanceKind, PartitionEntry, StreamPart
from validator.protocol.proof import AbsenceProof, Neighbour, RangeProof, climb_absence, climb_range

RootOf = Callable[[int], bytes]
"""The root that the contract holds of a bundle, by its number. Raises KeyError where it holds none."""


@dataclass(frozen=True, slots=True)
class SetProof:
    """What one window or late set has of a span, as it is proven up to the root of a bundle; where the step through
    the bundle is left out, up to a digest of the climb before."""

    bundle: int
    instance: InstanceId
    proof: RangeProof | AbsenceProof


@dataclass(frozen=True, slots=True)
class SetClimb:
    """Outcome digests of sets that stand one behind the other in a bundle, and the way from them all to its root."""

    bundle: int
    index: int
    """Of the first of them among the bundle's leaves, of which there are ``leaves``."""
    leaves: int
    digests: tuple[Digest, ...]
    path: Path


@dataclass(frozen=True, slots=True)
class SetCommitment:
    """What one window or late set has of a partition, said and not proven; ``entry`` None: it has no entry for it."""

    bundle: int
    instance: InstanceId
    entry: PartitionEntry | None


@dataclass(slots=True)
class _Rows:
    """What has come of a set."""

    leaves: list[Digest] = field(default_factory=list)
    first_publisher: bytes | None = None
    last_publisher: bytes | None = None


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
        self._rows: dict[InstanceId, _Rows] = {}
        """Of sets that are not proven yet, as far as ``sets`` was read."""
        self._climb: SetClimb | None = None

    def add(self, instance: InstanceId, timestamp_ms: int, leaf: Digest, publisher_id: bytes) -> None:
        """The next row that is said to be in this set; its leaf was made from the message itself.

        Raises:
            MalformedInput: the set is none of this answer's, or proven already; or the row lies outside the span.
        """
        rows = self._rows_of(instance)
        if not self._span[0] <= timestamp_ms < self._span[1]:
            raise MalformedInput(f"answer {instance}", f"a message of {timestamp_ms}, outside the range")
        rows.leaves.append(leaf)
        if rows.first_publisher is None:
            rows.first_publisher = publisher_id
        rows.last_publisher = publisher_id

    def climb(self, said: SetClimb) -> None:
        """The way up for proofs that follow, until the next one. Raises MalformedInput unless it leads to the root."""
        verify_climb(said, self._root_of)
        self._climb = said

    def prove(self, said: SetProof) -> PartitionEntry | None:
        """The set's entry, if the rows so far are all that it has of the span; None: it has none for the partition.

        Raises:
            MalformedInput: a row is missing, was added or altered, or the proof does not lead to the bundle's root.
        """
        rows = self._rows_of(said.instance)
        if isinstance(said.proof, RangeProof):
            said = replace(said, proof=_with_publishers(said.proof, rows))
        entry = verify_set(said, self._part, *self._span, rows.leaves, self._root_of, self._climb)
        del self._rows[said.instance]
        return entry

    def finish(self) -> None:
        """Raises MalformedInput where a set was not proven."""
        for instance in chain(self._rows, self._coming):
            raise MalformedInput(f"answer {instance}", "not proven")

    def _rows_of(self, instance: InstanceId) -> _Rows:
        while instance not in self._rows:
            coming = next(self._coming, None)
            if coming is None:
                raise MalformedInput(
                    f"answer {instance}", "proven already, or none of the sets that reach into the range"
                )
            self._rows[coming] = _Rows()
        return self._rows[instance]


def _with_publishers(proof: RangeProof, rows: _Rows) -> RangeProof:
    """With what its neighbours leave out. Without messages the one behind leaves out what the one before has."""
    before = _with_publisher(proof.before, rows.first_publisher)
    after = proof.after
    if after is not None and after.publisher_hash is None and rows.last_publisher is None and before is not None:
        after = replace(after, publisher_hash=before.publisher_hash)
    return replace(proof, before=before, after=_with_publisher(after, rows.last_publisher))


def _with_publisher(neighbour: Neighbour | None, publisher_id: bytes | None) -> Neighbour | None:
    if neighbour is None or neighbour.publisher_hash is not None or publisher_id is None:
        return neighbour
    return replace(neighbour, publisher_hash=Digest(hash_publisher(publisher_id)))


def without_publishers(
    before: Neighbour | None, after: Neighbour | None, first: Digest | None, last: Digest | None
) -> tuple[Neighbour | None, Neighbour | None]:
    """Neighbours as a set's proof shows them; ``first`` and ``last``: publishers' hashes of the range's messages."""
    beside = last if last is not None or before is None else before.publisher_hash
    if after is not None and after.publisher_hash == beside:
        after = replace(after, publisher_hash=None)
    if before is not None and before.publisher_hash == first:
        before = replace(before, publisher_hash=None)
    return before, after


def verify_climb(said: SetClimb, root_of: RootOf) -> None:
    """Raises MalformedInput unless the digests are those of sets of this bundle, whose root the contract holds."""
    what = f"climb of bundle {said.bundle}"
    root = _find_root(said.bundle, root_of, what)
    if not said.index:
        raise MalformedInput(what, "the first leaf is the header's")
    above = compute_root_around(said.digests, said.index, said.leaves, said.path)
    if above is None:
        raise MalformedInput(what, f"its path does not fit {len(said.digests)} from {said.index} on of {said.leaves}")
    if bundle_leaf(said.leaves, above) != root:
        raise MalformedInput(what, "does not lead to the root that the contract holds")


def _find_root(bundle: int, root_of: RootOf, what: str) -> bytes:
    try:
        return root_of(bundle)
    except KeyError:
        raise MalformedInput(what, f"the contract holds no bundle {bundle}") from None


def verify_set(
    said: SetProof,
    part: StreamPart,
    from_ms: int,
    until_ms: int,
    leaves: Sequence[Digest],
    root_of: RootOf,
    climb: SetClimb | None = None,
) -> PartitionEntry | None:
    """The set's entry, if these leaf hashes are all that it has of the span, in order; ``climb``: a verified one.

    Raises:
        MalformedInput: they are not, or it is not proven up to the root that the contract holds.
    """
    instance, proof = said.instance, said.proof
    what = f"answer {instance}"
    if instance.kind is InstanceKind.LATE and instance.number != said.bundle:
        raise MalformedInput(what, f"bundle {said.bundle} holds no late set of another")
    if proof.bundle is not None:
        anchors: tuple[bytes, ...] = (_find_root(said.bundle, root_of, what),)
    elif climb is not None and climb.bundle == said.bundle:
        anchors = climb.digests
    else:
        raise MalformedInput(what, "its proof does not go up to a bundle")
    entry = None
    try:
        if isinstance(proof, RangeProof):
            entry, reached = climb_range(proof, instance, part, from_ms, until_ms, leaves)
        elif leaves:
            raise MalformedInput("messages", "some, where there is proven to be none")
        else:
            reached = climb_absence(proof, instance, part)
    except MalformedInput as error:
        raise MalformedInput(what, error.message) from error
    if reached not in anchors:
        raise MalformedInput(what, f"proof.anchor: leads to 0x{reached.hex()}, to nothing that is known")
    return entry
