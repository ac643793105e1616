"""compose.yaml: what production relies on, since no engine reads it here."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.configuration import SOFT_SHUTDOWN_S
from validator.broker.config import BrokerSettings
from validator.net.peers.wire import MAX_GOSSIP_BYTES
from validator.net.streamr.node_process import HEAP_MB, Node, Peer, Program
from validator.operations.env_file import Start, describe_values, render_env
from validator.settings import Settings
from validator.setup.binaries import ROOT

TEXT = (ROOT / "compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
QUEUES = ("collect", "round", "bundle", "report")
OURS = ("migrate", "serve", "beat", *QUEUES, "flower")


def test_the_parts_of_one_validator_are_there() -> None:
    assert set(SERVICES) == {"postgres", "redis", "prometheus", "proxy", "broker", "bridge", *OURS}


def test_a_broker_runs_only_where_its_profile_is_asked_for_and_needs_no_other_part() -> None:
    broker = SERVICES["broker"]
    assert [name for name, service in SERVICES.items() if "profiles" in service] == ["broker", "bridge"]
    assert broker["profiles"] == SERVICES["bridge"]["profiles"] == ["broker"]
    assert broker["command"] == ["logstore-validator", "broker"]
    assert "depends_on" not in broker
    fields = {f"LOGSTORE_BROKER_{name.upper()}" for name in BrokerSettings.model_fields}
    assert set(broker["environment"]) <= fields


def test_a_bridge_and_its_broker_meet_at_one_socket() -> None:
    bridge, broker = SERVICES["bridge"], SERVICES["broker"]
    folder = "${BRIDGE_FOLDER:-./bridge}:/bridge"
    assert folder in bridge["volumes"]
    assert folder in broker["volumes"]
    example = json.loads((ROOT / "deploy/bridge.example.json").read_text())
    (node,) = example["nodes"]
    assert broker["environment"]["LOGSTORE_BROKER_BRIDGE_SOCKETS"] == f"${{BRIDGE_SOCKETS:-{node['socket']}}}"
    assert node["socket"] in bridge["healthcheck"]["test"][-1]
    assert bridge["ports"] == [f"${{BRIDGE_PORT:-{node['port']}}}:{node['port']}"]
    assert not {"secrets", "environment", "depends_on"} & set(bridge)


def test_the_example_of_a_bridges_config_is_of_the_form_that_the_program_is_given(tmp_path: Path) -> None:
    example = json.loads((ROOT / "deploy/bridge.example.json").read_text())
    peer = Peer("1" * 40, "127.0.0.1", 1)
    Program("node", Path("/app"), [peer]).write_config(tmp_path / "config.json", [Node(peer, tmp_path / "bus")])
    given = json.loads((tmp_path / "config.json").read_text())
    assert example.keys() == given.keys()
    assert (example["packages"], example["bufferBytes"]) == (given["packages"], given["bufferBytes"])
    for name in ("entryPoints", "nodes"):
        assert example[name][0].keys() == given[name][0].keys()


def test_the_bridges_image_has_what_its_program_needs() -> None:
    text = (ROOT / "deploy/bridge.Dockerfile").read_text()
    assert re.search(r"^ARG NODE=\d+\.\d+\.\d+-", text, re.MULTILINE)
    copied = [word for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE) for word in line.split()]
    assert all((ROOT / path).exists() for path in copied)
    folder = ROOT / "validator/net/streamr/node"
    programs = {path.name for path in folder.glob("*.mjs")}
    assert {Path(path).name for path in copied} == {"package.json", "package-lock.json", "stubs", *programs}
    assert f"--max-old-space-size={HEAP_MB}" in text
    assert SERVICES["bridge"]["volumes"][1]["target"] in text


def test_it_keeps_to_what_docker_compose_1_29_reads() -> None:
    assert all(key in {"services", "networks", "volumes", "secrets"} or key.startswith("x-") for key in COMPOSE)
    for service in SERVICES.values():
        for need in service.get("depends_on", {}).values():
            assert set(need) == {"condition"}


@pytest.mark.parametrize("queue", QUEUES)
def test_each_queue_has_one_worker_of_its_own(queue: str) -> None:
    service = SERVICES[queue]
    assert service["command"][:3] == ["logstore-validator", "worker", queue]
    assert int(service["stop_grace_period"].rstrip("s")) > SOFT_SHUTDOWN_S + 10
    assert f"inspect ping -t 20 -d {queue}@$$HOSTNAME" in service["healthcheck"]["test"][1]


def test_what_grows_with_the_load_can_be_had_several_times() -> None:
    grows = [name for name, service in SERVICES.items() if "deploy" in service]
    assert grows == ["collect", "round"]
    assert not any("container_name" in service for service in SERVICES.values())


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
    assert public == [
        ("proxy", "80:80"),
        ("proxy", "443:443"),
        ("broker", "${BROKER_PORT:-7171}:7171"),
        ("bridge", "${BRIDGE_PORT:-32200}:32200"),
    ]


def test_peers_reach_the_listener_through_tls_and_the_listener_knows_the_proxy() -> None:
    text = (ROOT / "deploy/Caddyfile").read_text()
    assert "reverse_proxy serve:7180" in text
    assert "max_size 8MiB" in text
    assert MAX_GOSSIP_BYTES <= 8 << 20
    front = COMPOSE["networks"]["front"]["ipam"]["config"][0]["subnet"]
    assert SERVICES["serve"]["environment"]["LOGSTORE_ALLOW_NETS"].split(",")[0] == front
    assert set(SERVICES["proxy"]["networks"]) & set(SERVICES["serve"]["networks"]) == {"front"}


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
        "broker_database_password": ["broker"],
        "postgres_password": ["postgres", "migrate", "serve", "beat", *QUEUES, "flower"],
        "flower_login": ["flower"],
        "gas_key": ["report"],
        "query_key": ["collect"],
        "wallet": ["bundle"],
    }


def test_nothing_starts_before_the_database_is_migrated() -> None:
    assert SERVICES["migrate"]["restart"] == "no"
    for name in set(OURS) - {"migrate"}:
        assert SERVICES[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}


@pytest.mark.parametrize("name", [*OURS, "broker", "bridge"])
def test_our_processes_own_nothing_of_the_machine(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"]
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["user"] == "${VALIDATOR_UID:-10001}"


def test_whoever_can_be_asked_how_he_is_is_asked() -> None:
    silent = [name for name, service in SERVICES.items() if "healthcheck" not in service]
    assert silent == ["migrate", "beat"]  # one ends, and that the other lives is part of serve's readiness


REQUIRED = {
    "NETWORK_FILE", "LOGSTORE_RPC_URLS", "LOGSTORE_GATEWAY_URLS", "VALIDATOR_NAME", "VOTING_KEY_FILE", "GAS_KEY_FILE",
    "QUERY_KEY_FILE", "WALLET_FILE", "KEY_PASSWORD_FILE", "POSTGRES_PASSWORD_FILE", "FLOWER_LOGIN_FILE",
}  # fmt: skip


def config(values: dict[str, str]) -> tuple[str, set[str]]:
    """The file as compose fills it in, and the variables for which it refuses (``${NAME:?why}``)."""
    refused: set[str] = set()

    def fill(found: re.Match[str]) -> str:
        name, default, why = found.groups()
        if not values.get(name) and why is not None:
            refused.add(name)
        return values.get(name) or default or ""

    return re.sub(r"\$\{([A-Z_]+)(?::-([^}]*)|:\?([^}]+))?\}", fill, TEXT), refused


def test_the_configuration_fails_by_name_where_the_network_or_a_secret_is_not_said() -> None:
    assert config({})[1] == REQUIRED
    for name in REQUIRED:
        assert config(dict.fromkeys(REQUIRED - {name}, "x"))[1] == {name}


def test_the_env_that_init_writes_is_all_it_wants_but_for_the_public_name() -> None:
    urls = (("https://a.example", "https://b.example"), ("https://c.example",))
    lines = render_env(Start(describe_values(Path("secrets"), *urls))).splitlines()
    values = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    filled, refused = config(values)
    assert refused == {"VALIDATOR_NAME"}
    made = yaml.safe_load(filled)
    assert made["secrets"]["voting_key"] == {"file": "./secrets/voting.json"}
    mounts = [mount for mount in made["services"]["serve"]["volumes"] if isinstance(mount, dict)]
    assert [mount["source"] for mount in mounts] == ["./network.toml"]


def test_a_network_file_that_is_missing_is_no_folder_that_docker_makes() -> None:
    (mount,) = [mount for mount in SERVICES["serve"]["volumes"] if isinstance(mount, dict)]
    assert mount["read_only"]
    assert mount["bind"] == {"create_host_path": False}


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
    for name in ("postgres", "redis", "prometheus", "proxy"):
        assert re.search(r":v?\d", SERVICES[name]["image"])
    dockerfile = (ROOT / "deploy/Dockerfile").read_text()
    assert re.search(r"^ARG PYTHON=3\.\d+\.\d+-", dockerfile, re.MULTILINE)
    assert re.findall(r"^FROM (\S+)", dockerfile, re.MULTILINE) == ["python:${PYTHON}"] * 2


def test_prometheus_asks_the_parts_that_tell() -> None:
    config = yaml.safe_load((ROOT / "deploy/prometheus.yml").read_text())
    targets = [
        target for job in config["scrape_configs"] for part in job["static_configs"] for target in part["targets"]
    ]
    assert targets == ["serve:7181", "flower:5555"]
    assert yaml.safe_load((ROOT / "deploy/alerts.yml").read_text())["groups"]
