"""The file of a bundle: Parquet with the rows of ``bundle_columns`` and the manifest beside them.

The only key-value metadatum is ``logstore.manifest``: base64 (Parquet wants text) of one zstd frame of the manifest's
canonical bytes. Roots and votes cover canonical messages, never this file: another library version may write other
bytes. Reading a file is reading hostile input, in this order: size, footer (bounded, thrift limits), schema and
layout, manifest, certificates, then rows in batches, each entry recounted against its certified outcome.
Source: design, section 8.
"""

from __future__ import annotations

import base64
import binascii
import bisect
import hashlib
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import zstandard

from validator.protocol.codec.bundle_columns import (
    COLUMNS,
    DICTIONARY,
    ENCODINGS,
    SCHEMA,
    STATISTICS,
    Row,
    make_table,
    read_batch,
)
from validator.protocol.codec.config import decode_config
from validator.protocol.codec.manifest import (
    MAX_MANIFEST_BYTES,
    decode_ledger,
    decode_manifest,
    encode_header,
    encode_manifest,
    manifest_root,
)
from validator.protocol.codec.outcome import outcome_digest
from validator.protocol.codec.parquet_footer import MAX_ITEMS, Chunk, Footer, parse_footer
from validator.protocol.codec.report import quorum_size
from validator.protocol.codec.statement import SigningContext, verify_quorum
from validator.protocol.errors import InvariantError, MalformedInput
from validator.protocol.hashing import hash_object
from validator.protocol.merkle import compute_root
from validator.protocol.model import (
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
from validator.protocol.parameters import Config

CODEC_VERSION = 2
MANIFEST_KEY = b"logstore.manifest"
CONTENT_TYPE = "application/vnd.apache.parquet"
APP_NAME = "LogStore"
MAX_FOOTER_BYTES = 16 << 20
GROUP_ROWS = 65_536
GROUP_BYTES = 32 << 20
"""A row group ends at the first of the two, counted in canonical bytes."""
BATCH_BYTES = 4 << 20
MAX_BATCH_ROWS = 1024
GROUP_BYTES_SPARE = 64 << 10
"""Bound of what a row group's page headers and dictionaries take beside its rows."""
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


def max_file_bytes(manifest: Manifest) -> int:
    """No file of this bundle is larger, whichever library wrote it: what its entries name, and room around it.

    A function of what is agreed, so that what honest members certify can always be read, and a file that could not be
    one of it is refused by its signed size, before a byte is fetched.
    """
    rows = sum(e.count for c in (*manifest.windows, manifest.late) for e in c.outcome.entries)
    size = _canonical_bytes(manifest)
    groups = size // GROUP_BYTES + rows // GROUP_ROWS + 1
    return size + rows * ROW_BYTES + groups * GROUP_BYTES_SPARE + MAX_FOOTER_BYTES


# --- the manifest ---------------------------------------------------------------------------------


def read_manifest(path: Path) -> Manifest:
    """The manifest of a file; nothing is verified, no row is read. Raises MalformedInput."""
    with path.open("rb") as file:
        return _read_front(file)[1]


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
        footer, own = _read_front(file)
        check_same_manifest(own, manifest)
        sets = _Sets(manifest)
        for late, record in _read_rows(file, footer, manifest):
            yield sets.instance_of(late, record), record


def verify_bundle_file(path: Path, expected: Manifest | None = None) -> VerifiedBundle:
    """Read a file whole and recompute every entry, outcome and the bundle root.

    With ``expected`` the manifest must be that one byte for byte, certificates apart. A foreign file belongs into a
    child process (``net.sandbox``): a page may expand to more than any footer admits.

    Raises:
        MalformedInput: names what differs.
    """
    with path.open("rb") as file:
        footer, manifest = _read_front(file)
        if expected is not None:
            check_same_manifest(manifest, expected)
        check_manifest(manifest)
        recount = _Recount(manifest)
        for late, record in _read_rows(file, footer, manifest):
            recount.add(late, record)
        recount.close()
    return VerifiedBundle(manifest, manifest_root(manifest), recount.rows)


def _read_front(file: Any) -> tuple[Footer, Manifest]:
    """Footer, layout and manifest of an open file, without the help of any library that trusts them."""
    size = os.fstat(file.fileno()).st_size
    _require(size >= 12 and file.read(4) == _MAGIC, "bundle", "not a Parquet file")
    file.seek(size - 8)
    tail = file.read(8)
    _require(tail[4:] == _MAGIC, "bundle", "cut short, or an encrypted footer")
    length = int.from_bytes(tail[:4], "little")
    _require(length <= min(MAX_FOOTER_BYTES, size - 12), "footer", f"{length} bytes exceed the limit or the file")
    file.seek(size - 8 - length)
    footer = parse_footer(file.read(length))
    _require(footer.columns == COLUMNS, "schema", "not exactly the columns of a bundle")
    _require([key for key, _ in footer.keys] == [MANIFEST_KEY], "metadata", f"keys other than {_MANIFEST}")
    manifest = decode_manifest(_unpack_manifest(footer.keys[0][1]))
    _check_layout(footer, manifest, size - 8 - length)
    return footer, manifest


def _check_layout(footer: Footer, manifest: Manifest, end: int) -> None:
    """Row groups of bounded size that fill the file without gaps; statistics only where they belong."""
    expected = sum(e.count for c in (*manifest.windows, manifest.late) for e in c.outcome.entries)
    _require(footer.rows == expected, "rows", f"{footer.rows} where the outcomes have {expected}")
    _require(sum(group.rows for group in footer.groups) == expected, "rows", "row groups and footer differ")
    allowance = _canonical_bytes(manifest) + expected * ROW_BYTES + len(footer.groups) * GROUP_BYTES_SPARE
    at = len(_MAGIC)
    for number, group in enumerate(footer.groups):
        _require(0 < group.rows <= GROUP_ROWS, f"row group {number}", f"{group.rows} rows")
        for chunk in group.chunks:
            where = f"row group {number} column {chunk.name}"
            _require(chunk.statistics is None or chunk.name in STATISTICS, where, "has statistics")
            _require(chunk.values == group.rows, where, "another number of values than rows")
            _require(chunk.start == at, where, "does not begin where the one before it ends")
            _require(chunk.compressed_bytes > 0, where, "has no bytes")
            at += chunk.compressed_bytes
            allowance -= chunk.uncompressed_bytes
            _require(allowance >= 0, where, "more bytes than the outcomes have")
    _require(at == end, "bundle", "bytes between columns and footer")


def _read_rows(file: Any, footer: Footer, manifest: Manifest) -> Iterator[Row]:
    """All rows in bounded batches; each row group's statistics are compared with its rows."""
    batch_rows = max(1, min(MAX_BATCH_ROWS, BATCH_BYTES * footer.rows // max(1, _canonical_bytes(manifest))))
    parquet = _open_parquet(file)
    for number, group in enumerate(footer.groups):
        totals = _Totals()
        try:
            for batch in parquet.iter_batches(batch_rows, row_groups=[number], use_threads=False):
                batch.validate(full=True)
                totals.add(batch)
                yield from read_batch(batch)
        except _LIBRARY_ERRORS as error:
            if _is_this_machines(error):
                raise
            raise MalformedInput(f"row group {number}", f"not readable: {_first_line(error)}") from error
        _require(totals.rows == group.rows, f"row group {number}", f"{totals.rows} rows, not {group.rows}")
        for chunk in group.chunks:
            totals.check(chunk, f"row group {number} column {chunk.name}")


def _open_parquet(file: Any) -> Any:
    """The library's reader of a file whose footer is sound."""
    file.seek(0)
    try:
        parquet = pq.ParquetFile(
            file,
            memory_map=False,
            pre_buffer=False,
            buffer_size=1 << 20,
            thrift_string_size_limit=MAX_FOOTER_BYTES,
            thrift_container_size_limit=MAX_ITEMS,
        )
        same = parquet.schema_arrow.equals(SCHEMA, check_metadata=False)
    except _LIBRARY_ERRORS as error:
        if _is_this_machines(error):
            raise
        raise MalformedInput("footer", f"not readable: {_first_line(error)}") from error
    _require(same, "schema", "not exactly the columns of a bundle")
    return parquet


def _is_this_machines(error: BaseException) -> bool:
    """Too little memory, or a disk that does not read, says nothing of the bytes. The library's own complaints about
    bytes come as OSError too, without a number."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None)


class _Totals:
    """What a row group's statistics say, added up from its rows."""

    def __init__(self) -> None:
        self.rows = 0
        self._nulls: dict[str, int] = defaultdict(int)
        self._bytes: dict[str, int] = defaultdict(int)
        self._low: dict[str, bytes | int] = {}
        self._high: dict[str, bytes | int] = {}

    def add(self, batch: Any) -> None:
        self.rows += batch.num_rows
        for name in COLUMNS:
            column = batch.column(name)
            self._nulls[name] += column.null_count
            if column.type in (pa.string(), pa.binary()):
                self._bytes[name] += pc.sum(pc.binary_length(column)).as_py() or 0
            if name in STATISTICS:
                plain = column.cast(pa.binary() if column.type == pa.string() else pa.int64())
                found = pc.min_max(plain).as_py()
                self._low[name] = min(self._low.get(name, found["min"]), found["min"])
                self._high[name] = max(self._high.get(name, found["max"]), found["max"])

    def check(self, chunk: Chunk, what: str) -> None:
        """Raises MalformedInput where a statistic differs from the rows."""
        nulls = self._nulls[chunk.name]
        levels = [nulls, self.rows - nulls] if SCHEMA.field(chunk.name).nullable else [self.rows]
        true: dict[str, Sequence[Any]] = {
            "null_count": (nulls,),
            "is_max_value_exact": (True,),
            "is_min_value_exact": (True,),
            "repetition_levels": ([],),
            "definition_levels": ([], levels),
        }
        if chunk.name in self._bytes:
            true["unencoded_bytes"] = (self._bytes[chunk.name],)
        if chunk.name in STATISTICS:
            true["min"] = true["min_value"] = (_pack_value(chunk.name, self._low[chunk.name]),)
            true["max"] = true["max_value"] = (_pack_value(chunk.name, self._high[chunk.name]),)
        for name, value in {**(chunk.statistics or {}), **(chunk.size_statistics or {})}.items():
            _require(value in true.get(name, ()), what, f"its {name} differs from the rows")


def _pack_value(name: str, value: bytes | int) -> bytes:
    """A value as statistics hold it: text as it is, numbers little-endian in the column's physical width."""
    if isinstance(value, bytes):
        return value
    return value.to_bytes(8 if name == "timestamp" else 4, "little", signed=True)


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
