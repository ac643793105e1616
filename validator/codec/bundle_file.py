"""The file of a bundle: Parquet with the rows of ``bundle_columns`` and the manifest beside them.

The only key-value metadatum is ``logstore.manifest``: base64 (Parquet wants text) of one zstd frame of the manifest's
canonical bytes. Roots and votes cover canonical messages, never this file: another library version may write other
bytes. Reading a file is reading hostile input, in this order: size, footer (bounded, thrift limits), schema and
layout, manifest, certificates, then rows in batches, each entry recounted against its certified outcome.

``python -m validator.codec.bundle_file PATH`` verifies a file under a memory limit and prints one line of JSON.
Source: design, section 8.
"""

from __future__ import annotations

import base64
import binascii
import bisect
import hashlib
import json
import os
import resource
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from validator.codec.bundle_columns import (
    COLUMNS,
    DICTIONARY,
    ENCODINGS,
    SCHEMA,
    STATISTICS,
    Row,
    make_table,
    read_batch,
)
from validator.codec.config import decode_config
from validator.codec.manifest import (
    MAX_MANIFEST_BYTES,
    decode_ledger,
    decode_manifest,
    encode_header,
    encode_manifest,
    manifest_root,
)
from validator.codec.outcome import outcome_digest
from validator.codec.report import quorum_size
from validator.codec.statement import SigningContext, verify_quorum
from validator.errors import InvariantError, MalformedInput
from validator.hashing import hash_object
from validator.merkle import compute_root
from validator.model import (
    BundleHeader,
    Certified,
    Digest,
    InstanceId,
    InstanceKind,
    Manifest,
    PartitionEntry,
    Record,
    Root,
    StatementKind,
    StreamPart,
)
from validator.parameters import Config

CODEC_VERSION = 1
MANIFEST_KEY = b"logstore.manifest"
CONTENT_TYPE = "application/vnd.apache.parquet"
APP_NAME = "LogStore"
MAX_FOOTER_BYTES = 16 << 20
MAX_THRIFT_ITEMS = 1 << 20
GROUP_ROWS = 65_536
GROUP_BYTES = 32 << 20
"""A row group ends at the first of the two, counted in canonical bytes."""
BATCH_BYTES = 4 << 20
MAX_BATCH_ROWS = 1024
GROUP_FOOTER_BYTES = 8 << 10
"""Bound of a row group's part of the footer (18 columns, measured below 2 KiB)."""
FOOTER_BYTES = 4 << 10
"""Bound of the schema and the library's name in the footer."""
ROW_BYTES = 256
"""Bound of what a row takes beyond its canonical bytes while uncompressed: 18 values' lengths, indices and levels."""
SMALL_BYTES = 16 << 20
"""Below this the slowest useful level takes seconds; above it, a tenth more bytes is the price of a sealed bundle."""

_MAGIC = b"PAR1"
_MANIFEST = MANIFEST_KEY.decode()
_LIBRARY_ERRORS = (pa.ArrowException, OSError, ValueError, OverflowError)


@dataclass(frozen=True, slots=True)
class BundleFile:
    """A file as written: its SHA-256, size in bytes, and rows."""

    path: Path
    size: int
    sha256: Digest
    rows: int


@dataclass(frozen=True, slots=True)
class VerifiedBundle:
    """A file whose rows give every root of its manifest, and whose certificates are valid."""

    manifest: Manifest
    root: Root
    rows: int


# --- writing --------------------------------------------------------------------------------------


def write_bundle(path: Path, manifest: Manifest, records: Iterable[tuple[InstanceId, Record]]) -> BundleFile:
    """Write a bundle's file from its records, in canonical order over the whole bundle, each with its instance.

    They are recounted as they stream, so a file that would not verify is never finished. ``path`` appears complete
    and synced, or not at all.

    Raises:
        InvariantError: records do not give the manifest's entries, or are not in canonical order.
    """
    level = 19 if _canonical_bytes(manifest) <= SMALL_BYTES else 9
    recount = _Recount(manifest)
    descriptor, name = tempfile.mkstemp(prefix=path.name, suffix=".part", dir=path.parent)
    os.close(descriptor)
    unfinished = Path(name)
    try:
        with (
            unfinished.open("wb") as file,
            pq.ParquetWriter(
                file,
                SCHEMA,
                compression="zstd",
                compression_level=level,
                use_dictionary=list(DICTIONARY),
                column_encoding=ENCODINGS,
                write_statistics=list(STATISTICS),
                data_page_version="2.0",
                store_schema=False,
            ) as writer,
        ):
            for group in _cut_groups(_mark_late(records, manifest)):
                for is_late, record in group:
                    recount.add(is_late, record)
                writer.write_table(make_table(group), row_group_size=len(group))
            writer.add_key_value_metadata({MANIFEST_KEY: _pack_manifest(encode_manifest(manifest))})
        recount.close()
        with unfinished.open("rb+") as written:
            os.fsync(written.fileno())
            digest = Digest(hashlib.file_digest(written, "sha256").digest())
            size = written.tell()
        unfinished.replace(path)
    except MalformedInput as error:
        raise InvariantError(f"records do not fit the manifest: {error}") from error
    finally:
        unfinished.unlink(missing_ok=True)
    return BundleFile(path, size, digest, recount.rows)


def _mark_late(records: Iterable[tuple[InstanceId, Record]], manifest: Manifest) -> Iterator[Row]:
    """Rows of the records; a reader must find the instance that was given."""
    sets = _Sets(manifest)
    for instance, record in records:
        late = instance.kind is InstanceKind.LATE
        _require(sets.instance_of(late, record) == instance, "rows", f"a message of another time than {instance}")
        yield late, record


def _cut_groups(rows: Iterable[Row]) -> Iterator[list[Row]]:
    group: list[Row] = []
    size = 0
    for row in rows:
        group.append(row)
        size += len(row[1].canonical)
        if len(group) == GROUP_ROWS or size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


def bundle_tags(header: BundleHeader, root: Root, network: SigningContext, end_ms: int) -> tuple[tuple[str, str], ...]:
    """The tags of a bundle's transaction, exactly and in this order.

    ``end_ms``: end of the last window. The version is that of the format, so validators of different releases agree.
    """
    return (
        ("App-Name", APP_NAME),
        ("App-Version", str(CODEC_VERSION)),
        ("Content-Type", CONTENT_TYPE),
        ("Network", f"{network.chain_id}:0x{network.report_manager.hex()}"),
        ("Bundle-Number", str(header.number)),
        ("Window-From", str(header.first_ms)),
        ("Window-To", str(end_ms)),
        ("Bundle-Root", root.hex()),
        ("Prev-Bundle-Root", header.previous_root.hex()),
    )


# --- the manifest ---------------------------------------------------------------------------------


def read_manifest(path: Path) -> Manifest:
    """The manifest of a file; nothing is verified, no row is read. Raises MalformedInput."""
    with path.open("rb") as file:
        return _open(file)[1]


def check_manifest(manifest: Manifest) -> Config:
    """Check all that follows from the manifest alone, certificates included; returns the config it names.

    That the config digest is the network's own is for the caller: only the chain knows.

    Raises:
        MalformedInput: names what differs.
    """
    header = manifest.header
    config = decode_config(manifest.config_preimage)
    digest = hash_object(manifest.config_preimage)
    _require(digest == header.config_digest, "header.config_digest", "not the preimage's")
    _require(manifest.codec_versions == (CODEC_VERSION,), "manifest.codec_versions", f"not ({CODEC_VERSION},)")
    decode_ledger(manifest.ledger)
    window_ms = config.parameters.window_ms
    _require(len(manifest.windows) <= config.parameters.bundle_windows, "manifest.windows", "more than a bundle holds")
    for index, certified in enumerate(manifest.windows):
        instance = InstanceId(InstanceKind.WINDOW, header.first_ms + index * window_ms)
        _check_certified(certified, instance, header, config)
    last_ms = header.first_ms + (len(manifest.windows) - 1) * window_ms
    _require(header.last_ms == last_ms, "header.last_ms", "not the start of the last window")
    late = manifest.late
    _check_certified(late, InstanceId(InstanceKind.LATE, header.number), header, config)
    _require(not late.outcome.price and not late.outcome.shares, "manifest.late", "a late set has no price, no shares")
    return config


def bundle_end_ms(manifest: Manifest) -> int:
    """End of the last window. Raises MalformedInput if the preimage is none."""
    return manifest.header.last_ms + decode_config(manifest.config_preimage).parameters.window_ms


def check_same_manifest(found: Manifest, expected: Manifest) -> None:
    """Whether two manifests are equal byte for byte, certificates apart: those may have other signers or rounds.

    Raises:
        MalformedInput: names the first part that differs.
    """
    for what, ours, theirs in (
        ("manifest.header", encode_header(expected.header), encode_header(found.header)),
        ("manifest.config_preimage", expected.config_preimage, found.config_preimage),
        ("manifest.ledger", expected.ledger, found.ledger),
        ("manifest.codec_versions", expected.codec_versions, found.codec_versions),
        ("manifest.windows", len(expected.windows), len(found.windows)),
    ):
        _require(ours == theirs, what, "not the one that is agreed")
    pairs = zip((*found.windows, found.late), (*expected.windows, expected.late), strict=True)
    for theirs_certified, ours_certified in pairs:
        instance = ours_certified.outcome.instance
        same = outcome_digest(theirs_certified.outcome) == outcome_digest(ours_certified.outcome)
        _require(same, f"manifest {instance}", "not the outcome that is agreed")


def _check_certified(certified: Certified, instance: InstanceId, header: BundleHeader, config: Config) -> None:
    outcome, certificate = certified.outcome, certified.certificate
    what = f"certificate {instance}"
    _require(outcome.instance == instance, f"outcome {instance}", f"decides {outcome.instance}")
    _require(certificate.kind is StatementKind.PRECOMMIT, what, "not of precommits")
    _require(certificate.config_digest == header.config_digest, what, "another config digest")
    _require(certificate.instance == instance, what, f"decides {certificate.instance}")
    _require(certificate.value == outcome_digest(outcome), what, "another outcome")
    context = SigningContext(config.chain_id, config.contracts.report_manager)
    needed = quorum_size(len(config.committee))
    try:
        _require(needed > 0, what, "no committee")
        verify_quorum(certificate, config.committee, needed, context)
    except MalformedInput as error:
        raise MalformedInput(what, str(error.reason)) from error


def _pack_manifest(manifest: bytes) -> bytes:
    return base64.b64encode(zstandard.ZstdCompressor(level=19, write_checksum=False).compress(manifest))


def _unpack_manifest(text: bytes) -> bytes:
    """One zstd frame in canonical base64, bounded while it is decompressed."""
    try:
        packed = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise MalformedInput(_MANIFEST, "not base64") from error
    _require(base64.b64encode(packed) == text, _MANIFEST, "base64 is not in its one canonical form")
    stream = zstandard.ZstdDecompressor(max_window_size=8 << 20).decompressobj()
    manifest = bytearray()
    try:
        for start in range(0, len(packed), 64):  # a piece holds at most 21 blocks of 128 KiB
            _require(not stream.eof, _MANIFEST, "bytes behind the frame")
            manifest += stream.decompress(packed[start : start + 64])
            _require(len(manifest) <= MAX_MANIFEST_BYTES, _MANIFEST, f"more than {MAX_MANIFEST_BYTES} bytes")
    except zstandard.ZstdError as error:
        raise MalformedInput(_MANIFEST, f"not zstd: {error}") from error
    _require(stream.eof and not stream.unused_data, _MANIFEST, "cut short, or bytes behind the frame")
    return bytes(manifest)


# --- reading --------------------------------------------------------------------------------------


def read_records(path: Path, manifest: Manifest) -> Iterator[tuple[InstanceId, Record]]:
    """Rows in file order with the instance each belongs to; counts, bytes and roots are not compared here.

    ``manifest`` is the caller's: the file's own must be equal to it, certificates apart.

    Raises:
        MalformedInput: names the column, key, statistic or field that breaks the format.
    """
    with path.open("rb") as file:
        parquet, own = _open(file)
        check_same_manifest(own, manifest)
        sets = _Sets(manifest)
        for late, record in _read_rows(parquet, manifest):
            yield sets.instance_of(late, record), record


def verify_bundle_file(path: Path, expected: Manifest | None = None) -> VerifiedBundle:
    """Read a file whole and recompute every entry, outcome and the bundle root.

    With ``expected`` the manifest must be that one byte for byte, certificates apart. A foreign file belongs into a
    child process (``steps.child``): a page may expand to more than any footer admits.

    Raises:
        MalformedInput: names what differs.
    """
    with path.open("rb") as file:
        parquet, manifest = _open(file)
        if expected is not None:
            check_same_manifest(manifest, expected)
        check_manifest(manifest)
        recount = _Recount(manifest)
        for late, record in _read_rows(parquet, manifest):
            recount.add(late, record)
        recount.close()
    return VerifiedBundle(manifest, manifest_root(manifest), recount.rows)


def _open(file: Any) -> tuple[Any, Manifest]:
    """Footer, schema, layout and manifest of an open file."""
    size = os.fstat(file.fileno()).st_size
    _require(size >= 12 and file.read(4) == _MAGIC, "bundle", "not a Parquet file")
    file.seek(size - 8)
    tail = file.read(8)
    _require(tail[4:] == _MAGIC, "bundle", "cut short, or an encrypted footer")
    footer = int.from_bytes(tail[:4], "little")
    _require(footer <= min(MAX_FOOTER_BYTES, size - 12), "footer", f"{footer} bytes exceed the limit or the file")
    file.seek(0)
    try:
        parquet = pq.ParquetFile(
            file,
            memory_map=False,
            pre_buffer=False,
            buffer_size=1 << 20,
            thrift_string_size_limit=MAX_FOOTER_BYTES,
            thrift_container_size_limit=MAX_THRIFT_ITEMS,
        )
        metadata = parquet.metadata
        schema = parquet.schema_arrow
        keys = metadata.metadata or {}
    except _LIBRARY_ERRORS as error:
        if isinstance(error, MemoryError):
            raise
        raise MalformedInput("footer", f"not readable: {_first_line(error)}") from error
    _require(schema.equals(SCHEMA, check_metadata=False), "schema", "not exactly the columns of a bundle")
    _require(list(keys) == [MANIFEST_KEY], "metadata", f"keys other than {_MANIFEST}")
    packed = keys[MANIFEST_KEY]
    manifest = decode_manifest(_unpack_manifest(packed))
    bound = len(packed) + FOOTER_BYTES + metadata.num_row_groups * GROUP_FOOTER_BYTES
    _require(footer <= bound, "footer", f"{footer} bytes, at most {bound} belong there")
    try:
        _check_layout(metadata, manifest, size - 8 - footer)
    except _LIBRARY_ERRORS as error:
        raise MalformedInput("footer", f"not readable: {_first_line(error)}") from error
    return parquet, manifest


def _check_layout(metadata: Any, manifest: Manifest, end: int) -> None:
    """Row groups of bounded size that fill the file without gaps; no index; statistics only where they belong."""
    expected = sum(e.count for c in (*manifest.windows, manifest.late) for e in c.outcome.entries)
    _require(metadata.num_rows == expected, "rows", f"{metadata.num_rows} where the outcomes have {expected}")
    _require(metadata.num_row_groups <= expected, "row groups", "more than rows")
    allowance = _canonical_bytes(manifest) + expected * ROW_BYTES + metadata.num_row_groups * (64 << 10)
    at = len(_MAGIC)
    rows = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        what = f"row group {number}"
        _require(0 < group.num_rows <= GROUP_ROWS, what, f"{group.num_rows} rows")
        _require(not group.sorting_columns, what, "declares an order")
        rows += group.num_rows
        for index, name in enumerate(COLUMNS):
            chunk = group.column(index)
            where = f"{what} column {name}"
            indexed = chunk.has_column_index or chunk.has_offset_index
            _require(not indexed and chunk.bloom_filter_offset is None, where, "has an index")
            _require(not chunk.file_path and not chunk.metadata, where, "has a file or keys of its own")
            _require(not chunk.is_stats_set or name in STATISTICS, where, "has statistics")
            _require(chunk.compression == "ZSTD", where, f"compressed as {chunk.compression}")
            _require(chunk.num_values == group.num_rows, where, "another number of values than rows")
            start = chunk.dictionary_page_offset if chunk.has_dictionary_page else chunk.data_page_offset
            _require(start == at, where, "does not begin where the one before it ends")
            _require(chunk.total_compressed_size > 0, where, "has no bytes")
            at += chunk.total_compressed_size
            allowance -= max(0, chunk.total_uncompressed_size)
            _require(allowance >= 0, where, "more bytes than the outcomes have")
    _require(rows == metadata.num_rows, "rows", "row groups and footer differ")
    _require(at == end, "bundle", "bytes between columns and footer")


def _read_rows(parquet: Any, manifest: Manifest) -> Iterator[Row]:
    """All rows in bounded batches; each row group's statistics are compared with its rows."""
    count = max(1, parquet.metadata.num_rows)
    batch_rows = max(1, min(MAX_BATCH_ROWS, BATCH_BYTES * count // max(1, _canonical_bytes(manifest))))
    for number in range(parquet.metadata.num_row_groups):
        limits = _Limits()
        try:
            for batch in parquet.iter_batches(batch_rows, row_groups=[number], use_threads=False):
                batch.validate(full=True)
                for row in read_batch(batch):
                    limits.add(row[1])
                    yield row
        except _LIBRARY_ERRORS as error:
            if isinstance(error, MemoryError):
                raise
            raise MalformedInput(f"row group {number}", f"not readable: {_first_line(error)}") from error
        limits.check(parquet.metadata.row_group(number), number)


class _Limits:
    """Smallest and largest values of a row group, to compare with its statistics."""

    def __init__(self) -> None:
        self._low: list[Any] = []
        self._high: list[Any] = []

    def add(self, record: Record) -> None:
        m = record.message
        values = [m.stream_id.encode(), m.partition, m.timestamp_ms]
        if not self._low:
            self._low, self._high = values, values
            return
        self._low = list(map(min, self._low, values))
        self._high = list(map(max, self._high, values))

    def check(self, group: Any, number: int) -> None:
        for index, name in enumerate(STATISTICS):
            statistics = group.column(COLUMNS.index(name)).statistics
            if statistics is None:
                continue
            _require(
                statistics.has_min_max
                and _plain(statistics.min) == self._low[index]
                and _plain(statistics.max) == self._high[index]
                and statistics.null_count in (0, None)
                and statistics.distinct_count in (0, None),
                f"row group {number} column {name}",
                "statistics differ from the rows",
            )


def _plain(value: Any) -> Any:
    """A statistic as the value it stands for: text as bytes, time as Unix ms."""
    if isinstance(value, str):
        return value.encode()
    return value if isinstance(value, int | bytes) else pa.scalar(value, pa.timestamp("ms", tz="UTC")).value


# --- recounting -----------------------------------------------------------------------------------


class _Sets:
    """Which instance a row belongs to."""

    def __init__(self, manifest: Manifest) -> None:
        self._windows = [c.outcome.instance for c in manifest.windows]
        self._starts = [instance.number for instance in self._windows]
        self._late = manifest.late.outcome.instance
        self._end_ms = bundle_end_ms(manifest)

    def instance_of(self, late: bool, record: Record) -> InstanceId:
        """Raises MalformedInput for a time outside the bundle."""
        time = record.message.timestamp_ms
        _require(time < self._end_ms, "column timestamp", f"{time} lies behind the bundle")
        if late:
            return self._late
        index = bisect.bisect_right(self._starts, time) - 1
        _require(index >= 0, "column timestamp", f"{time} lies before the bundle, in a row that is not late")
        return self._windows[index]


@dataclass(slots=True)
class _Count:
    """What the rows of one instance and partition add up to so far."""

    leaves: list[bytes] = field(default_factory=list)
    signed_bytes: int = 0
    canonical_bytes: int = 0


class _Recount:
    """Adds up rows in canonical order and compares each entry as soon as its partition is over."""

    def __init__(self, manifest: Manifest) -> None:
        self.rows = 0
        self._sets = _Sets(manifest)
        self._expected: dict[tuple[InstanceId, StreamPart], PartitionEntry] = {
            (certified.outcome.instance, entry.stream_part): entry
            for certified in (*manifest.windows, manifest.late)
            for entry in certified.outcome.entries
            if entry.count
        }
        self._part: StreamPart | None = None
        self._counts: dict[InstanceId, _Count] = {}
        self._last: Any = None

    def add(self, late: bool, record: Record) -> None:
        """Raises MalformedInput for a row out of order, or one more than its entry has."""
        order = record.order
        _require(self._last is None or self._last < order, "rows", f"row {self.rows} is not in canonical order")
        self._last = order
        part = record.message.stream_part
        if part != self._part:
            self._close_part()
            self._part = part
        instance = self._sets.instance_of(late, record)
        entry = self._expected.get((instance, part))
        count = self._counts.setdefault(instance, _Count())
        within = entry is not None and len(count.leaves) < entry.count
        _require(within, f"entry {instance} {part[0]}/{part[1]}", "has more rows than its outcome says")
        count.leaves.append(record.leaf)
        count.signed_bytes += record.signed_bytes
        count.canonical_bytes += len(record.canonical)
        self.rows += 1

    def close(self) -> None:
        """Compare the last partition; every entry must have been met. Raises MalformedInput."""
        self._close_part()
        for instance, part in self._expected:
            raise MalformedInput(f"entry {instance} {part[0]}/{part[1]}", "has no rows")

    def _close_part(self) -> None:
        if self._part is None:
            return
        for instance, count in self._counts.items():
            entry = self._expected.pop((instance, self._part))
            what = f"entry {instance} {self._part[0]}/{self._part[1]}"
            _require(len(count.leaves) == entry.count, what, f"{len(count.leaves)} rows, not {entry.count}")
            _require(compute_root(count.leaves) == entry.root, what, "rows give another root")
            _require(count.signed_bytes == entry.signed_bytes, what, "rows give other signed bytes")
            _require(count.canonical_bytes == entry.canonical_bytes, what, "rows give other canonical bytes")
        self._counts = {}


def _canonical_bytes(manifest: Manifest) -> int:
    return sum(c.outcome.canonical_bytes for c in (*manifest.windows, manifest.late))


def _require(holds: bool, what: str, reason: str) -> None:
    if not holds:
        raise MalformedInput(what, reason)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:200]


# --- as a program ---------------------------------------------------------------------------------


def describe(bundle: VerifiedBundle) -> dict[str, Any]:
    """A verified bundle as JSON values: hex digests, decimal numbers."""
    header = bundle.manifest.header
    return {
        "root": bundle.root.hex(),
        "number": header.number,
        "previous_root": header.previous_root.hex(),
        "config_digest": header.config_digest.hex(),
        "first_ms": header.first_ms,
        "last_ms": header.last_ms,
        "rows": bundle.rows,
        "windows": [outcome_digest(c.outcome).hex() for c in bundle.manifest.windows],
        "late": outcome_digest(bundle.manifest.late.outcome).hex(),
    }


def main(arguments: Sequence[str]) -> int:
    """Verify one file: [--memory BYTES] [--seconds CPU] [--manifest] PATH. Status 0, or 1 with the error named.

    ``--memory`` is what may be mapped beyond what is mapped at the start; ``--manifest`` adds its bytes in base64.
    """
    options = list(arguments)
    limits = {"--memory": 0, "--seconds": 0}
    for name in limits:
        if name in options:
            at = options.index(name)
            limits[name] = int(options[at + 1])
            del options[at : at + 2]
    with_manifest = "--manifest" in options
    if with_manifest:
        options.remove("--manifest")
    if len(options) != 1:
        sys.stderr.write(f"usage: {__spec__.name} [--memory BYTES] [--seconds CPU] [--manifest] PATH\n")
        return 2
    _limit(limits["--memory"], limits["--seconds"])
    answer: dict[str, Any]
    try:
        bundle = verify_bundle_file(Path(options[0]))
        answer = describe(bundle)
        if with_manifest:
            answer["manifest"] = base64.b64encode(encode_manifest(bundle.manifest)).decode()
    except MalformedInput as error:
        answer = {"error": {"field": error.field, "reason": error.reason}}
    except MemoryError:
        answer = {"error": {"field": "bundle", "reason": "needs more memory than is allowed"}}
    except OSError as error:
        answer = {"error": {"field": "path", "reason": str(error)}}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 1 if "error" in answer else 0


def _limit(memory_bytes: int, cpu_s: int) -> None:
    """Bound what this process may still map and compute; 0 leaves it unbounded."""
    if memory_bytes:
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + memory_bytes, mapped + memory_bytes))
    if cpu_s:
        resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
