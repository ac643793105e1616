"""The operator's commands as programs, beside a real chain: one line and a status for whatever is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.builders import a_key
from tests.contract_network import ContractNetwork
from tests.fakes.web3signer import web3signer
from validator.devnet.contracts import Deployment
from validator.net.signer.keystore import make_keystore
from validator.operations.check_machine import check_keys
from validator.operations.findings import Finding, Level, ok
from validator.protocol.codec.config import config_digest
from validator.protocol.codec.statement import SigningContext, sign_statement
from validator.protocol.model import Address, Digest, InstanceId, InstanceKind, Statement, StatementKind
from validator.protocol.parameters import Network, ParameterSet, format_network
from validator.settings import Settings
from validator.store.database import open_database
from validator.store.statements import journal_vote, save_evidence
from validator.wiring import Node, NoTasks

CLOSED = "http://127.0.0.1:9"
VOTING = a_key(100)


def described(deployment: Deployment) -> Network:
    return Network(
        "test",
        deployment.chain_id,
        deployment.block,
        deployment.parent_hash,
        deployment.contracts,
        1_700_000_000_000,
        (ParameterSet(first_epoch=0, epoch_windows=1 << 30, lag_s=30),),
    )


def first_digest(deployment: Deployment, committee: tuple[Address, ...]) -> Digest:
    network = described(deployment)
    epoch = network.epoch(0)
    assert epoch is not None
    return config_digest(network.config_of(epoch, committee))


@pytest.fixture(scope="module")
def network(chain_url: str) -> Iterator[Network]:
    made = ContractNetwork.create(chain_url, digest_of=first_digest)
    made.chain.mine(3)
    yield described(made.chain.deployment)
    made.chain.close()


class Machine:
    """One validator's files and environment."""

    def __init__(self, home: Path, network: Network, chain_url: str) -> None:
        self.home = home
        home.mkdir()
        (home / "network.toml").write_text(format_network(network))
        for name, key in (("voting", VOTING), ("gas", a_key(101)), ("query", a_key(102))):
            (home / name).write_text(key.secret_hex())
            (home / name).chmod(0o600)
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("LOGSTORE_")},
            "LOGSTORE_NETWORK_FILE": str(home / "network.toml"),
            "LOGSTORE_DATA_DIR": str(home),
            "LOGSTORE_DATABASE_URL": self.database_url,
            "LOGSTORE_RPC_URLS": chain_url,
            "LOGSTORE_GATEWAY_URLS": CLOSED,
            "LOGSTORE_REDIS_URL": "redis://127.0.0.1:9/0",
            "LOGSTORE_VOTING_KEY_FILE": str(home / "voting"),
            "LOGSTORE_GAS_KEY_FILE": str(home / "gas"),
            "LOGSTORE_QUERY_KEY_FILE": str(home / "query"),
            "LOGSTORE_DISK_FLOOR": "1",
            "LOGSTORE_PEERS_PORT": "0",
            "LOGSTORE_OPERATOR_PORT": "0",
        }

    @property
    def database_url(self) -> str:
        return f"sqlite:///{self.home}/validator.sqlite"

    def run(self, *words: str, **changed: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "validator.cli", *words],
            env={**self.environment, **changed},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )


def levels(check: subprocess.CompletedProcess[str]) -> dict[str, list[str]]:
    """What ``check`` said, by level."""
    found: dict[str, list[str]] = {"ok": [], "warn": [], "fail": []}
    for line in check.stdout.splitlines():
        level, _, text = line.partition(" ")
        found[level].append(" ".join(text.split()))
    return found


@pytest.fixture
def machine(tmp_path: Path, network: Network, chain_url: str) -> Machine:
    return Machine(tmp_path / "machine", network, chain_url)


def a_vote(network: Network, value: int = 1) -> Statement:
    instance = InstanceId(InstanceKind.WINDOW, network.genesis_ms)
    unsigned = Statement(
        StatementKind.PREVOTE, Digest(b"\x0c" * 32), instance, 0, Digest(bytes([value]) * 32), VOTING.address
    )
    return sign_statement(unsigned, VOTING, SigningContext(network.chain_id, network.contracts.report_manager))


def test_init_is_safe_to_repeat_and_another_database_is_refused_by_every_process(machine: Machine) -> None:
    assert machine.run("init").returncode == 0
    written = (machine.home / "voting.database").read_text()
    assert machine.run("init").returncode == 0
    assert (machine.home / "voting.database").read_text() == written
    (machine.home / "voting.database").write_text("0x" + "ab" * 32)
    for words in (["serve"], ["init"]):
        ended = machine.run(*words)
        assert ended.returncode == 2
        (line,) = ended.stderr.strip().splitlines()
        assert "LOGSTORE_DATABASE_ID_FILE" in line
        assert "names another database" in line
    worker = subprocess.run(
        [sys.executable, "-m", "celery", "-A", "tasks.celery", "worker", "-P", "solo", "-Q", "round"],
        env=machine.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert worker.returncode == 1
    assert "names another database" in worker.stderr.strip().splitlines()[-1]
    assert machine.run("init", "--restored").returncode == 0
    assert (machine.home / "voting.database").read_text() not in (written, "0x" + "ab" * 32)


def test_check_says_what_is_well_and_what_is_not_and_fails_if_anything_is(machine: Machine) -> None:
    before = levels(machine.run("check"))
    assert any(
        "database LOGSTORE_DATABASE_URL" in line and "run logstore-validator init" in line for line in before["fail"]
    )
    assert machine.run("init").returncode == 0
    ended = machine.run("check")
    assert (ended.returncode, ended.stderr) == (1, "")
    found = levels(ended)
    good = " | ".join(found["ok"])
    for words in (
        "voting key 0x",
        "database at head",
        "disk ",
        "version protocol 2",
        "contract next",
    ):
        assert words in good
    assert "rpc chain 31337" in good + " | ".join(found["warn"])  # its newest block may be a minute old here
    failed = " | ".join(found["fail"])
    for words in ("redis LOGSTORE_REDIS_URL", "gateway 127.0.0.1:9"):
        assert words in failed
    warned = " | ".join(found["warn"])
    for words in ("three of different operators", "two or more are advised", "LOGSTORE_WALLET_FILE is not set"):
        assert words in warned
    assert not any(a_key(n).secret_hex().removeprefix("0x") in ended.stdout for n in (100, 101, 102))


def test_keys_come_from_a_remote_signer_and_a_keystore(machine: Machine) -> None:
    secret = bytes.fromhex(a_key(101).secret_hex()[2:])
    keystore = make_keystore(secret, "a password of its own", salt=bytes(32), iv=bytes(16), uuid="a", n=1 << 10)
    (machine.home / "gas").write_text(keystore)
    (machine.home / "password").write_text("a password of its own\n")
    (machine.home / "password").chmod(0o600)

    def keys(**more: Path) -> dict[str, Finding]:
        settings = Settings(
            network_file=machine.home / "network.toml",
            rpc_urls=(CLOSED,),
            gateway_urls=(CLOSED,),
            voting_key_file=machine.home / "voting",
            gas_key_file=machine.home / "gas",
            **more,  # type: ignore[arg-type]
        )
        return {finding.name: finding for finding in check_keys(Node(settings, NoTasks()))}

    with web3signer(VOTING) as server:
        (machine.home / "voting").write_text(server.url(VOTING) + "\n")
        started = machine.run("init", LOGSTORE_KEY_PASSWORD_FILE=str(machine.home / "password"))
        assert started.returncode == 0, started.stderr
        found = keys(key_password_file=machine.home / "password")
        assert found["voting key"] == ok("voting key", f"0x{VOTING.address.hex()} at 127.0.0.1:{server.port}")
        assert found["gas key"] == ok("gas key", f"0x{a_key(101).address.hex()}, keystore")
        server.keys.clear()
        lost = keys()
        assert "does not hold the key" in lost["voting key"].text
        assert lost["gas key"].text.startswith("LOGSTORE_KEY_PASSWORD_FILE: not set")
        assert {lost["voting key"].level, lost["gas key"].level} == {Level.FAIL}


def test_check_names_a_network_file_of_another_chain(machine: Machine) -> None:
    path = machine.home / "network.toml"
    path.write_text(path.read_text().replace("chain_id = 31337", "chain_id = 137"))
    assert any("the sources are chain 31337, the network 137" in line for line in levels(machine.run("check"))["fail"])


def test_check_without_settings_is_one_failure(machine: Machine) -> None:
    found = levels(machine.run("check", LOGSTORE_RPC_URLS=""))
    (line,) = found.pop("fail")
    assert line.startswith("settings LOGSTORE_RPC_URLS: ")
    assert not any(found.values())


def test_evidence_is_listed_as_text_and_as_data(machine: Machine, network: Network) -> None:
    assert machine.run("init").returncode == 0
    assert machine.run("evidence", "list").stdout == "none\n"
    database = open_database(machine.database_url)
    with database.write() as connection:
        save_evidence(connection, a_vote(network, 1), a_vote(network, 2), 1_700_000_000_000)
    database.close()
    (line,) = machine.run("evidence", "list").stdout.splitlines()
    assert line.startswith("2023-11-14 22:13:20Z")
    assert f"0x{VOTING.address.hex()}" in line
    (data,) = json.loads(machine.run("evidence", "list", "--json").stdout)
    assert (data["kind"], data["round"], data["instance"]) == ("prevote", 0, f"window:{network.genesis_ms}")
    assert data["first"] != data["second"]


def test_votes_move_to_another_machine(machine: Machine, network: Network, chain_url: str, tmp_path: Path) -> None:
    assert machine.run("init").returncode == 0
    database = open_database(machine.database_url)
    with database.write() as connection:
        journal_vote(connection, a_vote(network), 1)
    database.close()
    other = Machine(tmp_path / "other", network, chain_url)
    assert other.run("init").returncode == 0
    file = str(tmp_path / "votes.json")
    assert machine.run("votes", "export", file).stdout.startswith("1 statement in")
    assert other.run("votes", "import", file).stdout == "1 statement, 1 of them new\n"
    ended = machine.run("serve")
    assert (ended.returncode, "retired" in ended.stderr) == (2, True)
    assert machine.run("votes", "export", file).returncode == 2
