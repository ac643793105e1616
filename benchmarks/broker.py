"""What one broker takes in and gives out: from the network's socket to disk, and from disk to HTTP, on this machine.

ingest   a process of its own writes messages into the bridge's socket; every signature is checked, all is stored.
         Per core: messages by seconds of CPU. Beside it the signatures alone, in the same rounds: recovered one by
         one, and by the equations that ingest tries
reads    ``broker_reads``: one consumer reads a stream partition, trailer and root included, while 2 000 messages a
         second come in, each checked: wall clock and all of the broker's CPU, each form, its memory, the first byte;
         beside it the store alone, which hands the same rows to nobody, what the consumer alone can take, and the
         same with ingest in a process of its own
stores   ``broker_stores``: PostgreSQL beside SQLite, the store alone
idle     ``broker_idle``: parts of the real network in which nobody speaks
old way  how the node before ours answered a query, for the same messages: whole lists of ids and hashes as JSON, from
         each to each, then each message as an array: bytes of the lists, and messages by seconds of CPU
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import broker_idle, broker_reads, broker_stores
from benchmarks.broker_parts import PART, feeding, make_parts, make_records
from validator.broker.ingest import GATHERED, Ingest
from validator.broker.interpreter import tune_interpreter
from validator.net.streamr.bridge import BridgeBus
from validator.net.streamr.frames import Kind, write_message
from validator.protocol.codec.batch_verifier import BatchVerifier
from validator.protocol.codec.legacy_array import write_legacy_array
from validator.protocol.codec.protobuf import write_protobuf
from validator.protocol.codec.signatures import verify_batch
from validator.protocol.hashing import keccak256
from validator.protocol.model import Record

OK = 0
GOALS = {
    "ingest_per_core_s": 10_000,
    "ingest_of_checking": 0.7,
    "frames_s": 200_000,
    "first_byte_ms": 50,
    "broker_grew_mib": 150,
    "idle_alone_cores": 1,
    "idle_alone_mib": 900,
    "idle_cores": 1,
    "idle_mib": 900,
}
AT_MOST = ("first_byte_ms", "broker_grew_mib", "idle_alone_cores", "idle_alone_mib", "idle_cores", "idle_mib")
OLD_WAY = {"frames_s": "old_way_per_core_s", "ndjson_s": "old_way_per_core_s", "arrow_s": "old_way_per_core_s"}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks broker", description=__doc__)
    parser.add_argument("--messages", type=int, default=400_000, help="messages of the answer that is read")
    parser.add_argument("--ingested", type=int, default=40_000, help="messages of one round of ingest")
    parser.add_argument("--rounds", type=int, default=3, help="0: nothing but one answer of all, and its memory")
    parser.add_argument(
        "--idle-parts", type=int, metavar="N", help="instead: join N parts of the real network, and wait"
    )
    parser.add_argument(
        "--postgres", type=int, metavar="N", help="instead: N messages into PostgreSQL and into SQLite, and out again"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args(arguments)
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        if options.idle_parts:
            figures = broker_idle.measure(options.idle_parts, Path(folder))
        elif options.postgres:
            figures = broker_stores.measure(make_records(options.postgres), options.rounds, Path(folder))
        else:
            figures = measure_speed(options, Path(folder))
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    print_figures(figures)
    return OK


def measure_speed(options: argparse.Namespace, folder: Path) -> dict[str, float]:
    figures: dict[str, float] = {}
    if options.ingested and options.rounds:
        records = make_records(options.ingested)
        figures |= measure_ingest(records, options.rounds, folder)
        figures |= measure_old_way(records)
    return figures | broker_reads.measure(options.messages, options.rounds, folder / "reads")


def print_figures(figures: dict[str, float]) -> None:
    print(f"{'':<30}{'measured':>14}{'goal':>18}{'old way':>14}")
    for name, value in figures.items():
        goal = f"{'<=' if name in AT_MOST else '>='} {GOALS[name]:,}" if name in GOALS else ""
        old = f"{figures[OLD_WAY[name]]:,.0f}" if OLD_WAY.get(name) in figures else ""
        print(f"{name.replace('_', ' '):<30}{value:>14,.2f}{goal:>18}{old:>14}")


# --- in ---------------------------------------------------------------------------------------------


def measure_ingest(records: Sequence[Record], rounds: int, folder: Path) -> dict[str, float]:
    frames = b"".join(write_message(Kind.MESSAGE, PART, write_protobuf(record.message)) for record in records)
    checking, together, whole, wall = [], [], [], []
    for number in range(rounds):
        checking.append(_cpu(lambda: verify_batch(records)))
        together.append(_cpu(lambda: _check_together(records)))
        started = time.perf_counter()
        whole.append(_cpu(lambda n=number: asyncio.run(_ingest(frames, len(records), folder / f"ingest-{n}"))))  # type: ignore[misc]
        wall.append(time.perf_counter() - started)
    count = len(records)
    return {
        "checking_per_core_s": count / min(checking),
        "together_per_core_s": count / min(together),
        "ingest_per_core_s": count / min(whole),
        "ingest_of_checking": statistics.median(a / b for a, b in zip(checking, whole, strict=True)),
        "ingest_of_together": statistics.median(a / b for a, b in zip(together, whole, strict=True)),
        "ingest_wall_s": count / min(wall),
    }


def _check_together(records: Sequence[Record]) -> None:
    verifier = BatchVerifier()
    for at in range(0, len(records), GATHERED):
        verifier.verify(records[at : at + GATHERED])
    assert not verifier.untrue


def _cpu(work: Callable[[], Any]) -> float:
    started = time.process_time()
    work()
    return time.process_time() - started


async def _ingest(frames: bytes, count: int, folder: Path) -> None:
    parts = make_parts(folder)
    with feeding(folder, frames, 0) as path:
        bus = await BridgeBus.open(path)
        ingest = Ingest(bus, parts.admission, parts.chain, max_parts=10)
        tune_interpreter()
        running = asyncio.create_task(ingest.run())
        await ingest.follow_registry()
        while parts.admission.stored < count:
            await asyncio.sleep(0.02)
        await bus.close()
        await running
    assert not parts.admission.refused
    parts.close()


# --- the node before ours ---------------------------------------------------------------------------


def measure_old_way(records: Sequence[Record]) -> dict[str, float]:
    def list_references() -> bytes:
        pairs = []
        for record in records:
            m = record.message
            identity = [
                m.stream_id,
                m.partition,
                m.timestamp_ms,
                m.sequence_number,
                m.publisher_id.hex(),
                m.msg_chain_id,
            ]
            pairs.append([json.dumps(identity), "0x" + keccak256(record.canonical).hex()])
        return json.dumps(pairs).encode()

    def answer() -> bytes:
        json.loads(list_references())
        return b"\n".join([write_legacy_array(record.message) for record in records])

    return {
        "old_way_list_bytes": len(list_references()) / len(records),
        "old_way_per_core_s": len(records) / _cpu(answer),
    }


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
