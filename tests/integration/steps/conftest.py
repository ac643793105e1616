"""Small networks with databases of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.small_network import SmallNetwork, an_empty_database


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return an_empty_database(tmp_path_factory.mktemp("empty"))


@pytest.fixture
def a_network(tmp_path: Path, empty_database: Path) -> Iterator[Callable[..., SmallNetwork]]:
    """Makes networks: ``a_network(4, brokers=3)``."""
    made: list[SmallNetwork] = []

    def make(n: int = 1, **options: Any) -> SmallNetwork:
        folder = tmp_path / f"network{len(made)}"
        folder.mkdir()
        made.append(SmallNetwork(folder, empty_database, n, **options))
        return made[-1]

    yield make
    for network in made:
        network.close()
