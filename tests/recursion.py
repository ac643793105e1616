"""Importing eth_account or web3 lets Python recurse 100 000 deep, where deep JSON overflows the stack of C instead of
raising RecursionError. Who imports them does so below this; ruff (TID251) refuses it elsewhere.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def recursion_limit_kept() -> Iterator[None]:
    limit = sys.getrecursionlimit()
    try:
        yield
    finally:
        sys.setrecursionlimit(limit)
