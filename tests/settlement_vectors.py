"""Reads tests/vectors/settlement.json: the arguments of each worked example, and its ledgers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tests.settlement_network import BUNDLE_WINDOWS, WINDOW_MS, a_block, an_entry, an_outcome, the_parameters
from validator.protocol.codec.receipt import Receipt
from validator.protocol.model import (
    Account,
    Address,
    BrokerShare,
    BundleHeader,
    ChainState,
    Digest,
    InstanceId,
    InstanceKind,
    Node,
    Root,
    StorageId,
    Store,
)
from validator.protocol.report import Debt, InFlight, Ledger, Reading, Report
from validator.protocol.settlement import build_report


def read_address(text: str) -> Address:
    return Address(bytes.fromhex(text[2:]))


def read_ledger(data: Mapping[str, Any]) -> Ledger:
    def amounts(values: Mapping[str, str]) -> dict[Address, int]:
        return {read_address(who): int(amount) for who, amount in values.items()}

    return Ledger(
        in_flight=tuple(
            InFlight(
                r["number"],
                {stream: int(amount) for stream, amount in r["streams"].items()},
                amounts(r["consumers"]),
                amounts(r["nodes"]),
            )
            for r in data["in_flight"]
        ),
        owed={stream: Debt(int(amount), since, epoch) for stream, amount, since, epoch in data["owed"]},
        cumulative={
            (read_address(c), read_address(b)): Reading(epoch, int(n)) for c, b, epoch, n in data["cumulative"]
        },
    )


def run(case: Mapping[str, Any], system_stream: str) -> tuple[Report, Ledger]:
    """What ``build_report`` answers to a worked example."""
    number = case["number"]
    block = a_block(100 + number)
    starts = [(number * BUNDLE_WINDOWS + i) * WINDOW_MS for i in range(len(case["windows"]))]
    windows = [
        an_outcome(
            InstanceId(InstanceKind.WINDOW, start),
            [an_entry(stream, size, partition) for stream, partition, size in window["entries"]],
            price=int(window["price"]),
            shares=[BrokerShare(read_address(b), served, missed) for b, served, missed in window["shares"]],
            block=block,
        )
        for start, window in zip(starts, case["windows"], strict=True)
    ]
    late = an_outcome(
        InstanceId(InstanceKind.LATE, number), [an_entry(s, size, p) for s, p, size in case["late"]], block=block
    )
    state = ChainState(
        block,
        tuple(
            Node(read_address(a), int(stake), "https://node.example", None, index=index)
            for index, (a, stake) in enumerate(case["state"]["nodes"], 1)
        ),
        tuple(
            Store(stream, int(balance), 1, index=index)
            for index, (stream, balance) in enumerate(case["state"]["stores"].items(), 1)
        ),
        system_stream,
        {
            read_address(c): Account(int(balance), index)
            for index, (c, balance) in enumerate(case["state"]["consumers"].items(), 1)
        },
    )
    return build_report(
        read_ledger(case["ledger_before"]),
        BundleHeader(Digest(b"\xcd" * 32), number, Root(b"\x11" * 32), starts[0], starts[-1]),
        Root(b"\x22" * 32),
        windows,
        late,
        [
            Receipt(read_address(c), read_address(b), epoch, int(n), int(price))
            for c, b, epoch, n, price in case["receipts"]
        ],
        state,
        case["processed"],
        the_parameters(**{name: int(value) for name, value in case["parameters"].items()}),
        epoch=case["epoch"],
        config_count=case["config_count"],
        storage_id=StorageId(b"\x51" * 32),
        uploader=read_address(case["uploader"]),
        system_stream=system_stream,
    )
