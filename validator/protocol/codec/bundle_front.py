"""What a bundle's file says of itself before a row is read: footer, layout, and the manifest packed into its metadata.

Read without the help of any library that trusts it.
"""

from __future__ import annotations

import base64
import binascii
import os
from typing import Any

import zstandard

from validator.protocol.codec.bundle_schema import STATISTICS, check_columns
from validator.protocol.codec.limits import MAX_CANONICAL_BYTES
from validator.protocol.codec.manifest import MAX_MANIFEST_BYTES, decode_manifest
from validator.protocol.codec.manifest_rules import canonical_bytes
from validator.protocol.codec.parquet_footer import Footer, parse_footer
from validator.protocol.errors import MalformedInput, require
from validator.protocol.model import Manifest

MANIFEST_KEY = b"logstore.manifest"
MAX_FOOTER_BYTES = 16 << 20
GROUP_ROWS = 8_192
GROUP_BYTES = 4 << 20
"""A row group ends at the first of the two, counted in canonical bytes."""
GROUP_BYTES_SPARE = 64 << 10
"""Bound of what a row group's page headers and dictionaries take beside its rows."""
ROW_BYTES = 256
"""Bound of what a row takes beyond its canonical bytes while uncompressed: 19 values' lengths, indices and levels.

Publishers count half, since a key is twice as long in hex.
"""
GROUP_ALLOWANCE = GROUP_BYTES + MAX_CANONICAL_BYTES + GROUP_ROWS * ROW_BYTES + GROUP_BYTES_SPARE
"""Bound of what a row group takes while uncompressed."""
MAGIC = b"PAR1"
_MANIFEST = MANIFEST_KEY.decode()


def max_file_bytes(manifest: Manifest) -> int:
    """No file of this bundle is larger, whichever library wrote it: what its entries name, and room around it.

    A function of what is agreed, so that what honest members certify can always be read, and a file that could not be
    one of it is refused by its signed size, before a byte is fetched. The longest key is little more than a third of
    the shortest message that it can sign, so hex adds less than half.
    """
    rows = sum(e.count for c in (*manifest.windows, manifest.late) for e in c.outcome.entries)
    size = canonical_bytes(manifest)
    groups = size // GROUP_BYTES + rows // GROUP_ROWS + 1
    return size + size // 2 + rows * ROW_BYTES + groups * GROUP_BYTES_SPARE + MAX_FOOTER_BYTES


def pack_manifest(manifest: bytes) -> bytes:
    return base64.b64encode(zstandard.ZstdCompressor(level=19, write_checksum=False).compress(manifest))


def _unpack_manifest(text: bytes) -> bytes:
    """One zstd frame in canonical base64, bounded while it is decompressed."""
    try:
        packed = base64.b64decode(text, validate=True)
    except binascii.Error as error:
        raise MalformedInput(_MANIFEST, "not base64") from error
    require(base64.b64encode(packed) == text, _MANIFEST, "base64 is not in its one canonical form")
    stream = zstandard.ZstdDecompressor(max_window_size=8 << 20).decompressobj()
    manifest = bytearray()
    try:
        for start in range(0, len(packed), 64):  # a piece holds at most 21 blocks of 128 KiB
            require(not stream.eof, _MANIFEST, "bytes behind the frame")
            manifest += stream.decompress(packed[start : start + 64])
            require(len(manifest) <= MAX_MANIFEST_BYTES, _MANIFEST, f"more than {MAX_MANIFEST_BYTES} bytes")
    except zstandard.ZstdError as error:
        raise MalformedInput(_MANIFEST, f"not zstd: {error}") from error
    require(stream.eof and not stream.unused_data, _MANIFEST, "cut short, or bytes behind the frame")
    return bytes(manifest)


def read_front(file: Any) -> tuple[Footer, Manifest]:
    """Footer, layout and manifest of an open file, without the help of any library that trusts them."""
    size = os.fstat(file.fileno()).st_size
    require(size >= 12 and file.read(4) == MAGIC, "bundle", "not a Parquet file")
    file.seek(size - 8)
    length = footer_bytes(size, file.read(8))
    file.seek(size - 8 - length)
    return _read_footer(size, file.read(length))


def read_tail(size: int, tail: bytes) -> tuple[Footer, Manifest]:
    """The same from the last bytes of a file of ``size``, for who has no more: ``footer_bytes`` and 8 are enough."""
    length = footer_bytes(size, tail[-8:])
    require(len(tail) >= length + 8, "footer", "cut short")
    return _read_footer(size, tail[-8 - length : -8])


def footer_bytes(size: int, end: bytes) -> int:
    """Size of the footer that stands before the last 8 bytes of a file of ``size``. Raises MalformedInput."""
    require(len(end) == 8 and end[4:] == MAGIC, "bundle", "cut short, or an encrypted footer")
    length = int.from_bytes(end[:4], "little")
    require(length <= min(MAX_FOOTER_BYTES, size - 12), "footer", f"{length} bytes exceed the limit or the file")
    return length


def _read_footer(size: int, data: bytes) -> tuple[Footer, Manifest]:
    footer = parse_footer(data)
    check_columns(footer.columns)
    require([key for key, _ in footer.keys] == [MANIFEST_KEY], "metadata", f"keys other than {_MANIFEST}")
    manifest = decode_manifest(_unpack_manifest(footer.keys[0][1]))
    _check_layout(footer, manifest, size - 8 - len(data))
    return footer, manifest


def _check_layout(footer: Footer, manifest: Manifest, end: int) -> None:
    """Row groups of bounded size that fill the file without gaps; statistics only where they belong."""
    expected = sum(e.count for c in (*manifest.windows, manifest.late) for e in c.outcome.entries)
    require(footer.rows == expected, "rows", f"{footer.rows} where the outcomes have {expected}")
    require(sum(group.rows for group in footer.groups) == expected, "rows", "row groups and footer differ")
    allowance = canonical_bytes(manifest) + expected * ROW_BYTES + len(footer.groups) * GROUP_BYTES_SPARE
    at = len(MAGIC)
    for number, group in enumerate(footer.groups):
        require(0 < group.rows <= GROUP_ROWS, f"row group {number}", f"{group.rows} rows")
        within = GROUP_ALLOWANCE
        for chunk in group.chunks:
            where = f"row group {number} column {chunk.name}"
            require(chunk.statistics is None or chunk.name in STATISTICS, where, "has statistics")
            require(chunk.values == group.rows, where, "another number of values than rows")
            require(chunk.start == at, where, "does not begin where the one before it ends")
            require(chunk.compressed_bytes > 0, where, "has no bytes")
            at += chunk.compressed_bytes
            size = chunk.uncompressed_bytes // (2 if chunk.name == "publisher_id" else 1)
            allowance -= size
            within -= size
            require(allowance >= 0, where, "more bytes than the outcomes have")
            require(within >= 0, where, "more bytes than a row group has")
    require(at == end, "bundle", "bytes between columns and footer")
