"""Whose network it is, and whom to ask.

    network file    --network, or LOGSTORE_NETWORK_FILE, or ./network.toml, or that of a development network that runs
                    on this machine; a path, or an https address
    RPC nodes       --rpc (several times), or LOGSTORE_RPC_URLS, or [consumers] of the network file
    gateways        --gateway, or LOGSTORE_GATEWAY_URLS, or [consumers] of the network file
    cache folder    --cache, or LOGSTORE_CACHE_DIR, or logstore below the user's cache folder; its bound in MiB is
                    LOGSTORE_CACHE_MIB

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
from urllib.parse import urlsplit

from logstore.errors import Refused
from logstore.network_file import REMEDY, load_network_file
from validator.net.network_file import THIS_MACHINE
from validator.net.running_network import RunningNetwork, find_running
from validator.protocol.errors import ConfigError
from validator.protocol.parameters import Network

if TYPE_CHECKING:
    from logstore.reports import Reports
    from validator.net.arweave.storage import ArweaveStorage

DEFAULT_FILE = "network.toml"
DEFAULT_CACHE_MIB = 10 << 10


@dataclass(frozen=True, slots=True)
class Sources:
    """What was found. No URL has been asked yet."""

    network: Network
    rpc_urls: tuple[str, ...]
    gateway_urls: tuple[str, ...]
    cache: Path
    cache_bytes: int = DEFAULT_CACHE_MIB << 20
    """So much is kept while nobody reads it."""
    kept_file: Path | None = None
    """Where the network's file is kept, if it came from an address."""
    remark: str = ""
    """On the network's file, or nothing."""
    running: RunningNetwork | None = None
    """The development network that was found, where nobody named another."""

    @property
    def is_here(self) -> bool:
        """Whether all of the chain is on this machine: then brokers may be, and without TLS."""
        return bool(self.rpc_urls) and all(urlsplit(url).hostname in THIS_MACHINE for url in self.rpc_urls)


def find_sources(
    network_file: str | Path | None = None,
    rpc: Sequence[str] = (),
    gateways: Sequence[str] = (),
    cache: Path | None = None,
    environment: Mapping[str, str] = os.environ,
    *,
    offline: bool = False,
) -> Sources:
    """Only a network's file at an address is asked for, and not even that with ``offline``.

    Raises:
        ConfigError: no network file, or one that does not parse.
        TransientError, RemoteFault: the address of the file does not answer, or with something else.
    """
    folder = cache or _default_cache(environment)
    running = None if has_network(network_file, environment) else find_running(environment)
    source = network_file or environment.get("LOGSTORE_NETWORK_FILE") or (running.network if running else DEFAULT_FILE)
    if source == DEFAULT_FILE and not Path(source).exists():
        raise ConfigError(f"no network is named, and none runs on this machine; {REMEDY}", field="network")
    found = load_network_file(source, folder / "networks", offline=offline)
    network, named = found.network, found.network.consumers
    return Sources(
        network=network,
        rpc_urls=tuple(rpc) or _listed(environment, "LOGSTORE_RPC_URLS") or named.rpc_urls,
        gateway_urls=tuple(gateways) or _listed(environment, "LOGSTORE_GATEWAY_URLS") or named.gateway_urls,
        cache=folder / f"{network.chain_id}-{network.contracts.report_manager.hex()}",
        cache_bytes=_cache_bytes(environment),
        kept_file=found.kept,
        remark=found.remark,
        running=running,
    )


def has_network(network_file: str | Path | None, environment: Mapping[str, str] = os.environ) -> bool:
    """Whether somebody named a network's file, or one lies here."""
    return bool(network_file or environment.get("LOGSTORE_NETWORK_FILE") or Path(DEFAULT_FILE).exists())


def _listed(environment: Mapping[str, str], name: str) -> tuple[str, ...]:
    return tuple(url.strip() for url in environment.get(name, "").split(",") if url.strip())


def _default_cache(environment: Mapping[str, str]) -> Path:
    own = environment.get("LOGSTORE_CACHE_DIR")
    return Path(own) if own else Path(environment.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "logstore"


def _cache_bytes(environment: Mapping[str, str]) -> int:
    text = environment.get("LOGSTORE_CACHE_MIB") or str(DEFAULT_CACHE_MIB)
    if not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise ConfigError(f"LOGSTORE_CACHE_MIB: {text!r} is no number of MiB", field="cache")
    return int(text) << 20


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
        for name in ("reports", "weave", "bundles"):
            if name in self.__dict__:
                self.__dict__[name].close()

    @cached_property
    def reports(self) -> Reports:
        """What the contract holds.

        Raises:
            ConfigError: no node of the chain is named.
            Refused: a network's file that came from an address does not fit the contract.
        """
        from logstore.reports import Reports

        if not self.sources.rpc_urls:
            raise ConfigError("no node of the chain is named: use --rpc, or LOGSTORE_RPC_URLS", field="rpc")
        reports = Reports(self.sources.rpc_urls, self.network, now_ms())
        kept = self.sources.kept_file
        if kept is not None and reports.contract_epoch is None:
            kept.unlink(missing_ok=True)  # the address may have a newer one
            reports.close()
            raise Refused(
                "network file",
                "config_digest",
                f"the contract holds 0x{reports.contract.config_digest.hex()}, which follows from no epoch of the file"
                " at this address: it is out of date, or not of this contract",
            )
        return reports

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
