"""Peak memory of collecting one large window in a fresh process: ``python -m benchmarks.memory 2000000``.

Two brokers serve the same messages, in pages: a few thousand signed ones again and again, each time later. So their
signatures recover to strangers; they are checked like any others, but the verdict is not asked. Everything else is
what collecting does. Prints one JSON object.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from unittest.mock import patch

from benchmarks.corpus import make_lines
from validator.net.brokers.pages import read_lines
from validator.protocol.codec.legacy_array import read_legacy_array
from validator.protocol.codec.signatures import check_recovered
from validator.protocol.consensus.proposal import Span
from validator.protocol.model import Address, StreamPart
from validator.steps import admission
from validator.steps.window_buffer import WindowBuffer
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
        patch.object(admission, "check_recovered", lambda signed: (True for _ in check_recovered(signed))),
        WindowBuffer(Path(folder) / "scratch", set(parts)) as buffer,
    ):
        for broker in BROKERS:
            for turn, pages in enumerate(_pages(lines, parts, stamps, count)):
                for part, page in pages.items():
                    read_lines([page + END], partial(_take, buffer, broker, part, turn * len(lines)))
        buffer.check(Span(0, 1 << 52), lambda *_: True, lambda _: False, message_limit=1 << 20)
        saved = SegmentStore(f"{folder}/sets").save_ordered(buffer.merge())
        serve_counts = len(buffer.serve_counts())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        json.dumps(
            {
                "messages": saved.info.count,
                "segment_bytes": saved.info.size,
                "sightings_bytes": serve_counts,
                "peak_mib": round(peak / 2**20),
                "seconds": round(time.monotonic() - began, 1),
            }
        )
    )
    return 0 if saved.info.count >= count * 0.99 else 1


def _take(
    buffer: WindowBuffer, broker: Address, part: StreamPart, position: int, lines: Sequence[bytes], form: str
) -> None:
    buffer.ingest(broker, part, position, lines, form)


def _pages(
    lines: Sequence[bytes], parts: Sequence[StreamPart], stamps: Sequence[bytes], count: int
) -> Iterator[dict[StreamPart, bytes]]:
    """The same lines by partition again and again, each time later, until there are at least ``count``."""
    for turn in range(-(-count // len(lines))):
        shift = turn * PATTERNS * 20
        pages: dict[StreamPart, list[bytes]] = defaultdict(list)
        for line, part, stamp in zip(lines, parts, stamps, strict=True):
            pages[part].append(line.replace(stamp, b",%d," % (int(stamp[1:-1]) + shift), 1))
        yield {part: b"\n".join(members) for part, members in pages.items()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
