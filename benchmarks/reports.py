"""What a report costs: gas of its submission on a chain of this machine's own, by members and streams.

The third report of a network is measured, settled and with every balance in use before and nobody joining: a line per
stream, three consumers, a line per member. *Polygon* adds what a cold slot costs more there since its repricing, for
each that the transaction's trace shows. Beside the table: what one more signature and one more stream cost, and how
long a report takes to build of an hour of a large network: 60 windows, 10 000 streams, 31 nodes.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tests import servers
from tests.contract_network import ContractNetwork
from tests.settlement_network import UNIT_PRICE, Bundle, an_address, settle, the_parameters
from validator.devnet.contracts import WEI
from validator.net.chain.abi import interface
from validator.net.chain.jsonrpc import Request
from validator.protocol.model import BrokerShare
from validator.protocol.report import Ledger, Report
from validator.protocol.settlement import build_report

OK = 0
FAILED = 1
SHAPES = ((4, 1), (4, 10), (4, 100), (7, 10), (13, 1), (13, 10), (13, 100), (31, 10), (31, 100))
"""(members, streams)."""
GOALS = {(13, 10): 300_000, (13, 100): 850_000, (31, 100): 1_000_000}
WINDOWS, STREAMS, NODES = 60, 10_000, 31
BUILD_GOAL_S = 1.0
BUILDS = 3
COLD_READ, COLD_READ_MORE = 2_100, 3_360
COLD_WRITES, COLD_WRITE_MORE = frozenset({22_100, 5_000, 2_200}), 840


@dataclass(frozen=True, slots=True)
class Measured:
    """One report's gas at Ethereum's prices and at Polygon's, and the bytes of its call."""

    members: int
    streams: int
    gas: int
    polygon: int
    bytes: int


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks reports", description=__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args(arguments)
    found = {shape: measure(*shape) for shape in SHAPES}
    build_s = measure_building()
    missed = [shape for shape, goal in GOALS.items() if found[shape].gas > goal]
    if options.json:
        figures: dict[str, Any] = {
            "reports": [asdict(one) for one in found.values()],
            **marginal(found),
            "missed": missed,
        }
        figures["build_s"] = build_s
        options.json.write_text(json.dumps(figures, indent=1) + "\n")
    print(f"{'members':>7}  {'streams':>7}  {'gas':>9}  {'Polygon':>9}  {'call bytes':>10}  goal")
    for shape, one in found.items():
        goal = f"{GOALS[shape]:,}" if shape in GOALS else ""
        print(f"{one.members:7}  {one.streams:7}  {one.gas:9,}  {one.polygon:9,}  {one.bytes:10,}  {goal}")
    for what, (gas, polygon) in marginal(found).items():
        print(f"{what.replace('_', ' ')}: {gas:,} gas, {polygon:,} at Polygon's prices")
    print(f"built of {WINDOWS} windows, {STREAMS:,} streams, {NODES} nodes: {build_s:.2f} s, goal {BUILD_GOAL_S:.2f} s")
    for shape in missed:
        print(f"more than the goal: {shape[0]} members, {shape[1]} streams", file=sys.stderr)
    return FAILED if missed or build_s > BUILD_GOAL_S else OK


def measure_building() -> float:
    """Seconds of processor that the report of the large bundle takes; the best of a few."""
    nodes = [an_address(n + 1) for n in range(NODES)]
    streams = [f"0x{'ab' * 20}/stream-{n:05}" for n in range(STREAMS)]
    bundle = Bundle(
        windows=[{s: (n * 7_919 + w * 31) % 5_000 + 1 for n, s in enumerate(streams)} for w in range(WINDOWS)],
        prices=[UNIT_PRICE + w for w in range(WINDOWS)],
        shares=[[BrokerShare(node, 10**6 + w + k, k * w) for k, node in enumerate(nodes)] for w in range(WINDOWS)],
        stores=dict.fromkeys(streams, 10**12),
        stakes=dict.fromkeys(nodes, 10**15),
        uploader=nodes[0],
        parameters=the_parameters(penalty_ppm=100_000, treasury_ppm=100_000, upload_ppm=10_000, rent=3),
    )
    took: list[float] = []

    def timed(*arguments: Any, **named: Any) -> tuple[Report, Ledger]:
        begun = time.process_time()
        built = build_report(*arguments, **named)
        took.append(time.process_time() - begun)
        return built

    for _ in range(BUILDS):
        settle(bundle, build=timed)
    return min(took)


def marginal(found: dict[tuple[int, int], Measured]) -> dict[str, tuple[int, int]]:
    """(gas, gas at Polygon's prices) of one more signature with its member's line, and of one more stream."""
    few, many = found[4, 10], found[31, 10]
    signatures = _quorum(31) - _quorum(4)
    one, hundred = found[13, 10], found[13, 100]
    return {
        "one_more_signature_and_its_node_line": (
            (many.gas - few.gas) // signatures,
            (many.polygon - few.polygon) // signatures,
        ),
        "one_more_stream": ((hundred.gas - one.gas) // 90, (hundred.polygon - one.polygon) // 90),
    }


def measure(members: int, streams: int) -> Measured:
    """Submit three reports of this shape on a fresh chain; the last counts."""
    with servers.run_anvil("--steps-tracing") as url:
        network = ContractNetwork.create(url, members=members, streams=streams)
        try:
            taken = dict.fromkeys(network.streams, WEI + 12_345)
            paid = dict.fromkeys(network.consumers, WEI // 7)
            whole = sum(taken.values()) + sum(paid.values())
            nodes = {key.address: whole // (2 * members) for key in network.validators}
            for _ in range(2):
                network.submit(network.next_report(taken, paid, nodes))
            report = network.next_report(taken, paid, nodes)
            data = interface("ReportManager").function("submitReport").encode(network.arguments(report))
            receipt = network.submit(report)
            gas = int(receipt["gasUsed"], 16)
            more = _polygons_surcharge(network, receipt["transactionHash"])
            return Measured(members, streams, gas, gas + more, len(data))
        finally:
            network.chain.close()


def _polygons_surcharge(network: ContractNetwork, transaction: str) -> int:
    """What cold slots of a transaction cost more on Polygon."""
    options = {"disableMemory": True, "disableStack": True, "disableStorage": True}
    request = Request("debug_traceTransaction", (transaction, options), _count_cold)
    more: int = network.chain.rpc.agree([request])[0]
    return more


def _count_cold(trace: dict[str, list[dict[str, object]]]) -> int:
    steps = trace["structLogs"]
    reads = sum(1 for step in steps if step["op"] == "SLOAD" and step["gasCost"] == COLD_READ)
    writes = sum(1 for step in steps if step["op"] == "SSTORE" and step["gasCost"] in COLD_WRITES)
    return reads * COLD_READ_MORE + writes * COLD_WRITE_MORE


def _quorum(members: int) -> int:
    return members - (members - 1) // 3
