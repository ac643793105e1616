"""What a wallet library makes of typed data and keys: a second opinion, sharing no code with ours.

Importing the library lets Python recurse 100 000 deep, where deep JSON overflows the stack of C instead of raising
RecursionError; the limit is put back here, so tests import the library from nowhere else.
"""

from __future__ import annotations

import sys
from typing import Any

_limit = sys.getrecursionlimit()
try:
    from eth_account import Account
    from eth_account.messages import _hash_eip191_message, encode_typed_data
finally:
    sys.setrecursionlimit(_limit)

__all__ = ["Account", "encode_typed_data", "hash_typed_data"]


def hash_typed_data(typed_data: dict[str, Any]) -> bytes:
    """EIP-712 digest of a whole message: types, primaryType, domain, message."""
    return bytes(_hash_eip191_message(encode_typed_data(full_message=typed_data)))
