"""Worker, beat and Flower by their plain commands: what they say, what they answer, how they end."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from celery import Celery

from tests import paths, servers
from tests.fakes.small_network import SmallNetwork, an_empty_database
from validator.ports.queue import Task
from validator.protocol.parameters import format_network
from validator.store.identity import create_identity

PATIENCE_S = 200.0
pytestmark = pytest.mark.timeout(500)
CLOSED = "http://127.0.0.1:9"


class Fleet:
    """A validator's settings and database, one Redis, and three programs."""

    def __init__(self, folder: Path, redis: servers.Redis, stack: ExitStack) -> None:
        self.folder = folder
        self._stack = stack
        (folder / "network").mkdir()
        network = SmallNetwork(folder / "network", an_empty_database(folder), 1)
        (member,) = network.members
        create_identity(member.database, folder / "id", network.network, network.world.head(), network.clock.now_ms())
        (folder / "network.toml").write_text(format_network(network.network))
        self.client = Celery(broker=redis.celery_url)
        self.environment = {
            **os.environ,
            "LOGSTORE_NETWORK_FILE": str(folder / "network.toml"),
            "LOGSTORE_DATA_DIR": str(folder / "data"),
            "LOGSTORE_DATABASE_URL": f"sqlite:///{member.folder}/validator.sqlite",
            "LOGSTORE_DATABASE_ID_FILE": str(folder / "id"),
            "LOGSTORE_REDIS_URL": redis.celery_url,
            "LOGSTORE_RPC_URLS": CLOSED,
            "LOGSTORE_GATEWAY_URLS": CLOSED,
            "LOGSTORE_VOTING_KEY": member.key.secret_hex(),
            "LOGSTORE_LOG_LEVEL": "INFO",
            "FLOWER_BASIC_AUTH": "operator:password",
        }
        network.close()
        self.worker = self.start("worker", "round", "bundle", "--children", "2", "--name", "first")
        self.beat = self.start("beat")
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.flower_port = free.getsockname()[1]
        self.start("flower", "--port", str(self.flower_port))

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """A program of ours; its output in a file of its first word's name."""
        with self.log(words[0]).open("wb") as sink:
            child = subprocess.Popen(
                [sys.executable, "-m", "validator.cli", *words],
                cwd=paths.ROOT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=subprocess.STDOUT,
            )
        self._stack.callback(child.wait)
        self._stack.callback(child.kill)
        return child

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def events(self, name: str) -> list[dict[str, Any]]:
        """What a program has said: each line must be an event."""
        return [json.loads(line) for line in self.log(name).read_text().splitlines()]

    def refused(self, name: str) -> list[dict[str, Any]]:
        return [event for event in self.events(name) if event["event"] == "task.refused"]

    def wait(self, condition: Callable[[], Any], name: str) -> Any:
        until = time.monotonic() + PATIENCE_S
        while not (found := condition()):
            assert time.monotonic() < until, self.log(name).read_text(errors="replace")[-4_000:]
            time.sleep(0.1)
        return found

    def health(self, name: str) -> int:
        """Status of the check that compose.yaml runs in a worker's container."""
        compose = yaml.safe_load((paths.ROOT / "compose.yaml").read_text())
        kind, command = compose["services"]["round"]["healthcheck"]["test"]
        assert kind == "CMD-SHELL"
        words = ["sh", "-c", command.replace("$$", "$").replace("round@", f"{name}@")]
        own = {"HOSTNAME": socket.gethostname(), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        return subprocess.run(words, env={**self.environment, **own}, capture_output=True, check=False).returncode

    def command(self, *words: str) -> tuple[int, str]:
        """A command of ours; its status, and what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "validator.cli", *words],
            cwd=paths.ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, (done.stdout + done.stderr).strip()

    def ask(self, command: str, **words: Any) -> str:
        """A control command; what the one worker answers."""
        answers = self.client.control.broadcast(command, arguments=words, reply=True, timeout=20, limit=1)
        ((answer,),) = [list(worker.values()) for worker in answers]
        return str(answer.get("ok") or answer["error"])


@contextmanager
def a_fleet(folder: Path) -> Iterator[Fleet]:
    with ExitStack() as stack:
        fleet = Fleet(folder, stack.enter_context(servers.run_redis()), stack)
        stack.callback(fleet.client.close)
        yield fleet


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    with a_fleet(tmp_path_factory.mktemp("fleet")) as fleet:
        yield fleet


def test_a_worker_answers_in_sentences_and_hands_back_what_it_has_when_it_is_told_to_end(fleet: Fleet) -> None:
    fleet.wait(lambda: fleet.client.control.ping(timeout=1), "worker")
    assert fleet.health("first") == 0
    assert "--children N" in fleet.ask("pool_grow", n=1)
    assert "from 1 to 64" in fleet.ask("pool_grow", n="many")
    assert fleet.command("drain", "bundle", "--wait", "5") == (
        0,
        "1 worker takes up no more of bundle, nothing is in hand",
    )
    fleet.client.send_task(Task.BUNDLE_SEAL.value, args=("tomorrow",), queue="bundle")
    assert fleet.command("drain", "report", "--wait", "0")[1].startswith("0 workers")
    assert not fleet.refused("worker")
    assert fleet.command("drain", "--undo")[1].startswith("1 worker takes up")
    fleet.wait(lambda: fleet.refused("worker"), "worker")
    for words in ((), ("yesterday",)):
        fleet.client.send_task(Task.BUNDLE_SEAL.value, args=words, queue="bundle")
    refused = fleet.wait(lambda: (found := fleet.refused("worker")) and len(found) == 3 and found, "worker")
    assert "missing" in refused[1]["reason"]
    assert "the key is a number" in refused[2]["reason"]
    fleet.worker.terminate()
    assert fleet.worker.wait(PATIENCE_S) == 0
    assert fleet.health("first") != 0
    assert not [event for event in fleet.events("worker") if "Traceback" in json.dumps(event)]


def test_beat_says_what_it_does_and_queues_it(fleet: Fleet) -> None:
    fleet.wait(lambda: fleet.log("beat").read_text().count("\n"), "beat")
    (started,) = [event for event in fleet.events("beat") if event["event"] == "beat.started"]
    assert set(started["every_s"]) == {Task.ROUND_DUE.value, Task.RETENTION_SWEEP.value}
    with fleet.client.connection() as connection:
        fleet.wait(lambda: connection.default_channel.client.llen("round"), "beat")
    fleet.beat.terminate()
    assert fleet.beat.wait(PATIENCE_S) == 0


def test_flower_wants_its_login(fleet: Fleet) -> None:
    url = f"http://127.0.0.1:{fleet.flower_port}/api/workers"

    def status() -> int:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code
        except OSError:
            return 0

    assert fleet.wait(status, "flower") == 401
    assert fleet.events("flower")[0]["event"] == "flower.started"
