"""Data of a transaction in chunks: the cuts, the tree over them, the proof of a place in it, and what a node keeps.

Data is cut as arweave-js cuts it, which every node keeps: 256 KiB pieces, the last two evened out when the last
would be tiny, and a leaf of no bytes behind an exact multiple. The rules are those of the reference node (ar_merkle,
ar_poa). Vectors: tests/vectors/arweave.json.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from validator.protocol.codec.arweave_text import HASH_BYTES, decode_base64url, decode_integer, encode_base64url
from validator.protocol.errors import InvariantError

CHUNK_BYTES = 256 * 1024
"""Largest chunk, and the step of prices and of places in the weave."""
SMALLEST_LAST_CHUNK_BYTES = 32 * 1024
"""A rest below this is evened out with the chunk before it."""
NOTE_BYTES = 32
BRANCH_BYTES = 2 * HASH_BYTES + NOTE_BYTES
LEAF_BYTES = HASH_BYTES + NOTE_BYTES
MAX_PATH_BYTES = CHUNK_BYTES


def sha256(data: bytes | memoryview) -> bytes:
    return hashlib.sha256(data).digest()


@dataclass(frozen=True, slots=True)
class ChunkRange:
    """Half-open range of bytes of one chunk."""

    start: int
    end: int

    @property
    def size(self) -> int:
        return self.end - self.start


def cut_chunks(size: int) -> tuple[ChunkRange, ...]:
    """Ranges of the chunks of ``size`` bytes, in order; none for no bytes.

    Pieces of 256 KiB; where the rest after the next piece would be 1 .. 32767 bytes, what is left is halved
    instead, the larger half first. Source: arweave-js 1.15 (lib/merkle).
    """
    if size < 0:
        raise InvariantError(f"negative size {size}")
    ranges: list[ChunkRange] = []
    start = 0
    while size - start > CHUNK_BYTES:
        left = size - start
        step = (left + 1) // 2 if 0 < left - CHUNK_BYTES < SMALLEST_LAST_CHUNK_BYTES else CHUNK_BYTES
        ranges.append(ChunkRange(start, start + step))
        start += step
    if start < size:
        ranges.append(ChunkRange(start, size))
    return tuple(ranges)


def compute_paid_size(size: int) -> int:
    """Bytes that the network charges for: ``size`` rounded up to whole chunks."""
    return -(-size // CHUNK_BYTES) * CHUNK_BYTES


def _note(offset: int) -> bytes:
    return offset.to_bytes(NOTE_BYTES, "big")


def _leaf_id(data_hash: bytes, end: int) -> bytes:
    return sha256(sha256(data_hash) + sha256(_note(end)))


def _branch_id(left: bytes, right: bytes, offset: int) -> bytes:
    return sha256(sha256(left) + sha256(right) + sha256(_note(offset)))


@dataclass(frozen=True, slots=True)
class ChunkTree:
    """Tree over the chunks of one file: 64 bytes per chunk, never the data.

    ``rows`` are the levels from the leaves up, each node as (id, end of its last byte). A last leaf of zero
    bytes is in the rows but not in ``chunks``: it is never uploaded.
    """

    data_size: int
    chunks: tuple[ChunkRange, ...]
    data_hashes: tuple[bytes, ...]
    rows: tuple[tuple[tuple[bytes, int], ...], ...]

    @property
    def data_root(self) -> bytes:
        """32 bytes; no bytes at all for an empty file."""
        return self.rows[-1][0][0] if self.rows else b""

    def compute_data_path(self, index: int) -> bytes:
        """Proof of chunk ``index``: (left, right, note) from the root down, then data hash and end."""
        steps: list[bytes] = []
        position = index
        for row in self.rows[:-1]:
            pair = position & ~1
            if pair + 1 < len(row):
                (left, left_end), (right, _) = row[pair], row[pair + 1]
                steps.append(left + right + _note(left_end))
            position //= 2
        leaf = self.data_hashes[index] + _note(self.chunks[index].end)
        return b"".join(reversed(steps)) + leaf


def build_chunk_tree(size: int, read: Callable[[int, int], bytes]) -> ChunkTree:
    """Tree over ``size`` bytes, of which ``read(start, end)`` gives each range once, in order.

    Raises:
        InvariantError: ``read`` gave another number of bytes than asked for (a file that changed under us).
    """
    chunks = cut_chunks(size)
    data_hashes: list[bytes] = []
    for chunk in chunks:
        data = read(chunk.start, chunk.end)
        if len(data) != chunk.size:
            raise InvariantError(f"{len(data)} bytes read where {chunk.size} belong")
        data_hashes.append(sha256(data))
    leaves = [(_leaf_id(h, c.end), c.end) for h, c in zip(data_hashes, chunks, strict=True)]
    if size and size % CHUNK_BYTES == 0:
        leaves.append((_leaf_id(sha256(b""), size), size))
    return ChunkTree(size, chunks, tuple(data_hashes), _build_rows(leaves))


def _build_rows(leaves: Sequence[tuple[bytes, int]]) -> tuple[tuple[tuple[bytes, int], ...], ...]:
    if not leaves:
        return ()
    rows = [tuple(leaves)]
    while len(rows[-1]) > 1:
        row = rows[-1]
        above = [(_branch_id(row[i][0], row[i + 1][0], row[i][1]), row[i + 1][1]) for i in range(0, len(row) - 1, 2)]
        if len(row) % 2:
            above.append(row[-1])  # an odd node moves up as it is
        rows.append(tuple(above))
    return tuple(rows)


def build_inline_tree(data: bytes) -> ChunkTree:
    """Tree that a node makes of data inside POST /tx: 256 KiB pieces and the rest, even an empty one."""
    chunks = tuple(ChunkRange(at, min(at + CHUNK_BYTES, len(data))) for at in range(0, len(data), CHUNK_BYTES))
    hashes = tuple(sha256(data[chunk.start : chunk.end]) for chunk in chunks)
    leaves = [(_leaf_id(h, c.end), c.end) for h, c in zip(hashes, chunks, strict=True)]
    if data and len(data) % CHUNK_BYTES == 0:
        leaves.append((_leaf_id(sha256(b""), len(data)), len(data)))
    return ChunkTree(len(data), chunks, hashes, _build_rows(leaves))


def compute_inline_root(data: bytes) -> bytes:
    """Root that a node computes for data inside POST /tx."""
    return build_inline_tree(data).data_root


class PathRules(Enum):
    """The rule sets by which nodes have judged layouts; any of them admits a chunk, only CURRENT keeps it."""

    STRICT_BORDERS = "strict_borders"
    STRICT_SPLIT = "strict_data_split"
    CURRENT = "offset_rebase_support"


@dataclass(frozen=True, slots=True)
class ProvenChunk:
    """What a data path proves: the half-open range in the data, and SHA-256 of the bytes there."""

    start: int
    end: int
    data_hash: bytes


def validate_data_path(
    data_root: bytes, data_size: int, offset: int, data_path: bytes, rules: PathRules = PathRules.CURRENT
) -> ProvenChunk | None:
    """Follow ``data_path`` from ``data_root`` to the chunk that holds byte ``offset``; None where it proves nothing.

    An offset past the end names the last byte, as on a node. The caller compares hash and length of the chunk.
    Source: ar_merkle:validate_path/5.
    """
    if data_size <= 0 or len(data_path) > MAX_PATH_BYTES:
        return None
    offset = min(offset, data_size - 1)
    expected, left, right, shift = data_root, 0, data_size, 0
    rightmost: bool | None = None
    position = 0
    while len(data_path) - position > LEAF_BYTES:
        rebased = (
            rules is PathRules.CURRENT
            and data_path[position : position + HASH_BYTES] == bytes(HASH_BYTES)
            and len(data_path) - position >= HASH_BYTES + BRANCH_BYTES
        )
        if rebased:
            position += HASH_BYTES
        if len(data_path) - position < BRANCH_BYTES:
            return None
        left_id = data_path[position : position + HASH_BYTES]
        right_id = data_path[position + HASH_BYTES : position + 2 * HASH_BYTES]
        note = int.from_bytes(data_path[position + 2 * HASH_BYTES : position + BRANCH_BYTES], "big")
        position += BRANCH_BYTES
        if _branch_id(left_id, right_id, note) != expected:
            return None
        goes_left = offset < note
        expected = left_id if goes_left else right_id
        border = min(right, note) if goes_left else max(left, note)
        if rebased and goes_left:
            shift, offset, left, right, rightmost = shift + left, offset - left, 0, border - left, None
        elif rebased:
            shift, offset, left, right, rightmost = shift + border, offset - border, 0, right - border, None
        elif goes_left:
            right, rightmost = border, False
        else:
            left, rightmost = border, rightmost is not False
    if len(data_path) - position != LEAF_BYTES:
        return None
    data_hash = data_path[position : position + HASH_BYTES]
    end = int.from_bytes(data_path[position + HASH_BYTES :], "big")
    if _leaf_id(data_hash, end) != expected:
        return None
    if (
        end - left > CHUNK_BYTES
        or right - left > CHUNK_BYTES
        or not _is_split_allowed(rules, left, right, end, data_size, shift, rightmost is True)
    ):
        return None
    return ProvenChunk(shift + left, shift + max(min(right, end), left + 1), data_hash)


def _is_split_allowed(
    rules: PathRules, left: int, right: int, end: int, data_size: int, shift: int, rightmost: bool
) -> bool:
    if rules is PathRules.STRICT_BORDERS:
        return True
    if rules is PathRules.STRICT_SPLIT:
        if end - left == CHUNK_BYTES:
            return left % CHUNK_BYTES == 0
        if end == data_size:
            return right % CHUNK_BYTES > 0 and left <= right - right % CHUNK_BYTES
        return left % CHUNK_BYTES == 0 and CHUNK_BYTES < data_size - left < 2 * CHUNK_BYTES
    start, stop = shift + left, shift + end
    if start % CHUNK_BYTES == 0:
        return True
    return rightmost and start // CHUNK_BYTES + 1 == stop // CHUNK_BYTES and stop % CHUNK_BYTES != 0


@dataclass(frozen=True, slots=True)
class ChunkVerdict:
    """What a node answers to a chunk: its error code or None, the proven range, and whether it will keep it."""

    error: str | None
    proven: ProvenChunk | None = None
    is_kept: bool = False


def judge_chunk(data_root: bytes, data_size: int, offset: int, data_path: bytes, chunk: bytes) -> ChunkVerdict:
    """Judge a posted chunk as a node does, apart from whether (data_root, data_size) is known.

    Source: ar_http_iface_middleware and ar_disk_pool; cases: chunk_checks of the vectors.
    """
    if len(chunk) > CHUNK_BYTES:
        return ChunkVerdict("chunk_too_big")
    if len(data_path) > MAX_PATH_BYTES:
        return ChunkVerdict("data_path_too_big")
    if not is_ratio_attractive(len(chunk), data_size, data_path):
        return ChunkVerdict("chunk_proof_ratio_not_attractive")
    for rules in (PathRules.CURRENT, PathRules.STRICT_SPLIT, PathRules.STRICT_BORDERS):
        proven = validate_data_path(data_root, data_size, offset, data_path, rules)
        if proven is not None:
            if proven.end - proven.start != len(chunk) or proven.data_hash != sha256(chunk):
                return ChunkVerdict("invalid_proof")
            return ChunkVerdict(None, proven, rules is PathRules.CURRENT)
    return ChunkVerdict("invalid_proof")


def is_ratio_attractive(chunk_bytes: int, data_size: int, data_path: bytes) -> bool:
    """Whether a chunk is worth its proof: not smaller, unless it is the last."""
    if len(data_path) < NOTE_BYTES:
        return False
    ends_data = int.from_bytes(data_path[-NOTE_BYTES:], "big") == data_size
    return ends_data or len(data_path) <= chunk_bytes


@dataclass(frozen=True, slots=True)
class ChunkUpload:
    """Content of one POST /chunk."""

    data_root: bytes
    data_size: int
    data_path: bytes
    offset: int
    chunk: bytes


def encode_chunk(upload: ChunkUpload) -> bytes:
    """JSON of one POST /chunk: strings only, numbers too."""
    return json.dumps(
        {
            "data_root": encode_base64url(upload.data_root),
            "data_size": str(upload.data_size),
            "data_path": encode_base64url(upload.data_path),
            "offset": str(upload.offset),
            "chunk": encode_base64url(upload.chunk),
        },
        separators=(",", ":"),
    ).encode("ascii")


def decode_chunk(body: Mapping[str, Any]) -> ChunkUpload:
    """Inverse of ``encode_chunk``, from parsed JSON. Raises MalformedInput."""
    return ChunkUpload(
        decode_base64url(body.get("data_root"), "data_root", max_bytes=HASH_BYTES),
        decode_integer(body.get("data_size"), "data_size"),
        decode_base64url(body.get("data_path"), "data_path", max_bytes=2 * MAX_PATH_BYTES),
        decode_integer(body.get("offset"), "offset", max_digits=78),
        decode_base64url(body.get("chunk"), "chunk", max_bytes=2 * CHUNK_BYTES),
    )
