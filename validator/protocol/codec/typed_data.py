"""EIP-712 typed data, reduced to what our statements need.

A ``Struct`` is a type string and its fields; values are given already parsed. Supported member types: bytes32,
address, uint8..uint256, int256, bool, string, bytes, arrays of these or of structs. The payload is
0x19 0x01 || domain separator || struct hash; what is signed is its keccak-256, the digest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from validator.protocol.hashing import keccak256
from validator.protocol.model import Address, Digest


@dataclass(frozen=True, slots=True)
class Domain:
    """EIP-712 domain: one name per purpose, so a signature can never be valid elsewhere."""

    name: str
    version: str
    chain_id: int
    verifying_contract: Address

    def separator(self) -> Digest:
        type_hash = keccak256(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
        return keccak256(
            type_hash
            + keccak256(self.name.encode())
            + keccak256(self.version.encode())
            + self.chain_id.to_bytes(32, "big")
            + bytes(12)
            + self.verifying_contract
        )


@dataclass(frozen=True, slots=True)
class Struct:
    """A struct type: name, members as (type, name), and the struct types it refers to by name."""

    name: str
    members: tuple[tuple[str, str], ...]
    references: tuple[Struct, ...] = ()

    def type_string(self) -> str:
        """``encodeType``: own signature, then the referenced types in alphabetical order."""
        own = f"{self.name}({','.join(f'{kind} {name}' for kind, name in self.members)})"
        return own + "".join(sorted(reference.type_string() for reference in self.references))

    def hash(self, values: Mapping[str, Any]) -> Digest:
        """``hashStruct`` of the values, by member name. Raises KeyError if one is missing."""
        types = {reference.name: reference for reference in self.references}
        encoded = keccak256(self.type_string().encode())
        return keccak256(encoded + b"".join(_encode(kind, values[name], types) for kind, name in self.members))


def payload(domain: Domain, struct: Struct, values: Mapping[str, Any]) -> bytes:
    """What a signer is given: 0x1901 || domain separator || hashStruct, 66 bytes."""
    return b"\x19\x01" + domain.separator() + struct.hash(values)


def digest(domain: Domain, struct: Struct, values: Mapping[str, Any]) -> Digest:
    """What a signature is over: keccak-256 of the payload."""
    return keccak256(payload(domain, struct, values))


def _encode(kind: str, value: Any, types: Mapping[str, Struct]) -> bytes:
    if kind.endswith("[]"):
        items: Sequence[Any] = value
        return keccak256(b"".join(_encode(kind[:-2], item, types) for item in items))
    if kind in types:
        return types[kind].hash(value)
    if kind == "string":
        return keccak256(value.encode())
    if kind == "bytes":
        return keccak256(value)
    if kind == "bytes32":
        if len(value) != 32:
            raise ValueError(f"bytes32 of {len(value)} bytes")
        return bytes(value)
    if kind == "address":
        if len(value) != 20:
            raise ValueError(f"address of {len(value)} bytes")
        return bytes(12) + bytes(value)
    if kind == "bool":
        return int(value).to_bytes(32, "big")
    if kind.startswith("uint"):
        if not 0 <= value < 1 << int(kind[4:]):
            raise ValueError(f"{value} does not fit {kind}")
        return int(value).to_bytes(32, "big")
    if kind.startswith("int"):
        return int(value).to_bytes(32, "big", signed=True)
    raise ValueError(f"no EIP-712 encoding for {kind!r}")
