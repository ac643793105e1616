"""The config digest: SHA-256 over labelled, length-prefixed fields; its preimage travels in manifests.

Canonical CBOR object "config/1" of [name, value] pairs, so every part carries its label and its length.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import Any

from validator.protocol.codec import cbor
from validator.protocol.errors import ConfigError, MalformedInput
from validator.protocol.hashing import hash_object
from validator.protocol.model import Address, Digest
from validator.protocol.parameters import COUNT_BITS, MONEY, Config, Contracts, Network, ParameterSet

KIND = "config/1"
MAX_BYTES = 64 << 10
_CONTRACTS = tuple(f.name for f in dataclasses.fields(Contracts))
_PARAMETERS = tuple(f.name for f in dataclasses.fields(ParameterSet))


def encode_config(config: Config) -> bytes:
    """Preimage of the config digest. The committee is sorted here."""
    parameters = [[name, _pack(name, getattr(config.parameters, name))] for name in _PARAMETERS]
    return cbor.encode_object(
        KIND,
        ["protocol_version", config.parameters.protocol_version],
        ["chain_id", config.chain_id],
        ["deployment_parent_hash", config.deployment_parent_hash],
        ["contracts", [[name, getattr(config.contracts, name)] for name in _CONTRACTS]],
        ["parameters", parameters],
        ["epoch", config.epoch],
        ["config_count", config.config_count],
        ["committee", sorted(config.committee)],
    )


def config_digest(config: Config) -> Digest:
    return hash_object(encode_config(config))


def find_epoch(network: Network, committee: tuple[Address, ...], digest: Digest, times_ms: Iterable[int]) -> int | None:
    """The epoch at or next to one of these times whose config digest this is with this committee; None if none is.

    So a network's file is compared with the contract: each parameter, address and count of it is in the digest.
    """
    epochs = [epoch.number for ms in times_ms if (epoch := network.epoch_at(ms)) is not None]
    for number in sorted({n + near for n in epochs for near in (-1, 0, 1)}):
        epoch = network.epoch(number)
        if epoch is not None and config_digest(network.config_of(epoch, committee)) == digest:
            return number
    return None


def decode_config(preimage: bytes) -> Config:
    """Inverse of ``encode_config``.

    Raises:
        MalformedInput: not canonical, or a field is missing, unknown or out of range.
    """
    fields = cbor.decode_object(preimage, KIND, 8, max_bytes=MAX_BYTES)
    try:
        pairs = dict(fields)
        contracts = {name: _address(value) for name, value in pairs["contracts"]}
        parameters = {name: _unpack(name, value) for name, value in pairs["parameters"]}
        config = Config(
            chain_id=_count(pairs["chain_id"]),
            deployment_parent_hash=Digest(_fixed(pairs["deployment_parent_hash"], 32)),
            contracts=Contracts(**contracts),
            parameters=ParameterSet(**parameters),
            epoch=_count(pairs["epoch"]),
            config_count=_count(pairs["config_count"]),
            committee=tuple(_address(a) for a in pairs["committee"]),
        )
        again = encode_config(config)
    except (TypeError, ValueError, KeyError, AttributeError, ConfigError) as error:
        raise MalformedInput(KIND, f"fields do not fit: {error}") from error
    if len(set(config.committee)) != len(config.committee):
        raise MalformedInput(KIND, "fields do not fit: a member stands twice")
    if again != preimage:
        raise MalformedInput(KIND, "fields do not fit: another encoding of the same values")
    return config


def name_difference(own: Config, other: Config) -> str:
    """Names the fields in which two configs differ, "" if none: for handshakes and ``check``."""
    names = [
        n
        for n in ("chain_id", "deployment_parent_hash", "epoch", "config_count", "committee")
        if getattr(own, n) != getattr(other, n)
    ]
    names += [f"contracts.{n}" for n in _CONTRACTS if getattr(own.contracts, n) != getattr(other.contracts, n)]
    names += [f"parameters.{n}" for n in _PARAMETERS if getattr(own.parameters, n) != getattr(other.parameters, n)]
    return ", ".join(names)


def _pack(name: str, value: Any) -> Any:
    return cbor.pack_amount(value) if name in MONEY else value


def _unpack(name: str, value: Any) -> Any:
    return cbor.unpack_amount(value, name) if name in MONEY else value


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < 1 << COUNT_BITS:
        raise ValueError(f"{value!r} is not a count")
    return value


def _fixed(value: Any, size: int) -> bytes:
    if not isinstance(value, bytes) or len(value) != size:
        raise ValueError(f"not {size} bytes")
    return value


def _address(value: Any) -> Address:
    return Address(_fixed(value, 20))
