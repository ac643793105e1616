"""What it costs two brokers to be equal: bytes and seconds a message, by how much each of them has lost.

Both hold the same messages of some partitions and slices, less what each has lost, in stores on disk. The first visits
the second as brokers do: sums, partitions, sessions, bodies, offers; every answer is signed and checked, no network
lies between. Equal ones cost nothing but heartbeats. Contents are hex of random bytes, which zstd halves. ``sums``:
what a broker pays to know what it holds, once, as messages come.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import tempfile
import time
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.corpus import START_MS as CORPUS_START_MS
from tests.builders import a_key, an_unsigned_message
from validator.broker.answers import Answers
from validator.broker.evidence import Suspicions
from validator.broker.mending import Mending
from validator.broker.slices import SliceSums, SummedStore
from validator.broker.store import SqliteMessageStore
from validator.broker.sum_book import SqliteSums
from validator.broker.talk import Progress, Talk
from validator.net.mutual import wire
from validator.net.signed import signing
from validator.net.signed.client import Spoken
from validator.net.signed.signing import Channel, Stamp
from validator.protocol.codec.message import make_record
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.codec.statement import SigningContext
from validator.protocol.hashing import keccak256
from validator.protocol.model import Address, Digest, Record
from validator.protocol.slices import BLOCK_MS, SLICE_MS

START_MS = CORPUS_START_MS - CORPUS_START_MS % BLOCK_MS
PARTITIONS = 10
LOST = (0.0, 0.001, 0.03)
"""Of each broker; what the first has lost the second has not, nearly always."""
CONTENT_BYTES = 300
HEAD_BYTES = 700
"""Of a request and its answer beside their bodies."""
CHANNEL = Channel(wire.PURPOSE, SigningContext(1, Address(bytes(20))), Digest(bytes(32)))
T = TypeVar("T")


async def at_once(function: Callable[..., T], /, *arguments: Any) -> T:
    return function(*arguments)


class Side:
    """A broker's store, sums and answers; what comes in is believed, since checking is measured elsewhere."""

    def __init__(self, folder: Path, key: SigningKey) -> None:
        self.key = key
        self.raw = SqliteMessageStore(folder / "messages")
        self.sums = SliceSums(SqliteSums(str(folder / "sums.sqlite")), self.raw, from_ms=START_MS)
        self.store = SummedStore(self.raw, self.sums)
        self.answers = Answers(self.store, self.sums, self.admit, key, CHANNEL.context, lambda: END_MS)

    def admit(self, records: Sequence[Record]) -> Sequence[StrEnum | None]:
        self.store.insert(records, END_MS)
        return [None] * len(records)

    def close(self) -> None:
        self.sums.close()
        self.raw.close()


END_MS = START_MS + 2 * BLOCK_MS


class DirectLine:
    """Signed questions and answers without HTTP."""

    def __init__(self, here: Side, there: Side) -> None:
        self._here = here
        self._there = there
        self._counter = itertools.count(1)
        self.moved = 0

    async def ask(self, broker: Address, path: str, body: bytes) -> Spoken:
        stamp = Stamp(self._here.key.address, 1, next(self._counter), END_MS)
        asked = CHANNEL.request_payload(stamp, path, broker, body)
        signing.verify(asked, signing.sign(asked, self._here.key), self._here.key.address)
        answer = self._there.answers.perform(path, self._here.key.address, body)
        signature = signing.sign(CHANNEL.response_payload(keccak256(asked), 200, answer), self._there.key)
        self.moved += len(body) + len(answer) + HEAD_BYTES
        spoken = Spoken(broker, path, body, stamp, 200, answer, signature)
        spoken.verify(CHANNEL)
        return spoken


def make_records(count: int, slices: int, rng: random.Random) -> list[Record]:
    """Spread over partitions and slices; contents that do not compress."""
    step_ms = slices * SLICE_MS / count
    return [
        make_record(
            an_unsigned_message(
                partition=number % PARTITIONS,
                timestamp_ms=START_MS + int(number * step_ms),
                sequence_number=number % 1000,
                content=b'{"v":"%s"}' % rng.randbytes(CONTENT_BYTES // 2).hex().encode(),
            )
        )
        for number in range(count)
    ]


async def visit(here: Side, there: Side, line: DirectLine) -> None:
    """All slices, in portions, until both sides are equal."""
    talk = Talk(line, there.key.address, Progress(), Suspicions(lambda: END_MS))
    mending = Mending(here.store, here.admit, at_once, lambda: END_MS, lambda _record: None)
    while here.sums.total(START_MS, END_MS - BLOCK_MS) != there.sums.total(START_MS, END_MS - BLOCK_MS):
        found = await talk.find_differing(here.sums, START_MS, END_MS - BLOCK_MS, 32, lambda _start, _theirs: False)
        differences = await talk.fetch_parts(found)
        ours = {d.start_ms: {p.part: p for p in here.sums.parts(d.start_ms)} for d in differences}
        await mending.mend(talk, differences, ours)
        for side in (here, there):
            side.sums.settle(END_MS)


def measure(records: Sequence[Record], lost: float, seed: int) -> dict[str, float]:
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        sides = [Side(Path(folder) / str(n), a_key(50 + n)) for n in range(2)]
        summed_s = missing_bytes = 0.0
        for side in sides:
            kept = [record for record in records if rng.random() >= lost]
            missing_bytes += sum(len(r.canonical) for r in records) - sum(len(r.canonical) for r in kept)
            side.store.insert(kept, START_MS)
            began = time.process_time()
            while side.sums.settle(END_MS):
                pass
            summed_s += (time.process_time() - began) / 2
        line = DirectLine(sides[0], sides[1])
        began = time.process_time()
        asyncio.run(visit(sides[0], sides[1], line))
        seconds = time.process_time() - began
        for side in sides:
            side.close()
    return {
        "bytes_per_message": line.moved / len(records),
        "moved_over_missing": line.moved / missing_bytes if missing_bytes else 0.0,
        "overhead_per_message": max(0.0, line.moved - missing_bytes) / len(records),
        "seconds": seconds,
        "sum_seconds": summed_s,
    }


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks repair", description=__doc__)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--slices", type=int, default=10)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    records = make_records(options.messages, options.slices, random.Random(options.seed))
    print(f"{options.messages:,} messages, {PARTITIONS} partitions, {options.slices} slices; both sides' CPU")
    print(f"{'lost':>6}  {'B/message':>9}  {'beside the missing':>18}  {'moved/missing':>13}  {'s':>6}  {'sums, s':>8}")
    figures: dict[str, float] = {}
    for lost in LOST:
        found = measure(records, lost, options.seed)
        print(
            f"{lost:6.1%}  {found['bytes_per_message']:9.2f}  {found['overhead_per_message']:18.2f}"
            f"  {found['moved_over_missing']:13.2f}  {found['seconds']:6.2f}  {found['sum_seconds']:8.2f}"
        )
        figures.update({f"{name}_at_{lost:g}": value for name, value in found.items()})
    if options.json is not None:
        options.json.write_text(json.dumps(figures, indent=1))
    return 0
