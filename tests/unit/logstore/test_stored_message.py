"""The file of a message with its proof: how large it is, and that nothing else is read as one."""

from __future__ import annotations

import hashlib

import pytest

from logstore.stored_message import is_of_kind, verify_stored
from tests.builders import GENESIS_MS, a_record, a_stream_id
from tests.bundle_builder import CHAIN_ID, CONTRACTS, an_outcome
from validator.protocol.codec import cbor
from validator.protocol.codec.manifest import bundle_leaves, bundle_root
from validator.protocol.codec.outcome import entries_root, outcome_digest
from validator.protocol.codec.proof import encode_proof
from validator.protocol.codec.stored_message import KIND, StoredMessage, decode_stored, encode_stored
from validator.protocol.errors import MalformedInput
from validator.protocol.merkle import compute_root
from validator.protocol.model import (
    BundleHeader,
    Digest,
    InstanceId,
    InstanceKind,
    Outcome,
    PartitionEntry,
    Record,
    Root,
)
from validator.protocol.proof import EntryProof, build_entry, build_message

MESSAGES = 1_000_000
PARTITIONS = 1_000
WINDOWS = 60


def a_full_outcome(record: Record, leaves: list[bytes]) -> Outcome:
    """One entry with these leaves, and as many small ones as a large network has."""
    own = PartitionEntry(*record.message.stream_part, compute_root(leaves), len(leaves), 1 << 30, 1 << 30)
    small = [PartitionEntry(a_stream_id(1, f"{n:04}"), 0, Root(bytes(32)), 1, 1, 1) for n in range(PARTITIONS - 1)]
    entries = tuple(sorted([own, *small], key=lambda e: e.stream_id.encode()))
    empty = an_outcome(InstanceId(InstanceKind.WINDOW, GENESIS_MS), [])
    return type(empty)(
        instance=empty.instance,
        block_number=7,
        block_hash=empty.block_hash,
        entries=entries,
        root=entries_root(entries),
        price=1,
        shares=(),
        observations=empty.observations,
    )


@pytest.fixture(scope="module")
def record() -> Record:
    return a_record(stream_id=a_stream_id(1, "large"), timestamp_ms=GENESIS_MS + 5)


@pytest.fixture(scope="module")
def stored(record: Record) -> StoredMessage:
    """Of a window of a million messages, in a bundle of sixty windows."""
    leaves: list[bytes] = [hashlib.sha256(number.to_bytes(4, "big")).digest() for number in range(MESSAGES)]
    leaves[123_456] = record.leaf
    outcome = a_full_outcome(record, leaves)
    digests = [outcome_digest(outcome), *(Digest(bytes([n]) * 32) for n in range(1, WINDOWS))]
    header = BundleHeader(Digest(bytes(32)), 3, Root(bytes(32)), GENESIS_MS, GENESIS_MS)
    late = Digest(b"\xff" * 32)
    proof = build_message(outcome, record.message.stream_part, leaves, 123_456, bundle_leaves(header, digests, late))
    root = bundle_root(header, digests, late)
    return StoredMessage(CHAIN_ID, CONTRACTS.report_manager, 3, root, record.canonical, proof)


def test_a_proof_among_a_million_messages_is_below_two_kilobytes(stored: StoredMessage) -> None:
    assert len(encode_proof(stored.proof)) < 1_300
    data = encode_stored(stored)
    assert len(data) - len(stored.canonical) < 1_400
    assert is_of_kind(data, KIND)
    verdict = verify_stored("message", data, None, stored.root)
    assert verdict.message.timestamp_ms == GENESIS_MS + 5
    assert verdict.is_root_known


def test_a_file_survives_its_bytes(stored: StoredMessage) -> None:
    assert decode_stored(encode_stored(stored)) == stored


def test_a_proof_of_another_kind_is_refused(stored: StoredMessage, record: Record) -> None:
    outcome = an_outcome(InstanceId(InstanceKind.WINDOW, GENESIS_MS), [record])
    other = build_entry(outcome, record.message.stream_part)
    assert isinstance(other, EntryProof)
    head = (KIND, CHAIN_ID, CONTRACTS.report_manager, 3, stored.root, stored.canonical)
    without_bundle = build_message(outcome, record.message.stream_part, [record.leaf], 0)
    for proof in (other, without_bundle):
        with pytest.raises(MalformedInput, match="proof: not that of a message in a bundle"):
            decode_stored(cbor.encode_object(*head, encode_proof(proof)))


@pytest.mark.parametrize("data", [b"", b"PAR1", b"\x87\x70stored-message/1", b"stored-message/1" * 9])
def test_what_is_no_such_file_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedInput):
        decode_stored(data)
