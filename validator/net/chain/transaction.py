"""EIP-1559 transactions as bytes: what is signed, what is sent, and back.

    payload  0x02 || rlp([chain id, nonce, tip, max fee, gas, to, value, data, []])
    raw      0x02 || rlp([…the same nine, v, r, s])         v: 0 or 1

A signer, here or in another machine, is given the payload. RLP as in the Yellow Paper, appendix B: integers big-endian
without leading zeros. Only what we made ourselves is read back.
"""

from __future__ import annotations

from dataclasses import dataclass

from validator.protocol.codec.secp256k1 import Signer
from validator.protocol.errors import InvariantError
from validator.protocol.model import Address

TYPE = b"\x02"
Item = bytes | list["Item"]


@dataclass(frozen=True, slots=True)
class Transaction:
    """``tip`` and ``max_fee`` in wei per gas, ``value`` in wei; ``to`` is None for a contract's creation."""

    chain_id: int
    nonce: int
    tip: int
    max_fee: int
    gas: int
    to: Address | None
    value: int
    data: bytes

    def payload(self) -> bytes:
        """What is signed: a signature is over its keccak-256."""
        return TYPE + encode_rlp(self._items())

    def sign(self, key: Signer) -> bytes:
        """The raw transaction. Raises what ``key`` raises."""
        signature = key.sign_payload(self.payload())
        r, s = (int.from_bytes(part, "big") for part in (signature[:32], signature[32:64]))
        return TYPE + encode_rlp([*self._items(), *map(_integer, (signature[64] - 27, r, s))])

    def _items(self) -> list[Item]:
        numbers = (self.chain_id, self.nonce, self.tip, self.max_fee, self.gas)
        return [*map(_integer, numbers), self.to or b"", _integer(self.value), self.data, []]


def parse_raw(raw: bytes) -> Transaction:
    """The transaction that we signed and saved."""
    items, rest = _decode_rlp(raw[1:])
    if raw[:1] != TYPE or rest or not isinstance(items, list) or len(items) != 12:
        raise InvariantError("a saved transaction is none of ours")
    fields = [item for item in items if isinstance(item, bytes)]
    chain_id, nonce, tip, max_fee, gas = (int.from_bytes(item, "big") for item in fields[:5])
    to = Address(fields[5]) if fields[5] else None
    return Transaction(chain_id, nonce, tip, max_fee, gas, to, int.from_bytes(fields[6], "big"), fields[7])


def encode_rlp(item: Item) -> bytes:
    if isinstance(item, bytes):
        return item if len(item) == 1 and item[0] < 0x80 else _head(0x80, len(item)) + item
    body = b"".join(map(encode_rlp, item))
    return _head(0xC0, len(body)) + body


def _head(base: int, length: int) -> bytes:
    if length < 56:
        return bytes([base + length])
    size = _integer(length)
    return bytes([base + 55 + len(size)]) + size


def _integer(value: int) -> bytes:
    return value.to_bytes((value.bit_length() + 7) // 8, "big")


def _decode_rlp(data: bytes) -> tuple[Item, bytes]:
    """The first item, and what follows it."""
    first = data[0]
    if first < 0x80:
        return data[:1], data[1:]
    base = 0x80 if first < 0xC0 else 0xC0
    start, length = 1, first - base
    if length > 55:
        start += length - 55
        length = int.from_bytes(data[1:start], "big")
    body, rest = data[start : start + length], data[start + length :]
    if base == 0x80:
        return body, rest
    items: list[Item] = []
    while body:
        item, body = _decode_rlp(body)
        items.append(item)
    return items, rest
