"""Protocol parameters: equal on all validators, read from network.toml, part of every config digest.

A network is a genesis time, contracts on a chain, and a list of parameter sets, each with the first epoch it
is for. Epochs follow each other without gaps; a set may be the network's last: it holds for one epoch and no
window starts after it. Windows, epochs and their sets are functions of time alone (design: parameters, epochs).

One table is for readers only, and in no digest: ``[consumers]`` says where somebody who is given this file may ask the
chain and the weave. Validators ask what their operators name.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from validator.protocol.errors import ConfigError
from validator.protocol.model import PPM, Address, Digest, Window

PROTOCOL_VERSIONS = (2,)
"""Protocol versions that this release speaks."""
MONEY = frozenset({"scope_floor", "rent", "price_min", "price_max", "price_default", "dust", "consumer_floor"})
"""Parameters in base units, which may be large."""
MONEY_BITS = 128
AT_LEAST_ONE = (
    "epoch_windows",
    "window_ms",
    "bundle_windows",
    "bundle_bytes",
    "budget_windows",
    "price_min",
    "ledger_epochs",
)
COUNT_BITS = 63
MAX_COMMITTEE = 32
"""Members that the contract takes (ReportManager.MAX_COMMITTEE)."""
MAX_REPORT_LINES = 128
"""Streams, and as many consumers, that one report settles: with ids of 256 bytes, 32 members and a next committee its
transaction stays below 12 M gas and 96 KiB (nodes' pools take 128 KiB; a test submits it)."""
LATEST_GENESIS_MS = 4_102_444_800_000
"""The year 2100: a genesis after it is a slip of the pen, and a network that waits for it would only look idle."""
_KINDS: dict[str, type] = {"str": str, "bool": bool, "int": int}


@dataclass(frozen=True, slots=True)
class Contracts:
    """Addresses of the network's contracts."""

    token: Address
    node_manager: Address
    store_manager: Address
    query_manager: Address
    report_manager: Address
    stream_registry: Address


@dataclass(frozen=True, slots=True)
class ConsumerUrls:
    """Public places that answer anybody. Consumers ask them unless they name others; no validator does.

    Nothing rests on them but speed: whatever they answer is checked, or compared with what the others say.
    """

    rpc_urls: tuple[str, ...] = ()
    """JSON-RPC nodes of the chain; three of different operators are advised, since a majority is believed."""
    gateway_urls: tuple[str, ...] = ()
    """Arweave gateways; the last is asked first, the others where it fails."""


@dataclass(frozen=True, slots=True)
class ParameterSet:
    """The parameters of the epochs from ``first_epoch`` on. Times in ms, sizes in bytes, money in base units.

    ``finality`` is "finalized" (the chain's own tag) or a number of blocks below the head. ``report_mode`` is always
    "attested": a file that names another wants contracts that are not ours. Prices are base units per MiB of signed
    bytes; ``*_ppm`` millionths.
    """

    first_epoch: int
    epoch_windows: int
    protocol_version: int = 2
    last: bool = False
    # time
    window_ms: int = 60_000
    grace_ms: int = 4_000
    horizon_ms: int = 600_000
    margin_ms: int = 10_800_000
    lag_s: int = 20
    finality: str = "finalized"
    fresh_wait_windows: int = 2
    # agreement
    timeout_propose_ms: int = 1_500
    timeout_prevote_ms: int = 1_000
    timeout_precommit_ms: int = 1_000
    timeout_delta_ms: int = 500
    timeout_max_ms: int = 60_000
    windows_active: int = 16
    committee_limit: int = MAX_COMMITTEE
    # sizes
    bundle_windows: int = 60
    bundle_bytes: int = 256 << 20
    partition_limit: int = 64 << 20
    message_limit: int = 1 << 20
    evidence_limit: int = 64
    erc1271_limit: int = 1_000
    budget_windows: int = 150
    # money
    scope_floor: int = 0
    rent: int = 0
    price_min: int = 1
    price_max: int = 1 << 40
    price_default: int = 1 << 20
    read_ppm: int = 50_000
    treasury_ppm: int = 100_000
    penalty_ppm: int = 100_000
    upload_ppm: int = 50_000
    dust: int = 1
    consumer_floor: int = 1
    ledger_epochs: int = 8
    # reports and uploads
    report_mode: str = "attested"
    report_lines: int = 100
    confirmations: int = 18
    upload_stage_ms: int = 300_000
    transmit_stage_ms: int = 60_000

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if type(value) is not _KINDS[str(field.type)]:
                raise ConfigError(f"{field.name} must be of type {field.type}", field=field.name)
            if isinstance(value, int) and not 0 <= value < 1 << (MONEY_BITS if field.name in MONEY else COUNT_BITS):
                raise ConfigError(f"{field.name} must not be negative or that large", field=field.name)
        for name in AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1", field=name)
        if not 1 <= self.committee_limit <= MAX_COMMITTEE:
            raise ConfigError(f"committee_limit must be 1 to {MAX_COMMITTEE}", field="committee_limit")
        for name in ("treasury_ppm", "penalty_ppm"):
            if getattr(self, name) > PPM:
                raise ConfigError(f"{name} must be at most {PPM}", field=name)
        if not self.price_min <= self.price_default <= self.price_max:
            raise ConfigError("price_default must lie between price_min and price_max", field="price_default")
        if self.report_mode != "attested":
            raise ConfigError("report_mode must be attested", field="report_mode")
        if self.finality != "finalized" and not (self.finality.isascii() and self.finality.isdecimal()):
            raise ConfigError("finality must be finalized or a number of blocks", field="finality")
        if self.margin_ms < 3 * self.bundle_windows * self.window_ms:
            raise ConfigError("margin_ms must be at least 3 x bundle_windows x window_ms", field="margin_ms")

    @property
    def late_reach_ms(self) -> int:
        """How far before its bundle's end a message of a late set may lie."""
        return self.horizon_ms + self.margin_ms


@dataclass(frozen=True, slots=True)
class Epoch:
    """Windows with one committee: [start_ms, end_ms); ``last`` if no window follows."""

    number: int
    start_ms: int
    parameters: ParameterSet

    @property
    def end_ms(self) -> int:
        return self.start_ms + self.parameters.epoch_windows * self.parameters.window_ms

    @property
    def last(self) -> bool:
        return self.parameters.last


@dataclass(frozen=True, slots=True)
class Network:
    """A whole network: identity on chain, genesis, and its parameter sets in order of their first epoch."""

    name: str
    chain_id: int
    deployment_block: int
    deployment_parent_hash: Digest
    contracts: Contracts
    genesis_ms: int
    sets: tuple[ParameterSet, ...]
    config_count: int = 0
    consumers: ConsumerUrls = ConsumerUrls()

    def __post_init__(self) -> None:
        for name in ("chain_id", "deployment_block", "genesis_ms", "config_count"):
            if not 0 <= getattr(self, name) < 1 << COUNT_BITS:
                raise ConfigError(f"{name} must not be negative or that large", field=name)
        if self.genesis_ms > LATEST_GENESIS_MS:
            raise ConfigError("genesis_ms lies after the year 2100; it counts milliseconds", field="genesis_ms")
        if not self.sets or self.sets[0].first_epoch != 0:
            raise ConfigError("the first parameter set must be for epoch 0", field="sets")
        firsts = [s.first_epoch for s in self.sets]
        if firsts != sorted(set(firsts)):
            raise ConfigError("parameter sets must be in order of first_epoch, each once", field="sets")
        if any(s.last for s in self.sets[:-1]):
            raise ConfigError("only the last parameter set may be the network's last", field="sets")

    def config_of(self, epoch: Epoch, committee: tuple[Address, ...]) -> Config:
        """What the epoch's config digest covers with this committee."""
        return Config(
            chain_id=self.chain_id,
            deployment_parent_hash=self.deployment_parent_hash,
            contracts=self.contracts,
            parameters=epoch.parameters,
            epoch=epoch.number,
            config_count=self.config_count,
            committee=committee,
        )

    def epoch(self, number: int) -> Epoch | None:
        """Epoch by number; None if the network has ended before."""
        if number < 0:
            return None
        start = self.genesis_ms
        for index, parameters in enumerate(self.sets):
            span = parameters.epoch_windows * parameters.window_ms
            following = self.sets[index + 1].first_epoch if index + 1 < len(self.sets) else None
            if following is None or number < following:
                if parameters.last and number > parameters.first_epoch:
                    return None
                return Epoch(number, start + (number - parameters.first_epoch) * span, parameters)
            start += (following - parameters.first_epoch) * span
        return None

    def epoch_at(self, ms: int) -> Epoch | None:
        """The epoch in which ``ms`` lies; None before genesis or after the network's end."""
        if ms < self.genesis_ms:
            return None
        start = self.genesis_ms
        for index, parameters in enumerate(self.sets):
            span = parameters.epoch_windows * parameters.window_ms
            following = self.sets[index + 1].first_epoch if index + 1 < len(self.sets) else None
            number = parameters.first_epoch + (ms - start) // span
            if following is None or number < following:
                return self.epoch(number)
            start += (following - parameters.first_epoch) * span
        return None

    def window_at(self, ms: int) -> Window | None:
        """The window in which ``ms`` lies."""
        epoch = self.epoch_at(ms)
        if epoch is None:
            return None
        length = epoch.parameters.window_ms
        start = epoch.start_ms + (ms - epoch.start_ms) // length * length
        return Window(start, start + length)

    def window(self, start_ms: int) -> Window | None:
        """The window that starts exactly at ``start_ms``; None if none does."""
        window = self.window_at(start_ms)
        return window if window is not None and window.start_ms == start_ms else None

    def next_window(self, window: Window) -> Window | None:
        return self.window_at(window.end_ms)

    def windows_from(self, start_ms: int) -> Iterator[Window]:
        """All windows from the one that starts at ``start_ms`` on, until the network ends."""
        window = self.window_at(start_ms)
        while window is not None:
            yield window
            window = self.next_window(window)

    def windows_between(self, from_ms: int, until_ms: int) -> Iterator[Window]:
        """Windows that overlap [from_ms, until_ms)."""
        first = self.window_at(max(from_ms, self.genesis_ms))
        for window in self.windows_from(first.start_ms) if first is not None else ():
            if window.start_ms >= until_ms:
                return
            yield window


@dataclass(frozen=True, slots=True)
class Config:
    """All that a config digest covers (codec.config): network identity, parameters, epoch, committee."""

    chain_id: int
    deployment_parent_hash: Digest
    contracts: Contracts
    parameters: ParameterSet
    epoch: int
    config_count: int
    committee: tuple[Address, ...]


def parse_network(text: str) -> Network:
    """Read network.toml.

    Raises:
        ConfigError: names the field that is missing, unknown or of the wrong type.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"network file is not TOML: {error}", field="network") from error
    _refuse_unknown(data, [f.name for f in dataclasses.fields(Network)], "top level")
    contracts = _read(data, "contracts", dict)
    names = [f.name for f in dataclasses.fields(Contracts)]
    _refuse_unknown(contracts, names, "contracts")
    return Network(
        name=_read(data, "name", str),
        chain_id=_read(data, "chain_id", int),
        deployment_block=_read(data, "deployment_block", int),
        deployment_parent_hash=Digest(_hex(data, "deployment_parent_hash", 32)),
        contracts=Contracts(**{name: Address(_hex(contracts, name, 20)) for name in names}),
        genesis_ms=_read(data, "genesis_ms", int),
        config_count=_read(data, "config_count", int) if "config_count" in data else 0,
        sets=tuple(_parse_set(item) for item in _read(data, "sets", list)),
        consumers=_parse_consumers(_read(data, "consumers", dict)) if "consumers" in data else ConsumerUrls(),
    )


def format_network(network: Network) -> str:
    """network.toml of a network: the inverse of ``parse_network``."""
    lines = [
        f"name = {_quote(network.name)}",
        f"chain_id = {network.chain_id}",
        f"deployment_block = {network.deployment_block}",
        f'deployment_parent_hash = "0x{network.deployment_parent_hash.hex()}"',
        f"genesis_ms = {network.genesis_ms}",
        f"config_count = {network.config_count}",
        "",
        "[contracts]",
    ]
    for field in dataclasses.fields(Contracts):
        lines.append(f'{field.name} = "0x{getattr(network.contracts, field.name).hex()}"')
    if network.consumers != ConsumerUrls():
        lines += ["", "[consumers]"]
        for field in dataclasses.fields(ConsumerUrls):
            lines.append(f"{field.name} = [{', '.join(map(_quote, getattr(network.consumers, field.name)))}]")
    for parameters in network.sets:
        lines += ["", "[[sets]]"]
        for field in dataclasses.fields(ParameterSet):
            value = getattr(parameters, field.name)
            text = _quote(value) if isinstance(value, str) else str(value).lower()
            lines.append(f"{field.name} = {text}")
    return "\n".join(lines) + "\n"


def _quote(text: str) -> str:
    """A basic string of TOML: as JSON writes it, but for astral characters and DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _parse_set(item: Any) -> ParameterSet:
    if not isinstance(item, dict):
        raise ConfigError("each of sets must be a table", field="sets")
    fields = {f.name: f for f in dataclasses.fields(ParameterSet)}
    _refuse_unknown(item, list(fields), "sets")
    for required in ("first_epoch", "epoch_windows"):
        if required not in item:
            raise ConfigError(f"sets: {required} is missing", field=required)
    parameters = ParameterSet(**item)
    if not 1 <= parameters.report_lines <= MAX_REPORT_LINES:
        raise ConfigError(
            f"sets: report_lines must be 1 to {MAX_REPORT_LINES}: a report must fit one transaction",
            field="report_lines",
        )
    return parameters


def _parse_consumers(table: dict[str, Any]) -> ConsumerUrls:
    names = [f.name for f in dataclasses.fields(ConsumerUrls)]
    _refuse_unknown(table, names, "consumers")
    urls = {name: _read(table, name, list) for name in names if name in table}
    for name, items in urls.items():
        if not all(isinstance(item, str) for item in items):
            raise ConfigError(f"network file: {name} must be a list of texts", field=name)
    return ConsumerUrls(**{name: tuple(items) for name, items in urls.items()})


def _read(data: dict[str, Any], name: str, kind: type) -> Any:
    if name not in data:
        raise ConfigError(f"network file: {name} is missing", field=name)
    if type(data[name]) is not kind:
        raise ConfigError(f"network file: {name} must be of type {kind.__name__}", field=name)
    return data[name]


def _hex(data: dict[str, Any], name: str, size: int) -> bytes:
    text = _read(data, name, str)
    try:
        value = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        value = b""
    if len(value) != size:
        raise ConfigError(f"network file: {name} must be 0x and {2 * size} hex digits", field=name)
    return value


def _refuse_unknown(data: dict[str, Any], known: list[str], where: str) -> None:
    unknown = sorted(set(data) - set(known))
    if unknown:
        raise ConfigError(f"network file: {where}: unknown field {unknown[0]!r}", field=unknown[0])
