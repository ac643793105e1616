"""Calls, results, events and custom errors of our contracts as bytes, from the ABI files of ``contracts_abi``.

Texts on chain are written by strangers and need not be UTF-8, so results give them as bytes. eth-abi decodes; results
are bounded by the caller before (rpc.py) and list lengths here, since an ABI list may name one tail many times.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from eth_abi.abi import decode as _decode
from eth_abi.abi import encode as _encode
from eth_abi.exceptions import DecodingError

import contracts_abi
from validator.protocol.errors import InvariantError, MalformedInput
from validator.protocol.hashing import keccak256
from validator.protocol.model import Digest

MAX_RESULT_BYTES = 4 << 20
MAX_ITEMS = 4096
"""Elements in any list of a result."""


@dataclass(frozen=True, slots=True)
class Function:
    """One function, error or event of a contract."""

    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    selector: bytes

    def encode(self, arguments: Sequence[Any]) -> bytes:
        """Call data. Raises InvariantError if the arguments do not fit: they are ours."""
        try:
            return self.selector + _encode(self.inputs, arguments)
        except Exception as error:
            raise InvariantError(f"{self.name}: arguments do not fit the ABI: {error}") from error

    def decode(self, data: bytes) -> tuple[Any, ...]:
        """Result values; texts as bytes. Raises MalformedInput."""
        return decode_values(self.outputs, data, self.name)


@dataclass(frozen=True, slots=True)
class Interface:
    """A contract's ABI, by name."""

    name: str
    functions: dict[str, Function]
    errors: dict[bytes, Function]
    events: dict[str, Digest]
    constructor: tuple[str, ...]
    bytecode: bytes

    def function(self, name: str) -> Function:
        try:
            return self.functions[name]
        except KeyError:
            raise InvariantError(f"{self.name} has no function {name}") from None

    def deployment(self, arguments: Sequence[Any]) -> bytes:
        """Creation code with constructor arguments."""
        return self.bytecode + _encode(self.constructor, arguments)

    def explain_revert(self, data: bytes) -> str:
        """The custom error's name and values, the text of a plain revert, or "reverted"."""
        return explain_revert(data, self.errors)


ERC1271 = Function("isValidSignature", ("bytes32", "bytes"), ("bytes32",), bytes.fromhex("1626ba7e"))


@cache
def interface(name: str) -> Interface:
    """The interface of one of our contracts (``contracts_abi.NAMES``)."""
    artifact = contracts_abi.load(name)
    functions: dict[str, Function] = {}
    errors: dict[bytes, Function] = {}
    events: dict[str, Digest] = {}
    constructor: tuple[str, ...] = ()
    for item in artifact.abi:
        kind = item["type"]
        inputs = tuple(_canonical(i) for i in item.get("inputs", ()))
        if kind == "constructor":
            constructor = inputs
            continue
        topic = keccak256(f"{item['name']}({','.join(inputs)})".encode())
        if kind == "event":
            events[item["name"]] = topic
            continue
        outputs = tuple(_canonical(o) for o in item.get("outputs", ()))
        entry = Function(item["name"], inputs, outputs, bytes(topic[:4]))
        if kind == "error":
            errors[entry.selector] = entry
        else:
            functions[entry.name] = entry
    return Interface(name, functions, errors, events, constructor, artifact.bytecode)


@cache
def _all_errors() -> dict[bytes, Function]:
    return {selector: e for name in contracts_abi.NAMES for selector, e in interface(name).errors.items()}


def explain_revert(data: bytes, errors: dict[bytes, Function] | None = None) -> str:
    """What a call reverted with, for people: "WrongNumber(3)"."""
    known = {**_all_errors(), **(errors or {})}
    entry = known.get(data[:4])
    try:
        if entry is not None:
            values = decode_values(entry.inputs, data[4:], entry.name)
            shown = ", ".join("0x" + v.hex() if isinstance(v, bytes) else str(v) for v in values)
            return f"{entry.name}({shown})" if values else entry.name
        if data[:4] == bytes.fromhex("08c379a0"):
            text = decode_values(("string",), data[4:], "revert")[0].decode(errors="replace")
            return "".join(c if c.isprintable() else "?" for c in text[:200])
        if data[:4] == bytes.fromhex("4e487b71"):
            return f"Panic(0x{decode_values(('uint256',), data[4:], 'panic')[0]:x})"
    except MalformedInput:
        return f"reverted with 0x{data[:64].hex()}"
    return f"reverted with 0x{data[:64].hex()}" if data else "reverted"


def decode_values(types: Sequence[str], data: bytes, what: str) -> tuple[Any, ...]:
    """ABI-decode; texts come back as bytes, addresses as 20 bytes.

    Raises:
        MalformedInput: too large, too many list elements, or not this shape.
    """
    if len(data) > MAX_RESULT_BYTES:
        raise MalformedInput(what, f"result of {len(data)} bytes exceeds {MAX_RESULT_BYTES}")
    raw_types = tuple(_raw(kind) for kind in types)
    _check_lists(raw_types, data, what)
    try:
        values = _decode(raw_types, data)
    except (DecodingError, OverflowError, ValueError) as error:
        raise MalformedInput(what, f"not the ABI of {','.join(types)}") from error
    return tuple(_plain(kind, value) for kind, value in zip(types, values, strict=True))


def _check_lists(types: Sequence[str], data: bytes, what: str) -> None:
    """Bound the number of elements of every top-level list before anything is decoded."""
    for position, kind in enumerate(types):
        if not kind.endswith("[]"):
            continue
        at = int.from_bytes(data[32 * position : 32 * position + 32], "big")
        if at + 32 > len(data):
            raise MalformedInput(what, "a list lies outside the result")
        count = int.from_bytes(data[at : at + 32], "big")
        if count > MAX_ITEMS:
            raise MalformedInput(what, f"a list of {count} elements exceeds {MAX_ITEMS}")
        if kind == "bytes[]" and count * len(data) > 64 * MAX_RESULT_BYTES:
            raise MalformedInput(what, "a list that is larger than its bytes")


def _raw(kind: str) -> str:
    return kind.replace("string", "bytes")


def _plain(kind: str, value: Any) -> Any:
    if kind == "address":
        return bytes.fromhex(value[2:])
    if kind == "address[]":
        return tuple(bytes.fromhex(item[2:]) for item in value)
    return value


def _canonical(parameter: dict[str, Any]) -> str:
    kind: str = parameter["type"]
    if not kind.startswith("tuple"):
        return kind
    inner = ",".join(_canonical(component) for component in parameter["components"])
    return f"({inner}){kind[5:]}"
