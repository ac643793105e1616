"""The child of ``store.bundle_writer``: writes one bundle's file from the files of its sets.

    SETS_URL=… python -m validator.store.bundle_program PATH < MANIFEST

The answer is one line of JSON: size, SHA-256 and rows of what was written (status 0), or why it was not (status 1).
"""

from __future__ import annotations

import heapq
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import repeat
from pathlib import Path
from typing import Any

from validator.protocol.codec.bundle_file import write_bundle
from validator.protocol.codec.manifest import decode_manifest
from validator.protocol.codec.outcome import set_root
from validator.protocol.errors import InvariantError, TransientError
from validator.protocol.model import InstanceId, Manifest, Record, Root
from validator.store.segment_format import DamagedSegment
from validator.store.segments import SETS_URL, SegmentStore


class DamagedSet(Exception):
    """Which set could not be read to its end."""

    def __init__(self, set_root: Root, reason: str) -> None:
        super().__init__(reason)
        self.set_root = set_root


def main(arguments: Sequence[str]) -> int:
    """Status 2: wrong arguments."""
    if len(arguments) != 1 or SETS_URL not in os.environ:
        sys.stderr.write(f"usage: SETS_URL=… {__spec__.name} PATH\n")
        return 2
    answer: dict[str, Any]
    try:
        segments = SegmentStore(os.environ[SETS_URL])
        manifest = decode_manifest(sys.stdin.buffer.read())
        file = write_bundle(Path(arguments[0]), manifest, bundle_records(manifest, lambda root: _read(segments, root)))
        answer = {"size": file.size, "sha256": file.sha256.hex(), "rows": file.rows}
    except DamagedSet as error:
        answer = {"damaged": error.set_root.hex(), "reason": str(error)}
    except InvariantError as error:
        answer = {"wrong": str(error)}
    except (OSError, TransientError) as error:
        answer = {"reason": str(error.strerror or error) if isinstance(error, OSError) else str(error)}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0 if "sha256" in answer else 1


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
        yield from segments.iterate(root)
    except DamagedSegment as error:
        raise DamagedSet(root, str(error)) from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
