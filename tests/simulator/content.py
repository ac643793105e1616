"""What the simulated brokers hold: a pool of records, made once, and what is said about sets of them.

Records are the real type with synthetic bytes; union, budgets, outcomes and judgements are the real functions. A set
is a frozenset of leaf hashes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache

from tests.rfc9162 import leaf_hash
from validator.protocol.codec.outcome import observation_digest, outcome_digest
from validator.protocol.columns import RecordSet
from validator.protocol.consensus import proposal as proposals
from validator.protocol.hashing import hash_body
from validator.protocol.model import (
    Address,
    ContentType,
    Digest,
    EncryptionType,
    InstanceId,
    InstanceKind,
    Message,
    MessageType,
    Observation,
    Outcome,
    Record,
    Root,
    SignatureType,
    StreamPart,
)
from validator.protocol.parameters import ParameterSet

GENESIS_MS = 1_700_000_000_000
WINDOW_MS = 60_000
WINDOWS = 2
RECORD_BYTES = 1_000
PARTS: tuple[StreamPart, ...] = (("0xaa/one", 0), ("0xaa/one", 1), ("0xbb/two", 0))
PARAMETERS = ParameterSet(
    first_epoch=0,
    epoch_windows=1_000,
    bundle_windows=1,
    horizon_ms=40_000,
    margin_ms=180_000,
    price_min=1,
    price_default=500,
    price_max=1_000_000,
)
CLIENT_CHAIN_ID = "tsq8m0O5bVZkzh2e1NDP"
Leaves = frozenset[bytes]


@dataclass(frozen=True, slots=True)
class Item:
    """One message of the pool: the record its publisher made, and a variant that a lying broker shows instead."""

    true: Record
    forged: Record


def _record(window: int, index: int, forged: bool) -> Record:
    part = PARTS[index % len(PARTS)]
    chain_id = CLIENT_CHAIN_ID
    if forged:  # half of the forgeries even have a client's shape
        chain_id = "forged" if index % 2 else "0OsliedDigits00000xY"
    message = Message(
        stream_id=part[0],
        partition=part[1],
        timestamp_ms=GENESIS_MS + window * WINDOW_MS + 1_000 + index * 50,
        sequence_number=0,
        publisher_id=bytes([7]) * 20,
        msg_chain_id=chain_id,
        prev=None,
        message_type=MessageType.MESSAGE,
        content_type=ContentType.JSON,
        encryption_type=EncryptionType.NONE,
        group_key_id=None,
        new_group_key=None,
        content=b"%d" % index,
        signature_type=SignatureType.ECDSA_SECP256K1_LEGACY,
        signature=bytes(65),
    )
    canonical = b"%d/%d/%s" % (window, index, chain_id.encode())
    signed_digest = hash_body(b"%d/%d" % (window, index))
    return Record(message, canonical, Digest(leaf_hash(canonical)), signed_digest, RECORD_BYTES)


POOL_SIZE = 24
POOL: tuple[tuple[Item, ...], ...] = tuple(
    tuple(Item(_record(w, i, False), _record(w, i, True)) for i in range(POOL_SIZE)) for w in range(WINDOWS)
)
"""Items by window number."""
BAD: tuple[Record, ...] = tuple(_record(w, POOL_SIZE + 1, False) for w in range(WINDOWS))
"""By window number: a record whose signature is not its publisher's."""
RECORDS: Mapping[bytes, Record] = {
    bytes(record.leaf): record for items in POOL for item in items for record in (item.true, item.forged)
} | {bytes(record.leaf): record for record in BAD}
IDENTITY = {leaf: record.identity for leaf, record in RECORDS.items()}
ORDER = {leaf: record.order for leaf, record in RECORDS.items()}
FORGED: Leaves = frozenset(item.forged.leaf for items in POOL for item in items)
BAD_LEAVES: Leaves = frozenset(record.leaf for record in BAD)
REVOKED: Leaves = frozenset(r.leaf for item in POOL[0][20:22] for r in (item.true, item.forged))
"""Their publisher may publish at the first window's block and not at the second's."""
GRANTED: Leaves = frozenset(r.leaf for item in POOL[0][22:] for r in (item.true, item.forged))
"""Their publisher may publish at the second window's block only."""


def window_of(instance: InstanceId) -> int:
    """Number of the window, or of the window that a late set's bundle holds."""
    late = instance.kind is InstanceKind.LATE
    return instance.number if late else (instance.number - GENESIS_MS) // WINDOW_MS


def end_of(window: int) -> int:
    return GENESIS_MS + (window + 1) * WINDOW_MS


@lru_cache(maxsize=64)
def window_instance(window: int) -> InstanceId:
    return InstanceId(InstanceKind.WINDOW, GENESIS_MS + window * WINDOW_MS)


@lru_cache(maxsize=64)
def late_instance(bundle: int) -> InstanceId:
    return InstanceId(InstanceKind.LATE, bundle)


def is_permitted(leaf: bytes, window: int) -> bool:
    """Whether the publisher may publish at the block of a window, as every chain source shows it."""
    return leaf not in (GRANTED if window == 0 else REVOKED)


def span_of(instance: InstanceId) -> proposals.Span:
    end = end_of(window_of(instance))
    if instance.kind is InstanceKind.LATE:
        return proposals.Span.of_late_set(end, PARAMETERS)
    return proposals.Span(end - WINDOW_MS, end)


@lru_cache(maxsize=4096)
def records_of(leaves: Leaves) -> tuple[Record, ...]:
    """In canonical order."""
    return tuple(RECORDS[leaf] for leaf in sorted(leaves, key=ORDER.__getitem__))


@lru_cache(maxsize=4096)
def set_of(leaves: Leaves) -> RecordSet:
    return RecordSet(records_of(leaves))


def root_of(leaves: Leaves) -> Root:
    """Names a set. Its form is not judged anywhere in the core."""
    return Root(hash_body(b"".join(sorted(leaves))))


def observe(observer: Address, instance: InstanceId, leaves: Leaves, price: int | None) -> tuple[Digest, Observation]:
    """The observation of a set and its digest."""
    observation = Observation(
        instance, root_of(leaves), len(leaves), len(leaves) * RECORD_BYTES, price=price, observer=observer
    )
    return observation_digest(observation), observation


@dataclass(frozen=True, slots=True)
class Value:
    """An outcome with what is behind its root, and the real judgement of its validity over all bytes, taken once."""

    digest: Digest
    outcome: Outcome
    leaves: Leaves
    valid: bool
    reason: str


def make_value(outcome: Outcome, records: Iterable[Record], used: Mapping[Digest, Observation], n: int) -> Value:
    kept = tuple(records)
    leaves = frozenset(r.leaf for r in kept)
    verdict = proposals.judge_validity(outcome, used, RecordSet(kept), span_of(outcome.instance), n, PARAMETERS)
    valid = verdict.answer is proposals.Answer.YES and not leaves & BAD_LEAVES
    return Value(outcome_digest(outcome), outcome, leaves, valid, verdict.reason)
