"""A node registers, is staked, and leaves, by commands on the real contracts of a node of this module's own."""

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
from validator.devnet.contracts import WEI
from validator.net.chain.account import Account, Call, explain, parse_amount, run, show_tokens
from validator.net.signer.keystore import make_keystore
from validator.operations import staking
from validator.operations.account import open_account
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.errors import ConfigError, RemoteFault
from validator.protocol.model import Digest
from validator.protocol.parameters import ConsumerUrls, Network, ParameterSet, format_network

NODE, STAKE = a_key(810), a_key(811)
URLS = {"validator": "https://validator.example", "http": None, "arweave": "Z" * 42 + "A"}
PASSWORD = "only for this test"


@pytest.fixture(scope="module")
def network(chain_url: str) -> Iterator[ContractNetwork]:
    made = ContractNetwork.create(chain_url)
    made.chain.fund([NODE.address, STAKE.address], WEI)
    made.chain.call_rpc("evm_setAutomine", True)
    yield made
    made.chain.close()


@pytest.fixture(scope="module")
def files(chain_url: str, network: ContractNetwork, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a cold machine has: the network's file, keys, a password."""
    folder = tmp_path_factory.mktemp("cold")
    deployment = network.chain.deployment
    described = Network(
        "small",
        31337,
        deployment.block,
        Digest(b"\x01" * 32),
        deployment.contracts,
        1_700_000_000_000,
        (ParameterSet(first_epoch=0, epoch_windows=10),),
        consumers=ConsumerUrls((chain_url,), ()),
    )
    (folder / "network.toml").write_text(format_network(described))
    secret = bytes.fromhex(STAKE.secret_hex()[2:])
    keystore = make_keystore(secret, PASSWORD, salt=bytes(32), iv=bytes(16), uuid="a", n=1 << 10)
    for name, text in (("voting", NODE.secret_hex()), ("stake.json", keystore), ("password", PASSWORD + "\n")):
        (folder / name).write_text(text)
        (folder / name).chmod(0o600)
    return folder


@pytest.fixture
def cold(files: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in [name for name in os.environ if name.startswith("LOGSTORE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(files)
    return files


def account_of(files: Path, key: str) -> Account:
    return open_account(files / "network.toml", [], files / key, files / "password")


@pytest.fixture
def node(cold: Path) -> Iterator[Account]:
    account = account_of(cold, "voting")
    yield account
    account.close()


@pytest.fixture
def stake(cold: Path) -> Iterator[Account]:
    account = account_of(cold, "stake.json")
    yield account
    account.close()


class Told:
    """What an operator sees; he says yes."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []

    def do(self, account: Account, calls: list[Call], *, answer: bool = True, dry_run: bool = False) -> bool:
        tell = lambda word, text: self.lines.append((word, text))  # noqa: E731
        return run(account, calls, tell, lambda: answer, dry_run=dry_run)

    @property
    def words(self) -> list[str]:
        return [word for word, _ in self.lines if word]

    @property
    def text(self) -> str:
        return "\n".join(text for _, text in self.lines)


def give_tokens(network: ContractNetwork, to: SigningKey, amount: int) -> None:
    network.chain.transact(a_key(1), "Token", "mintTokens", "0x" + to.address.hex(), amount)


def view(network: ContractNetwork, function: str, *arguments: object) -> object:
    values = network.chain.call("NodeManager", function, *arguments)
    return values[1] if function == "nodes" else values[0]


HEX_NODE, HEX_STAKE = "0x" + NODE.address.hex(), "0x" + STAKE.address.hex()


def test_a_node_joins_is_staked_and_leaves_by_commands_alone(
    network: ContractNetwork, node: Account, stake: Account
) -> None:
    told = Told()
    assert told.do(node, staking.join(node, **URLS))
    metadata = json.loads(view(network, "nodes", HEX_NODE))  # type: ignore[arg-type]
    assert metadata == {"validator": URLS["validator"], "arweave": URLS["arweave"]}
    assert told.words == ["network", "account", "will", "sent", "mined"]
    # what is not named stays, what is named changes
    assert told.do(node, staking.join(node, validator="https://other.example", http=None, arweave=None))
    metadata = json.loads(view(network, "nodes", HEX_NODE))  # type: ignore[arg-type]
    assert metadata == {"validator": "https://other.example", "arweave": URLS["arweave"]}

    required: int = view(network, "stakeRequiredAmount")  # type: ignore[assignment]
    give_tokens(network, STAKE, required)
    calls = staking.stake(stake, required)
    assert [call.function for call in calls] == ["approve", "stake"]
    assert told.do(stake, calls)
    assert view(network, "balanceOf", HEX_STAKE) == required
    assert told.do(stake, staking.delegate(stake, None, NODE.address))
    assert view(network, "isStaked", HEX_NODE) is True
    assert view(network, "delegatesOf", HEX_STAKE, HEX_NODE) == required

    assert told.do(stake, staking.undelegate(stake, None, NODE.address))
    assert view(network, "isStaked", HEX_NODE) is False
    with pytest.raises(ConfigError, match="nothing of this account is free"):
        staking.withdraw(stake, None)  # the contract's wait
    assert told.do(node, staking.leave(node))
    assert view(network, "nodes", HEX_NODE) == b""

    give_tokens(network, STAKE, 5)
    assert told.do(stake, staking.stake(stake, 5))
    assert told.do(stake, staking.withdraw(stake, None))
    assert view(network, "balanceOf", HEX_STAKE) == 0
    assert stake.fetch_tokens() == 5


def test_what_will_be_done_and_what_it_costs_is_told_before_anything_is_sent(
    network: ContractNetwork, stake: Account
) -> None:
    give_tokens(network, STAKE, 7)
    before = network.chain.call_rpc("eth_getTransactionCount", HEX_STAKE, "latest")
    for options in ({"dry_run": True}, {"answer": False}):
        told = Told()
        assert not told.do(stake, staking.stake(stake, 7 * WEI), **options)
        assert "allow NodeManager 0x" in told.text
        assert "7 LSAN" in told.text
        assert "NodeManager.stake at 0x" in told.text
        assert " gas, at most 0." in told.text
        assert "nothing was sent" in told.text
        assert "sent" not in told.words
    assert network.chain.call_rpc("eth_getTransactionCount", HEX_STAKE, "latest") == before


def test_who_cannot_pay_is_told_before_he_is_asked(network: ContractNetwork, node: Account) -> None:
    network.chain.call_rpc("anvil_setBalance", HEX_NODE, "0x1")
    with pytest.raises(ConfigError, match=r"holds 0\.000001 POL, up to 0\."):
        Told().do(node, staking.join(node, **URLS))
    network.chain.fund([NODE.address], WEI)


def test_a_member_that_wants_to_leave_is_told_why_not(network: ContractNetwork, cold: Path) -> None:
    key = cold / "member"
    key.write_text(network.validators[0].secret_hex())
    key.chmod(0o600)
    member = account_of(cold, "member")
    with pytest.raises(RemoteFault) as caught:
        Told().do(member, staking.leave(member))
    assert explain(caught.value) != str(caught.value)
    member.close()


@pytest.mark.parametrize(
    ("text", "units"),
    [
        ("100LSAN", 100 * WEI),
        ("0.5 lsan", WEI // 2),
        ("1.000000000000000001LSAN", WEI + 1),
        ("5base", 5),
        ("00007 BASE", 7),
    ],
)
def test_an_amount_says_its_unit(text: str, units: int) -> None:
    assert parse_amount(text) == units
    assert parse_amount(show_tokens(units)) == units


@pytest.mark.parametrize(
    "text", ["100", "", "LSAN", "1.5base", "-1LSAN", "1e3LSAN", "1LSAN2", "0LSAN", "1POL", "1.0000000000000000001LSAN"]
)
def test_an_amount_without_a_unit_or_with_a_strange_one_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"^AMOUNT: "):
        parse_amount(text)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "name at least one"),
        ({"validator": "ftp://validator"}, "--url"),
        ({"http": "x" * 300}, "--broker-url"),
        ({"arweave": "short"}, "--arweave"),
        ({"validator": "https://validator.example/" + "x" * 5000}, "at most 4096"),
    ],
)
def test_metadata_that_no_network_reads_is_refused(changes: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        staking.merge_metadata(b"", dict(changes))


def test_the_commands_say_one_line_for_what_is_wrong_and_need_no_more_than_the_network_and_a_key(cold: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOGSTORE_")}

    def run(*words: str) -> subprocess.CompletedProcess[str]:
        whole = [sys.executable, "-m", "validator.cli", *words]
        return subprocess.run(whole, env=environment, cwd=cold, capture_output=True, text=True, timeout=60, check=False)

    network = ("--network", "network.toml", "--password-file", "password")
    told = run("stake", "3LSAN", "--key", "stake.json", *network, "--dry-run")
    assert told.returncode == 0, told.stderr
    assert "nothing was sent" in told.stdout
    assert f"account   {HEX_STAKE}" in told.stdout
    asked = run("stake", "3LSAN", "--key", "stake.json", *network)
    assert (asked.returncode, "--yes" in asked.stderr) == (2, True)
    refused = run("delegate", "3LSAN", "--key", "stake.json", "--node", HEX_STAKE, *network, "--yes")
    assert refused.returncode == 1
    assert refused.stderr.count("\n") == 1
    assert "NotRegistered" in refused.stderr
    environment["LOGSTORE_VOTING_KEY_FILE"] = "voting"
    own = run("undelegate", "all", "--key", "stake.json", *network, "--dry-run")
    assert f"delegated nothing to the node {HEX_NODE}" in own.stderr
    assert PASSWORD not in "".join((told.stdout, asked.stderr, refused.stderr))
