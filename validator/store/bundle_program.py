"""The child of ``store.bundle_writer``: writes one bundle's file from the files of its sets.

    python -m validator.store.bundle_program SETS-URL PATH < MANIFEST

The answer is one line of JSON: size, SHA-256 and rows of what was written (status 0), or why it was not (status 1).
"""

from __future__ import annotations

import heapq
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

from validator.protocol.codec.bundle import BundleFile
from validator.protocol.codec.bundle_file import write_bundle
from validator.protocol.codec.manifest import decode_manifest
from validator.protocol.codec.outcome import set_root
from validator.protocol.errors import InvariantError, TransientError
from validator.protocol.model import InstanceId, Manifest, Record, Root
from validator.store.segment_format import DamagedSegment
from validator.store.segments import SegmentStore, records_of


class DamagedSet(Exception):
    """Which set could not be read to its end."""

    def __init__(self, set_root: Root, reason: str) -> None:
        super().__init__(reason)
        self.set_root = set_root


def main(arguments: Sequence[str]) -> int:
    """Status 2: wrong arguments."""
    if len(arguments) != 2:
        sys.stderr.write(f"usage: {__spec__.name} SETS-URL PATH\n")
        return 2
    url, path = arguments
    answer: dict[str, Any]
    try:
        segments = SegmentStore(url)
        file = write_from_sets(Path(path), decode_manifest(sys.stdin.buffer.read()), lambda root: _read(segments, root))
        answer = {"size": file.size, "sha256": file.sha256.hex(), "rows": file.rows}
    except DamagedSet as error:
        answer = {"damaged": error.set_root.hex(), "reason": str(error)}
    except InvariantError as error:
        answer = {"wrong": str(error)}
    except (OSError, TransientError) as error:
        answer = {"reason": str(error.strerror or error) if isinstance(error, OSError) else str(error)}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0 if "sha256" in answer else 1


def write_from_sets(path: Path, manifest: Manifest, read: Callable[[Root], Iterator[Record]]) -> BundleFile:
    """Write a bundle's file; ``read`` gives the records of a set in canonical order.

    Raises:
        OSError: the disk is full or refuses.
        InvariantError: the sets do not give the manifest's entries.
    """
    return write_bundle(path, manifest, bundle_records(manifest, read))


def bundle_records(manifest: Manifest, read: Callable[[Root], Iterator[Record]]) -> Iterator[tuple[InstanceId, Record]]:
    """All records of a bundle in canonical order, each with the instance it belongs to."""
    streams = [
        zip(repeat(certified.outcome.instance), read(set_root(certified.outcome.entries)))
        for certified in (*manifest.windows, manifest.late)
    ]
    return heapq.merge(*streams, key=lambda item: item[1].order)


def _read(segments: SegmentStore, root: Root) -> Iterator[Record]:
    """Raises DamagedSet."""
    try:
        for entry in segments.load_entries(root):
            for page in segments.load_pages(root, entry.stream_part):
                yield from records_of(page)
    except DamagedSegment as error:
        raise DamagedSet(root, str(error)) from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
