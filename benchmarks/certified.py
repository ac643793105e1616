"""What a bundle's manifest needs beside its entries: a committee of four, its config, certificates of three."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from benchmarks.corpus import START_MS
from validator.protocol.codec.config import config_digest, encode_config
from validator.protocol.codec.manifest import encode_ledger
from validator.protocol.codec.outcome import entries_root, outcome_digest
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.codec.statement import SigningContext, sign_statement
from validator.protocol.merkle import RunningRoot
from validator.protocol.model import (
    NIL,
    Address,
    Block,
    BundleHeader,
    Certified,
    Digest,
    InstanceId,
    InstanceKind,
    Manifest,
    Outcome,
    PartitionEntry,
    Record,
    Root,
    Statement,
    StatementKind,
    VoteQuorum,
)
from validator.protocol.parameters import Config, Contracts, ParameterSet
from validator.protocol.report import Ledger

KEYS = tuple(sorted((SigningKey(bytes([n]) * 32) for n in range(1, 5)), key=lambda key: key.address))
CONTRACTS = Contracts(*(Address(bytes([n]) * 20) for n in range(1, 7)))
SIGNING = SigningContext(31337, CONTRACTS.report_manager)
BLOCK = Block(7, Digest(b"\x07" * 32), START_MS // 1000)


def make_config(window_ms: int) -> Config:
    """Of an epoch of one window in one bundle."""
    parameters = ParameterSet(
        first_epoch=0, epoch_windows=1, window_ms=window_ms, bundle_windows=1, margin_ms=3 * window_ms
    )
    return Config(31337, Digest(b"\x11" * 32), CONTRACTS, parameters, 0, 0, tuple(key.address for key in KEYS))


def make_manifest(config: Config, outcome: Outcome) -> Manifest:
    """Of a bundle of this window alone, and an empty late set."""
    digest = config_digest(config)
    late = Outcome(
        InstanceId(InstanceKind.LATE, 0),
        BLOCK.number,
        BLOCK.hash,
        (),
        entries_root(()),
        0,
        (),
        tuple(outcome.observations),
    )
    start_ms = outcome.instance.number
    return Manifest(
        BundleHeader(digest, 0, Root(NIL), start_ms, start_ms),
        encode_config(config),
        (_certify(outcome, digest),),
        _certify(late, digest),
        encode_ledger(Ledger()),
    )


def certify_records(records: Iterator[Record], start_ms: int, window_ms: int) -> Manifest:
    """The manifest of a bundle of one window that holds these, in canonical order; none is kept."""
    entries = []
    for part, members in groupby(records, key=lambda record: record.message.stream_part):
        tree, count, signed, canonical = RunningRoot(), 0, 0, 0
        for record in members:
            tree.add((record.leaf,))
            count += 1
            signed += record.signed_bytes
            canonical += len(record.canonical)
        entries.append(PartitionEntry(part[0], part[1], tree.root(), count, signed, canonical))
    instance = InstanceId(InstanceKind.WINDOW, start_ms)
    observations = tuple(Digest(bytes([n]) * 32) for n in range(1, 4))
    outcome = Outcome(
        instance, BLOCK.number, BLOCK.hash, tuple(entries), entries_root(entries), 1 << 20, (), observations
    )
    return make_manifest(make_config(window_ms), outcome)


def _certify(outcome: Outcome, digest: Digest) -> Certified:
    value = outcome_digest(outcome)
    votes = [
        sign_statement(
            Statement(StatementKind.PRECOMMIT, digest, outcome.instance, 0, value, key.address), key, SIGNING
        )
        for key in KEYS[:3]
    ]
    signatures = tuple(sorted((vote.signer, vote.signature) for vote in votes))
    return Certified(outcome, VoteQuorum(StatementKind.PRECOMMIT, digest, outcome.instance, 0, value, signatures))
