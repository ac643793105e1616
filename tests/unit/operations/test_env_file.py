"""What a validator begins with: each setting stands in the first ``.env``, each field in the example network file."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import pytest

from tests.paths import ROOT
from validator.operations.env_file import Start, describe_values, render_env
from validator.protocol.parameters import ConsumerUrls, Contracts, Network, ParameterSet, parse_network
from validator.settings import OTHER_NAMES, PREFIX, Settings, given_values, load_settings

URLS = (("https://a.example", "https://b.example"), ("https://c.example",))


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def test_settings_that_are_read_from_it_are_those_that_were_written() -> None:
    Path(".env").write_text(render_env(Start(describe_values(Path("secrets"), *URLS))))
    settings = load_settings()
    assert (settings.rpc_urls, settings.gateway_urls) == URLS
    assert settings.voting_key_file == Path("secrets/voting.json")
    assert settings.network_file == Path("network.toml")
    changed = {"network_file", "rpc_urls", "gateway_urls", "wallet_file", "key_password_file"}
    changed |= {f"{purpose}_key_file" for purpose in ("voting", "gas", "query")}
    for name, field in Settings.model_fields.items():
        if name not in changed:
            assert getattr(settings, name) == field.default


def test_lines_that_are_commented_out_can_be_taken_in_as_they_stand() -> None:
    text = render_env(Start(describe_values(Path("secrets"), *URLS)))
    Path(".env").write_text(text.replace(f"# {PREFIX}", PREFIX))
    load_settings()
    named = given_values().keys() | {line.partition("=")[0] for line in Path(".env").read_text().splitlines()}
    hidden = {f"{PREFIX}{name}" for name in ("VOTING_KEY", "GAS_KEY", "QUERY_KEY", "PEERS_FD", "OPERATOR_FD")}
    assert {f"{PREFIX}{name.upper()}" for name in Settings.model_fields} - named == hidden
    assert not named & OTHER_NAMES


def test_what_is_asked_for_stands_there_empty_and_what_is_borrowed_is_said() -> None:
    text = render_env(Start(describe_values(Path("secrets"), (), ("https://c.example",)), frozenset({"gateway_urls"})))
    assert "\nLOGSTORE_RPC_URLS=\n" in text
    borrowed, _, rest = text.partition("LOGSTORE_GATEWAY_URLS=https://c.example")
    assert borrowed.splitlines()[-1] == "# From the network's file, public and shared: name your own."
    assert "From the network's file" not in rest


def test_no_password_stands_in_it_only_the_files_that_hold_them() -> None:
    text = render_env(Start(describe_values(Path("secrets"), *URLS)))
    assert "\nPOSTGRES_PASSWORD_FILE=./secrets/postgres\n" in text
    assert "\nFLOWER_LOGIN_FILE=./secrets/flower\n" in text
    assert render_env(Start({})) == render_env(Start({}))


def test_the_example_of_a_networks_file_names_every_field_once() -> None:
    text = (ROOT / "deploy" / "network.example.toml").read_text()
    parse_network(text)
    named = re.findall(r"^(\w+) = ", text, re.MULTILINE)
    networks = {field.name for field in dataclasses.fields(Network)} - {"contracts", "sets", "consumers"}
    parts = [{field.name for field in dataclasses.fields(kind)} for kind in (Contracts, ConsumerUrls, ParameterSet)]
    assert sorted(named) == sorted([*networks, *(name for part in parts for name in part)])
