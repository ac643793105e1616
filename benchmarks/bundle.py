"""Bytes, speed, memory and range reads of a bundle's file: ``python -m benchmarks bundle``.

The messages are those of ``benchmarks.hour`` (their signatures are random, and not checked: that is the benchmark of
``messages``). In one run: bytes a message of the file at its default and at its best level, beside the same messages as
sorted NDJSON under gzip -6 and zstd -19; what each trick saves that the format uses, or could; CPU time to seal and to
verify, and beside it the four hashes of a message alone; what verifying takes by the wall in a child, its start
included, with one process and with all cores, as ``logstore verify`` does; the bytes that readers fetch for two seconds
of one stream. ``--memory`` seals and verifies a GiB of messages besides (or so many MiB), each in an interpreter of its
own. Readers that are not installed (Polars) are named and left out.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import Any

import zstandard

from benchmarks.apart import run_apart
from benchmarks.bundle_reads import measure_reads
from benchmarks.bundle_tricks import measure_tricks
from benchmarks.certified import certify_records
from benchmarks.hour import START_MS, STEP_MS, make_messages, make_records, write_line
from validator.net.sandbox import Sandbox
from validator.protocol.codec.bundle_file import BEST_LEVEL, DEFAULT_LEVEL, verify_bundle_file, write_bundle
from validator.protocol.codec.manifest import decode_manifest, encode_manifest
from validator.protocol.model import Message, Record

GOALS = {"default": 0.70, "best": 0.66, "sealed": 50_000, "verified": 200_000, "peak_mib": 512, "read_mb": 0.6}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks bundle", description=__doc__)
    parser.add_argument("--messages", type=int, default=198_000, help="of the hour (default 198000)")
    parser.add_argument("--seed", type=int, default=7, help="of the messages (default 7)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the fastest counts (default 3)")
    parser.add_argument("--memory", type=int, nargs="?", const=1024, metavar="MIB", help="also a bundle of 1 GiB")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args(arguments)
    if options.messages < 1 or options.rounds < 1:
        parser.error("--messages and --rounds: at least one")
    messages = make_messages(options.messages, options.seed)
    with tempfile.TemporaryDirectory() as folder:
        figures: dict[str, Any] = {"messages": len(messages)}
        figures["bytes"], figures["speed"] = measure_files(messages, Path(folder), options.rounds)
        figures["wall"] = measure_wall(Path(folder) / "default.parquet", len(messages), options.rounds)
        figures["tricks"] = measure_tricks(Path(folder) / "default.parquet")
        figures["reads"] = measure_reads(Path(folder) / "default.parquet")
        if options.memory:
            figures["memory"] = measure_memory(messages, options.seed, Path(folder), options.memory << 20)
    print_figures(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def measure_files(messages: list[Message], folder: Path, rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Bytes a message in each form, and messages a second of CPU time."""
    lines = b"\n".join(map(write_line, messages))
    sizes = {
        "NDJSON": len(lines),
        "NDJSON, gzip -6": len(gzip.compress(lines, 6)),
        "NDJSON, zstd -19": len(zstandard.ZstdCompressor(level=19, threads=-1).compress(lines)),
    }
    del lines
    records = list(make_records(messages))
    manifest = certify_records(iter(records), *span_of(messages))
    instance = manifest.windows[0].outcome.instance
    path, best = folder / "default.parquet", folder / "best.parquet"

    def seal(level: int, to: Path) -> int:
        return write_bundle(to, manifest, zip(repeat(instance), records), level).size

    speed = {
        "sealed": len(messages) / _fastest(lambda: seal(DEFAULT_LEVEL, path), rounds),
        "verified": len(messages) / _fastest(lambda: verify_bundle_file(path, manifest), rounds),
        "hashed": len(messages) / _fastest(lambda: hash_alone(records), rounds),
    }
    sizes["bundle, default"] = path.stat().st_size
    sizes["bundle, best"] = seal(BEST_LEVEL, best)
    return {name: size / len(messages) for name, size in sizes.items()}, speed


def measure_wall(path: Path, messages: int, rounds: int) -> dict[int, float]:
    """Messages a second that one process and as many as there are cores verify, by their number."""

    def verify(processes: int) -> None:
        Sandbox(processes=processes).verify(path)

    numbers = sorted({1, len(os.sched_getaffinity(0))})
    return {n: messages / _fastest(partial(verify, n), rounds, time.perf_counter) for n in numbers}


def hash_alone(records: Sequence[Record]) -> None:
    """The four hashes of a message: of content, canonical bytes and leaf, and a node of the tree; all else is given."""
    contents = [record.message.content for record in records]
    canonical = [record.canonical for record in records]
    leaf, node = bytes(161), bytes(65)
    for some in (contents, canonical, repeat(leaf, len(records)), repeat(node, len(records))):
        for item in some:
            hashlib.sha256(item).digest()


def span_of(messages: list[Message], hours: int = 1) -> tuple[int, int]:
    """Start and length of a window that holds so many hours."""
    start_ms = START_MS - 1_000
    return start_ms, len(messages) * STEP_MS * (2 * hours - 1) + 2_000


def _fastest(work: Callable[[], object], rounds: int, clock: Callable[[], float] = time.process_time) -> float:
    seconds = []
    for _ in range(rounds):
        began = clock()
        work()
        seconds.append(clock() - began)
    return min(seconds)


def measure_memory(messages: list[Message], seed: int, folder: Path, size: int) -> dict[str, float]:
    """Peaks of sealing and verifying so many canonical bytes, each in an interpreter of its own."""
    hours = -(-size // sum(len(record.canonical) for record in make_records(messages)))
    path, stored = folder / "large.parquet", folder / "manifest"
    stored.write_bytes(encode_manifest(certify_records(make_records(messages, hours), *span_of(messages, hours))))
    sealed = run_apart(seal_hours, path, stored, len(messages), seed, hours)
    verified = run_apart(verify_hours, path, stored)
    return {
        "mib": size >> 20,
        "messages": sealed.told["rows"],
        "bytes": sealed.told["bytes"],
        "seal_mib": sealed.peak_mib,
        "verify_mib": verified.peak_mib,
        "seal_s": round(sealed.seconds, 1),
        "verify_s": round(verified.seconds, 1),
    }


def seal_hours(path: Path, stored: Path, count: int, seed: int, hours: int) -> dict[str, Any]:
    """A bundle of the same messages hour after hour; records are made as they are asked for."""
    manifest = decode_manifest(stored.read_bytes())
    records = make_records(make_messages(count, seed), hours)
    written = write_bundle(path, manifest, zip(repeat(manifest.windows[0].outcome.instance), records))
    return {"rows": written.rows, "bytes": written.size}


def verify_hours(path: Path, stored: Path) -> dict[str, Any]:
    return {"rows": verify_bundle_file(path, decode_manifest(stored.read_bytes())).rows}


def print_figures(figures: dict[str, Any]) -> None:
    sizes, speed = figures["bytes"], figures["speed"]
    gzipped = sizes["NDJSON, gzip -6"]
    print(f"{figures['messages']} messages\n\n{'bytes a message':42}  {'bytes':>7}  gzip = 1  goal")
    for name, size in sizes.items():
        goal = GOALS.get(name.removeprefix("bundle, "))
        print(f"{name:42}  {size:7.2f}  {size / gzipped:8.3f}  {f'<= {goal}' if goal else ''}")
    print("\nof these, by column")
    for name, size in figures["tricks"]["columns"].items():
        print(f"{name:42}  {size:7.2f}  {size / gzipped:8.3f}")
    for title in ("used", "not used"):
        print(f"\n{'saves a message, ' + title:42}  {'bytes':>7}")
        for name, saved in figures["tricks"][title].items():
            print(f"{name:70}  {saved:7.2f}")
    print(f"\nsealed    {speed['sealed']:9,.0f} messages a second of CPU time (goal {GOALS['sealed']:,})")
    print(f"verified  {speed['verified']:9,.0f} without signatures (goal {GOALS['verified']:,})")
    share = speed["verified"] / speed["hashed"]
    print(f"hashed    {speed['hashed']:9,.0f} by a message's four hashes alone, of which verifying reaches {share:.2f}")
    for processes, rate in figures["wall"].items():
        print(f"verified  {rate:9,.0f} by the wall, in a child of {processes} process{'es' if processes > 1 else ''}")
    reads = figures["reads"]
    print(f"\ntwo seconds of one of {reads['streams']} streams, file of {reads['file_bytes'] / 1e6:.1f} MB (goal 0.6)")
    print(f"{'MB fetched':42}  {'median':>7}  {'most':>7}")
    for name, fetched in reads["fetched"].items():
        print(f"{name:42}  {fetched['median'] / 1e6:7.2f}  {fetched['most'] / 1e6:7.2f}")
    for name in reads["skipped"]:
        print(f"skipped: {name} is not installed")
    if "memory" in figures:
        memory = figures["memory"]
        print(f"\n{memory['mib']} MiB, {memory['messages']:,} messages (goal {GOALS['peak_mib']} MiB each)")
        print(f"sealed in    {memory['seal_mib']:5} MiB, {memory['seal_s']} s with making the messages")
        print(f"verified in  {memory['verify_mib']:5} MiB, {memory['verify_s']} s")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
