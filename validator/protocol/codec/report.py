"""Reports: the digest that members sign, compact signatures, canonical bytes, and the values the contract takes.

The digest is EIP-712 in the domain (LogStoreReport, 1, chain id, ReportManager) and equals what
``ReportManager.reportDigest`` computes. What a wallet shows has the totals in plain numbers and the lines as bytes:

    streams, consumers, nodes    2 bytes each: how many lines of the kind follow
    stream or consumer           index (4), capture (12), bytes (8)
    node                         index (4, the top bit says that it loses), amount (12)

big-endian, each kind strictly ascending by index: the numbers by which the contracts know streams, consumers and nodes.
Every list is put in that order before it is encoded. Vectors: tests/vectors/report.json.
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
from validator.protocol.model import Address, Digest, Root, StorageId
from validator.protocol.parameters import MAX_COMMITTEE
from validator.protocol.quorum import quorum
from validator.protocol.report import ConsumerLine, NodeLine, Report, StreamLine

KIND = "report/2"
MAX_REPORT_BYTES = 1 << 20
MAX_LINES = 1024
"""Lines per list, as in the contract."""
MAX_AMOUNT = (1 << 96) - 1
"""Largest amount of one line in base units, as in the contract."""
MAX_STREAM_ID_BYTES = 256

MAX_INDEX = (1 << 31) - 1
_LOSES = 1 << 31

_REPORT = Struct(
    "Report",
    (
        ("bytes32", "configDigest"),
        ("uint32", "configCount"),
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
        ("uint256", "captured"),
        ("uint256", "treasury"),
        ("bytes", "lines"),
        ("address[]", "nextCommittee"),
        ("bytes32", "nextConfigDigest"),
    ),
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
        "configCount": report.config_count,
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
        "captured": report.captured,
        "treasury": report.treasury,
        "lines": _pack(report),
        "nextCommittee": list(report.next_committee),
        "nextConfigDigest": report.next_config_digest,
    }


def report_values(report: Report) -> tuple[Any, ...]:
    """The report as the tuple that ABI encoding takes: the contract's struct, member by member."""
    return tuple(report_fields(report).values())


def pack_lines(report: Report) -> bytes:
    """All lines as the contract reads them. Raises InvariantError for a number that has no room there."""
    return _pack(sort_report(report))


def _pack(report: Report) -> bytes:
    """Of a report whose lists are in the contract's order."""
    parts = [_number(len(lines), 2) for lines in (report.streams, report.consumers, report.nodes)]
    paying: list[StreamLine | ConsumerLine] = [*report.streams]
    paying += report.consumers
    for line in paying:
        parts += [_number(line.index, 4), _number(line.capture, 12), _number(line.bytes, 8)]
    for node in report.nodes:
        parts += [_number(node.index | (_LOSES if node.amount < 0 else 0), 4), _number(abs(node.amount), 12)]
    return b"".join(parts)


def _number(value: int, size: int) -> bytes:
    try:
        return value.to_bytes(size, "big")
    except OverflowError as error:
        raise InvariantError(f"{value} does not fit {size} bytes of a report's line") from error


def sort_report(report: Report) -> Report:
    """The same report with its lists in the contract's order. Raises InvariantError if a line appears twice."""
    streams = tuple(sorted(report.streams, key=lambda x: x.index))
    consumers = tuple(sorted(report.consumers, key=lambda x: x.index))
    nodes = tuple(sorted(report.nodes, key=lambda x: x.index))
    committee = tuple(sorted(report.next_committee))
    for name, keys in (
        ("streams", [x.index for x in streams]),
        ("streams", [x.stream_id for x in streams]),
        ("consumers", [x.index for x in consumers]),
        ("consumers", [x.consumer for x in consumers]),
        ("nodes", [x.index for x in nodes]),
        ("nodes", [x.node for x in nodes]),
        ("next_committee", committee),
    ):
        if len(keys) != len(set(keys)):
            raise InvariantError(f"report {report.number}: {name} has a line twice")
    return replace(report, streams=streams, consumers=consumers, nodes=nodes, next_committee=committee)


def is_conserved(report: Report) -> bool:
    """Sum of captures = sum of node amounts + treasury."""
    return report.captured == sum(x.amount for x in report.nodes) + report.treasury


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

    ["report/2", config digest, config count, number, height, block hash, first_ms, last_ms, previous root, bundle root,
    storage id, uploader, ledger root, [[index, id, capture, bytes]], [[index, consumer, capture, bytes]],
    [[index, node, negative, amount]], treasury, [next committee], next config digest]
    """
    report = sort_report(report)
    return cbor.encode_object(
        KIND,
        report.config_digest,
        report.config_count,
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
        [[x.index, x.stream_id, cbor.pack_amount(x.capture), x.bytes] for x in report.streams],
        [[x.index, x.consumer, cbor.pack_amount(x.capture), x.bytes] for x in report.consumers],
        [[x.index, x.node, x.amount < 0, cbor.pack_amount(abs(x.amount))] for x in report.nodes],
        cbor.pack_amount(report.treasury),
        list(report.next_committee),
        report.next_config_digest,
    )


def decode_report(data: bytes) -> Report:
    """Inverse of ``encode_report``; accepts exactly what it writes, within the contract's bounds.

    Raises:
        MalformedInput: names the field.
    """
    f = cbor.decode_object(data, KIND, 18, max_bytes=MAX_REPORT_BYTES)
    report = Report(
        config_digest=Digest(read_bytes(f[0], 32, "config_digest")),
        config_count=read_u64(f[1], "config_count"),
        number=read_u64(f[2], "number"),
        height=read_u64(f[3], "height"),
        block_hash=Digest(read_bytes(f[4], 32, "block_hash")),
        first_ms=read_u64(f[5], "first_ms"),
        last_ms=read_u64(f[6], "last_ms"),
        previous_root=Root(read_bytes(f[7], 32, "previous_root")),
        bundle_root=Root(read_bytes(f[8], 32, "bundle_root")),
        storage_id=StorageId(read_bytes(f[9], 32, "storage_id")),
        uploader=Address(read_bytes(f[10], 20, "uploader")),
        ledger_root=Digest(read_bytes(f[11], 32, "ledger_root")),
        streams=tuple(_stream_line(x, f"streams[{i}]") for i, x in _lines(f[12], 4, "streams")),
        consumers=tuple(_consumer_line(x, f"consumers[{i}]") for i, x in _lines(f[13], 4, "consumers")),
        nodes=tuple(_node_line(x, f"nodes[{i}]") for i, x in _lines(f[14], 4, "nodes")),
        treasury=_amount(f[15], "treasury"),
        next_committee=tuple(
            Address(read_bytes(x, 20, f"next_committee[{i}]")) for i, x in enumerate(_list(f[16], "next_committee"))
        ),
        next_config_digest=Digest(read_bytes(f[17], 32, "next_config_digest")),
    )
    _require_distinct(report)
    return report


def _stream_line(x: Any, what: str) -> StreamLine:
    return StreamLine(
        _index(x[0], f"{what}.index"),
        _stream_id(x[1], f"{what}.id"),
        _amount(x[2], f"{what}.capture"),
        read_u64(x[3], f"{what}.bytes"),
    )


def _consumer_line(x: Any, what: str) -> ConsumerLine:
    return ConsumerLine(
        _index(x[0], f"{what}.index"),
        Address(read_bytes(x[1], 20, f"{what}.consumer")),
        _amount(x[2], f"{what}.capture"),
        read_u64(x[3], f"{what}.bytes"),
    )


def _node_line(x: Any, what: str) -> NodeLine:
    return NodeLine(
        _index(x[0], f"{what}.index"),
        Address(read_bytes(x[1], 20, f"{what}.node")),
        _signed(x[2], x[3], f"{what}.amount"),
    )


def _require_distinct(report: Report) -> None:
    """Raises MalformedInput unless the lists are in the contract's order and name everybody once."""
    for name in ("streams", "consumers", "nodes", "next_committee"):
        keys = [_key(x) for x in getattr(report, name)]
        if any(low >= high for low, high in pairwise(keys)):
            raise MalformedInput(name, "not strictly ascending")
    if len(report.next_committee) > MAX_COMMITTEE:
        raise MalformedInput("next_committee", f"more than {MAX_COMMITTEE} members")
    for name, names in (
        ("streams", [x.stream_id for x in report.streams]),
        ("consumers", [x.consumer for x in report.consumers]),
        ("nodes", [x.node for x in report.nodes]),
    ):
        if len(set(names)) != len(names):
            raise MalformedInput(name, "a name twice")


def _key(line: Any) -> Any:
    return bytes(line) if isinstance(line, bytes) else line.index


def _index(value: Any, what: str) -> int:
    index = read_u64(value, what)
    if not 1 <= index <= MAX_INDEX:
        raise MalformedInput(what, f"not from 1 to {MAX_INDEX}")
    return index


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
