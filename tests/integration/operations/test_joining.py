"""From an empty folder to a seat, with commands as an operator types them, beside real contracts."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests import servers
from tests.builders import a_key
from tests.contract_network import ContractNetwork
from tests.integration.operations.test_commands import CLOSED, described, first_digest
from validator import cli
from validator.devnet.contracts import WEI
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.parameters import Network, format_network

STAKE = a_key(911)
MISSPELT = "LOGSTORE_VOTING_KEY_" + "FLE"
Said = list[tuple[str, str]]
"""First word, and the rest."""


@pytest.fixture(scope="module")
def chain_url() -> Iterator[str]:
    """A chain whose clock began an hour ago: the network's first epoch has begun."""
    with servers.run_anvil("--slots-in-an-epoch", "1", "--timestamp", str(int(time.time()) - 3_600)) as url:
        yield url


@pytest.fixture(scope="module")
def contracts(chain_url: str) -> Iterator[ContractNetwork]:
    made = ContractNetwork.create(chain_url, digest_of=first_digest)
    made.chain.fund([STAKE.address], WEI)
    made.chain.call_rpc("evm_increaseTime", 1_800)
    made.chain.mine(3)
    made.chain.call_rpc("evm_setAutomine", True)
    yield made
    made.chain.close()


@pytest.fixture(scope="module")
def network(contracts: ContractNetwork) -> Network:
    return replace(described(contracts.chain.deployment), genesis_ms=(int(time.time()) - 2_400) * 1_000)


class Operator:
    """Somebody in a folder."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def types(self, *words: str) -> tuple[int, Said, str]:
        status = cli.main(words)
        out, err = self._capsys.readouterr()
        lines = [line.split(maxsplit=1) for line in out.splitlines()]
        return status, [(line[0], " ".join(line[1].split()) if line[1:] else "") for line in lines if line], err


@pytest.fixture
def operator(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Operator:
    for name in [name for name in os.environ if name.startswith("LOGSTORE_")]:
        monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    return Operator(capsys)


def contents(folder: Path) -> dict[str, bytes]:
    kept = ("network.toml", ".env")
    return {str(p): p.read_bytes() for p in folder.rglob("*") if p.name in kept or p.parent.name == "secrets"}


def test_from_an_empty_folder_to_a_seat(
    operator: Operator, contracts: ContractNetwork, network: Network, chain_url: str, tmp_path: Path
) -> None:
    (tmp_path / "given.toml").write_text(format_network(network))
    begin = ("init", "--network", str(tmp_path / "given.toml"), "--rpc", chain_url, "--gateway", CLOSED)
    status, said, err = operator.types(*begin)
    assert status == 0, err
    assert [word for word, _ in said] == ["made"] * 9 + ["ok", "next"]
    assert said[-1][1] == "logstore-validator check --join"
    before = contents(Path.cwd())
    assert len(before) == 10  # and the database's id beside the voting key
    assert [word for word, _ in operator.types(*begin)[1]] == ["kept"] * 9 + ["ok", "next"]
    assert contents(Path.cwd()) == before

    status, said, _ = operator.types("check", "--join")
    assert status == 1
    failed = {text.split()[0]: text for word, text in said if word == "fail"}
    assert failed.keys() == {"voting", "node", "stake", "gas", "query", "seat", "wallet"}
    assert "members do not answer it" in failed["seat"]
    voting = re.findall(r"--node (0x[0-9a-f]{40})", failed["stake"])[0]
    gas = re.findall(r"gas (0x[0-9a-f]{40}) holds 0 POL", failed["gas"])[0]

    contracts.chain.fund([bytes.fromhex(a[2:]) for a in (voting, gas)], WEI)  # type: ignore[misc]
    contracts.chain.transact(a_key(1), "Token", "mintTokens", "0x" + STAKE.address.hex(), 100 * WEI)
    write_key(tmp_path / "stake.hex", STAKE)
    done = [
        re.findall(r"logstore-validator (join .+)", failed["node"])[0].replace("<where peers reach it>", "v.example"),
        *(f"{words}" for words in re.findall(r"logstore-validator ([^;]+?)(?:,|$)", failed["stake"])),
        re.findall(r"logstore-validator (deposit .+)", failed["query"])[0],
    ]
    assert [words.split()[0] for words in done] == ["join", "stake", "delegate", "deposit"]
    for words in done:
        status, _, err = operator.types(*words.replace("<stake key>", str(tmp_path / "stake.hex")).split(), "--yes")
        assert status == 0, err

    status, said, _ = operator.types("check", "--join")
    good = {text.split()[0]: text for word, text in said if word == "ok"}
    assert good["node"] == "node registered, at https://v.example"
    assert good["stake"].startswith("stake 1 LSAN")
    assert "10 LSAN in QueryManager" in good["query"]
    assert re.fullmatch(r"seat joins with epoch 1, in \d+ d \d+ h; epoch 0, 4 members, quorum 3", good["seat"])


def write_key(path: Path, key: SigningKey) -> None:
    path.write_text(key.secret_hex())
    path.chmod(0o600)


def test_a_network_file_that_differs_from_the_contract_is_refused_before_a_database_is_made(
    operator: Operator, network: Network, chain_url: str, tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(format_network(network).replace("grace_ms = 4000", "grace_ms = 4001"))
    status, _, err = operator.types("init", "--network", str(wrong), "--rpc", chain_url, "--gateway", CLOSED)
    assert status == 2
    assert "follows from no epoch of the network file" in err
    assert not Path("data").exists()


def test_another_network_file_than_the_one_that_is_here_is_refused(
    operator: Operator, network: Network, tmp_path: Path
) -> None:
    Path("network.toml").write_text(format_network(network))
    other = tmp_path / "other.toml"
    other.write_text(format_network(network).replace('name = "test"', 'name = "other"'))
    status, _, err = operator.types("init", "--network", str(other))
    assert (status, "says something else" in err) == (2, True)
    assert not Path("secrets").exists()


def test_what_is_misspelt_is_refused_by_init_and_check_alike(
    operator: Operator, network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("network.toml").write_text(format_network(network))
    monkeypatch.setenv("LOGSTORE_NETWORK_FILE", "network.toml")
    monkeypatch.setenv("LOGSTORE_RPC_URLS", CLOSED)
    monkeypatch.setenv("LOGSTORE_GATEWAY_URLS", CLOSED)
    monkeypatch.setenv(MISSPELT, "secrets/voting.json")
    for words in (["init"], ["check"], ["check", "--join"]):
        status, said, err = operator.types(*words)
        assert status == (2 if words == ["init"] else 1)
        text = err or said[0][1]
        assert f"{MISSPELT}: no such setting; is LOGSTORE_VOTING_KEY_FILE meant?" in text


def test_without_settings_both_say_how_to_begin(operator: Operator) -> None:
    assert "begin with logstore-validator init --network URL|FILE" in operator.types("init")[2]
    (line,) = operator.types("check", "--join")[1]
    assert line[1].endswith("begin with logstore-validator init --network URL|FILE")
