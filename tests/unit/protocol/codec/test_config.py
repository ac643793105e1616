"""Config digests: what they cover, their published bytes, and preimages that are not exactly ours."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import replace
from typing import Any

import cbor2
import pytest

from tests import paths
from validator.protocol.codec.config import config_digest, decode_config, encode_config, name_difference
from validator.protocol.errors import MalformedInput
from validator.protocol.model import Address, Digest
from validator.protocol.parameters import Config, Contracts, ParameterSet

VECTORS = json.loads((paths.VECTORS / "config.json").read_text())["configs"]
PARAMETERS = ParameterSet(first_epoch=2, epoch_windows=10, price_max=1 << 100, margin_ms=1 << 40)
MEMBERS = tuple(Address(bytes([n]) * 20) for n in (3, 1, 2))


def a_config(**fields: Any) -> Config:
    values: dict[str, Any] = {
        "chain_id": 137,
        "deployment_parent_hash": Digest(b"\x0a" * 32),
        "contracts": Contracts(*(Address(bytes([i]) * 20) for i in range(1, 7))),
        "parameters": PARAMETERS,
        "epoch": 5,
        "config_count": 1,
        "committee": MEMBERS,
    }
    return Config(**{**values, **fields})


@pytest.mark.parametrize("vector", VECTORS, ids=[v["name"] for v in VECTORS])
def test_preimage_and_digest_are_those_of_the_vector(vector: dict[str, Any]) -> None:
    preimage = bytes.fromhex(vector["preimage"])
    config = decode_config(preimage)
    assert encode_config(config) == preimage
    assert config_digest(config).hex() == vector["digest"] == hashlib.sha256(preimage).hexdigest()
    assert vector["fields"] == json.loads(json.dumps(cbor2.loads(preimage), default=lambda b: "0x" + b.hex()))


def test_the_order_in_which_members_are_given_changes_nothing() -> None:
    assert config_digest(a_config(committee=MEMBERS[::-1])) == config_digest(a_config())
    assert decode_config(encode_config(a_config())).committee == tuple(sorted(MEMBERS))


def different() -> list[tuple[str, Config]]:
    config = a_config()
    changed: list[tuple[str, Config]] = [
        ("chain_id", a_config(chain_id=138)),
        ("deployment_parent_hash", a_config(deployment_parent_hash=Digest(bytes(32)))),
        ("epoch", a_config(epoch=6)),
        ("config_count", a_config(config_count=2)),
        ("committee", a_config(committee=MEMBERS[:2])),
    ]
    for field in dataclasses.fields(Contracts):
        contracts = replace(config.contracts, **{field.name: Address(b"\xff" * 20)})
        changed.append((f"contracts.{field.name}", a_config(contracts=contracts)))
    others: dict[str, Any] = {"finality": "7", "last": True, "price_max": 1 << 101}
    others["committee_limit"] = 31
    for parameter in dataclasses.fields(ParameterSet):
        name: Any = parameter.name
        if name == "report_mode":
            continue  # it has one value
        value = others[name] if name in others else getattr(PARAMETERS, name) + 1
        changed.append((f"parameters.{name}", a_config(parameters=replace(PARAMETERS, **{name: value}))))
    return changed


@pytest.mark.parametrize(("name", "other"), different(), ids=[name for name, _ in different()])
def test_every_field_changes_the_digest_and_is_named_where_two_configs_differ(name: str, other: Config) -> None:
    assert config_digest(other) != config_digest(a_config())
    assert name_difference(a_config(), other) == name
    assert decode_config(encode_config(other)) == replace(other, committee=tuple(sorted(other.committee)))


def test_equal_configs_differ_in_nothing() -> None:
    assert name_difference(a_config(), a_config()) == ""


def rewrite(change: Any) -> bytes:
    """The preimage with its decoded form changed in place."""
    fields = cbor2.loads(encode_config(a_config()))
    change(fields)
    return cbor2.dumps(fields)


def set_parameter(fields: Any, name: str, value: Any) -> None:
    next(pair for pair in fields[5][1] if pair[0] == name)[1] = value


@pytest.mark.parametrize(
    "change",
    [
        lambda f: f.__setitem__(0, "config/2"),
        lambda f: f.pop(),
        lambda f: f.append(["more", 1]),
        lambda f: f[1].__setitem__(1, 1),
        lambda f: f[2].__setitem__(1, b"\x01"),
        lambda f: f[2].__setitem__(1, -1),
        lambda f: f[3].__setitem__(1, bytes(31)),
        lambda f: f[4][1][0].__setitem__(1, bytes(19)),
        lambda f: f[4][1].reverse(),
        lambda f: f[4][1].pop(),
        lambda f: f[5][1].pop(),
        lambda f: f[5][1].append(["unknown", 1]),
        lambda f: set_parameter(f, "window_ms", "60000"),
        lambda f: set_parameter(f, "window_ms", 0),
        lambda f: set_parameter(f, "last", 0),
        lambda f: set_parameter(f, "rent", 5),
        lambda f: set_parameter(f, "rent", b"\x00\x01"),
        lambda f: set_parameter(f, "finality", 5),
        lambda f: set_parameter(f, "report_mode", "legacy"),
        lambda f: f[6].__setitem__(1, -1),
        lambda f: f[7].__setitem__(1, "1"),
        lambda f: f[8][1].reverse(),
        lambda f: f[8][1].append(f[8][1][-1]),
        lambda f: f[8][1].__setitem__(0, bytes(21)),
        lambda f: f[8][1].__setitem__(0, 5),
        lambda f: f.__setitem__(3, f[2]),
        lambda f: f.__setitem__(2, 7),
    ],
)
def test_a_preimage_that_is_not_exactly_ours_is_refused(change: Any) -> None:
    with pytest.raises(MalformedInput):
        decode_config(rewrite(change))


def test_an_oversized_or_cut_preimage_is_refused() -> None:
    whole = encode_config(a_config())
    for data in (whole[:-1], whole + b"\x00", b"", whole + bytes(1 << 20)):
        with pytest.raises(MalformedInput):
            decode_config(data)
