"""A network that has been set up: everything later steps ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from validator.devnet.carriers import Carrier
from validator.devnet.places import BrokerPlace, ValidatorProcess
from validator.devnet.preparation import Stream
from validator.devnet.sdk_programs import SdkSide
from validator.protocol.parameters import Network


@dataclass(slots=True)
class Stage:
    """Where everybody is, and what they are called."""

    network: Network
    validators: list[ValidatorProcess]
    rpc_url: str
    gateway_url: str
    brokers: list[BrokerPlace]
    streams: tuple[Stream, ...]
    wallets: Mapping[str, str]
    contracts: Mapping[str, str]
    carrier: Carrier
    sdk: SdkSide | None
    indexer_url: str = ""

    @property
    def broker_urls(self) -> list[str]:
        return [broker.url for broker in self.brokers]
