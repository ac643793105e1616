"""Whose network it is, and whom to ask.

    network file    --network, or LOGSTORE_NETWORK_FILE, or ./network.toml
    RPC nodes       --rpc (several times), or LOGSTORE_RPC_URLS, or [consumers] of the network file
    gateways        --gateway, or LOGSTORE_GATEWAY_URLS, or [consumers] of the network file
    cache folder    --cache, or LOGSTORE_CACHE_DIR, or logstore below the user's cache folder

The variables are the validator's own, so an operator's shell needs no other words. URLs may hold credentials: of each
only the host is ever shown.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

from validator.protocol.errors import ConfigError
from validator.protocol.parameters import Network, parse_network

if TYPE_CHECKING:
    from logstore.reports import Reports
    from validator.net.arweave.storage import ArweaveStorage

MAX_NETWORK_FILE_BYTES = 1 << 20
DEFAULT_FILE = "network.toml"


@dataclass(frozen=True, slots=True)
class Sources:
    """What was found. No URL has been asked yet."""

    network: Network
    rpc_urls: tuple[str, ...]
    gateway_urls: tuple[str, ...]
    cache: Path


def find_sources(
    network_file: str | Path | None = None,
    rpc: Sequence[str] = (),
    gateways: Sequence[str] = (),
    cache: Path | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Sources:
    """Raises ConfigError: no network file, or one that does not parse."""
    network = load_network(network_file or environment.get("LOGSTORE_NETWORK_FILE") or DEFAULT_FILE)
    named = network.consumers
    return Sources(
        network=network,
        rpc_urls=tuple(rpc) or _listed(environment, "LOGSTORE_RPC_URLS") or named.rpc_urls,
        gateway_urls=tuple(gateways) or _listed(environment, "LOGSTORE_GATEWAY_URLS") or named.gateway_urls,
        cache=(cache or _default_cache(environment)) / f"{network.chain_id}-{network.contracts.report_manager.hex()}",
    )


def has_network(network_file: str | Path | None, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether somebody named a network's file, or one lies here."""
    return bool(network_file or environment.get("LOGSTORE_NETWORK_FILE") or Path(DEFAULT_FILE).exists())


def load_network(file: str | Path) -> Network:
    """Raises ConfigError."""
    try:
        with Path(file).open("rb") as opened:
            text = opened.read(MAX_NETWORK_FILE_BYTES).decode()
    except OSError as error:
        remedy = "name the network's file with --network, or in LOGSTORE_NETWORK_FILE"
        raise ConfigError(f"network file {file}: {error.strerror}; {remedy}", field="network") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"network file {file}: not UTF-8", field="network") from error
    return parse_network(text)


def _listed(environment: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(url.strip() for url in environment.get(name, "").split(",") if url.strip())


def _default_cache(environment: Mapping[str, str]) -> Path:
    own = environment.get("LOGSTORE_CACHE_DIR")
    return Path(own) if own else Path(environment.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "logstore"


class Connection:
    """The chain's nodes and the gateways of one network. Adapters are made when they are first needed."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self.network = sources.network

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give connections back."""
        for name in ("reports", "weave"):
            if name in self.__dict__:
                self.__dict__[name].close()

    @cached_property
    def reports(self) -> Reports:
        """What the contract holds. Raises ConfigError where no node of the chain is named."""
        from logstore.reports import Reports

        if not self.sources.rpc_urls:
            raise ConfigError("no node of the chain is named: use --rpc, or LOGSTORE_RPC_URLS", field="rpc")
        return Reports(self.sources.rpc_urls, self.network, now_ms())

    @cached_property
    def weave(self) -> ArweaveStorage:
        """Gateways, for reading. Raises ConfigError where none is named."""
        from validator.net.arweave.gateway import Limits
        from validator.net.arweave.storage import ArweaveStorage

        if not self.sources.gateway_urls:
            raise ConfigError("no gateway is named: use --gateway, or LOGSTORE_GATEWAY_URLS", field="gateway")
        return ArweaveStorage(self.sources.gateway_urls, None, reward_cap=0, limits=Limits(attempts=2, call_s=30.0))


def now_ms() -> int:
    return time.time_ns() // 1_000_000
