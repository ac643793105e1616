"""What it costs to prove that an answer is complete: bytes per entry, time to build a proof and to check it.

One window holds an entry of so many messages beside those of a hundred other streams. An answer over several windows
cuts two of them at one end (*cut*) and shows the others *whole*; one within a window cuts it at both ends (*inside*):
bytes of the largest proof of each. *cold* builds the tree over the
entry first, from the broker's store or from the bundle's file (*lake*); *warm* asks again for another range. *checked*
is what a consumer does with the leaves of the whole entry. Beside it: rows a second of the store alone, and of history,
which marks each with the set that holds it.

What a proof's bytes are is printed too. No encoding spares the hashes: the entry's path is the roots of what lies left
of the range and right of it, each once, 17 of them on average and 32 at worst in 100 000 messages; the way up from the
entry has one for each level of the window's tree and of the bundle's; a neighbour is a message's place, and its leaf
needs the hashes of content and canonical bytes.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tests.builders import GENESIS_MS
from tests.bundle_builder import WINDOW_MS
from tests.certified_world import BUNDLE_MS, PART, Broker, World, a_row
from validator.ports.certified import CertifiedSet
from validator.protocol.codec.completeness import encode_set_proof
from validator.protocol.completeness import SetProof, verify_set
from validator.protocol.model import InstanceKind, Record
from validator.protocol.proof import RangeProof

OK = 0
FAILED = 1
OTHER_STREAMS = 100
ASKED = 50
MOST_BYTES = 1_024
LEAST_CHECKED = 500_000
PAGE = 8_192


@dataclass(frozen=True, slots=True)
class Measured:
    """Of an entry of so many messages: bytes of proofs, milliseconds, leaves and rows a second."""

    messages: int
    whole_bytes: int
    cut_bytes: int
    inside_bytes: int
    inside_mean_bytes: int
    path_bytes: int
    climb_bytes: int
    neighbours_bytes: int
    worst_bytes: int
    worst_of_million_bytes: int
    store_cold_ms: float
    lake_cold_ms: float
    warm_ms: float
    checked_per_s: int
    store_rows_per_s: int
    history_rows_per_s: int

    @property
    def misses(self) -> bool:
        return max(self.whole_bytes, self.cut_bytes) > MOST_BYTES or (
            self.messages >= PAGE and self.checked_per_s < LEAST_CHECKED
        )


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks completeness", description=__doc__)
    parser.add_argument("--messages", type=int, nargs="+", default=[1_000, 100_000], metavar="COUNT")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args(arguments)
    found = [measure(count) for count in options.messages]
    if options.json:
        options.json.write_text(json.dumps([asdict(one) for one in found], indent=1) + "\n")
    names = list(asdict(found[0]))
    print("  ".join(name.replace("_", " ") for name in names))
    for one in found:
        values = asdict(one)
        print("  ".join(f"{values[name]:>{len(name)},.{_digits(name)}f}" for name in names))
    for one in found:
        share = one.history_rows_per_s / one.store_rows_per_s
        print(
            f"{one.messages:,}: at most {one.inside_bytes:,} bytes, on average {one.inside_mean_bytes:,}, at worst"
            f" {one.worst_bytes:,}, of a million {one.worst_of_million_bytes:,}; {one.path_bytes // 32} hashes of the"
            f" entry's path, {one.climb_bytes // 32} up from there, {one.neighbours_bytes} bytes of neighbours;"
            f" history reads {share:.2f} of what the store does"
        )
    missed = [one.messages for one in found if one.misses]
    for messages in missed:
        print(f"misses the goal: {messages} messages", file=sys.stderr)
    return FAILED if missed else OK


def _digits(name: str) -> int:
    return 2 if name.endswith("_ms") else 0


def measure(count: int) -> Measured:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder))
        records = [a_row(number * WINDOW_MS // count, number) for number in range(count)]
        others = [a_row(1, 1, stream_id=f"other/{number:03}") for number in range(OTHER_STREAMS)]
        world.add_bundle(([*records, *others], []))
        held = world.broker("held", [*records, *others])
        lake = world.broker("lake", retained_from_ms=GENESIS_MS + BUNDLE_MS)
        held.open()
        inside, store_cold_ms, warm_ms = _prove(held)
        _, lake_cold_ms, _ = _prove(lake)
        store_rate, history_rate = _read(held, records)
        return Measured(
            count,
            _size(held, 0, WINDOW_MS),
            max(_size(held, 1 + at * WINDOW_MS // ASKED, WINDOW_MS) for at in range(ASKED)),
            max(map(_size_of, inside)),
            round(statistics.mean(map(_size_of, inside))),
            *_anatomy(max(inside, key=_size_of), count),
            store_cold_ms,
            lake_cold_ms,
            warm_ms,
            _check(held, records),
            store_rate,
            history_rate,
        )


def _window(broker: Broker) -> CertifiedSet:
    sets = broker.history.sets(PART, GENESIS_MS, GENESIS_MS + 1, 0)
    return next(found for found in sets if found.instance.kind is InstanceKind.WINDOW)


def _prove(broker: Broker) -> tuple[list[SetProof], float, float]:
    """Proofs of many ranges; milliseconds of the first, and of the quickest after it."""
    found, proofs, taken = _window(broker), list[SetProof](), list[float]()
    for number in range(ASKED):
        from_ms = GENESIS_MS + 1 + number * (WINDOW_MS - 200) // ASKED
        begun = time.perf_counter()
        said = broker.history.prove(found, PART, from_ms, from_ms + 1 + 37 * number % 150)
        taken.append((time.perf_counter() - begun) * 1e3)
        proofs.append(said)
    return proofs, taken[0], min(taken[1:])


def _size_of(said: SetProof) -> int:
    return len(encode_set_proof(said))


def _anatomy(said: SetProof, count: int) -> tuple[int, int, int, int, int]:
    """Bytes of a proof's path, way up and neighbours; of the largest proof there can be, and of one in a million."""
    proof, whole = said.proof, _size_of(said)
    assert isinstance(proof, RangeProof)
    assert proof.bundle is not None
    path = 32 * len(proof.entry.path)
    climb = 32 * (1 + len(proof.window.path) + len(proof.bundle.path))
    neighbours = whole - _size_of(replace(said, proof=replace(proof, before=None, after=None)))
    worst, of_million = (whole - path + 32 * 2 * (math.ceil(math.log2(size)) - 1) for size in (count, 1_000_000))
    return path, climb, neighbours, worst, of_million


def _size(broker: Broker, from_ms: int, until_ms: int) -> int:
    """Bytes of a proof of a part of the window."""
    said = broker.history.prove(_window(broker), PART, GENESIS_MS + from_ms, GENESIS_MS + until_ms)
    return _size_of(said)


def _check(broker: Broker, records: Sequence[Record]) -> int:
    """Leaves a second, of the whole entry."""
    found = _window(broker)
    said = broker.history.prove(found, PART, GENESIS_MS, GENESIS_MS + WINDOW_MS)
    leaves = [record.leaf for record in records]

    def check() -> None:
        verify_set(said, PART, GENESIS_MS, GENESIS_MS + WINDOW_MS, leaves, broker.world.root_of)

    return round(len(leaves) / min(_timed(check) for _ in range(5)))


def _read(broker: Broker, records: Sequence[Record]) -> tuple[int, int]:
    """Rows a second: of the store's pages, and of history's."""
    span = (GENESIS_MS, GENESIS_MS + WINDOW_MS)

    def plain() -> None:
        after = None
        while page := broker.store.page(PART, *span, after=after, limit=PAGE):
            after = page.last_key

    def marked() -> None:
        after = None
        while (page := broker.history.page(PART, *span, 0, after=after, limit=PAGE)).columns:
            after = page.columns.last_key

    plain_s, marked_s = (min(_timed(read) for _ in range(3)) for read in (plain, marked))
    return round(len(records) / plain_s), round(len(records) / marked_s)


def _timed(act: Callable[[], None]) -> float:
    """Seconds of CPU: others may have the machine meanwhile."""
    begun = time.process_time()
    act()
    return time.process_time() - begun
