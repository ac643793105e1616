"""Bundles with valid defaults: really signed records, certificates of a real quorum, a config whose digest fits."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace

from tests.builders import GENESIS_MS, a_key
from validator.protocol.codec.config import config_digest, encode_config
from validator.protocol.codec.manifest import encode_ledger
from validator.protocol.codec.outcome import entries_root, outcome_digest, part_order
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.codec.statement import SigningContext, sign_statement
from validator.protocol.merkle import compute_root
from validator.protocol.model import (
    Address,
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
    StreamPart,
    VoteQuorum,
)
from validator.protocol.parameters import Config, Contracts, ParameterSet
from validator.protocol.report import Ledger

WINDOW_MS = 4_000
MEMBERS = tuple(sorted((a_key(100 + n) for n in range(4)), key=lambda k: k.address))
CHAIN_ID = 31337
CONTRACTS = Contracts(*(Address(bytes([n]) * 20) for n in range(1, 7)))
CONTEXT = SigningContext(CHAIN_ID, CONTRACTS.report_manager)


def a_config(members: Sequence[SigningKey] = MEMBERS, epoch: int = 0, **parameters: int) -> Config:
    """The config of an epoch of 4 windows of 4 s in one bundle."""
    values = {
        "epoch_windows": 4,
        "window_ms": WINDOW_MS,
        "bundle_windows": 4,
        "horizon_ms": 18_000,
        "margin_ms": 60_000,
        "price_max": 1 << 21,
        "read_ppm": 1_000_000,
        **parameters,
    }
    return Config(
        chain_id=CHAIN_ID,
        deployment_parent_hash=Digest(b"\x11" * 32),
        contracts=CONTRACTS,
        parameters=ParameterSet(first_epoch=epoch, **values),  # type: ignore[arg-type]
        epoch=epoch,
        config_count=0,
        committee=tuple(k.address for k in members),
    )


def make_entries(records: Iterable[Record]) -> tuple[PartitionEntry, ...]:
    parts: dict[StreamPart, list[Record]] = defaultdict(list)
    for record in sorted(records, key=lambda r: r.order):
        parts[record.message.stream_part].append(record)
    return tuple(
        PartitionEntry(
            *part,
            root=compute_root([r.leaf for r in members]),
            count=len(members),
            signed_bytes=sum(r.signed_bytes for r in members),
            canonical_bytes=sum(len(r.canonical) for r in members),
        )
        for part, members in sorted(parts.items(), key=lambda item: part_order(item[0]))
    )


def an_outcome(instance: InstanceId, records: Iterable[Record], price: int = 1 << 20) -> Outcome:
    entries = make_entries(records)
    return Outcome(
        instance=instance,
        block_number=7,
        block_hash=Digest(b"\x22" * 32),
        entries=entries,
        root=entries_root(entries),
        price=0 if instance.kind is InstanceKind.LATE else price,
        shares=(),
        observations=tuple(Digest(bytes([n]) * 32) for n in range(1, 4)),
    )


def certify(
    outcome: Outcome,
    digest: Digest,
    signers: Sequence[SigningKey] = MEMBERS[:3],
    deciding_round: int = 0,
    context: SigningContext = CONTEXT,
) -> Certified:
    """The outcome with a certificate of ``signers``."""
    votes = [
        sign_statement(
            Statement(
                StatementKind.PRECOMMIT, digest, outcome.instance, deciding_round, outcome_digest(outcome), key.address
            ),
            key,
            context,
        )
        for key in signers
    ]
    return Certified(
        outcome,
        VoteQuorum(
            StatementKind.PRECOMMIT,
            digest,
            outcome.instance,
            deciding_round,
            outcome_digest(outcome),
            tuple(sorted((v.signer, v.signature) for v in votes)),
        ),
    )


def a_manifest(
    windows: Sequence[Iterable[Record]],
    late: Iterable[Record] = (),
    *,
    config: Config | None = None,
    number: int = 0,
    first_ms: int = GENESIS_MS,
    previous_root: Root = Root(bytes(32)),
    ledger: Ledger = Ledger(),
    signers: Sequence[SigningKey] = MEMBERS[:3],
) -> Manifest:
    """Manifest of consecutive windows and a late set, each certified by three of four members."""
    config = config or a_config()
    digest = config_digest(config)
    step = config.parameters.window_ms
    context = SigningContext(config.chain_id, config.contracts.report_manager)
    return Manifest(
        header=BundleHeader(digest, number, previous_root, first_ms, first_ms + (len(windows) - 1) * step),
        config_preimage=encode_config(config),
        windows=tuple(
            certify(outcome, digest, signers, context=context)
            for outcome in (
                an_outcome(InstanceId(InstanceKind.WINDOW, first_ms + i * step), records)
                for i, records in enumerate(windows)
            )
        ),
        late=certify(an_outcome(InstanceId(InstanceKind.LATE, number), late), digest, signers, context=context),
        ledger=encode_ledger(ledger),
    )


def with_certificate(manifest: Manifest, index: int, certified: Certified) -> Manifest:
    windows = list(manifest.windows)
    windows[index] = certified
    return replace(manifest, windows=tuple(windows))


def rows_of(
    manifest: Manifest, windows: Sequence[Iterable[Record]], late: Iterable[Record] = ()
) -> list[tuple[InstanceId, Record]]:
    """What a bundle's file is written from: all records in canonical order, each with its instance."""
    sets = zip((*manifest.windows, manifest.late), (*windows, late), strict=True)
    rows = [(certified.outcome.instance, record) for certified, records in sets for record in records]
    return sorted(rows, key=lambda row: row[1].order)
