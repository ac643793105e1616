"""The run's folder: who took part, what was published, what reached a broker, what was collected."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from validator.protocol.codec.arweave_text import decode_base64url
from validator.protocol.model import Address
from validator.protocol.parameters import Network, parse_network


@dataclass(frozen=True, slots=True)
class Member:
    """A validator: its node address and the Arweave address that pays for it."""

    name: str
    address: Address
    wallet: bytes


@dataclass(frozen=True, slots=True)
class Broker:
    """A broker: its name in the logs and its node address."""

    name: str
    address: Address


@dataclass(frozen=True, slots=True)
class Run:
    """What ``run.json`` and ``network.toml`` say."""

    folder: Path
    chain_id: int
    rpc_url: str
    gateway_url: str
    contracts: dict[str, Address]
    deployment_block: int
    windows: int
    validators: tuple[Member, ...]
    brokers: tuple[Broker, ...]
    consumers: tuple[Address, ...]
    killed: str | None
    network: Network

    @property
    def system_stream(self) -> str:
        return f"0x{self.network.contracts.node_manager.hex()}/system"


def read_run(folder: Path) -> Run:
    """Raises OSError, LookupError, TypeError, ValueError or ConfigError for a folder that is not one of a run."""
    data = read_json(folder / "run.json")
    return Run(
        folder=folder,
        chain_id=int(data["chain_id"]),
        rpc_url=data["rpc_url"],
        gateway_url=data["gateway_url"].rstrip("/"),
        contracts={name: _address(text) for name, text in data["contracts"].items()},
        deployment_block=int(data["deployment_block"]),
        windows=int(data["windows"]),
        validators=tuple(
            Member(v["name"], _address(v["address"]), decode_base64url(v["wallet"], "wallet", max_bytes=32))
            for v in data["validators"]
        ),
        brokers=tuple(Broker(b["name"], _address(b["address"])) for b in data["brokers"]),
        consumers=tuple(_address(c["address"]) for c in data["consumers"]),
        killed=data["killed"],
        network=parse_network((folder / data.get("network", "network.toml")).read_text()),
    )


def read_json(path: Path) -> dict[str, Any]:
    value = json.loads(path.read_text())
    if not isinstance(value, dict):
        raise TypeError(f"{path.name} is not a JSON object")
    return value


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """JSON lines of a log. A last line that was cut by a kill is no line; a cut one in between is an error."""
    with path.open("rb") as file:
        for line in file:
            if line.endswith(b"\n"):
                yield json.loads(line)


def _address(text: str) -> Address:
    value = bytes.fromhex(text.removeprefix("0x"))
    if len(value) != 20:
        raise ValueError(f"{text} is not an address")
    return Address(value)
