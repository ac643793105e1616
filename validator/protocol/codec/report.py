"""Reports: the digest that members sign, compact signatures, canonical bytes, and the values the contract takes.

The digest is EIP-712 in the domain (LogStoreReport, 1, chain id, ReportManager) and equals what
``ReportManager.reportDigest`` computes. Every list is put in the contract's order (ids by UTF-8 bytes, addresses by
value) before it is encoded. Vectors: tests/vectors/report.json.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from validator.protocol.codec import cbor
from validator.protocol.codec.cbor import read_bytes, read_u64
from validator.protocol.codec.secp256k1 import is_low_s
from validator.protocol.codec.typed_data import Domain, Struct, payload
from validator.protocol.errors import InvariantError, MalformedInput
from validator.protocol.hashing import keccak256
from validator.protocol.model import Address, ConsumerLine, Digest, NodeLine, Report, Root, StorageId, StreamLine
from validator.protocol.parameters import MAX_COMMITTEE
from validator.protocol.quorum import quorum

KIND = "report/1"
MAX_REPORT_BYTES = 1 << 20
MAX_LINES = 1024
"""Lines per list, as in the contract."""
MAX_AMOUNT = (1 << 96) - 1
"""Largest amount of one line in base units, as in the contract."""
MAX_STREAM_ID_BYTES = 256

_STREAM = Struct("StreamLine", (("string", "id"), ("uint256", "capture"), ("uint64", "byteCount")))
_CONSUMER = Struct("ConsumerLine", (("address", "consumer"), ("uint256", "capture"), ("uint64", "byteCount")))
_NODE = Struct("NodeLine", (("address", "node"), ("int256", "amount")))
_REPORT = Struct(
    "Report",
    (
        ("bytes32", "configDigest"),
        ("uint64", "number"),
        ("uint64", "height"),
        ("bytes32", "blockHash"),
        ("uint64", "firstMs"),
        ("uint64", "lastMs"),
        ("bytes32", "previousRoot"),
        ("bytes32", "bundleRoot"),
        ("bytes32", "storageId"),
        ("address", "uploader"),
        ("bytes32", "ledgerRoot"),
        ("StreamLine[]", "streams"),
        ("ConsumerLine[]", "consumers"),
        ("NodeLine[]", "nodes"),
        ("uint256", "treasury"),
        ("address[]", "nextCommittee"),
        ("bytes32", "nextConfigDigest"),
    ),
    (_CONSUMER, _NODE, _STREAM),
)


def report_domain(chain_id: int, report_manager: Address) -> Domain:
    return Domain("LogStoreReport", "1", chain_id, report_manager)


def report_payload(report: Report, chain_id: int, report_manager: Address) -> bytes:
    """What a member signs for ``report``, as EIP-712."""
    return payload(report_domain(chain_id, report_manager), _REPORT, report_fields(report))


def report_digest(report: Report, chain_id: int, report_manager: Address) -> Digest:
    """Digest that a member's signature is over, equal to the contract's ``reportDigest``."""
    return keccak256(report_payload(report, chain_id, report_manager))


def report_fields(report: Report) -> dict[str, Any]:
    """The report by the contract's member names, lists in the contract's order."""
    report = sort_report(report)
    return {
        "configDigest": report.config_digest,
        "number": report.number,
        "height": report.height,
        "blockHash": report.block_hash,
        "firstMs": report.first_ms,
        "lastMs": report.last_ms,
        "previousRoot": report.previous_root,
        "bundleRoot": report.bundle_root,
        "storageId": report.storage_id,
        "uploader": report.uploader,
        "ledgerRoot": report.ledger_root,
        "streams": [{"id": x.stream_id, "capture": x.capture, "byteCount": x.bytes} for x in report.streams],
        "consumers": [{"consumer": x.consumer, "capture": x.capture, "byteCount": x.bytes} for x in report.consumers],
        "nodes": [{"node": x.node, "amount": x.amount} for x in report.nodes],
        "treasury": report.treasury,
        "nextCommittee": list(report.next_committee),
        "nextConfigDigest": report.next_config_digest,
    }


def report_values(report: Report) -> tuple[Any, ...]:
    """The report as the tuple that ABI encoding takes: the contract's struct, member by member."""

    def values(item: Any) -> Any:
        if isinstance(item, dict):
            return tuple(values(member) for member in item.values())
        return [values(member) for member in item] if isinstance(item, list) else item

    result: tuple[Any, ...] = values(report_fields(report))
    return result


def sort_report(report: Report) -> Report:
    """The same report with its lists in the contract's order. Raises InvariantError if a line appears twice."""
    streams = tuple(sorted(report.streams, key=lambda x: x.stream_id.encode()))
    consumers = tuple(sorted(report.consumers, key=lambda x: x.consumer))
    nodes = tuple(sorted(report.nodes, key=lambda x: x.node))
    committee = tuple(sorted(report.next_committee))
    for name, count, distinct in (
        ("streams", len(streams), len({x.stream_id for x in streams})),
        ("consumers", len(consumers), len({x.consumer for x in consumers})),
        ("nodes", len(nodes), len({x.node for x in nodes})),
        ("next_committee", len(committee), len(set(committee))),
    ):
        if count != distinct:
            raise InvariantError(f"report {report.number}: {name} has a line twice")
    return replace(report, streams=streams, consumers=consumers, nodes=nodes, next_committee=committee)


def is_conserved(report: Report) -> bool:
    """Sum of captures = sum of node amounts + treasury."""
    captured = sum(x.capture for x in report.streams) + sum(x.capture for x in report.consumers)
    return captured == sum(x.amount for x in report.nodes) + report.treasury


# --- signatures -----------------------------------------------------------------------------------


def compact_signature(signature: bytes) -> bytes:
    """65 bytes r, s, v as the 64 bytes of EIP-2098: r, then s with v's parity in its top bit.

    Raises:
        MalformedInput: wrong length, v other than 27 or 28, or high s (the contract refuses it).
    """
    if len(signature) != 65:
        raise MalformedInput("signature", f"{len(signature)} bytes where 65 belong")
    if signature[64] not in (27, 28):
        raise MalformedInput("signature", f"recovery value {signature[64]} is not 27 or 28")
    if not is_low_s(signature):
        raise MalformedInput("signature", "s is in the upper half of the order")
    top = signature[32] | (signature[64] - 27) << 7
    return signature[:32] + bytes([top]) + signature[33:64]


def expand_compact(compact: bytes) -> bytes:
    """Inverse of ``compact_signature``. Raises MalformedInput for a wrong length or high s."""
    if len(compact) != 64:
        raise MalformedInput("signature", f"{len(compact)} bytes where 64 belong")
    v = 27 + (compact[32] >> 7)
    signature = compact[:32] + bytes([compact[32] & 0x7F]) + compact[33:] + bytes([v])
    if not is_low_s(signature):
        raise MalformedInput("signature", "s is in the upper half of the order")
    return signature


def pack_signatures(committee: Sequence[Address], signatures: Mapping[Address, bytes]) -> tuple[int, bytes]:
    """(signer bitmap, compact signatures) for ``submitReport``: the first quorum of members, in ascending order.

    ``signatures`` holds verified 65-byte signatures by signer; those beyond a quorum and of strangers are left out.

    Raises:
        MalformedInput: fewer than a quorum of members have signed, or a signature that cannot be made compact.
    """
    members = sorted(committee)
    needed = quorum(len(members))
    signers = [(index, member) for index, member in enumerate(members) if member in signatures][:needed]
    if len(signers) < needed:
        raise MalformedInput("signatures", f"{len(signers)} of the {needed} that a quorum needs")
    bitmap = sum(1 << index for index, _ in signers)
    return bitmap, b"".join(compact_signature(signatures[member]) for _, member in signers)


# --- canonical bytes ------------------------------------------------------------------------------


def encode_report(report: Report) -> bytes:
    """Canonical CBOR. Amounts as shortest big-endian bytes; a node's amount as (negative?, size).

    ["report/1", config digest, number, height, block hash, first_ms, last_ms, previous root, bundle root, storage id,
    uploader, ledger root, [[id, capture, bytes]], [[consumer, capture, bytes]], [[node, negative, amount]], treasury,
    [next committee], next config digest]
    """
    report = sort_report(report)
    return cbor.encode_object(
        KIND,
        report.config_digest,
        report.number,
        report.height,
        report.block_hash,
        report.first_ms,
        report.last_ms,
        report.previous_root,
        report.bundle_root,
        report.storage_id,
        report.uploader,
        report.ledger_root,
        [[x.stream_id, cbor.pack_amount(x.capture), x.bytes] for x in report.streams],
        [[x.consumer, cbor.pack_amount(x.capture), x.bytes] for x in report.consumers],
        [[x.node, x.amount < 0, cbor.pack_amount(abs(x.amount))] for x in report.nodes],
        cbor.pack_amount(report.treasury),
        list(report.next_committee),
        report.next_config_digest,
    )


def decode_report(data: bytes) -> Report:
    """Inverse of ``encode_report``; accepts exactly what it writes, within the contract's bounds.

    Raises:
        MalformedInput: names the field.
    """
    f = cbor.decode_object(data, KIND, 17, max_bytes=MAX_REPORT_BYTES)
    report = Report(
        config_digest=Digest(read_bytes(f[0], 32, "config_digest")),
        number=read_u64(f[1], "number"),
        height=read_u64(f[2], "height"),
        block_hash=Digest(read_bytes(f[3], 32, "block_hash")),
        first_ms=read_u64(f[4], "first_ms"),
        last_ms=read_u64(f[5], "last_ms"),
        previous_root=Root(read_bytes(f[6], 32, "previous_root")),
        bundle_root=Root(read_bytes(f[7], 32, "bundle_root")),
        storage_id=StorageId(read_bytes(f[8], 32, "storage_id")),
        uploader=Address(read_bytes(f[9], 20, "uploader")),
        ledger_root=Digest(read_bytes(f[10], 32, "ledger_root")),
        streams=tuple(
            StreamLine(
                _stream_id(x[0], f"streams[{i}].id"),
                _amount(x[1], f"streams[{i}].capture"),
                read_u64(x[2], f"streams[{i}].bytes"),
            )
            for i, x in _lines(f[11], 3, "streams")
        ),
        consumers=tuple(
            ConsumerLine(
                Address(read_bytes(x[0], 20, f"consumers[{i}].consumer")),
                _amount(x[1], f"consumers[{i}].capture"),
                read_u64(x[2], f"consumers[{i}].bytes"),
            )
            for i, x in _lines(f[12], 3, "consumers")
        ),
        nodes=tuple(
            NodeLine(Address(read_bytes(x[0], 20, f"nodes[{i}].node")), _signed(x[1], x[2], f"nodes[{i}].amount"))
            for i, x in _lines(f[13], 3, "nodes")
        ),
        treasury=_amount(f[14], "treasury"),
        next_committee=tuple(
            Address(read_bytes(x, 20, f"next_committee[{i}]")) for i, x in enumerate(_list(f[15], "next_committee"))
        ),
        next_config_digest=Digest(read_bytes(f[16], 32, "next_config_digest")),
    )
    for name in ("streams", "consumers", "nodes", "next_committee"):
        keys = [_key(x) for x in getattr(report, name)]
        if any(low >= high for low, high in pairwise(keys)):
            raise MalformedInput(name, "not strictly ascending")
    if len(report.next_committee) > MAX_COMMITTEE:
        raise MalformedInput("next_committee", f"more than {MAX_COMMITTEE} members")
    return report


def _key(line: Any) -> bytes:
    if isinstance(line, StreamLine):
        return line.stream_id.encode()
    if isinstance(line, ConsumerLine):
        return line.consumer
    if isinstance(line, NodeLine):
        return line.node
    return bytes(line)


def _amount(value: Any, what: str) -> int:
    amount = cbor.unpack_amount(value, what)
    if amount > MAX_AMOUNT:
        raise MalformedInput(what, "above 2^96 - 1 base units")
    return amount


def _signed(negative: Any, size: Any, what: str) -> int:
    amount = _amount(size, what)
    if type(negative) is not bool or (negative and not amount):
        raise MalformedInput(what, "not a sign and an amount, or minus zero")
    return -amount if negative else amount


def _stream_id(value: Any, what: str) -> str:
    if not isinstance(value, str) or not 1 <= len(value.encode()) <= MAX_STREAM_ID_BYTES:
        raise MalformedInput(what, f"not a text of 1 to {MAX_STREAM_ID_BYTES} bytes")
    return value


def _list(value: Any, what: str) -> list[Any]:
    if not isinstance(value, list) or len(value) > MAX_LINES:
        raise MalformedInput(what, f"not a list of at most {MAX_LINES}")
    return value


def _lines(value: Any, fields: int, what: str) -> list[tuple[int, list[Any]]]:
    lines = _list(value, what)
    for i, line in enumerate(lines):
        if not isinstance(line, list) or len(line) != fields:
            raise MalformedInput(f"{what}[{i}]", f"not a list of {fields}")
    return list(enumerate(lines))
