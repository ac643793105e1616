"""Contracts on a node of this module's own, and a reader of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import servers
from tests.contract_network import ContractNetwork
from validator.net.chain.reader import ChainReader


@pytest.fixture(scope="module")
def chain_url() -> Iterator[str]:
    """A node whose newest final block is two below the head."""
    with servers.run_anvil("--slots-in-an-epoch", "1") as url:
        yield url


@pytest.fixture(scope="module")
def network(chain_url: str) -> Iterator[ContractNetwork]:
    network = ContractNetwork.create(chain_url)
    network.chain.mine(3)
    yield network
    network.chain.close()


@pytest.fixture
def reader(chain_url: str, network: ContractNetwork) -> Iterator[ChainReader]:
    deployment = network.chain.deployment
    reader = ChainReader([chain_url], deployment.contracts, deployment_block=deployment.block, chain_id=31337)
    yield reader
    reader.close()
