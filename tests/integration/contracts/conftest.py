"""A network of contracts per module, put back to its first state before each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract_network import ContractNetwork
from validator.protocol.model import NIL, Root


@pytest.fixture(scope="module")
def deployed(anvil: str) -> Iterator[ContractNetwork]:
    network = ContractNetwork.create(anvil)
    yield network
    network.chain.close()


@pytest.fixture
def network(deployed: ContractNetwork) -> Iterator[ContractNetwork]:
    snapshot = deployed.chain.call_rpc("evm_snapshot")
    yield deployed
    deployed.chain.call_rpc("evm_revert", snapshot)
    deployed.chain.forget_nonces()
    deployed.number, deployed.last_root, deployed.last_ms = 0, Root(NIL), 1_000
