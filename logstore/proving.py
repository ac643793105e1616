"""Proofs made from bundles' files: which bundle holds a message, where in it, and the way up to its root.

A message lies in its own window; what came too late lies in the late set of a later bundle, as far away as the network
lets late sets reach. Those are looked through only where the windows have nothing at that time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from logstore.errors import NotStored
from logstore.rows import read_part
from logstore.selection import holds_late, late_reach_ms
from logstore.times import format_time
from validator.net.chain.bundles import AcceptedBundle
from validator.protocol.codec.manifest import bundle_leaves
from validator.protocol.codec.outcome import outcome_digest
from validator.protocol.codec.stored_message import StoredMessage
from validator.protocol.model import Manifest, Outcome, Record
from validator.protocol.parameters import Network
from validator.protocol.proof import build_message
from validator.protocol.proof import verify_message as verify_place

if TYPE_CHECKING:
    from logstore.output import Output
    from logstore.store import LogStore

Wanted = Callable[[Record], bool]
LAST_MS = 1 << 53
"""Behind all that can be stored."""


@dataclass(frozen=True, slots=True)
class OpenBundle:
    """A verified file of a bundle, and what it holds."""

    bundle: AcceptedBundle
    path: Path
    manifest: Manifest


def find_messages(store: LogStore, output: Output, stream: str, at_ms: int, wanted: Wanted) -> list[StoredMessage]:
    """The messages of a time, proven. Raises NotStored if there is none."""
    for number in store.reports.find(at_ms, at_ms + 1):
        found = list(_prove(store.network, _open(store, number, output), stream, wanted, late=False))
        if found:
            return found
    for opened in _late_bundles(store, output, stream, at_ms):
        found = list(_prove(store.network, opened, stream, wanted, late=True))
        if found:
            return found
    raise NotStored(
        f"{stream}: no such message at {format_time(at_ms)} in its window, nor in the late sets of the bundles so far"
    )


def _late_bundles(store: LogStore, output: Output, stream: str, at_ms: int) -> Iterator[OpenBundle]:
    """Bundles whose late set may hold a message of that time, in order; of the others only manifests are fetched."""
    reports = store.reports
    for number in range(reports.find(at_ms, LAST_MS).start, reports.count):
        (bundle,) = reports.fetch_many(number, number + 1)
        manifest = store.bundles.fetch_manifest(bundle, output)
        if bundle.end_ms - late_reach_ms(manifest) > at_ms:
            return
        if holds_late(manifest, stream):
            yield _open(store, number, output)


def _open(store: LogStore, number: int, output: Output) -> OpenBundle:
    (bundle,) = store.reports.fetch_many(number, number + 1)
    return OpenBundle(bundle, store.bundles.fetch(bundle, output), store.bundles.fetch_manifest(bundle, output))


def _prove(
    network: Network, opened: OpenBundle, stream_id: str, wanted: Wanted, *, late: bool
) -> Iterator[StoredMessage]:
    """A proof of each message of a stream that is wanted: of the windows, or of the late set."""
    sets = (opened.manifest.late,) if late else opened.manifest.windows
    for certified in sets:
        outcome = certified.outcome
        for entry in outcome.entries:
            if entry.stream_id == stream_id and entry.count:
                yield from _prove_entry(network, opened, outcome, entry.partition, stream_id, wanted)


def _prove_entry(
    network: Network, opened: OpenBundle, outcome: Outcome, partition: int, stream_id: str, wanted: Wanted
) -> Iterator[StoredMessage]:
    manifest, part = opened.manifest, (stream_id, partition)
    records = read_part(opened.path, manifest, outcome.instance, part)
    chosen = [index for index, record in enumerate(records) if wanted(record)]
    if not chosen:
        return
    windows = [outcome_digest(c.outcome) for c in manifest.windows]
    bundle = bundle_leaves(manifest.header, windows, outcome_digest(manifest.late.outcome))
    leaves = [record.leaf for record in records]
    for index in chosen:
        stored = StoredMessage(
            network.chain_id,
            network.contracts.report_manager,
            opened.bundle.number,
            opened.bundle.root,
            records[index].canonical,
            build_message(outcome, part, leaves, index, bundle),
        )
        verify_place(stored.proof, stored.canonical, stored.root)  # it must do for others what it does for us
        yield stored
