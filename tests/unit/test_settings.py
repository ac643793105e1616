"""Operator settings: one line that names the variable, the reason and the remedy; secrets never shown."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from tests import paths
from validator.broker.config import BrokerSettings
from validator.keys import load_key
from validator.protocol.codec.secp256k1 import CURVE_ORDER
from validator.protocol.errors import ConfigError
from validator.settings import OTHER_NAMES, Settings, floor_bytes, load_settings

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
        ("RPC_URLS", "http://", "names no host"),
        ("RPC_URLS", "http://127.0.0.1:port", "host or port does not parse"),
        ("GATEWAY_URLS", "https://arweave.example:99999", "host or port does not parse"),
        ("GATEWAY_URLS", "https://one.example https://two.example", "does not parse"),
        ("REDIS_URL", "amqp://broker", "must be redis://"),
        ("REDIS_URL", "redis://h:port/0", "host or port does not parse"),
        ("DATABASE_URL", "mysql://h/db", "must be postgresql://"),
        ("DATABASE_URL", "postgresql+psycopg://v:s3cr3t@127.0.0.1:port/v", "host or port does not parse"),
        ("DATABASE_URL", "postgresql+psycopg://v:s3cr3t@TAIL0F@127.0.0.1/v", "such as @ as %40 and # as %23"),
        ("DATABASE_URL", "postgresql+psycopg://v:s3cr3t#rd@h/db", "such as @ as %40 and # as %23"),
        ("ALLOW_NETS", "10.0.0.1/8", r"'10.0.0.1/8' is no network \(.* host bits set\); write one such as 10.0.0.0/8"),
        ("ALLOW_NETS", "10.0.0.0/8, docker0", "'docker0' is no network"),
        ("DISK_FLOOR", "lots", "no amount of disk; write bytes, 5GiB, or 7%"),
        ("DISK_FLOOR", "101%", "no amount of disk"),
        ("DISK_FLOOR", "-1", "no amount of disk"),
        ("PEERS_PORT", "70000", "less than or equal to 65535"),
        ("TICK_S", "0", "greater than or equal to 0.1"),
        ("TICK_S", "nan", "finite number"),
        ("TICK_S", "2 # seconds", "valid number"),
        ("OBSERVER", "perhaps", "valid boolean"),
        ("LOG_FORMAT", "xml", "match pattern"),
        ("LOG_LEVEL", "LOUD", "none of DEBUG, INFO, WARNING, ERROR"),
        ("NETWORK_FILE", '"network.toml"', "stands in quotes; take them off"),
        ("RPC_URL", "http://other", "no such setting; is LOGSTORE_RPC_URLS meant"),
        ("VOTING_KEY_FLE", "/keys/voting", "no such setting; is LOGSTORE_VOTING_KEY_FILE meant"),
        ("XYZZY", "1", "no such setting"),
    ],
)
def test_a_wrong_setting_is_named_with_the_reason(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str, reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason) as caught:
        load(monkeypatch, **{name: value})
    text = str(caught.value)
    assert text.startswith(f"LOGSTORE_{name}: ")
    assert "\n" not in text
    assert not any(part in text for part in ("s3cr3t", "TAIL0F", "rd@h"))


def test_all_faults_are_named_together(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError) as caught:
        load(monkeypatch, TICK_S="soon", DISK_FLOOR="lots", RPC_URL="http://other")
    named = [fault.partition(":")[0] for fault in str(caught.value).split("; LOGSTORE_")]
    assert [name.removeprefix("LOGSTORE_") for name in named] == ["RPC_URL", "DISK_FLOOR", "TICK_S"]


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_an_empty_variable_is_none_and_hides_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str
) -> None:
    whole = load(monkeypatch, VOTING_KEY_FILE="voting", CA_FILE="ca.pem", PEERS_FD="3", TICK_S="2")
    in_file = {f: os.environ[f"LOGSTORE_{f.upper()}"] for f in whole.model_fields_set}
    (tmp_path / ".env").write_text("".join(f"LOGSTORE_{f.upper()}={value}\n" for f, value in in_file.items()))
    assert load(monkeypatch, **{name.upper(): ""}) == whole


@pytest.mark.parametrize(
    ("encoding", "mark"), [("utf-8", ""), ("utf-8", "\ufeff"), ("utf-8", "\r")], ids=["plain", "mark", "CRLF"]
)
def test_a_file_of_settings_is_read_as_editors_write_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, encoding: str, mark: str
) -> None:
    end = "\r\n" if mark == "\r" else "\n"
    text = f"LOGSTORE_TICK_S=3{end}# Schlüssel{end}export LOGSTORE_LOG_LEVEL='debug' # loud{end}OTHER=x{end}"
    (tmp_path / ".env").write_bytes((mark.replace("\r", "") + text).encode(encoding))
    settings = load_settings()
    assert (settings.tick_s, settings.log_level) == (3, "DEBUG")


@pytest.mark.parametrize("encoding", ["latin-1", "utf-16"])
def test_a_file_of_settings_in_another_encoding_is_refused_in_one_line(tmp_path: Path, encoding: str) -> None:
    (tmp_path / ".env").write_bytes("# Schlüssel\nLOGSTORE_TICK_S=2\n".encode(encoding))
    with pytest.raises(ConfigError, match=r"^\.env: \.env is not text in UTF-8 \(byte [0-9]+\); save it as UTF-8$"):
        load_settings()


def test_a_wrong_name_in_the_file_of_settings_is_refused_too(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("LOGSTORE_GATEWAY_URL=https://gateway.example\nSOMEBODY_ELSES=1\n")
    with pytest.raises(ConfigError, match=r"^LOGSTORE_GATEWAY_URL: no such setting; is LOGSTORE_GATEWAY_URLS meant"):
        load_settings()


def test_every_name_with_our_prefix_that_the_project_uses_is_known() -> None:
    """Else a name that set-up or compose.yaml hands down would stop every process."""
    root = paths.ROOT
    places = [root / "compose.yaml", root / "README.md", *(root / "deploy").iterdir(), root / ".ci" / "run"]
    for folder in ("validator", "tasks", "tests/fakes", "tests/integration", "tests/e2e"):
        places += (root / folder).rglob("*.py")
    used = {name for place in places for name in re.findall(r"\bLOGSTORE_[A-Z][A-Z_]*[A-Z]\b", place.read_text())}
    known = OTHER_NAMES | {f"LOGSTORE_{field.upper()}" for field in Settings.model_fields}
    known |= {f"LOGSTORE_BROKER_{field.upper()}" for field in BrokerSettings.model_fields}
    assert len(used) > 20
    assert used <= known


def test_the_floor_is_bytes_a_size_percent_or_the_smaller_default() -> None:
    assert floor_bytes("", 1_000) == 100
    assert floor_bytes("", 1 << 50) == 5 << 30
    assert floor_bytes("12345", 1_000) == 12_345
    assert floor_bytes("5GiB", 1_000) == floor_bytes("5 gib", 1_000) == 5 << 30
    assert floor_bytes("7 %", 1_000) == 70


def test_a_wallet_comes_from_the_environment_or_from_a_file_that_only_its_owner_may_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    jwk = '{"kty": "RSA", "d": "secret"}'
    file = tmp_path / "wallet.json"
    file.write_text(jwk)
    file.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        load(monkeypatch, WALLET_FILE=str(file)).wallet_text()
    file.chmod(0o600)
    both = load(monkeypatch, WALLET_FILE=str(file), WALLET=jwk)
    with pytest.raises(ConfigError, match="keep one of them") as caught:
        both.wallet_text()
    assert "secret" not in f"{caught.value}{both!r}"
    assert load(monkeypatch, WALLET_FILE=str(file), WALLET="").wallet_text() == jwk
    assert load(monkeypatch, WALLET_FILE="", WALLET=jwk).wallet_text() == jwk
    assert load(monkeypatch, WALLET_FILE="", WALLET="").wallet_text() is None


def test_a_key_is_read_from_a_file_that_only_its_owner_may_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    key = tmp_path / "voting"
    key.write_text("0x" + "11" * 32 + "\n")
    key.chmod(0o600)
    assert load_key(load(monkeypatch, VOTING_KEY_FILE=str(key)), "voting").secret_hex() == "0x" + "11" * 32
    key.chmod(0o644)
    with pytest.raises(ConfigError, match="chmod 600"):
        load_key(load_settings(), "voting")


def test_a_wrong_key_is_refused_without_being_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, GAS_KEY="0xnothexatall")
    with pytest.raises(ConfigError, match="LOGSTORE_GAS_KEY: not 32 bytes of hex") as caught:
        load_key(settings, "gas")
    assert "nothex" not in str(caught.value)
    assert "nothex" not in repr(settings)


@pytest.mark.parametrize(
    "content",
    [
        b"\xff" * 32,
        ("0x" + "11" * 32).encode("utf-16"),
        b"0x" + b"11" * 31,
        b"0x" + b"00" * 32,
        f"{CURVE_ORDER:064x}".encode(),
        b"",
    ],
    ids=["raw", "utf-16", "31 bytes", "zero", "the order", "empty"],
)
def test_a_file_that_holds_no_key_is_refused_in_one_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: bytes
) -> None:
    key = tmp_path / "voting"
    key.write_bytes(content)
    key.chmod(0o600)
    settings = load(monkeypatch, VOTING_KEY_FILE=str(key))
    assert settings.has_secret("voting")
    with pytest.raises(ConfigError, match=r"^LOGSTORE_VOTING_KEY") as caught:
        load_key(settings, "voting")
    assert "11" * 8 not in str(caught.value)


@pytest.mark.parametrize("text", ["\ufeff0x" + "11" * 32, "11" * 32 + "\r\n", " 0x" + "11" * 32 + " \n\n"])
def test_a_key_is_read_as_editors_write_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str) -> None:
    key = tmp_path / "voting"
    key.write_text(text, encoding="utf-8")
    key.chmod(0o600)
    assert load_key(load(monkeypatch, VOTING_KEY_FILE=str(key)), "voting").secret_hex() == "0x" + "11" * 32


def test_a_key_given_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, VOTING_KEY="11" * 32, VOTING_KEY_FILE="voting")
    with pytest.raises(ConfigError, match="LOGSTORE_VOTING_KEY_FILE is set too; keep one of them"):
        load_key(settings, "voting")


def test_a_missing_key_names_the_variable_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="LOGSTORE_QUERY_KEY_FILE: not set"):
        load_key(load(monkeypatch), "query")
