"""``logstore-validator broker`` as an operator runs it: settings judged at start, listeners, a kill under load."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.broker_parts import a_network
from validator.broker.config import PREFIX, load_broker_settings
from validator.protocol.errors import ConfigError
from validator.protocol.parameters import format_network


@pytest.fixture
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    (tmp_path / "network.toml").write_text(format_network(a_network()))
    key = tmp_path / "key"
    key.write_text("0x" + "11" * 32)
    key.chmod(0o600)
    values = {
        "LOGSTORE_BROKER_NETWORK_FILE": str(tmp_path / "network.toml"),
        "LOGSTORE_BROKER_DATA_DIR": str(tmp_path / "data"),
        "LOGSTORE_BROKER_RPC_URLS": "http://127.0.0.1:9",
        "LOGSTORE_BROKER_KEY_FILE": str(key),
        "LOGSTORE_BROKER_HOST": "127.0.0.1",
        "LOGSTORE_BROKER_PORT": "0",
        "LOGSTORE_BROKER_OPERATOR_PORT": "0",
        "LOGSTORE_BROKER_DISK_FLOOR": "1MiB",
    }
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    yield values


def test_settings_name_what_is_wrong_all_at_once(environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_broker_settings().retention_days == 30
    monkeypatch.setenv(f"{PREFIX}RETENTION", "3")
    monkeypatch.setenv("LOGSTORE_BROKER_DIALECTS", "2019")
    monkeypatch.setenv("LOGSTORE_BROKER_ROLE", "none")
    with pytest.raises(ConfigError) as refused:
        load_broker_settings()
    text = str(refused.value)
    for words in ("RETENTION: no such setting; is LOGSTORE_BROKER_RETENTION_DAYS meant?", "'2019' is none of", "ROLE"):
        assert words in text


def test_a_key_that_others_can_read_is_refused(environment: dict[str, str]) -> None:
    Path(environment["LOGSTORE_BROKER_KEY_FILE"]).chmod(0o644)
    with pytest.raises(ConfigError, match="readable by others"):
        load_broker_settings().signing_key()


def test_the_command_serves_without_chain_or_network_and_ends_on_a_signal(environment: dict[str, str]) -> None:
    import httpx

    process = subprocess.Popen(
        [sys.executable, "-m", "validator.cli", "broker"],
        env={**os.environ, **environment, "PYTHONPATH": str(Path(__file__).parents[3])},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    assert process.stderr is not None
    ports: dict[str, int] = {}
    import json

    for line in process.stderr:
        said = json.loads(line)
        if said["event"] == "listening":
            ports[said["listener"]] = said["port"]
        if len(ports) == 2:
            break
    public, operator = (f"http://127.0.0.1:{ports[name]}" for name in ("public", "operator"))
    with httpx.Client(transport=httpx.HTTPTransport(retries=20), timeout=30) as client:
        assert client.get(operator + "/healthz").text == "ok\n"
        ready = client.get(operator + "/readyz")
        assert (ready.status_code, ready.json()["chain"]["ok"], ready.json()["disk"]["ok"]) == (503, False, True)
        assert "logstore_broker_stored" in client.get(operator + "/metrics").text
        assert "Log Store broker" in client.get(operator + "/").text
        assert client.get(public + "/v1/head").json()["network"] == "test"
        assert client.get(public + "/v1/streams/x/partitions/0/messages?from=1").status_code == 503
        assert client.get(public + "/metrics").status_code == 404
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
