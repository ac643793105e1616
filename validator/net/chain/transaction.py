"""EIP-1559 transactions as bytes: what is signed, what is sent, and back.

    payload  0x02 || rlp([chain id, nonce, tip, max fee, gas, to, value, data, []])
    raw      0x02 || rlp([…the same nine, v, r, s])         v: 0 or 1

A signer, here or in another machine, is given the payload. RLP (Yellow Paper, appendix B) is the library's that web3
stands on; its import is a fraction of a wallet's. Only what we made ourselves is read back.
"""

from __future__ import annotations

from dataclasses import dataclass

import rlp

from validator.protocol.codec.secp256k1 import Signer
from validator.protocol.errors import InvariantError
from validator.protocol.model import Address

TYPE = b"\x02"


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
        return TYPE + bytes(rlp.encode(self._items()))

    def sign(self, key: Signer) -> bytes:
        """The raw transaction. Raises what ``key`` raises."""
        signature = key.sign_payload(self.payload())
        r, s = (int.from_bytes(part, "big") for part in (signature[:32], signature[32:64]))
        return TYPE + bytes(rlp.encode([*self._items(), signature[64] - 27, r, s]))

    def _items(self) -> list[int | bytes | list[bytes]]:
        numbers = (self.chain_id, self.nonce, self.tip, self.max_fee, self.gas)
        return [*numbers, self.to or b"", self.value, self.data, []]


def parse_raw(raw: bytes) -> Transaction:
    """The transaction that we signed and saved."""
    try:
        fields = rlp.decode(raw[1:])
    except rlp.DecodingError as error:
        raise InvariantError("a saved transaction is none of ours") from error
    if raw[:1] != TYPE or not isinstance(fields, list) or len(fields) != 12:
        raise InvariantError("a saved transaction is none of ours")
    chain_id, nonce, tip, max_fee, gas = (int.from_bytes(field, "big") for field in fields[:5])
    to, value, data = fields[5:8]
    return Transaction(
        chain_id, nonce, tip, max_fee, gas, Address(to) if to else None, int.from_bytes(value, "big"), data
    )
