"""Files of bundles: written from what is held, and written again where one is gone or altered."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

from validator.log import get_logger
from validator.ports.stored import StoredBundle
from validator.protocol.codec.bundle import BundleFile
from validator.protocol.codec.bundle_file import write_bundle
from validator.protocol.codec.manifest import (
    decode_manifest,
)
from validator.protocol.codec.outcome import set_root
from validator.protocol.errors import TransientError
from validator.protocol.model import (
    InstanceId,
    Manifest,
    Record,
)
from validator.steps.context import Context

log = get_logger(__name__)


def require_file(context: Context, bundle: StoredBundle) -> Path:
    """The file of a sealed bundle, whole; one that is gone or altered is written again.

    Raises:
        TransientError: the disk does not let us look or write, or a set is not here now.
    """
    path = Path(bundle.path)
    try:
        with path.open("rb") as held:
            if hashlib.file_digest(held, "sha256").digest() == bundle.sha256:
                return path
            reason = "altered"
    except FileNotFoundError:
        reason = "gone"
    except OSError as error:
        raise TransientError(f"{path}: cannot read: {error.strerror}") from error
    log.error("bundle.file_damaged", bundle=bundle.number, reason=reason)
    file = write_file(context, path, decode_manifest(bundle.manifest))
    if file.sha256 != bundle.sha256:  # another version of the library; roots and votes cover messages, never the file
        context.store.bundles.save_file(bundle.number, file.size, file.sha256)
    return path


def write_file(context: Context, path: Path, manifest: Manifest) -> BundleFile:
    """Write a bundle's file from what is held. Raises TransientError: the disk is full or refuses, or a set is not here
    now."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return write_bundle(path, manifest, bundle_records(context, manifest))
    except OSError as error:
        raise TransientError(f"{path}: cannot write: {error.strerror or error}") from error


def bundle_records(context: Context, manifest: Manifest) -> Iterator[tuple[InstanceId, Record]]:
    """All records of a bundle in canonical order, each with the instance it belongs to."""
    streams = [
        zip(repeat(certified.outcome.instance), context.store.sets.iterate(set_root(certified.outcome.entries)))
        for certified in (*manifest.windows, manifest.late)
    ]
    return heapq.merge(*streams, key=lambda item: item[1].order)
