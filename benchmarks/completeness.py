"""What it costs to prove that an answer is complete: bytes per entry, time to build a proof and to check it.

One window holds an entry of so many messages beside those of a hundred other streams. An answer over several windows
cuts two of them at one end (*cut*) and shows the others *whole*: bytes of the largest proof that was met of each, and
of the largest that there can be (*cut worst*; *of million*: in an entry of so many). One within a window cuts it at
both ends (*inside*). All are of one window entry, the way up through its window included. *shared* comes on top: the
way from the window up through its bundle of sixty, which the windows of an answer share; one window alone has it for
itself (*alone*). An answer has two ends at most, however many windows lie between, so what it costs for each of its
windows is printed too.

*cold* builds the tree over the entry first, from the broker's store or from the bundle's file (*lake*); *warm* asks
again for another range. *checked* is what a consumer does with the leaves of the whole entry. Beside it: rows a second
of the store alone, and of history, which marks each with the set that holds it.

What a proof's bytes are is printed too. No encoding spares the hashes: the entry's path is the roots of what lies left
of the range and right of it, each once, 17 of them on average and 32 at worst in 100 000 messages; the way up from the
entry has one for each level of the window's tree and of the bundle's; a neighbour is a message's place, and its leaf
needs the hashes of content and canonical bytes. So an answer within a single window of so many messages exceeds the
goal by what its second end costs, on average and at worst as printed.
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
from typing import Any

from tests.builders import GENESIS_MS
from tests.bundle_builder import WINDOW_MS
from tests.certified_world import BUNDLE_MS, PART, Broker, World, a_row
from validator.broker.proving import CLIMBED
from validator.ports.certified import CertifiedSet
from validator.protocol.codec.completeness import encode_climb, encode_set_proof
from validator.protocol.completeness import SetClimb, SetProof, verify_set
from validator.protocol.merkle import range_proof
from validator.protocol.model import InstanceKind, Record
from validator.protocol.proof import BundleStep, RangeProof

OK = 0
FAILED = 1
OTHER_STREAMS = 100
ASKED = 50
MOST_BYTES = 1_000
MILLION = 1_000_000
BUNDLE_WINDOWS = 60
LEAST_CHECKED = 500_000
PAGE = 8_192


@dataclass(frozen=True, slots=True)
class Measured:
    """Of an entry of so many messages: bytes of proofs, milliseconds, leaves and rows a second."""

    messages: int
    whole_bytes: int
    cut_bytes: int
    cut_worst_bytes: int
    cut_worst_of_million_bytes: int
    inside_bytes: int
    inside_mean_bytes: int
    inside_worst_bytes: int
    shared_bytes: int
    alone_bytes: int
    path_bytes: int
    climb_bytes: int
    neighbours_bytes: int
    store_cold_ms: float
    lake_cold_ms: float
    warm_ms: float
    checked_per_s: int
    store_rows_per_s: int
    history_rows_per_s: int

    @property
    def misses(self) -> bool:
        return max(self.cut_bytes + self.shared_bytes, *map(self.answer_bytes, (2, 10, 100))) > MOST_BYTES or (
            self.messages >= PAGE and self.checked_per_s < LEAST_CHECKED
        )

    def answer_bytes(self, windows: int) -> int:
        """For each window entry of an answer that cuts the first and the last of them, wherever: all that is said."""
        return round((2 * self.cut_worst_bytes + (windows - 2) * self.whole_bytes) / windows + self.shared_bytes)


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
            f"{one.messages:,}: for each window entry of an answer over 2, 10 and 100 windows at worst"
            f" {one.answer_bytes(2):,}, {one.answer_bytes(10):,} and {one.answer_bytes(100):,} bytes, all included"
            f" (cut at one end at most {one.cut_bytes:,} met, {one.cut_worst_bytes:,} ever, and"
            f" {one.cut_worst_of_million_bytes:,} of a million messages, and {one.shared_bytes} for the bundle);"
            f" over one window cut at both ends {one.inside_mean_bytes + one.alone_bytes:,} on average, at most"
            f" {one.inside_bytes + one.alone_bytes:,} met, {one.inside_worst_bytes + one.alone_bytes:,} ever:"
            f" {one.path_bytes // 32} hashes of the entry's path, {one.climb_bytes // 32} up through the window,"
            f" {one.alone_bytes // 32} through the bundle, {one.neighbours_bytes} bytes of neighbours;"
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
        cut = [_told(held, 1 + at * WINDOW_MS // ASKED, WINDOW_MS) for at in range(ASKED)]
        return Measured(
            count,
            _told(held, 0, WINDOW_MS).size(),
            max(told.size() for told in cut),
            max(told.worst(count, ends=1) for told in cut),
            max(told.worst(MILLION, ends=1) for told in cut),
            max(told.size() for told in inside),
            round(statistics.mean(told.size() for told in inside)),
            max(told.worst(count, ends=2) for told in inside),
            *_bundle_bytes(inside[0]),
            *_anatomy(max(inside, key=Told.size)),
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


@dataclass(frozen=True, slots=True)
class Told:
    """A range proof as an answer for this span says it."""

    said: SetProof
    from_ms: int
    until_ms: int

    @property
    def proof(self) -> RangeProof:
        assert isinstance(self.said.proof, RangeProof)
        return self.said.proof

    def size(self, *, bundle: BundleStep | None = None, **changed: Any) -> int:
        """Bytes; of the window entry alone, without the way up through the bundle, where none is given."""
        said = replace(self.said, proof=replace(self.proof, bundle=bundle, **changed))
        return len(encode_set_proof(said, self.from_ms, self.until_ms))

    def worst(self, count: int, ends: int) -> int:
        """Bytes of the largest that there can be, of an entry of so many messages that is cut at one end or at both."""
        levels = math.ceil(math.log2(count))
        path = (self.proof.window.rest_hash,) * (levels if ends == 1 else 2 * (levels - 1))
        return self.size(entry=replace(self.proof.entry, path=path))


def _told(broker: Broker, from_ms: int, until_ms: int) -> Told:
    """Of a part of the window."""
    span = GENESIS_MS + from_ms, GENESIS_MS + until_ms
    return Told(broker.history.prove(_window(broker), PART, *span), *span)


def _prove(broker: Broker) -> tuple[list[Told], float, float]:
    """Proofs of many ranges; milliseconds of the first, and of the quickest after it."""
    found, proofs, taken = _window(broker), list[Told](), list[float]()
    for number in range(ASKED):
        from_ms = GENESIS_MS + 1 + number * (WINDOW_MS - 200) // ASKED
        until_ms = from_ms + 1 + 37 * number % 150
        begun = time.perf_counter()
        said = broker.history.prove(found, PART, from_ms, until_ms)
        taken.append((time.perf_counter() - begun) * 1e3)
        proofs.append(Told(said, from_ms, until_ms))
    return proofs, taken[0], min(taken[1:])


def _bundle_bytes(told: Told) -> tuple[int, int]:
    """Of the way up through a bundle of sixty: for each window where they share it, and for one alone."""
    leaves = [bytes(32)] * (BUNDLE_WINDOWS + 2)
    longest = max((range_proof(leaves, at, at + CLIMBED) for at in range(1, len(leaves) - CLIMBED)), key=len)
    shared = SetClimb(told.said.bundle, 1, len(leaves), (told.proof.window.rest_hash,) * CLIMBED, longest)
    step = BundleStep(1, len(leaves), range_proof(leaves, 1, 2))
    return math.ceil(len(encode_climb(shared)) / CLIMBED), told.size(bundle=step) - told.size()


def _anatomy(told: Told) -> tuple[int, int, int]:
    """Bytes of a proof's path, way up through the window, and neighbours."""
    proof = told.proof
    neighbours = told.size() - told.size(before=None, after=None)
    return 32 * len(proof.entry.path), 32 * (1 + len(proof.window.path)), neighbours


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
