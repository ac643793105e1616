"""A chain of each module's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import servers


@pytest.fixture(scope="module")
def chain_url() -> Iterator[str]:
    with servers.run_anvil("--slots-in-an-epoch", "1") as url:
        yield url
