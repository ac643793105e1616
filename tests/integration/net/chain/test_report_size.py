"""The largest report that a network's parameters allow fits a transaction that nodes take and blocks hold."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import servers
from tests.builders import a_key
from tests.contract_network import ContractNetwork
from validator.devnet.contracts import WEI, StreamSetup
from validator.net.chain.sender import ChainSender
from validator.net.chain.transaction import parse_raw
from validator.protocol.model import Digest
from validator.protocol.parameters import MAX_COMMITTEE, MAX_REPORT_LINES

MAX_GAS = 12_000_000
MAX_BYTES = 96 << 10
ID_BYTES = 256


@pytest.fixture
def chain_url() -> Iterator[str]:
    with servers.run_anvil() as url:
        yield url


def test_a_report_of_all_lines_with_the_longest_ids_fits_one_transaction(chain_url: str) -> None:
    network = ContractNetwork.create(chain_url, members=MAX_COMMITTEE, streams=1)
    prefix = f"0x{a_key(1).address.hex()}/"
    streams = [f"{prefix}{i:04}".ljust(ID_BYTES, "x") for i in range(MAX_REPORT_LINES)]
    network.chain.create_streams([StreamSetup(stream, 10 * WEI) for stream in streams])
    consumers = [a_key(90_000 + i).address for i in range(MAX_REPORT_LINES)]
    network.chain.stake_consumers(dict.fromkeys(consumers, 10 * WEI))
    report = network.next_report(
        streams=dict.fromkeys(streams, WEI),
        consumers=dict.fromkeys(consumers, WEI),
        nodes={key.address: WEI for key in (*network.validators, *network.brokers)},
        next_committee=tuple(sorted(a_key(50_000 + i).address for i in range(MAX_COMMITTEE))),
        next_config_digest=Digest(b"\x05" * 32),
    )
    network.chain.mine()
    key = a_key(700)
    network.chain.fund([key.address], 100 * WEI)
    sender = ChainSender([chain_url], network.chain.deployment.contracts, key, chain_id=31337)
    prepared = sender.prepare(report, *network.sign(report))
    sender.send(prepared)
    network.chain.mine()
    fate = sender.fetch_fate([prepared])
    sender.close()
    network.chain.close()
    assert fate.success
    assert fate.gas_used < parse_raw(prepared.raw).gas < MAX_GAS
    assert len(prepared.raw) < MAX_BYTES
