"""Proofs of all messages of a stream partition in a span of time, made from bundles' manifests and, where there are
messages, from their files.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from logstore.errors import NotStored
from logstore.output import Output
from logstore.rows import read_part
from logstore.stored_range import RangePart, StoredRange
from logstore.times import format_time
from validator.protocol.codec.manifest import bundle_leaves
from validator.protocol.codec.outcome import outcome_digest
from validator.protocol.errors import ConfigError
from validator.protocol.model import Manifest, Outcome, Record, StreamPart
from validator.protocol.proof import build_absence, build_range

if TYPE_CHECKING:
    from logstore.store import LogStore
    from validator.net.chain.bundles import AcceptedBundle


def prove_range(store: LogStore, output: Output, part: StreamPart, from_ms: int, until_ms: int) -> StoredRange:
    """The file's content, from the bundles so far.

    Raises:
        ConfigError: the span ends before the network begins.
        NotStored: the span ends behind what is stored.
    """
    network, reports = store.network, store.reports
    if until_ms <= network.genesis_ms:
        raise ConfigError(f"--to: the network began at {format_time(network.genesis_ms)}", field="to")
    newest = reports.fetch(reports.count - 1)
    if newest is None or newest.end_ms < until_ms:
        until = "nothing" if newest is None else format_time(newest.end_ms)
        raise NotStored(f"stored until {until}: what came later is in no bundle yet, so nothing can be proven of it")
    proving = _Proving(store, output, part, from_ms, until_ms)
    late, _ = reports.late_numbers(from_ms, until_ms)
    numbers = reports.find(from_ms, until_ms)
    parts = [*proving.windows(numbers), *proving.late_sets(late)]
    return StoredRange(network.chain_id, network.contracts.report_manager, part, from_ms, until_ms, tuple(parts))


class _Proving:
    """One question, asked of several bundles."""

    def __init__(self, store: LogStore, output: Output, part: StreamPart, from_ms: int, until_ms: int) -> None:
        self._store = store
        self._output = output
        self._part = part
        self._span = (from_ms, until_ms)

    def windows(self, numbers: range) -> Iterator[RangePart]:
        from_ms, until_ms = self._span
        for bundle, manifest in self._manifests(numbers):
            starts = [c.outcome.instance.number for c in manifest.windows]
            ends = [*starts[1:], bundle.end_ms]
            for certified, start_ms, end_ms in zip(manifest.windows, starts, ends, strict=True):
                if start_ms < until_ms and end_ms > from_ms:
                    yield self._prove(bundle, manifest, certified.outcome)

    def late_sets(self, numbers: range) -> Iterator[RangePart]:
        for bundle, manifest in self._manifests(numbers):
            yield self._prove(bundle, manifest, manifest.late.outcome)

    def _manifests(self, numbers: range) -> Iterator[tuple[AcceptedBundle, Manifest]]:
        for number in numbers:
            (bundle,) = self._store.reports.fetch_many(number, number + 1)
            yield bundle, self._store.bundles.fetch_manifest(bundle, self._output)

    def _prove(self, bundle: AcceptedBundle, manifest: Manifest, outcome: Outcome) -> RangePart:
        digests = [outcome_digest(c.outcome) for c in manifest.windows]
        leaves = bundle_leaves(manifest.header, digests, outcome_digest(manifest.late.outcome))
        entry = next((e for e in outcome.entries if e.stream_part == self._part), None)
        if entry is None:
            absence = build_absence(outcome, self._part, leaves)
            return RangePart(bundle.number, bundle.root, outcome.instance, (), absence)
        records = self._read(bundle, manifest, outcome) if entry.count else []
        proof = build_range(
            outcome,
            self._part,
            [record.message.timestamp_ms for record in records],
            [record.leaf for record in records],
            lambda index: records[index].canonical,
            *self._span,
            leaves,
        )
        from_ms, until_ms = self._span
        chosen = tuple(r.canonical for r in records if from_ms <= r.message.timestamp_ms < until_ms)
        return RangePart(bundle.number, bundle.root, outcome.instance, chosen, proof)

    def _read(self, bundle: AcceptedBundle, manifest: Manifest, outcome: Outcome) -> list[Record]:
        path = self._store.bundles.fetch(bundle, self._output)
        return read_part(path, manifest, outcome.instance, self._part)
