"""The file of a bundle: Parquet with the rows of ``bundle_columns`` and the manifest beside them.

The only key-value metadatum is ``logstore.manifest``: base64 (Parquet wants text) of one zstd frame of the manifest's
canonical bytes. Roots and votes cover canonical messages, never this file: another library version may write other
bytes. Reading a file is reading hostile input, in this order: size, footer (bounded, thrift limits), schema and
layout, manifest, certificates, pages, then rows in batches, each entry recounted against its certified outcome.

Beside it: ``bundle_front`` (what stands before and behind the rows), ``bundle_pages``, ``bundle_statistics``,
``bundle_recount``, ``bundle_shares``, ``manifest_rules``. Source: design, section 8.
"""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby, repeat
from operator import itemgetter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from validator.protocol.codec.bundle import BundleFile, VerifiedBundle
from validator.protocol.codec.bundle_columns import (
    DICTIONARY,
    ENCODINGS,
    FOLDED,
    FOLDED_SCHEMA,
    PAGE_VERSION,
    SCHEMA,
    Row,
    make_table,
    read_batch,
)
from validator.protocol.codec.bundle_front import (
    GROUP_ALLOWANCE,
    GROUP_BYTES,
    GROUP_ROWS,
    MANIFEST_KEY,
    MAX_FOOTER_BYTES,
    pack_manifest,
    read_front,
)
from validator.protocol.codec.bundle_pages import Read, check_pages
from validator.protocol.codec.bundle_plain import read_rows, rows_of
from validator.protocol.codec.bundle_recount import Recount, RowInstances
from validator.protocol.codec.bundle_schema import COLUMNS, STATISTICS
from validator.protocol.codec.bundle_shares import Share
from validator.protocol.codec.bundle_statistics import Totals
from validator.protocol.codec.manifest import encode_manifest, manifest_root
from validator.protocol.codec.manifest_rules import canonical_bytes, check_manifest, check_same_manifest
from validator.protocol.codec.parquet_footer import MAX_ITEMS, Footer
from validator.protocol.errors import InvariantError, MalformedInput, require
from validator.protocol.model import Digest, InstanceId, InstanceKind, Manifest, Record, StreamPart

BATCH_BYTES = 4 << 20
MAX_BATCH_ROWS = 2048
REPEATED_BYTES = 8 << 20
MAX_BATCH_BYTES = 3 * GROUP_ALLOWANCE
"""Of a batch in memory: what a row group may have, publishers as text and lengths included. A dictionary's values
repeat when they are read, whatever the footer says: a batch of more than ``MAX_BATCH_ROWS`` has few bytes of those."""
DEFAULT_LEVEL, BEST_LEVEL = 11, 19
"""Of zstd, for contents: the first costs a message about 10 us, the second twenty times as much."""
SIGNATURE_LEVEL, _OTHER_LEVEL = 8, 9
"""What lies between signatures is found from level 8 on, and nothing else in them."""
SMALL_BYTES = 16 << 20
"""Below this the best level takes seconds; above it, a twentieth more bytes is the price of a sealed bundle."""
_TARGET_BYTES = 1 << 20
_MANY_GROUPS = 1024
"""A row group is so large that a reader of one fetches some 0.3 MB; in a large bundle larger, for the footer's sake."""
PAGE_BYTES = 8 << 20
"""More than a row group has, so that a column's chunk is one page: what repeats in it is found."""
_Member = tuple[InstanceId, Record]
_LIBRARY_ERRORS = (pa.ArrowException, OSError, ValueError, OverflowError)


def write_bundle(
    path: Path, manifest: Manifest, records: Iterable[tuple[InstanceId, Record]], level: int | None = None
) -> BundleFile:
    """Write a bundle's file from its records, in canonical order over the whole bundle, each with its instance.

    ``level`` is that of contents; without it a small bundle gets the best, a large one the default.

    They are recounted as they stream, so a file that would not verify is never finished. ``path`` appears complete
    and synced, or not at all.

    Raises:
        InvariantError: records do not give the manifest's entries, or are not in canonical order.
    """
    if level is None:
        level = BEST_LEVEL if canonical_bytes(manifest) <= SMALL_BYTES else DEFAULT_LEVEL
    limit = min(GROUP_BYTES, max(_TARGET_BYTES, canonical_bytes(manifest) // _MANY_GROUPS))
    recount = Recount(manifest)
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
                compression_level=dict.fromkeys(COLUMNS, _OTHER_LEVEL)
                | {"content": level, "content_bytes": level, "signature": SIGNATURE_LEVEL},
                use_dictionary=list(DICTIONARY),
                column_encoding=ENCODINGS,
                write_statistics=list(STATISTICS),
                data_page_version=PAGE_VERSION,
                data_page_size=PAGE_BYTES,
                store_schema=False,
            ) as writer,
        ):
            sets = RowInstances(manifest)
            for group in _cut_groups(records, _count_bytes(manifest), limit):
                rows = _mark_late(group, sets)
                recount.add(rows_of(rows))
                writer.write_table(make_table(rows), row_group_size=len(rows))
            writer.add_key_value_metadata({MANIFEST_KEY: pack_manifest(encode_manifest(manifest))})
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


def _mark_late(group: Iterable[_Member], sets: RowInstances) -> list[Row]:
    """Rows of the records; a reader must find the instance that was given."""
    rows: list[Row] = []
    for instance, members in groupby(group, itemgetter(0)):
        records = [record for _, record in members]
        times = [record.message.timestamp_ms for record in records]
        late = instance.kind is InstanceKind.LATE
        if {sets.instance_of(late, time) for time in (min(times), max(times))} != {instance}:  # so are all between
            raise MalformedInput("rows", f"a message of another time than {instance}")
        rows += zip(repeat(late), records)
    return rows


def _count_bytes(manifest: Manifest) -> Counter[StreamPart]:
    """Canonical bytes of each partition, over all windows and the late set."""
    sizes: Counter[StreamPart] = Counter()
    for certified in (*manifest.windows, manifest.late):
        for entry in certified.outcome.entries:
            sizes[entry.stream_part] += entry.canonical_bytes
    return sizes


def _cut_groups(records: Iterable[_Member], sizes: Counter[StreamPart], limit: int) -> Iterator[list[_Member]]:
    """Row groups of about ``limit`` canonical bytes; ``sizes`` are those of whole partitions.

    A partition of more has groups of its own, all of one size, so that their times exclude each other and who asks for
    seconds of it fetches one of them. Partitions of fewer share a group as long as they fit, and none is cut.
    """
    group: list[_Member] = []
    size, share = 0, limit
    part: StreamPart = ("", 0)
    for member in records:
        record = member[1]
        message = record.message
        if message.stream_id != part[0] or message.partition != part[1]:
            shared, part = sizes[part], message.stream_part
            if group and (shared > limit or size + sizes[part] > limit):
                yield group
                group, size = [], 0
            share = -(-sizes[part] // max(1, -(-sizes[part] // limit))) if sizes[part] > limit else limit
        elif size >= share or len(group) == GROUP_ROWS:
            yield group
            group, size = [], 0
        group.append(member)
        size += len(record.canonical)
    if group:
        yield group


def read_manifest(path: Path) -> Manifest:
    """The manifest of a file; nothing is verified, no row is read. Raises MalformedInput."""
    with path.open("rb") as file:
        return read_front(file)[1]


def verify_bundle_file(path: Path, expected: Manifest | None = None) -> VerifiedBundle:
    """Read a file whole and recompute every entry, outcome and the bundle root.

    With ``expected`` the manifest must be that one byte for byte, certificates apart. A foreign file belongs into a
    child process (``net.sandbox``): a page may expand to more than any footer admits.

    Raises:
        MalformedInput: names what differs.
    """
    with path.open("rb", buffering=0) as file:
        footer, manifest = verify_front(file, expected)
        rows = verify_share(file, footer, manifest)
    return VerifiedBundle(manifest, manifest_root(manifest), rows)


def verify_front(file: Any, expected: Manifest | None = None) -> tuple[Footer, Manifest]:
    """What ``verify_bundle_file`` does before the first row. Raises MalformedInput."""
    footer, manifest = read_front(file)
    if expected is not None:
        check_same_manifest(manifest, expected)
    check_manifest(manifest)
    return footer, manifest


def verify_share(file: Any, footer: Footer, manifest: Manifest, share: Share | None = None) -> int:
    """What it does with rows, all or those of a share (``bundle_shares``); how many. Raises MalformedInput."""
    recount = Recount(manifest, None if share is None else share.entries)
    first, end = (0, footer.rows) if share is None else (share.first, share.end)
    for batch in _join_batches(_read_batches(file, footer, manifest, first, end)):
        for rows in read_rows(batch):
            recount.add(rows)
    recount.close()
    return recount.rows


def _read_batches(file: Any, footer: Footer, manifest: Manifest, first: int, end: int) -> Iterator[Any]:
    """Rows [first, end) in bounded batches, behind a walk over their pages; statistics are compared with the rows."""

    def read(at: int, size: int) -> bytes:
        return os.pread(file.fileno(), size, at)

    most = BATCH_BYTES * footer.rows // max(1, canonical_bytes(manifest))
    parquet = _open_parquet(file)
    at = 0
    for number, group in enumerate(footer.groups):
        if at < end and first < at + group.rows:
            before = at
            for batch in _read_group(parquet, read, footer, number, most):
                low, high = max(0, first - before), min(batch.num_rows, end - before)
                if low < high:
                    yield batch.slice(low, high - low)
                before += batch.num_rows
        at += group.rows


def _join_batches(batches: Iterator[Any]) -> Iterator[Any]:
    """The same rows in fewer batches: what is asked of whole columns takes as long of few rows as of many."""
    waiting: list[Any] = []
    rows = size = 0
    for batch in batches:
        if waiting and (rows + batch.num_rows > GROUP_ROWS or size + batch.nbytes > BATCH_BYTES):
            yield pa.concat_batches(waiting)
            waiting, rows, size = [], 0, 0
        waiting.append(batch)
        rows += batch.num_rows
        size += batch.nbytes
    if waiting:
        yield pa.concat_batches(waiting)


def _read_group(parquet: Any, read: Read, footer: Footer, number: int, most: int) -> Iterator[Any]:
    """Batches of at most ``most`` rows or, where dictionaries repeat long values, fewer."""
    group = footer.groups[number]
    repeated = sum(check_pages(read, c, f"row group {number} column {c.name}") for c in group.chunks)
    batch_rows = max(1, min(most, group.rows, max(MAX_BATCH_ROWS, REPEATED_BYTES // max(1, repeated))))
    totals = Totals()
    try:
        for batch in parquet.iter_batches(batch_rows, row_groups=[number], use_threads=False):
            require(batch.nbytes <= MAX_BATCH_BYTES, f"row group {number}", "more bytes than a row group has")
            batch.validate(full=True)
            totals.add(batch)
            yield batch
    except _LIBRARY_ERRORS as error:
        if _is_this_machines(error):
            raise
        raise MalformedInput(f"row group {number}", f"not readable: {_first_line(error)}") from error
    require(totals.rows == group.rows, f"row group {number}", f"{totals.rows} rows, not {group.rows}")
    for chunk in group.chunks:
        totals.check(chunk, f"row group {number} column {chunk.name}")


def read_group(size: int, tail: bytes, footer: Footer, number: int, data: bytes) -> Iterator[Row]:
    """The rows of one row group, from its bytes and the last bytes of its file, which is of ``size``.

    ``footer`` is that of ``tail`` (``bundle_front.read_tail``), ``data`` what it names (``bundle_groups.group_bytes``).
    Statistics are compared with the rows, roots are not. For bytes that somebody has read whole before, and proven.

    Raises:
        MalformedInput: names the column, statistic or field that breaks the format.
    """
    start = footer.groups[number].chunks[0].start
    file = _Parts(size, ((start, data), (size - len(tail), tail)))
    for batch in _read_group(_open_parquet(file), file.pread, footer, number, MAX_BATCH_ROWS):
        yield from read_batch(batch)


class _Parts(io.RawIOBase):
    """Of a file, the parts that are here; the rest is zeros."""

    def __init__(self, size: int, parts: Sequence[tuple[int, bytes]]) -> None:
        super().__init__()
        self._size = size
        self._parts = parts
        self._at = 0

    def pread(self, at: int, size: int) -> bytes:
        end = max(at, min(at + size, self._size))
        found = bytearray(end - at)  # the library reads more than it looks at
        for start, data in self._parts:
            first, last = max(at, start), min(end, start + len(data))
            if first < last:
                found[first - at : last - at] = data[first - start : last - start]
        return bytes(found)

    def readinto(self, buffer: Any) -> int:
        data = self.pread(self._at, len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        return self._at

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True


def _open_parquet(file: Any) -> Any:
    """The library's reader of a file whose footer is sound."""
    file.seek(0)
    try:
        parquet = pq.ParquetFile(
            file,
            memory_map=False,
            pre_buffer=False,
            read_dictionary=FOLDED,
            arrow_extensions_enabled=True,
            thrift_string_size_limit=MAX_FOOTER_BYTES,
            thrift_container_size_limit=MAX_ITEMS,
        )
        same = parquet.schema_arrow.equals(FOLDED_SCHEMA, check_metadata=False)
    except _LIBRARY_ERRORS as error:
        if _is_this_machines(error):
            raise
        raise MalformedInput("footer", f"not readable: {_first_line(error)}") from error
    require(same, "schema", "not exactly the columns of a bundle")
    return parquet


def _is_this_machines(error: BaseException) -> bool:
    """Too little memory, or a disk that does not read, says nothing of the bytes. The library's own complaints about
    bytes come as OSError too, without a number."""
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno is not None)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:200]
