"""What a consumer holds: proofs that the network stored a message, all messages of a span, or none of a partition.

A proof climbs the trees of ``leaves`` step by step. Every step brings what its leaf says besides the root below, and
the path to the root above; roots and leaf hashes are computed, never taken from the prover, and every number of leaves
is committed to by the leaf above it. What it ends at, the *anchor*, the checker knows from elsewhere: the bundle root
that the contract keeps, or, where the step through the bundle is left out, the outcome digest that a certificate names.

    message proof   this message is in this window
    entry proof     this is the window's entry for a stream partition
    window proof    this outcome digest is in the bundle
    range proof     these are all messages of a stream partition in [from_ms, until_ms) of a window: leaves in a row,
                    with the one before and the one behind unless the entry ends there; also where there is none
    absence proof   the window has no entry for a stream partition: the entries before and behind its place

Order within the trees is what validators agree on, so what lies before an earlier neighbour is earlier too. A range and
an absence are of one window or one late set, which the checker names: who wants a day asks for each of its windows and
for the late sets behind them. Bytes: codec.proof.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeAlias

from validator.protocol.codec.message import decode_message, leaf_of
from validator.protocol.codec.outcome import (
    encode_rest,
    entry_order,
    outcome_digest,
    part_order,
)
from validator.protocol.errors import MalformedInput
from validator.protocol.hashing import hash_body, hash_object
from validator.protocol.leaves import (
    bundle_leaf,
    entry_leaf,
    hash_message,
    hash_publisher,
    hash_stream_id,
    window_leaf,
)
from validator.protocol.merkle import (
    Proof as Path,
)
from validator.protocol.merkle import (
    compute_root_above,
    compute_root_around,
    inclusion_proof,
    range_proof,
)
from validator.protocol.model import Digest, Flag, InstanceId, Message, Outcome, PartitionEntry, Root, StreamPart


@dataclass(frozen=True, slots=True)
class BundleStep:
    """From the hash of a window's leaf to the bundle root."""

    index: int
    leaves: int
    path: Path


@dataclass(frozen=True, slots=True)
class WindowStep:
    """From the hash of an entry's leaf to that of the window's, which is the outcome digest."""

    instance: InstanceId
    rest_hash: Digest
    index: int
    entries: int
    path: Path


@dataclass(frozen=True, slots=True)
class EntryStep:
    """From the hash of a message's leaf to that of its entry's."""

    index: int
    count: int
    signed_bytes: int
    canonical_bytes: int
    flags: Flag
    path: Path


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A message as far as its leaf shows it."""

    timestamp_ms: int
    sequence_number: int
    publisher_hash: Digest | None
    """None: that of the message beside it in the range, for whoever reads the range to put in (``completeness``)."""
    content_hash: Digest
    canonical_hash: Digest


@dataclass(frozen=True, slots=True)
class MessageProof:
    entry: EntryStep
    window: WindowStep
    bundle: BundleStep | None = None


@dataclass(frozen=True, slots=True)
class EntryProof:
    window: WindowStep
    bundle: BundleStep | None = None


@dataclass(frozen=True, slots=True)
class WindowProof:
    bundle: BundleStep


@dataclass(frozen=True, slots=True)
class RangeProof:
    entry: EntryStep
    before: Neighbour | None
    after: Neighbour | None
    window: WindowStep
    bundle: BundleStep | None = None


@dataclass(frozen=True, slots=True)
class AbsenceProof:
    window: WindowStep
    before: PartitionEntry | None
    after: PartitionEntry | None
    bundle: BundleStep | None = None


Proof: TypeAlias = MessageProof | EntryProof | WindowProof | RangeProof | AbsenceProof


# --- building -------------------------------------------------------------------------------------


def build_message(
    outcome: Outcome, part: StreamPart, leaves: Sequence[bytes], index: int, bundle: Sequence[bytes] | None = None
) -> MessageProof:
    """Proof of message ``index`` of an entry, whose leaf hashes are ``leaves``.

    ``bundle``: leaf hashes of the bundle (``manifest.bundle_leaves``); without it the proof ends at the outcome digest.

    Raises:
        KeyError: the outcome has no such entry.
        IndexError: the entry has no such message.
    """
    entry, window = climb_from(outcome, part)
    step = entry_step(entry, index, inclusion_proof(leaves, index))
    return MessageProof(step, window, _bundle_step(outcome_digest(outcome), bundle))


def build_entry(outcome: Outcome, part: StreamPart, bundle: Sequence[bytes] | None = None) -> EntryProof:
    """Raises KeyError if the outcome has no such entry."""
    _, window = climb_from(outcome, part)
    return EntryProof(window, _bundle_step(outcome_digest(outcome), bundle))


def build_window(digest: Digest, bundle: Sequence[bytes]) -> WindowProof:
    """Raises KeyError if the bundle has no such window or late set."""
    return WindowProof(bundle_step(digest, bundle))


def build_range(
    outcome: Outcome,
    part: StreamPart,
    timestamps_ms: Sequence[int],
    leaves: Sequence[bytes],
    load: Callable[[int], bytes],
    from_ms: int,
    until_ms: int,
    bundle: Sequence[bytes] | None = None,
) -> RangeProof:
    """Proof that an entry's messages in [from_ms, until_ms) are all there are.

    Timestamps and leaf hashes are those of the whole entry, in order; ``load`` gives a message's canonical bytes by its
    number and is asked for the neighbours only.

    Raises:
        KeyError: the outcome has no such entry.
    """
    first = bisect_left(timestamps_ms, from_ms)
    end = max(first, bisect_left(timestamps_ms, until_ms))
    before = read_neighbour(load(first - 1)) if first else None
    after = read_neighbour(load(end)) if end < len(leaves) else None
    start, stop = max(first - 1, 0), min(end + 1, len(leaves))
    path = range_proof(leaves, start, stop) if leaves else ()
    entry, window = climb_from(outcome, part)
    return RangeProof(
        entry_step(entry, start, path), before, after, window, _bundle_step(outcome_digest(outcome), bundle)
    )


def build_absence(outcome: Outcome, part: StreamPart, bundle: Sequence[bytes] | None = None) -> AbsenceProof:
    """Raises ValueError if the outcome has an entry for the partition."""
    entries = sorted(outcome.entries, key=entry_order)
    place = bisect_left(entries, part_order(part), key=entry_order)
    after = entries[place] if place < len(entries) else None
    if after is not None and after.stream_part == part:
        raise ValueError(f"the outcome has an entry for {part}")
    before = entries[place - 1] if place else None
    start, stop = max(place - 1, 0), min(place + 1, len(entries))
    path = range_proof([entry_leaf(e, e.flags) for e in entries], start, stop) if entries else ()
    step = WindowStep(outcome.instance, hash_object(encode_rest(outcome)), start, len(entries), path)
    return AbsenceProof(step, before, after, _bundle_step(outcome_digest(outcome), bundle))


def climb_from(outcome: Outcome, part: StreamPart) -> tuple[PartitionEntry, WindowStep]:
    """A partition's entry and the way up from it. Raises KeyError if the outcome has none."""
    entries = sorted(outcome.entries, key=entry_order)
    place = bisect_left(entries, part_order(part), key=entry_order)
    if place == len(entries) or entries[place].stream_part != part:
        raise KeyError(part)
    path = inclusion_proof([entry_leaf(e, e.flags) for e in entries], place)
    rest_hash = hash_object(encode_rest(outcome))
    return entries[place], WindowStep(outcome.instance, rest_hash, place, len(entries), path)


def entry_step(entry: PartitionEntry, index: int, path: Path) -> EntryStep:
    return EntryStep(index, entry.count, entry.signed_bytes, entry.canonical_bytes, entry.flags, path)


def _bundle_step(digest: Digest, bundle: Sequence[bytes] | None) -> BundleStep | None:
    return None if bundle is None else bundle_step(digest, bundle)


def bundle_step(digest: Digest, bundle: Sequence[bytes]) -> BundleStep:
    """From an outcome digest up. Raises KeyError if the bundle has no such window or late set."""
    if digest not in bundle[1:]:
        raise KeyError(digest)
    index = bundle.index(digest)
    return BundleStep(index, len(bundle), inclusion_proof(bundle, index))


def read_neighbour(canonical: bytes) -> Neighbour:
    m = decode_message(canonical)
    return Neighbour(
        m.timestamp_ms,
        m.sequence_number,
        Digest(hash_publisher(m.publisher_id)),
        hash_body(m.content),
        hash_body(canonical),
    )


# --- checking -------------------------------------------------------------------------------------


def verify_message(proof: MessageProof, canonical: bytes, anchor: bytes) -> Message:
    """The message, if it is where the proof says. Its signature is for the caller to check.

    Raises:
        MalformedInput: the message is not canonical, or the proof does not lead from it to the anchor.
    """
    message = decode_message(canonical)
    step = proof.entry
    root = compute_root_above(leaf_of(message, canonical), step.index, step.count, step.path)
    entry = _entry_above(message.stream_part, step, root)
    _require_anchor(_climb(entry, proof.window, proof.bundle), anchor)
    return message


def verify_entry(proof: EntryProof, entry: PartitionEntry, anchor: bytes) -> None:
    """Raises MalformedInput unless the window has this very entry."""
    _require_anchor(_climb(entry, proof.window, proof.bundle), anchor)


def verify_window(proof: WindowProof, digest: Digest, anchor: bytes) -> None:
    """Raises MalformedInput unless the bundle has a window or late set of this outcome digest."""
    _require_anchor(_climb_bundle(digest, proof.bundle), anchor)


def verify_range(
    proof: RangeProof,
    instance: InstanceId,
    part: StreamPart,
    from_ms: int,
    until_ms: int,
    canonical: Sequence[bytes],
    anchor: bytes,
) -> list[Message]:
    """The messages, if they are all that ``instance`` has of the partition in [from_ms, until_ms), in order.

    Raises:
        MalformedInput: one does not belong there, one is missing, or the proof does not lead to the anchor.
    """
    messages = [decode_message(item) for item in canonical]
    for message in messages:
        if message.stream_part != part:
            _refuse("messages", "one of another stream partition")
        if not from_ms <= message.timestamp_ms < until_ms:
            _refuse("messages", "one outside the range")
    leaves = [leaf_of(message, item) for message, item in zip(messages, canonical, strict=True)]
    verify_range_of_leaves(proof, instance, part, from_ms, until_ms, leaves, anchor)
    return messages


def verify_range_of_leaves(
    proof: RangeProof,
    instance: InstanceId,
    part: StreamPart,
    from_ms: int,
    until_ms: int,
    leaves: Sequence[bytes],
    anchor: bytes,
) -> PartitionEntry:
    """The entry, if these leaf hashes are all that ``instance`` has of the partition in [from_ms, until_ms), in order.

    For who reads messages one by one: that each leaf is of a message of this partition and range is the caller's word.

    Raises:
        MalformedInput: one does not belong there, one is missing, or the proof does not lead to the anchor.
    """
    entry, reached = climb_range(proof, instance, part, from_ms, until_ms, leaves)
    _require_anchor(reached, anchor)
    return entry


def climb_range(
    proof: RangeProof,
    instance: InstanceId,
    part: StreamPart,
    from_ms: int,
    until_ms: int,
    leaves: Sequence[bytes],
) -> tuple[PartitionEntry, bytes]:
    """The entry that these leaf hashes are all of in [from_ms, until_ms), and the anchor that this leads to.

    Raises:
        MalformedInput: one does not belong there, or the proof does not fit them.
    """
    _require_instance(proof.window, instance)
    step, stream_hash = proof.entry, hash_stream_id(part[0])
    shown = list(leaves)
    if proof.before is not None:
        if proof.before.timestamp_ms >= from_ms:
            _refuse("before", "not earlier than the range")
        shown.insert(0, _neighbour_leaf(proof.before, stream_hash, part[1]))
    elif step.index:
        _refuse("before", "left out, and the range does not begin where the entry does")
    if proof.after is not None:
        if proof.after.timestamp_ms < until_ms:
            _refuse("after", "not later than the range")
        shown.append(_neighbour_leaf(proof.after, stream_hash, part[1]))
    elif step.index + len(shown) != step.count:
        _refuse("after", "left out, and the range does not end where the entry does")
    entry = _entry_above(part, step, _root_around(shown, step.index, step.count, step.path, "entry"))
    return entry, _climb(entry, proof.window, proof.bundle)


def verify_absence(proof: AbsenceProof, instance: InstanceId, part: StreamPart, anchor: bytes) -> None:
    """Raises MalformedInput unless ``instance`` has no entry for the stream partition."""
    _require_anchor(climb_absence(proof, instance, part), anchor)


def climb_absence(proof: AbsenceProof, instance: InstanceId, part: StreamPart) -> bytes:
    """The anchor under which ``instance`` has no entry for the stream partition. Raises MalformedInput."""
    step = proof.window
    _require_instance(step, instance)
    shown = [entry for entry in (proof.before, proof.after) if entry is not None]
    if proof.before is None and step.index:
        _refuse("before", "left out, and the entries do not begin here")
    if proof.before is not None and not entry_order(proof.before) < part_order(part):
        _refuse("before", "does not sort before the stream partition")
    if proof.after is None and step.index + len(shown) != step.entries:
        _refuse("after", "left out, and the entries do not end here")
    if proof.after is not None and not part_order(part) < entry_order(proof.after):
        _refuse("after", "does not sort behind the stream partition")
    root = _root_around([entry_leaf(e, e.flags) for e in shown], step.index, step.entries, step.path, "window")
    return _climb_bundle(_digest_above(step, root), proof.bundle)


def _entry_above(part: StreamPart, step: EntryStep, root: Root | None) -> PartitionEntry:
    if root is None:
        _refuse("entry.path", f"does not fit message {step.index} of {step.count}")
    return PartitionEntry(*part, root, step.count, step.signed_bytes, step.canonical_bytes, step.flags)


def _climb(entry: PartitionEntry, step: WindowStep, bundle: BundleStep | None) -> bytes:
    """What a proof ends at: the bundle root, or the outcome digest."""
    root = compute_root_above(entry_leaf(entry, entry.flags), step.index, step.entries, step.path)
    if root is None:
        _refuse("window.path", f"does not fit entry {step.index} of {step.entries}")
    return _climb_bundle(_digest_above(step, root), bundle)


def _digest_above(step: WindowStep, root: Root) -> Digest:
    return window_leaf(step.instance, root, step.entries, step.rest_hash)


def _climb_bundle(digest: Digest, step: BundleStep | None) -> bytes:
    if step is None:
        return digest
    if not step.index:
        _refuse("bundle.index", "the first leaf is the header's")
    root = compute_root_above(digest, step.index, step.leaves, step.path)
    if root is None:
        _refuse("bundle.path", f"does not fit leaf {step.index} of {step.leaves}")
    return bundle_leaf(step.leaves, root)


def _root_around(leaves: Sequence[bytes], index: int, size: int, path: Path, what: str) -> Root:
    root = compute_root_around(leaves, index, size, path)
    if root is None:
        _refuse(f"{what}.path", f"does not fit {len(leaves)} leaves from {index} on of {size}")
    return root


def _neighbour_leaf(neighbour: Neighbour, stream_hash: bytes, partition: int) -> Digest:
    n = neighbour
    if n.publisher_hash is None:
        _refuse("publisher_hash", "left out, and there is no message beside it")
    return hash_message(
        stream_hash, partition, n.timestamp_ms, n.sequence_number, n.publisher_hash, n.content_hash, n.canonical_hash
    )


def _require_instance(step: WindowStep, instance: InstanceId) -> None:
    if step.instance != instance:
        _refuse("window.instance", f"{step.instance}, not {instance}")


def _require_anchor(reached: bytes, anchor: bytes) -> None:
    if reached != anchor:
        _refuse("anchor", f"leads to 0x{reached.hex()}, not to 0x{anchor.hex()}")


def _refuse(field: str, reason: str) -> NoReturn:
    raise MalformedInput(f"proof.{field}", reason)
