"""compose.yaml: what production relies on, since no engine reads it here."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from validator.broker.config import BrokerSettings
from validator.settings import Settings
from validator.setup.binaries import ROOT

TEXT = (ROOT / "compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
QUEUES = ("collect", "round", "bundle", "report")
OURS = ("migrate", "serve", "beat", *QUEUES, "flower")


def test_the_parts_of_one_validator_are_there() -> None:
    assert set(SERVICES) == {"postgres", "redis", "prometheus", "broker", *OURS}


def test_a_broker_runs_only_where_its_profile_is_asked_for_and_needs_no_other_part() -> None:
    broker = SERVICES["broker"]
    assert [name for name, service in SERVICES.items() if "profiles" in service] == ["broker"]
    assert broker["profiles"] == ["broker"]
    assert broker["command"] == ["logstore-validator", "broker"]
    assert "depends_on" not in broker
    fields = {f"LOGSTORE_BROKER_{name.upper()}" for name in BrokerSettings.model_fields}
    assert set(broker["environment"]) <= fields


def test_it_keeps_to_what_docker_compose_1_29_reads() -> None:
    assert all(key in {"services", "networks", "volumes", "secrets"} or key.startswith("x-") for key in COMPOSE)
    for service in SERVICES.values():
        for need in service.get("depends_on", {}).values():
            assert set(need) == {"condition"}


@pytest.mark.parametrize("queue", QUEUES)
def test_each_queue_has_one_worker_of_its_own(queue: str) -> None:
    command = SERVICES[queue]["command"]
    assert command[:4] == ["celery", "-A", "tasks.celery", "worker"]
    assert command[command.index("-Q") + 1] == queue
    assert SERVICES[queue]["environment"]["REMAP_SIGTERM"] == "SIGQUIT"


def test_there_is_one_beat_and_no_worker_brings_another() -> None:
    assert [name for name, service in SERVICES.items() if "beat" in service.get("command", ())] == ["beat"]
    assert not any("-B" in service.get("command", ()) for service in SERVICES.values())


def test_only_the_peers_port_is_public() -> None:
    public = [
        (name, port)
        for name, service in SERVICES.items()
        for port in service.get("ports", ())
        if not port.startswith("127.0.0.1:")
    ]
    assert public == [("serve", "${PEERS_PORT:-7180}:7180"), ("broker", "${BROKER_PORT:-7171}:7171")]


def test_each_key_is_given_to_those_who_need_it_and_nobody_else() -> None:
    holders = {
        secret: [name for name, service in SERVICES.items() if secret in service.get("secrets", ())]
        for secret in COMPOSE["secrets"]
    }
    speaks_to_peers = ["serve", "collect", "round", "bundle", "report"]
    assert holders == {
        "voting_key": speaks_to_peers,
        "key_password": ["serve", "broker", *speaks_to_peers[1:]],
        "broker_key": ["broker"],
        "gas_key": ["report"],
        "query_key": ["collect"],
        "wallet": ["bundle"],
    }


def test_nothing_starts_before_the_database_is_migrated() -> None:
    assert SERVICES["migrate"]["restart"] == "no"
    for name in set(OURS) - {"migrate"}:
        assert SERVICES[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


def test_every_setting_exists() -> None:
    fields = {f"LOGSTORE_{name.upper()}" for name in Settings.model_fields}
    for name in OURS:
        given = {key for key in SERVICES[name]["environment"] if key.startswith("LOGSTORE_")}
        assert given <= fields
        assert {"LOGSTORE_NETWORK_FILE", "LOGSTORE_RPC_URLS", "LOGSTORE_GATEWAY_URLS"} <= given


def test_the_example_names_every_variable_and_no_other() -> None:
    used = set(re.findall(r"\$\{([A-Z_]+)", TEXT))
    example = (ROOT / "deploy/env.example").read_text()
    assert set(re.findall(r"^(?:# )?([A-Z_]+)=", example, flags=re.MULTILINE)) == used


def test_redis_never_evicts_tasks() -> None:
    command = SERVICES["redis"]["command"]
    assert command[command.index("--maxmemory-policy") + 1] == "noeviction"
    assert command[command.index("--appendonly") + 1] == "yes"


def test_images_from_outside_have_a_version() -> None:
    for name in ("postgres", "redis", "prometheus"):
        assert re.search(r":v?\d", SERVICES[name]["image"])


def test_prometheus_asks_the_parts_that_tell() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())
    targets = [
        target for job in config["scrape_configs"] for part in job["static_configs"] for target in part["targets"]
    ]
    assert targets == ["serve:7181", "flower:5555"]
    assert yaml.safe_load((ROOT / "deploy/alerts.yml").read_text())["groups"]
