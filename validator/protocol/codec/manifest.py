"""The manifest: canonical description of a bundle; and the bundle root.

    header     ["header/1", config_digest, number, previous_root, first_ms, last_ms]
    certified  [outcome bytes, certificate bytes]
    manifest   ["manifest/1", header bytes, config preimage, [certified…], certified (late), ledger part,
                [codec versions]]
    ledger     ["ledger/2", [[number, [[stream, amount]…], [[consumer, amount]…], [[node, amount]…]]…],
                [[stream, amount, since, epoch]…], [[consumer, broker, epoch, bytes]…]]

The bundle root is the hash of the bundle's leaf (``leaves``): the number of leaves, and the RFC 9162 root over the
header's leaf, the windows' in order, the late set's.

The ledger part is of the ledger before this bundle's report, which the previous report's ledger root covers: all of it,
or what changed since the manifest before (``ledger_changes``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from validator.protocol.codec import cbor
from validator.protocol.codec.cbor import read_blob, read_bytes, read_u63, read_u64
from validator.protocol.codec.outcome import decode_outcome, encode_outcome, outcome_digest
from validator.protocol.codec.statement import decode_quorum, encode_quorum
from validator.protocol.errors import MalformedInput
from validator.protocol.hashing import hash_object
from validator.protocol.leaves import bundle_leaf, header_leaf
from validator.protocol.merkle import compute_root
from validator.protocol.model import Address, BundleHeader, Certified, Digest, Manifest, Root
from validator.protocol.report import Debt, InFlight, Ledger, Reading

MAX_MANIFEST_BYTES = 16 << 20
MAX_MANIFEST_ITEMS = 1 << 16
"""A window has two, its outcome and its certificate, both as bytes."""
MAX_LEDGER_BYTES = 8 << 20
"""``settlement`` writes none that is larger."""
LEDGER_KIND = "ledger/2"


def encode_header(h: BundleHeader) -> bytes:
    return cbor.encode_object("header/1", h.config_digest, h.number, h.previous_root, h.first_ms, h.last_ms)


def decode_header(data: bytes) -> BundleHeader:
    """Inverse of ``encode_header``. Raises MalformedInput."""
    f = cbor.decode_object(data, "header/1", 5, max_bytes=256)
    return BundleHeader(
        Digest(read_bytes(f[0], 32, "header.config_digest")),
        read_u64(f[1], "header.number"),
        Root(read_bytes(f[2], 32, "header.previous_root")),
        read_u64(f[3], "header.first_ms"),
        read_u64(f[4], "header.last_ms"),
    )


def bundle_leaves(header: BundleHeader, windows: Sequence[Digest], late: Digest) -> list[Digest]:
    """Leaf hashes of the bundle's tree; ``windows`` and ``late`` are outcome digests."""
    return [header_leaf(header), *windows, late]


def bundle_root(header: BundleHeader, windows: Sequence[Digest], late: Digest) -> Root:
    leaves = bundle_leaves(header, windows, late)
    return bundle_leaf(len(leaves), compute_root(leaves))


def manifest_root(manifest: Manifest) -> Root:
    """The bundle root that a manifest implies, all digests recomputed."""
    digests = [outcome_digest(c.outcome) for c in manifest.windows]
    return bundle_root(manifest.header, digests, outcome_digest(manifest.late.outcome))


def encode_manifest(m: Manifest) -> bytes:
    return cbor.encode_object(
        "manifest/1",
        encode_header(m.header),
        m.config_preimage,
        [_encode_certified(c) for c in m.windows],
        _encode_certified(m.late),
        m.ledger,
        list(m.codec_versions),
    )


def decode_manifest(data: bytes) -> Manifest:
    """Inverse of ``encode_manifest``; roots and certificates are not checked here. Raises MalformedInput."""
    f = cbor.decode_object(data, "manifest/1", 6, max_bytes=MAX_MANIFEST_BYTES, max_items=MAX_MANIFEST_ITEMS)
    if not isinstance(f[1], bytes) or not isinstance(f[4], bytes):
        raise MalformedInput("manifest", "config preimage and ledger must be byte strings")
    if not isinstance(f[2], list) or not f[2]:
        raise MalformedInput("manifest.windows", "no windows")
    if not isinstance(f[5], list) or any(type(v) is not int for v in f[5]):
        raise MalformedInput("manifest.codec_versions", "not a list of integers")
    return Manifest(
        header=decode_header(read_blob(f[0], "manifest.header")),
        config_preimage=f[1],
        windows=tuple(_decode_certified(c) for c in f[2]),
        late=_decode_certified(f[3]),
        ledger=f[4],
        codec_versions=tuple(f[5]),
    )


def encode_ledger(ledger: Ledger) -> bytes:
    """Canonical bytes of a ledger: three sorted maps, zero values left out."""
    return cbor.encode_object(
        LEDGER_KIND,
        [
            [r.number, _encode_amounts(r.streams), _encode_amounts(r.consumers), _encode_amounts(r.nodes)]
            for r in sorted(ledger.in_flight, key=lambda r: r.number)
        ],
        [
            [stream, cbor.pack_amount(debt.amount), debt.since, debt.epoch]
            for stream, debt in sorted((ledger.owed or {}).items(), key=lambda item: item[0].encode())
            if debt.amount
        ],
        [
            [consumer, broker, reading.epoch, reading.bytes]
            for (consumer, broker), reading in sorted((ledger.cumulative or {}).items(), key=lambda item: item[0])
            if reading.bytes
        ],
    )


def ledger_root(ledger: Ledger) -> Digest:
    return hash_object(encode_ledger(ledger))


def decode_ledger(data: bytes) -> Ledger:
    """Inverse of ``encode_ledger``. Raises MalformedInput."""
    f = cbor.decode_object(data, LEDGER_KIND, 3, max_bytes=MAX_LEDGER_BYTES)
    try:
        ledger = Ledger(
            in_flight=tuple(
                InFlight(
                    _count(number),
                    {_text(k): cbor.unpack_amount(v, "ledger") for k, v in streams},
                    {_address(k): cbor.unpack_amount(v, "ledger") for k, v in consumers},
                    {_address(k): cbor.unpack_amount(v, "ledger") for k, v in nodes},
                )
                for number, streams, consumers, nodes in f[0]
            ),
            owed={_text(s): Debt(cbor.unpack_amount(v, "ledger"), _count(n), _count(e)) for s, v, n, e in f[1]},
            cumulative={(_address(c), _address(b)): Reading(_count(e), _count(n)) for c, b, e, n in f[2]},
        )
        again = encode_ledger(ledger)
    except (TypeError, ValueError) as error:
        raise MalformedInput("ledger", f"fields do not fit: {error}") from error
    if again != data or len({r.number for r in ledger.in_flight}) != len(ledger.in_flight):
        raise MalformedInput("ledger", "not sorted, something twice, or with zero values")
    return ledger


def _encode_amounts(amounts: Any) -> list[Any]:
    key = (lambda item: item[0].encode()) if all(isinstance(k, str) for k in amounts) else (lambda item: item[0])
    return [[k, cbor.pack_amount(v)] for k, v in sorted(amounts.items(), key=key) if v]


def _encode_certified(c: Certified) -> list[Any]:
    return [encode_outcome(c.outcome), encode_quorum(c.certificate)]


def _decode_certified(item: Any) -> Certified:
    if not isinstance(item, list) or len(item) != 2:
        raise MalformedInput("manifest.windows", "not pairs of outcome and certificate")
    return Certified(
        decode_outcome(read_blob(item[0], "manifest.outcome")),
        decode_quorum(read_blob(item[1], "manifest.certificate")),
    )


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise MalformedInput("ledger", "stream id is not text")
    return value


def _count(value: Any) -> int:
    return read_u63(value, "ledger")


def _address(value: Any) -> Address:
    return Address(read_bytes(value, 20, "ledger"))
