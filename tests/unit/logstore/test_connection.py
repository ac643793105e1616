"""Whose network it is, and whom to ask: options before environment before the network's file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import logstore
from logstore.brokers import find_places
from logstore.connection import find_sources, has_network
from logstore.store import LogStore
from tests.builders import GENESIS_MS
from tests.bundle_builder import CONTRACTS
from validator.net.running_network import RunningNetwork, announced
from validator.protocol.errors import ConfigError
from validator.protocol.model import Digest
from validator.protocol.parameters import ConsumerUrls, Network, ParameterSet, format_network

URLS = ConsumerUrls(("https://file.example",), ("https://weave.example",))


def a_file(folder: Path, consumers: ConsumerUrls = URLS) -> Path:
    network = Network(
        name="test",
        chain_id=7,
        deployment_block=1,
        deployment_parent_hash=Digest(bytes(32)),
        contracts=CONTRACTS,
        genesis_ms=GENESIS_MS,
        sets=(ParameterSet(first_epoch=0, epoch_windows=10),),
        consumers=consumers,
    )
    path = folder / "network.toml"
    path.write_text(format_network(network))
    return path


def test_urls_come_from_options_then_the_environment_then_the_file(tmp_path: Path) -> None:
    file = a_file(tmp_path)
    environment = {"LOGSTORE_RPC_URLS": "https://one.example, https://two.example,", "HOME": "/home/somebody"}
    found = find_sources(file, environment={})
    assert (found.rpc_urls, found.gateway_urls) == (URLS.rpc_urls, URLS.gateway_urls)
    found = find_sources(file, environment=environment)
    assert (found.rpc_urls, found.gateway_urls) == (("https://one.example", "https://two.example"), URLS.gateway_urls)
    found = find_sources(file, ["https://option.example"], ["https://g.example"], environment=environment)
    assert (found.rpc_urls, found.gateway_urls) == (("https://option.example",), ("https://g.example",))


def test_each_network_has_a_cache_folder_of_its_own(tmp_path: Path) -> None:
    name = f"7-{CONTRACTS.report_manager.hex()}"
    file = a_file(tmp_path)
    assert find_sources(file, cache=Path("c"), environment={"LOGSTORE_CACHE_DIR": "d"}).cache == Path("c", name)
    assert find_sources(file, environment={"LOGSTORE_CACHE_DIR": "d"}).cache == Path("d", name)
    assert find_sources(file, environment={"XDG_CACHE_HOME": "/x"}).cache == Path("/x/logstore", name)


def test_without_a_network_file_the_remedy_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert not has_network(None, {})
    with pytest.raises(ConfigError, match=r"no network is named.*--network"):
        find_sources(environment={"LOGSTORE_STATE_DIR": str(tmp_path)})
    a_file(tmp_path)
    assert has_network(None, {})
    assert find_sources(environment={}).network.name == "test"
    (tmp_path / "bytes").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="bytes: not UTF-8"):
        find_sources("bytes", environment={})


def test_nobody_to_ask_is_said_when_somebody_is_to_be_asked(tmp_path: Path) -> None:
    file = a_file(tmp_path, ConsumerUrls())
    with LogStore(find_sources(file, environment={})) as store:
        with pytest.raises(ConfigError, match="LOGSTORE_RPC_URLS"):
            _ = store.reports
        with pytest.raises(ConfigError, match="LOGSTORE_GATEWAY_URLS"):
            _ = store.weave


def test_a_program_connects_as_the_command_does(tmp_path: Path) -> None:
    with logstore.connect(a_file(tmp_path), rpc=["https://r.example"], cache=tmp_path) as store:
        assert (store.network.name, store.sources.rpc_urls) == ("test", ("https://r.example",))


def test_a_network_that_runs_here_is_found_where_nobody_names_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    environment = {"LOGSTORE_STATE_DIR": str(tmp_path / "state")}
    (tmp_path / "run").mkdir()
    file = a_file(tmp_path / "run", ConsumerUrls(("http://127.0.0.1:1", "http://localhost:2")))
    with announced(RunningNetwork(os.getpid(), str(file), "newcomer.key"), environment):
        found = find_sources(environment=environment)
        assert found.running is not None
        assert (found.running.key, found.is_here) == ("newcomer.key", True)
        own = find_sources(a_file(tmp_path), environment=environment)
        assert (own.running, own.is_here) == (None, False)
        assert find_sources(environment=environment).running is None, "the file of this folder is meant"


def test_one_broker_may_be_named_by_a_text_alone_and_a_wrong_one_is_shown() -> None:
    """A text is a sequence too, of letters."""
    places, http = find_places(None, "http://127.0.0.1:7777")  # type: ignore[arg-type]
    http.close()
    assert [str(place.url) for place in places] == ["http://127.0.0.1:7777"]
    with pytest.raises(ConfigError, match="--broker: 'sensors': neither https nor http"):
        find_places(None, "sensors")  # type: ignore[arg-type]
