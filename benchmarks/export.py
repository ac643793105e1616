"""Speed and memory of ``logstore export``: ``python -m benchmarks export``.

The messages are those of ``benchmarks.hour``, an hour after the other, each in a bundle of its own, so that every
stream goes through all files. The first is sealed, the others are its rows at later times, packed at the lowest level
(nobody verifies them: that is the benchmark of ``bundle``). Each format is written in a process of its own, to nowhere.
``--hours 40`` are two million rows: the peak must be that of four.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import repeat
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.apart import run_apart
from benchmarks.certified import certify_records
from benchmarks.hour import START_MS, STEP_MS, make_messages
from logstore.export import FORMATS, export_messages
from logstore.selection import BundleFile
from validator.net.chain.bundles import AcceptedBundle
from validator.protocol.codec.bundle_columns import DICTIONARY, ENCODINGS, PAGE_VERSION, SCHEMA
from validator.protocol.codec.bundle_file import DEFAULT_LEVEL, write_bundle
from validator.protocol.codec.bundle_schema import STATISTICS
from validator.protocol.codec.manifest_rules import bundle_end_ms
from validator.protocol.codec.message import make_record
from validator.protocol.model import Message, Root, StorageId

GOALS = {"ndjson": 100_000, "arrow": 500_000}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks export", description=__doc__)
    parser.add_argument("--messages", type=int, default=50_000, help="of an hour (default 50000)")
    parser.add_argument("--hours", type=int, default=4, help="bundles (default 4)")
    parser.add_argument("--seed", type=int, default=7, help="of the messages (default 7)")
    parser.add_argument("--rounds", type=int, default=3, help="of which the fastest counts (default 3)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args(arguments)
    if min(options.messages, options.hours, options.rounds) < 1:
        parser.error("--messages, --hours and --rounds: at least one")
    messages = make_messages(options.messages, options.seed)
    figures: dict[str, Any] = {"messages": options.messages * options.hours, "bundles": options.hours, "formats": {}}
    with tempfile.TemporaryDirectory() as folder:
        files = [seal_hour(messages, Path(folder))]
        files += [write_later(files[0], hour, len(messages)) for hour in range(1, options.hours)]
        del messages
        for form in FORMATS:
            ran = run_apart(_measure, form, files, options.rounds)
            figures["formats"][form] = {**ran.told, "peak_mib": ran.peak_mib}
    print_figures(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    return 0


def seal_hour(messages: list[Message], folder: Path) -> BundleFile:
    records = list(map(make_record, messages))
    manifest = certify_records(iter(records), START_MS - 1_000, len(messages) * STEP_MS + 2_000)
    instance = manifest.windows[0].outcome.instance
    path = folder / "0.parquet"
    write_bundle(path, manifest, zip(repeat(instance), records), DEFAULT_LEVEL)
    end_ms = bundle_end_ms(manifest)
    bundle = AcceptedBundle(0, Root(bytes(32)), StorageId(bytes(32)), instance.number, end_ms, 1, is_final=True)
    return BundleFile(bundle, path)


def write_later(first: BundleFile, hour: int, messages: int) -> BundleFile:
    """The rows of the first file so many hours later, in row groups as large as its own."""
    shift_ms = hour * messages * STEP_MS * 2
    path = first.path.with_name(f"{hour}.parquet")
    source = pq.ParquetFile(first.path, arrow_extensions_enabled=True)
    with pq.ParquetWriter(
        path,
        SCHEMA,
        compression="zstd",
        compression_level=1,
        use_dictionary=list(DICTIONARY),
        column_encoding=ENCODINGS,
        write_statistics=list(STATISTICS),
        data_page_version=PAGE_VERSION,
        store_schema=False,
    ) as writer:
        for number in range(source.num_row_groups):
            table = source.read_row_group(number, use_threads=False)
            for name in ("timestamp", "prev_timestamp"):
                field, column = table.schema.field(name), table.column(name)
                later = pc.add(column.cast(pa.int64()), shift_ms).cast(field.type)
                table = table.set_column(table.schema.get_field_index(name), field, later)
            writer.write_table(table, row_group_size=len(table))
    told = first.bundle
    bundle = replace(told, number=hour, first_ms=told.first_ms + shift_ms, end_ms=told.end_ms + shift_ms)
    return BundleFile(bundle, path)


def _measure(form: str, files: Sequence[BundleFile], rounds: int) -> dict[str, Any]:
    end_ms = files[-1].bundle.end_ms
    seconds = []
    for _ in range(rounds):
        with Path("/dev/null").open("wb") as out:
            began = time.process_time()
            rows = export_messages(form, files, (None, None), None, end_ms, out)
            seconds.append(time.process_time() - began)
    return {"rows": rows, "rows_a_second": rows / min(seconds)}


def print_figures(figures: dict[str, Any]) -> None:
    print(f"{figures['messages']:,} messages of {figures['bundles']} bundles\n")
    print(f"{'format':10}  {'rows a second of CPU time':>26}  {'goal':>10}  peak MiB")
    for form, told in figures["formats"].items():
        goal = f"{GOALS[form]:,}" if form in GOALS else ""
        print(f"{form:10}  {told['rows_a_second']:26,.0f}  {goal:>10}  {told['peak_mib']:8}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
