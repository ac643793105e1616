"""A real worker that uploads: its process is killed between two chunks, and the task runs again in another."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from celery import Celery

from tests import paths, servers
from tests.fakes.small_network import SmallNetwork, an_empty_database
from tests.fakes.uploading import AR, MinedStorage, Miner, Uploading
from tests.gateway_process import GatewayProcess, run_gateway
from validator.net.arweave.wallet import ArweaveWallet
from validator.ports.queue import Task
from validator.protocol.codec.arweave_text import encode_base64url
from validator.protocol.parameters import format_network
from validator.store.identity import create_identity

_RSA = json.loads((paths.VECTORS / "arweave.json").read_text())["keys"]["rsa"]
PATIENCE_S = 120.0
APP = "tests.integration.tasks.uploading_app"


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[GatewayProcess]:
    with run_gateway(tmp_path) as running:
        yield running


@pytest.fixture
def uploading(tmp_path: Path, gateway: GatewayProcess) -> Iterator[Uploading]:
    """One validator, whose turn it is to upload a file of two chunks; nothing has been prepared."""
    (tmp_path / "network").mkdir()
    network = SmallNetwork(tmp_path / "network", an_empty_database(tmp_path), 1)
    wallet, miner = ArweaveWallet.from_jwk(_RSA), Miner(network, gateway)
    (member,) = network.members
    create_identity(member.database, tmp_path / "id", network.network, network.world.head(), network.clock.now_ms())
    nodes = network.world.nodes
    network.world.nodes = tuple(replace(n, arweave=wallet.address) if n.validator_url else n for n in nodes)
    member.storage = MinedStorage([gateway.url], wallet, miner)  # type: ignore[assignment]
    member.restart()
    gateway.control(f"mint/{encode_base64url(wallet.address)}/{AR}")
    for i in range(70):
        network.world.publish(200 + i, json.dumps({"i": os.urandom(4_500).hex()}).encode())
    turns: list[str] = []

    def stop_before_uploading(_who: object, task: str, key: str, _at: str) -> bool:
        turns.extend([key] if task == Task.BUNDLE_UPLOAD else [])
        return task == Task.BUNDLE_UPLOAD

    network.kill_at = stop_before_uploading
    network.on_killed = lambda *_: None
    network.run(lambda: bool(turns))
    network.kill_at = None
    stranger = member.storage
    yield Uploading(network, gateway, miner, member, member, stranger, [wallet], gateway.stats())  # type: ignore[arg-type]
    member.storage.close()  # type: ignore[attr-defined]
    network.close()


def environment(uploading: Uploading, folder: Path, redis: servers.Redis) -> dict[str, str]:
    member = uploading.first
    network_file, wallet = folder / "network.toml", folder / "wallet.json"
    network_file.write_text(format_network(uploading.network.network))
    wallet.touch(0o600)
    wallet.write_text(json.dumps(_RSA))
    return {
        **os.environ,
        "LOGSTORE_NETWORK_FILE": str(network_file),
        "LOGSTORE_DATA_DIR": str(folder / "data"),
        "LOGSTORE_DATABASE_URL": f"sqlite:///{member.folder}/validator.sqlite",
        "LOGSTORE_DATABASE_ID_FILE": str(folder / "id"),
        "LOGSTORE_REDIS_URL": redis.celery_url,
        "LOGSTORE_RPC_URLS": "http://127.0.0.1:9",
        "LOGSTORE_GATEWAY_URLS": uploading.gateway.url,
        "LOGSTORE_VOTING_KEY": member.key.secret_hex(),
        "LOGSTORE_WALLET_FILE": str(wallet),
        "FOLDER": str(member.folder.parent),
        "WALLET": encode_base64url(uploading.wallets[0].address),
        "AT_MS": str(uploading.network.clock.now_ms()),
    }


def wait(condition: Callable[[], bool], log: Path) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until, log.read_text(errors="replace")[-4_000:]
        time.sleep(0.05)


def test_a_worker_that_is_killed_between_two_chunks_leaves_its_task_to_another_and_pays_once(
    uploading: Uploading, tmp_path: Path
) -> None:
    uploading.gateway.fail("slow", "/chunk$", skip=1, seconds=5)
    pid = tmp_path / "network" / "pid"

    def state() -> str:
        rows = uploading.first.rows("SELECT state FROM uploads")
        return str(rows[0][0]) if rows else ""

    log = tmp_path / "worker.log"
    words = ["env", "-C", str(paths.ROOT), sys.executable, "-m", "celery", "-A", APP, "worker", "-P", "prefork"]
    words += ["-c", "1", "-Q", "bundle", "--without-gossip", "--without-mingle"]
    with servers.run_redis() as redis, pytest.MonkeyPatch.context() as patch:
        for name, value in environment(uploading, tmp_path, redis).items():
            patch.setenv(name, value)
        with servers.running(words, log), Celery(broker=redis.celery_url) as sender:
            sender.send_task(Task.BUNDLE_UPLOAD.value, args=["0"], queue="bundle")
            wait(lambda: uploading.gateway.stats()["faults"].get("slow", 0) == 1, log)
            wait(lambda: uploading.gateway.stats()["chunks_accepted"] == 1, log)
            killed = int(pid.read_text())
            assert state() == "posted"
            os.kill(killed, signal.SIGKILL)
            wait(lambda: state() == "seeded", log)
            assert int(pid.read_text()) != killed
    said = log.read_text(errors="replace")
    assert not [name for name in ("d", "p", "q", "dp", "dq", "qi") if _RSA[name] in said]
    uploading.require_paid_once()
