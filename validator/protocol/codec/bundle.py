"""What is known of a bundle's file without a library that reads it: what it was written and verified as, and its tags.

Source: design, section 8.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from validator.protocol.codec.manifest_rules import CODEC_VERSION
from validator.protocol.codec.statement import SigningContext
from validator.protocol.model import BundleHeader, Digest, Manifest, Root

CONTENT_TYPE = "application/vnd.apache.parquet"
APP_NAME = "LogStore"


@dataclass(frozen=True, slots=True)
class BundleFile:
    """A file as written: its SHA-256, size in bytes, and rows."""

    path: Path
    size: int
    sha256: Digest
    rows: int


@dataclass(frozen=True, slots=True)
class VerifiedBundle:
    """A file whose rows give every root of its manifest, and whose certificates are valid."""

    manifest: Manifest
    root: Root
    rows: int


def bundle_tags(header: BundleHeader, root: Root, network: SigningContext, end_ms: int) -> tuple[tuple[str, str], ...]:
    """The tags of a bundle's transaction, exactly and in this order.

    ``end_ms``: end of the last window. The version is that of the format, so validators of different releases agree.
    """
    return (
        ("App-Name", APP_NAME),
        ("App-Version", str(CODEC_VERSION)),
        ("Content-Type", CONTENT_TYPE),
        ("Network", f"{network.chain_id}:0x{network.report_manager.hex()}"),
        ("Bundle-Number", str(header.number)),
        ("Window-From", str(header.first_ms)),
        ("Window-To", str(end_ms)),
        ("Bundle-Root", root.hex()),
        ("Prev-Bundle-Root", header.previous_root.hex()),
    )
