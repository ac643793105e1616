"""Accepted reports: what ReportManager keeps of each in two slots, and what its event said of the rest.

The event lies in the block that the contract names, and its digest begins as the contract's does: nothing else is taken
for it. A source whose logs lag behind its state has not answered yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from validator.net.chain.abi import interface
from validator.net.chain.jsonrpc import Request
from validator.net.chain.rpc import Rpc
from validator.net.chain.values import MAX_NUMBER, parse_bytes, parse_logs, parse_number
from validator.ports.chain import AcceptedReport
from validator.protocol.errors import MalformedInput, RemoteFault, TransientError
from validator.protocol.model import Address, Digest, Root, StorageId
from validator.protocol.parameters import Contracts

MAX_EVENTS = 16
"""Of one report in one block there is one."""


@dataclass(frozen=True, slots=True)
class Record:
    """What the contract keeps of a report."""

    number: int
    bundle_root: Root
    last_ms: int
    block_number: int
    digest_start: bytes


@dataclass(frozen=True, slots=True)
class _Said:
    """What an event says first."""

    bundle_root: bytes
    storage_id: bytes
    digest: bytes
    transaction: bytes


def read_record(number: int, values: Sequence[Any]) -> Record:
    """From the values of ``reportOf``. Raises RemoteFault for numbers that no contract of ours has."""
    root, last_ms, block_number, _bitmap, digest_start = values
    if max(number, last_ms, block_number) > MAX_NUMBER:
        raise RemoteFault("ReportManager: a report beyond all numbers", function="lastReport")
    return Record(number, Root(root), last_ms, block_number, digest_start)


def complete_reports(rpc: Rpc, contracts: Contracts, records: Sequence[Record]) -> list[AcceptedReport]:
    """The records with what their events said, in one question.

    Raises:
        TransientError: a source's logs lag behind its state.
    """
    event = interface("ReportManager").events["ReportAccepted"]
    requests = [
        Request(
            "eth_getLogs",
            (
                {
                    "address": "0x" + contracts.report_manager.hex(),
                    "topics": ["0x" + event.hex(), f"0x{record.number:064x}"],
                    "fromBlock": hex(record.block_number),
                    "toBlock": hex(record.block_number),
                },
            ),
            lambda value: _parse_events(value, contracts.report_manager),
        )
        for record in records
    ]
    return [_complete(record, said) for record, said in zip(records, rpc.agree(requests), strict=True)]


def _complete(record: Record, events: Sequence[_Said]) -> AcceptedReport:
    for said in events:
        if said.digest.startswith(record.digest_start) and said.bundle_root == record.bundle_root:
            return AcceptedReport(
                record.number,
                record.bundle_root,
                StorageId(said.storage_id),
                Digest(said.digest),
                record.block_number,
                record.last_ms,
                Digest(said.transaction),
            )
    raise TransientError(
        f"not yet: the sources' logs lack report {record.number} of block {record.block_number}", reason="unavailable"
    )


def _parse_events(value: Any, report_manager: Address) -> tuple[_Said, ...]:
    found = []
    for log in parse_logs(value, report_manager, MAX_EVENTS):
        data = parse_bytes(log.get("data"), "log.data")
        if len(data) < 96:
            raise MalformedInput("log.data", "no ReportAccepted")
        transaction = parse_bytes(log.get("transactionHash"), "log.transactionHash", 32)
        found.append(_Said(data[:32], data[32:64], data[64:96], transaction))
    return tuple(found)


def parse_gas_used(value: Any) -> int | None:
    """Of a receipt; None where there is none. Raises MalformedInput."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise MalformedInput("receipt", "not an object")
    return parse_number(value.get("gasUsed"), "receipt.gasUsed")
