"""What the contract holds, as a reader asks for it: at the newest block, of a chain that is the network's."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from validator.net.chain.bundles import AcceptedBundles
from validator.net.chain.jsonrpc import Request
from validator.net.chain.reader import ChainReader
from validator.net.chain.source import SourceHealth
from validator.net.chain.values import parse_quantity
from validator.protocol.codec.config import find_epoch
from validator.protocol.errors import ConfigError
from validator.protocol.model import Block
from validator.protocol.parameters import Network

DEADLINE_S = 15.0


class Reports(AcceptedBundles):
    """Bundles by number and by time. One thread."""

    def __init__(self, urls: Sequence[str], network: Network, now_ms: int) -> None:
        """Raises ConfigError for a URL that is none."""
        epoch = network.epoch_at(now_ms)
        self._now_ms = now_ms
        super().__init__(
            ChainReader(
                urls,
                network.contracts,
                deployment_block=network.deployment_block,
                finality=(epoch.parameters if epoch else network.sets[-1]).finality,
                chain_id=network.chain_id,
                deadline_s=DEADLINE_S,
            ),
            network,
        )

    def close(self) -> None:
        self.chain.close()

    @property
    def health(self) -> list[SourceHealth]:
        return self.chain.health()

    @cached_property
    def head(self) -> Block:
        """The block that everything is read at.

        Raises:
            ConfigError: the nodes are of another chain.
        """
        chain_id = self.chain.rpc.agree([Request("eth_chainId", (), parse_quantity)])[0]
        if chain_id != self.network.chain_id:
            raise ConfigError(
                f"rpc: the nodes are of chain {chain_id}, the network is on {self.network.chain_id}", field="rpc"
            )
        return self.chain.fetch_head()

    @cached_property
    def contract_epoch(self) -> int | None:
        """The epoch whose config digest the contract holds, as it follows from the network's file; None: of none.

        That is the epoch of the newest bundle, the one behind it, or one of today.
        """
        contract, newest = self.contract, self.fetch(self.count - 1)
        times = (self.network.genesis_ms if newest is None else newest.first_ms, self._now_ms)
        return find_epoch(self.network, contract.committee, contract.config_digest, times)
