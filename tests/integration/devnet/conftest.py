"""A development gateway with a funded wallet."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from tests.devnet_gateway import PRICE, VECTORS, Served, serve_gateway
from validator.devnet.gateway.weave import Weave
from validator.net.arweave.wallet import ArweaveWallet


@pytest.fixture(scope="session")
def wallet() -> ArweaveWallet:
    return ArweaveWallet.from_jwk(VECTORS["keys"]["rsa"])


@pytest.fixture
def weave(tmp_path: Path, wallet: ArweaveWallet) -> Weave:
    weave = Weave(tmp_path)
    weave.mint(wallet.address, 100 * PRICE)
    return weave


@pytest.fixture(scope="session")
def served() -> Iterator[Served]:
    with serve_gateway() as served:
        yield served


@pytest.fixture
async def node(served: Served, weave: Weave) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the gateway over this weave, by its real server on loopback."""
    served.choose(weave)
    async with httpx.AsyncClient(base_url=served.url, trust_env=False, timeout=20) as client:
        yield client
