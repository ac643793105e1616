"""Operator settings: one line that names the variable, the reason and the remedy; secrets never shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from validator.errors import ConfigError
from validator.settings import Settings, load_settings

GOOD = {
    "LOGSTORE_NETWORK_FILE": "network.toml",
    "LOGSTORE_RPC_URLS": "http://127.0.0.1:1, https://rpc.example",
    "LOGSTORE_GATEWAY_URLS": "https://gateway.example",
}


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)


def load(monkeypatch: pytest.MonkeyPatch, **values: str) -> Settings:
    for name, value in values.items():
        monkeypatch.setenv(f"LOGSTORE_{name}", value)
    return load_settings()


def test_lists_are_separated_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, ALLOW_NETS="127.0.0.0/8, 10.0.0.0/8")
    assert settings.rpc_urls == ("http://127.0.0.1:1", "https://rpc.example")
    assert [str(net) for net in settings.nets] == ["127.0.0.0/8", "10.0.0.0/8"]


def test_a_missing_setting_is_named_with_what_it_is_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOGSTORE_GATEWAY_URLS")
    with pytest.raises(ConfigError, match=r"^LOGSTORE_GATEWAY_URLS: not set; Arweave gateways"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("RPC_URLS", "ftp://rpc.example", "must be http:// or https:// URLs"),
        ("RPC_URLS", " , ", "name at least one URL"),
        ("REDIS_URL", "amqp://broker", "must be a redis://"),
        ("PEERS_PORT", "70000", "less than or equal to 65535"),
        ("TICK_S", "0", "greater than 0"),
        ("LOG_FORMAT", "xml", "match pattern"),
    ],
)
def test_a_wrong_setting_is_named_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        load(monkeypatch, **{name: value})
    assert str(caught.value).startswith(f"LOGSTORE_{name}: ")


def test_a_key_is_read_from_a_file_that_only_its_owner_may_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = tmp_path / "voting"
    key.write_text("0x" + "11" * 32 + "\n")
    key.chmod(0o600)
    assert load(monkeypatch, VOTING_KEY_FILE=str(key)).secret("voting") == b"\x11" * 32
    key.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_settings().secret("voting")


def test_a_wrong_key_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, GAS_KEY="0xnothexatall")
    with pytest.raises(ConfigError, match="LOGSTORE_GAS_KEY: not 32 bytes of hex") as caught:
        settings.secret("gas")
    assert "nothex" not in str(caught.value)
    assert "nothex" not in repr(settings)


def test_a_missing_key_names_the_variable_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="LOGSTORE_QUERY_KEY_FILE: not set"):
        load(monkeypatch).secret("query")
