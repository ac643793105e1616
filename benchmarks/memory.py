"""Peak memory of collecting one large window in a fresh process: ``python -m benchmarks.memory 2000000``.

Two brokers serve the same messages, in pages. Signatures are not checked, since that holds no memory and takes most
of the time; everything else is what collecting does. Prints one JSON object.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest.mock import patch

from benchmarks.corpus import make_lines
from validator.broker.pages import read_lines
from validator.codec.legacy_array import read_legacy_array
from validator.codec.signatures import VALID
from validator.consensus.proposal import Span
from validator.model import Address
from validator.steps import gathering
from validator.store.segments import SegmentStore

PATTERNS = 5000
BROKERS = (Address(b"\x01" * 20), Address(b"\x02" * 20))
END = b'\n{"hasNext":false,"type":"metadata"}'


def main(arguments: Sequence[str]) -> int:
    count = int(arguments[0])
    lines = list(dict.fromkeys(make_lines(PATTERNS, 7)))
    parts = [read_legacy_array(line).stream_part for line in lines]
    stamps = [b",%d," % read_legacy_array(line).timestamp_ms for line in lines]
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(gathering, "verify_batch", lambda records: [VALID] * len(records)),
        gathering.Gathering(Path(folder) / "scratch", set(parts)) as gathered,
    ):
        for broker in BROKERS:
            taken = 0
            for page in _pages(lines, stamps, count):
                # a page of one partition each is what brokers answer; here a page mixes them, as the work is the same
                at = iter(range(len(lines)))
                read_lines(
                    [page + END],
                    lambda data, form, broker=broker, at=at, taken=taken: gathered.take(  # type: ignore[misc]
                        broker, parts[next(at)], taken, data, form
                    ),
                )
                taken += len(lines)
        gathered.check(Span(0, 1 << 52), lambda *_: True, lambda _: False, message_limit=1 << 20)
        saved = SegmentStore(f"{folder}/sets").save_ordered(gathered.settle())
        sightings = len(gathered.sightings())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        json.dumps(
            {
                "messages": saved.info.count,
                "segment_bytes": saved.info.size,
                "sightings_bytes": sightings,
                "peak_mib": round(peak / 2**20),
                "seconds": round(time.monotonic() - began, 1),
            }
        )
    )
    return 0 if saved.info.count >= count * 0.99 else 1


def _pages(lines: Sequence[bytes], stamps: Sequence[bytes], count: int) -> Iterator[bytes]:
    """The same lines again and again, each time later, until there are at least ``count``."""
    for turn in range(-(-count // len(lines))):
        shift = turn * PATTERNS * 20
        yield b"\n".join(
            line.replace(stamp, b",%d," % (int(stamp[1:-1]) + shift), 1)
            for line, stamp in zip(lines, stamps, strict=True)
        )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
