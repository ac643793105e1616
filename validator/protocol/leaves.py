"""Leaves of every tree that is agreed on (format 2): fixed-width, labelled, with the number of leaves below.

A leaf hash is H(0x00 || leaf bytes), H being SHA-256; nodes are those of ``merkle``. Every leaf begins with a label of
16 bytes that names its level, so no level passes for another, and commits to the number of leaves below it, so a proof
needs no number from its prover. All fields have a fixed width, integers are unsigned and big-endian: a contract puts a
leaf together from plain fields without parsing (contracts_abi/src/Leaves.sol).

    message   16 B "logstore2message" | 32 B H(stream id) | 4 B partition | 8 B timestamp ms | 4 B sequence number |
              32 B H(publisher) | 32 B H(content) | 32 B H(canonical bytes)                                    = 160 B
    entry     16 B "logstore2entry" 00 00 | 32 B H(stream id) | 4 B partition | 32 B root over messages |
              8 B messages | 8 B signed bytes | 8 B canonical bytes | 1 B flags                                = 109 B
    window    16 B "logstore2window" 00 | 1 B kind (1 window, 2 late set) | 8 B start ms or bundle number |
              32 B root over entries | 8 B entries | 32 B H(rest of the outcome)                               =  97 B
    header    16 B "logstore2header" 00 | 32 B config digest | 8 B bundle number | 32 B previous bundle root |
              8 B first window's start ms | 8 B last window's                                                  = 104 B
    bundle    16 B "logstore2bundle" 00 | 8 B leaves | 32 B root over header, windows in order, late set       =  56 B

The stream id is hashed as UTF-8, publisher and content as they are. The window's leaf hash is the digest of its
outcome, which votes name; the bundle's leaf hash is the bundle root. Vectors: tests/vectors/leaves.json.

Decided against (docs/decisions): the canonical bytes of an object as its leaf, and counts beside the trees (0026).
"""

from __future__ import annotations

from functools import lru_cache, partial
from struct import Struct

from validator.protocol.hashing import sha256
from validator.protocol.model import BundleHeader, Digest, Flag, InstanceId, PartitionEntry, Root

MAX_PARTITION = (1 << 32) - 1
"""What four bytes hold."""
LABEL_BYTES = 16

_Head = Struct(f">x{LABEL_BYTES}s").pack
"""What is hashed first: 0x00, which makes it a leaf, and the label."""

_message_front = partial(Struct(">17s32sI").pack, _Head(b"logstore2message"))
pack_message = Struct(">53sQI32s32s32s").pack
"""0x00 and the bytes of a message's leaf, from ``message_front``, timestamp, sequence number, H(publisher), H(content),
H(canonical). A C function: it runs once for every message there is."""
_pack_entry = partial(Struct(">17s32sI32sQQQB").pack, _Head(b"logstore2entry"))
_pack_window = partial(Struct(">17sBQ32sQ32s").pack, _Head(b"logstore2window"))
_pack_header = partial(Struct(">17s32sQ32sQQ").pack, _Head(b"logstore2header"))
_pack_bundle = partial(Struct(">17sQ32s").pack, _Head(b"logstore2bundle"))


@lru_cache(maxsize=4096)
def hash_stream_id(stream_id: str) -> bytes:
    return sha256(stream_id.encode()).digest()


@lru_cache(maxsize=4096)
def message_front(stream_hash: bytes, partition: int) -> bytes:
    """0x00 and what stands before the timestamp in the leaves of a partition's messages."""
    return _message_front(stream_hash, partition)


@lru_cache(maxsize=4096)
def hash_publisher(publisher_id: bytes) -> bytes:
    return sha256(publisher_id).digest()


def message_leaf(
    stream_id: str,
    partition: int,
    timestamp_ms: int,
    sequence_number: int,
    publisher_id: bytes,
    content: bytes,
    canonical: bytes,
) -> Digest:
    """Leaf hash of a message: what stands in sets, segments, reconciliation and evidence."""
    return hash_message(
        hash_stream_id(stream_id),
        partition,
        timestamp_ms,
        sequence_number,
        hash_publisher(publisher_id),
        sha256(content).digest(),
        sha256(canonical).digest(),
    )


def hash_message(
    stream_hash: bytes,
    partition: int,
    timestamp_ms: int,
    sequence_number: int,
    publisher_hash: bytes,
    content_hash: bytes,
    canonical_hash: bytes,
) -> Digest:
    """The same from hashes, for who shows a message's place and not the message."""
    front = message_front(stream_hash, partition)
    packed = pack_message(front, timestamp_ms, sequence_number, publisher_hash, content_hash, canonical_hash)
    return Digest(sha256(packed).digest())


def entry_leaf(entry: PartitionEntry, flags: Flag) -> Digest:
    """Leaf hash of an entry as it would be with these flags: an outcome's has its own, a set's none."""
    e = entry
    packed = _pack_entry(
        hash_stream_id(e.stream_id), e.partition, e.root, e.count, e.signed_bytes, e.canonical_bytes, int(flags)
    )
    return Digest(sha256(packed).digest())


def window_leaf(instance: InstanceId, entry_root: Root, entries: int, rest_hash: Digest) -> Digest:
    """Leaf hash of a window or late set: the digest of its outcome."""
    packed = _pack_window(int(instance.kind), instance.number, entry_root, entries, rest_hash)
    return Digest(sha256(packed).digest())


def header_leaf(header: BundleHeader) -> Digest:
    """Leaf hash of a bundle's header, the first of its tree."""
    h = header
    return Digest(sha256(_pack_header(h.config_digest, h.number, h.previous_root, h.first_ms, h.last_ms)).digest())


def bundle_leaf(leaves: int, root: Root) -> Root:
    """The bundle root that reports name, from the root over its leaves and their number."""
    return Root(sha256(_pack_bundle(leaves, root)).digest())
