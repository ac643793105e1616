"""What a wallet library makes of typed data and keys: a second opinion, sharing no code with ours. Tests import the
library from nowhere else.
"""

from __future__ import annotations

from typing import Any

from tests.recursion import recursion_limit_kept

with recursion_limit_kept():
    from eth_account import Account
    from eth_account.messages import _hash_eip191_message, encode_typed_data

__all__ = ["Account", "encode_typed_data", "hash_typed_data"]


def hash_typed_data(typed_data: dict[str, Any]) -> bytes:
    """EIP-712 digest of a whole message: types, primaryType, domain, message."""
    return bytes(_hash_eip191_message(encode_typed_data(full_message=typed_data)))
