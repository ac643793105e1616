"""The files that hold the messages of a span of time.

Those are the bundles of its windows, and later ones whose late sets reach back into it. What such a late set holds is
known from its manifest, so a bundle is brought for its late set only where that is not empty.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from logstore.output import Output
from validator.net.chain.bundles import AcceptedBundle
from validator.protocol.codec.config import decode_config
from validator.protocol.model import Manifest

if TYPE_CHECKING:
    from logstore.bundles import Bundles
    from logstore.reports import Reports


@dataclass(frozen=True, slots=True)
class BundleFile:
    """A bundle and its file in the cache folder."""

    bundle: AcceptedBundle
    path: Path


def select_files(
    reports: Reports,
    bundles: Bundles,
    output: Output,
    from_ms: int | None,
    to_ms: int,
    *,
    stream_id: str | None = None,
    verify: bool = True,
) -> list[BundleFile]:
    """In order of the bundles. ``from_ms`` None: from the first on; ``stream_id``: whose late messages matter.

    Raises:
        Refused: a file is not the bundle that the contract holds.
        TransientError, RemoteFault: no gateway has it.
    """
    numbers = reports.find(from_ms or 0, to_ms)
    found = [*reports.fetch_many(numbers.start, numbers.stop)]
    for number in range(numbers.stop, reports.count):
        (bundle,) = reports.fetch_many(number, number + 1)
        manifest = bundles.fetch_manifest(bundle, output, verify=verify)
        if bundle.end_ms - late_reach_ms(manifest) >= to_ms:
            break
        if holds_late(manifest, stream_id):
            found.append(bundle)
    return [BundleFile(bundle, bundles.fetch(bundle, output, verify=verify)) for bundle in found]


def late_reach_ms(manifest: Manifest) -> int:
    """How far before its bundle's end a message of a late set may lie."""
    return decode_config(manifest.config_preimage).parameters.late_reach_ms


def holds_late(manifest: Manifest, stream_id: str | None = None) -> bool:
    """Whether the late set has messages, of this stream if one is named."""
    return any(e.count and stream_id in (None, e.stream_id) for e in manifest.late.outcome.entries)
