"""A network that has stored three bundles, and the command run in this process over it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from logstore import cli
from tests.gateway_process import run_gateway
from tests.servers import run_anvil
from tests.stored_network import StoredNetwork, store_network


@pytest.fixture(scope="session")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StoredNetwork]:
    folder = tmp_path_factory.mktemp("stored")
    with run_anvil() as rpc_url, run_gateway(folder) as gateway:
        yield store_network(folder, rpc_url, gateway)


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that has ended."""

    status: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Ran]


@pytest.fixture
def run(
    stored: StoredNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Run:
    """``logstore`` with these words, for somebody who has the network's file, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("LOGSTORE_RPC_URLS", "LOGSTORE_GATEWAY_URLS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("LOGSTORE_NETWORK_FILE", str(stored.network_file))
    monkeypatch.setenv("LOGSTORE_CACHE_DIR", str(tmp_path / "cache"))
    stored.gateway.control("faults", method="DELETE")

    def call(*words: str | Path) -> Ran:
        capsys.readouterr()
        status = cli.main([str(word) for word in words])
        said = capsys.readouterr()
        return Ran(status, said.out, said.err)

    return call
