"""How each process of the network is started: its words, its config file, its environment, its files.

A run's folder:

    network.toml, run.json, collected.json,
    observations.jsonl                          what the independent check reads, beside the logs
    logs/NAME.log                               each process's own output
    logs/publisher/, logs/broker-1/, …          published, forged, delivered: JSON lines
    validator-1/, …                             database, sets, bundles
    keys/, configs/                             readable by their owner only
"""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from validator.devnet.carriers import Carrier
from validator.devnet.children import Child, Children
from validator.devnet.eras import era_of
from validator.devnet.folder import DISK_FLOOR_BYTES, RunFolder, write_private
from validator.devnet.places import BrokerPlace, Doors, ValidatorProcess, start_role
from validator.devnet.plan import BUNDLE_WINDOWS, GRACE_MS, Options, broker_name, consumer_name, liar_index, make_key
from validator.devnet.preparation import Stream, wallet_file
from validator.devnet.process import now_ms
from validator.protocol.codec.received import PROTOBUF
from validator.protocol.errors import TransientError
from validator.protocol.model import Address
from validator.protocol.parameters import Network

START_LIMIT_S = 30.0
CHAIN_BEHIND_S = 600
"""How far in the past the node's clock begins."""


def child_environment(folder: RunFolder) -> dict[str, str]:
    """Our environment without settings of some other validator; what is temporary lies in the run's folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LOGSTORE_", "FLOWER_"))}
    return {**kept, "PYTHONUNBUFFERED": "1", "TMPDIR": str(folder.path / "tmp")}


def wait_for_port(children: Children, path: Path, name: str) -> int:
    """The port that a process wrote. Raises ChildEnded, or TransientError after 30 s."""
    end = time.monotonic() + START_LIMIT_S
    while time.monotonic() < end:
        if path.exists():
            return int(path.read_text())
        children.check()
        time.sleep(0.02)
    raise TransientError(f"{name} has not begun to listen within {START_LIMIT_S:.0f} s; see its log")


# --- servers --------------------------------------------------------------------------------------


def start_anvil(children: Children, anvil: str, chain_id: int) -> Child:
    """The EVM node, silent about calls, its clock in the past until ``preparation.begin_network``."""
    words = [anvil, "--host", "127.0.0.1", "--port", "0", "--chain-id", str(chain_id), "--hardfork", "prague"]
    words += ["--slots-in-an-epoch", "1", "--accounts", "1", "--no-mining"]
    return children.start("anvil", [*words, "--timestamp", str(int(time.time()) - CHAIN_BEHIND_S)], is_server=True)


def wait_for_anvil(children: Children, child: Child) -> str:
    """URL of the node, read from its output."""
    end = time.monotonic() + START_LIMIT_S
    while time.monotonic() < end:
        for line in child.log.read_text(errors="replace").splitlines():
            if line.startswith("Listening on 127.0.0.1:"):
                return "http://" + line.removeprefix("Listening on ").strip()
        children.check()
        time.sleep(0.02)
    raise TransientError(f"anvil has not begun to listen within {START_LIMIT_S:.0f} s; see its log")


def start_redis(children: Children, redis_server: str, folder: RunFolder, databases: int) -> Path:
    """Redis on a Unix socket that only we may open; path of the socket."""
    path = folder.sockets / "redis"
    words = [redis_server, "--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700"]
    words += ["--dir", str(folder.sockets), "--save", "", "--appendonly", "no", "--daemonize", "no"]
    children.start(
        "redis", [*words, "--databases", str(max(16, databases)), "--maxmemory-policy", "noeviction"], is_server=True
    )
    return path


def wait_for_socket(children: Children, path: Path) -> None:
    """Wait until a server takes connections on a Unix socket."""
    end = time.monotonic() + START_LIMIT_S
    while time.monotonic() < end:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(path))
            except OSError:
                children.check()
                time.sleep(0.02)
            else:
                return
    raise TransientError(f"redis has not begun to listen within {START_LIMIT_S:.0f} s; see its log")


def start_gateway(children: Children, folder: RunFolder) -> Path:
    """The Arweave gateway; path of its port file."""
    port_file = folder.path / "configs" / "gateway.port"
    words = [sys.executable, "-m", "validator.devnet.gateway", "--port-file", str(port_file)]
    children.start("gateway", [*words, "--data", str(folder.path / "gateway"), "--mine-ms", "500"], is_server=True)
    return port_file


# --- brokers, publishers, consumers ---------------------------------------------------------------


def reserve_brokers(options: Options) -> list[BrokerPlace]:
    return [BrokerPlace(index) for index in range(options.brokers)]


def start_brokers(
    children: Children,
    folder: RunFolder,
    options: Options,
    carrier: Carrier,
    places: Sequence[BrokerPlace],
    *,
    rpc_url: str,
    gateway_url: str,
    storage_registry: Address,
) -> None:
    """All brokers, once network.toml is there; each speaks the old dialect of one generation beside the new one."""
    for place in places:
        name, logs = place.name, folder.logs / place.name
        settings = {
            "network_file": folder.path / "network.toml",
            "data_dir": folder.path / name,
            "rpc_urls": rpc_url,
            "explorer_rpc_url": rpc_url,
            "gateway_urls": gateway_url,
            "key": make_key(options.seed, name, "node").secret_hex(),
            "allow_nets": "127.0.0.0/8",
            "allow_http": True,
            "disk_floor": str(DISK_FLOOR_BYTES),
            "chain_every_s": 1.0,
            "storage_registry": f"0x{storage_registry.hex()}",
            "dialects": f"{era_of(place.index)},streamr",
        }
        place.config = {
            "settings": settings,
            "delivery_log": log_for_check(logs / "deliveries.jsonl", options),
            "published_log": log_for_check(logs / "published.jsonl", options),
            "bus": msgspec.to_builtins(carrier.brokers[place.index], enc_hook=str),
            "faults": {
                "run_seed": str(options.seed),
                "seed": f"{options.seed}/{name}",
                "loss": options.loss,
                "max_delay_ms": BUNDLE_WINDOWS * options.window_ms,
            },
            "lies": options.lying_broker if place.index == liar_index(options) else None,
        }
        place.start(children, folder)


def publisher_port_file(folder: RunFolder) -> Path:
    return folder.path / "configs" / "publisher.port"


def start_publisher(
    children: Children,
    folder: RunFolder,
    options: Options,
    carrier: Carrier,
    streams: Sequence[Stream],
    brokers: Sequence[str],
    genesis_ms: int,
) -> None:
    """All publishers and the network that carries their messages, in one process, for the windows of epoch 0."""
    logs = folder.logs / "publisher"
    config = {
        "port_file": publisher_port_file(folder),
        "published_log": log_for_check(logs / "published.jsonl", options),
        "forged_log": log_for_check(logs / "forged.jsonl", options),
        "network_log": log_for_check(logs / "network.jsonl", options),
        "streams": [
            {"id": s.id, "partitions": s.partitions, "publishers": [publisher.config() for publisher in s.publishers]}
            for s in streams
        ],
        "brokers": [{"url": url, "form": PROTOBUF} for url in brokers],
        "start_ms": genesis_ms,
        "end_ms": genesis_ms + options.traffic_ms,
        "rate": options.rate,
        "seed": options.seed,
        "loss": options.loss,
        "forged": 0.03,
        "bus": msgspec.to_builtins(carrier.publisher, enc_hook=str),
        "max_delay_ms": BUNDLE_WINDOWS * options.window_ms,
    }
    start_role(children, folder, "publisher", "publisher", config)


def start_consumers(
    children: Children,
    folder: RunFolder,
    options: Options,
    streams: Sequence[Stream],
    broker_urls: Sequence[str],
    network: Network,
) -> None:
    """Consumers that read and pay through epoch 0, and end by themselves."""
    brokers = [
        {"address": f"0x{make_key(options.seed, broker_name(i), 'node').address.hex()}", "url": url, "era": era_of(i)}
        for i, url in enumerate(broker_urls)
    ]
    for index in range(options.consumers):
        name = consumer_name(index)
        config = {
            "key": make_key(options.seed, name, "consumer").secret_hex(),
            "brokers": brokers,
            "streams": [{"id": s.id, "partitions": s.partitions} for s in streams],
            "chain_id": network.chain_id,
            "query_manager": f"0x{network.contracts.query_manager.hex()}",
            "start_ms": network.genesis_ms,
            "end_ms": network.genesis_ms + options.traffic_ms,
            "epoch_ms": options.epoch_ms,
            "log": log_for_check(folder.logs / name / "consumer.jsonl", options),
            "seed": options.seed,
        }
        start_role(children, folder, "consumer", name, config, may_end=True)


def log_for_check(path: Path, options: Options) -> Path:
    """Where the check reads what a part did; nowhere in a network that goes on, where it would fill the disk."""
    return Path(os.devnull) if options.keep else path


# --- validators -----------------------------------------------------------------------------------


def make_validators(
    folder: RunFolder, options: Options, names: Sequence[str], *, rpc_url: str, gateway_url: str, redis: Path
) -> list[ValidatorProcess]:
    """Folders, key files, environment and listening sockets of all validators."""
    validators = []
    for index, name in enumerate(names):
        home = folder.path / name
        home.mkdir()
        keys = folder.path / "keys"
        for purpose in ("voting", "gas", "query"):
            write_private(keys / f"{name}.{purpose}", make_key(options.seed, name, purpose).secret_hex() + "\n")
        environment = {
            "LOGSTORE_NETWORK_FILE": str(folder.path / "network.toml"),
            "LOGSTORE_DATA_DIR": str(home),
            "LOGSTORE_DATABASE_URL": f"sqlite:///{home}/validator.sqlite",
            "LOGSTORE_REDIS_URL": f"redis+socket://{redis}?virtual_host={index}",
            "LOGSTORE_RPC_URLS": rpc_url,
            "LOGSTORE_GATEWAY_URLS": gateway_url,
            "LOGSTORE_VOTING_KEY_FILE": str(keys / f"{name}.voting"),
            "LOGSTORE_GAS_KEY_FILE": str(keys / f"{name}.gas"),
            "LOGSTORE_QUERY_KEY_FILE": str(keys / f"{name}.query"),
            "LOGSTORE_WALLET_FILE": str(wallet_file(keys, name)),
            "LOGSTORE_ALLOW_NETS": "127.0.0.0/8",
            "LOGSTORE_ALLOW_HTTP": "1",
            "LOGSTORE_TICK_S": "1",
            "LOGSTORE_DISK_FLOOR": str(DISK_FLOOR_BYTES),
            "LOGSTORE_LOG_FORMAT": "json",
            "LOGSTORE_LOG_LEVEL": os.environ.get("LOGSTORE_LOG_LEVEL", "INFO"),
        }
        validators.append(ValidatorProcess(index, name, Doors.reserve(), environment))
    return validators


# --- what the check reads -------------------------------------------------------------------------


def write_run_file(
    folder: RunFolder,
    options: Options,
    network: Network,
    *,
    rpc_url: str,
    gateway_url: str,
    wallets: Mapping[str, str],
    names: Sequence[str],
    contracts: Mapping[str, str],
    consumer_balance: int,
    killed: str | None,
) -> None:
    """run.json: who takes part, and where gateway and chain are."""

    def address(name: str, purpose: str) -> str:
        return f"0x{make_key(options.seed, name, purpose).address.hex()}"

    first = network.sets[0]
    run = {
        "chain_id": network.chain_id,
        "rpc_url": rpc_url,
        "gateway_url": gateway_url,
        "contracts": dict(contracts),
        "deployment_block": network.deployment_block,
        "network": "network.toml",
        "genesis_ms": network.genesis_ms,
        "windows": options.windows,
        "window_ms": options.window_ms,
        "grace_ms": GRACE_MS,
        "horizon_ms": first.horizon_ms,
        "max_delay_ms": BUNDLE_WINDOWS * options.window_ms,
        "bundle_windows": first.bundle_windows,
        "price_default": first.price_default,
        "read_ppm": first.read_ppm,
        "validators": [{"name": n, "address": address(n, "voting"), "wallet": wallets[n]} for n in names],
        "brokers": [{"name": n, "address": address(n, "node")} for n in map(broker_name, range(options.brokers))],
        "consumers": [
            {"address": address(n, "consumer"), "staked": str(consumer_balance)}
            for n in map(consumer_name, range(options.consumers))
        ],
        "killed": killed,
        "started_ms": now_ms(),
    }
    (folder.path / "run.json").write_text(json.dumps(run, indent=1, ensure_ascii=False))
