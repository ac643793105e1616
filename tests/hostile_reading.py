"""Reads every variant of a bundle's file that one kind of damage makes, under the limits of a reading child.

    python -m tests.hostile_reading KIND FILE MEMORY SECONDS

One line of JSON: how often each field was named in a refusal, which variants were read as the very same records, what
went otherwise (any but a refusal, or other records), and by how many bytes the most that was resident has grown.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.bundle_reader import read_records
from tests.hostile_bundle import KINDS
from validator.net.sandbox.program import limit
from validator.protocol.codec.bundle_file import read_manifest, verify_bundle_file
from validator.protocol.errors import MalformedInput


def peak_bytes() -> int:
    """The most of this program that was resident. What a parent is told of it may be its own."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def main(arguments: list[str]) -> int:
    kind, name, memory, seconds = arguments
    sound = Path(name)
    manifest = read_manifest(sound)
    records = list(read_records(sound, manifest))
    before = peak_bytes()
    limit(int(memory), int(seconds))
    refused: Counter[str] = Counter()
    same: list[str] = []
    strange: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        variant = Path(folder) / "bundle"
        for label, data in KINDS[kind](sound.read_bytes()):
            variant.write_bytes(data)
            try:
                verify_bundle_file(variant, manifest)
            except MalformedInput as error:
                refused[error.field] += 1
                continue
            except Exception as error:
                strange.append(f"{label}: {error!r}")
                continue
            is_same = list(read_records(variant, manifest)) == records
            (same if is_same else strange).append(label)
    print(json.dumps({"refused": refused, "same": same, "strange": strange, "grown": peak_bytes() - before}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
