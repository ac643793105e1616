"""Keys by their settings: what opens them, and that a key in the open is said to be one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.builders import a_key
from tests.fakes.world import some_network
from validator.keys import load_key, load_signer, warn_of_open_keys
from validator.net.signer.keystore import make_keystore
from validator.net.signer.remote import RemoteSigner
from validator.operations.check_machine import check_keys
from validator.operations.findings import Level
from validator.protocol.errors import ConfigError
from validator.protocol.parameters import format_network
from validator.settings import Settings
from validator.wiring import Node, NoTasks

KEY = a_key(100)
PASSWORD = "one for all"
KEYSTORE = make_keystore(
    bytes.fromhex(KEY.secret_hex()[2:]), PASSWORD, salt=bytes(32), iv=bytes(16), uuid="a", n=1 << 10
)
REMOTE = f"http://signer.example:9000/0x{KEY.address.hex()}"


def settings(folder: Path, *, chain_id: int = 137, **changes: Any) -> Settings:
    text = format_network(some_network()).replace("chain_id = 31337", f"chain_id = {chain_id}")
    (folder / "network.toml").write_text(text)
    (folder / "password").write_text(f"{PASSWORD}\nsecond line\n")
    (folder / "password").chmod(0o600)
    values = {"network_file": folder / "network.toml", "rpc_urls": "http://127.0.0.1:1", "gateway_urls": "http://a.b"}
    return Settings(**{**values, **changes})


def test_one_password_file_opens_the_keystores_and_no_text_shows_it(tmp_path: Path) -> None:
    given = settings(tmp_path, voting_key=KEYSTORE, query_key=KEYSTORE, key_password_file=tmp_path / "password")
    assert load_signer(given, "voting").address == load_key(given, "query").address == KEY.address
    assert PASSWORD not in repr(given)
    assert "ciphertext" not in repr(given)
    (tmp_path / "password").write_text("guess")
    with pytest.raises(ConfigError, match=r"^LOGSTORE_VOTING_KEY: the keystore does not open: the password") as caught:
        load_signer(given, "voting")
    assert "guess" not in str(caught.value)


def test_without_a_password_file_and_a_terminal_the_setting_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^LOGSTORE_KEY_PASSWORD_FILE: not set; the gas key is a keystore"):
        load_signer(settings(tmp_path, gas_key=KEYSTORE), "gas")


def test_the_query_key_cannot_lie_in_a_remote_signer_and_the_others_can(tmp_path: Path) -> None:
    given = settings(tmp_path, voting_key=REMOTE, query_key=REMOTE)
    assert isinstance(load_signer(given, "voting"), RemoteSigner)
    with pytest.raises(ConfigError, match=r"^LOGSTORE_QUERY_KEY: this key cannot lie in a remote signer"):
        load_key(given, "query")


@pytest.mark.parametrize(("chain_id", "warned"), [(137, ["LOGSTORE_GAS_KEY"]), (31337, [])])
def test_a_key_in_the_open_is_warned_of_at_the_start_and_by_check_where_there_is_money(
    tmp_path: Path, chain_id: int, warned: list[str]
) -> None:
    given = settings(tmp_path, chain_id=chain_id, gas_key=KEY.secret_hex(), voting_key=REMOTE)
    node = Node(given, NoTasks())
    with capture_logs() as logs:
        warn_of_open_keys(given, node.network)
    assert [(entry["log_level"], entry["setting"]) for entry in logs] == [("warning", name) for name in warned]
    alone = Node(settings(tmp_path, chain_id=chain_id, gas_key="22" * 32), NoTasks())
    found = {finding.name: finding for finding in check_keys(alone)}
    assert found["gas key"].level is (Level.WARN if warned else Level.OK)
    assert "22" * 8 not in found["gas key"].text
