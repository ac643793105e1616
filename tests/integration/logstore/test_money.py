"""Tokens and streams of a consumer, at the real contracts and Streamr's real registry."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import logstore
from logstore import cli
from logstore.errors import Denied
from logstore.store import LogStore
from tests.builders import GENESIS_MS, a_key
from tests.docstring_examples import AT_CONTRACTS, run_examples
from tests.integration.logstore.conftest import Ran
from tests.servers import run_anvil
from validator.devnet.contracts import WEI, DevChain
from validator.protocol.errors import ConfigError
from validator.protocol.parameters import ConsumerUrls, Network, ParameterSet, format_network

ME, FRIEND = a_key(41), a_key(42)
STREAM = f"0x{ME.address.hex()}/sensors"


@pytest.fixture(scope="module")
def chain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[DevChain, Path]]:
    """A chain with the contracts, where I have coins; and its network's file."""
    folder = tmp_path_factory.mktemp("network")
    with run_anvil() as url:
        chain = DevChain(url, a_key(1))
        deployment = chain.deploy()
        chain.fund([ME.address])
        chain.call_rpc("evm_setAutomine", True)
        network = Network(
            name="test",
            chain_id=deployment.chain_id,
            deployment_block=deployment.block,
            deployment_parent_hash=deployment.parent_hash,
            contracts=deployment.contracts,
            genesis_ms=GENESIS_MS,
            sets=(ParameterSet(first_epoch=0, epoch_windows=1_000, finality="1"),),
            consumers=ConsumerUrls((url,), ()),
        )
        (folder / "network.toml").write_text(format_network(network))
        (folder / "my.key").write_text(ME.secret_hex())
        yield chain, folder
        chain.close()


@pytest.fixture
def network(chain: tuple[DevChain, Path]) -> Iterator[LogStore]:
    with logstore.connect(chain[1] / "network.toml", key=ME) as network:
        yield network


def run(chain: tuple[DevChain, Path], capsys: pytest.CaptureFixture[str], *words: str) -> Ran:
    folder = chain[1]
    capsys.readouterr()
    status = cli.main([*words, "--network", str(folder / "network.toml"), "--key", str(folder / "my.key")])
    said = capsys.readouterr()
    return Ran(status, said.out, said.err)


def test_from_coins_to_a_stored_stream_and_back(network: LogStore) -> None:
    (told,) = network.mint("10LSAN", dry_run=True)
    assert told.hash == ""
    assert (told.most_wei or 0) > 0
    assert network.balance().tokens == 0
    (bought,) = network.mint("10LSAN")
    assert (bought.block or 0) > 0
    stream = network.create_stream("/sensors", 2)
    assert stream == STREAM
    assert [step.text.split()[0] for step in network.stake("4LSAN", stream)] == ["allow", "bring"]
    network.stake(3 * WEI)
    held = network.balance()
    assert (held.tokens, held.reading, held.leaving) == (3 * WEI, 3 * WEI, None)
    info = network.stream(stream)
    assert (info.partitions, info.balance) == (2, 4 * WEI)
    assert (info.is_public, info.may_publish, info.may_subscribe) == (False, True, True)
    network.withdraw("1LSAN")
    network.withdraw("1LSAN", stream)
    held = network.balance()
    assert held.leaving is not None
    assert (held.reading, held.leaving.amount) == (2 * WEI, WEI)
    with pytest.raises(Denied, match="of reading out to"):
        network.withdraw()


def test_what_the_methods_docstrings_show_of_tokens_and_streams_is_so(network: LogStore) -> None:
    stream = network.create_stream("/shown")
    run_examples(AT_CONTRACTS, network=network, stream=stream)


def test_who_may_publish_changes_alone(chain: tuple[DevChain, Path], network: LogStore) -> None:
    stream = network.create_stream("/permitted")
    friend = f"0x{FRIEND.address.hex()}"
    network.permit(stream, friend, publish=True)
    with logstore.connect(chain[1] / "network.toml", key=FRIEND) as theirs:
        info = theirs.stream(stream)
        assert (info.may_publish, info.may_subscribe) == (True, False)
        network.permit(stream, friend, subscribe=True)
        network.permit(stream, friend, publish=False)
        info = theirs.stream(stream)
        assert (info.may_publish, info.may_subscribe) == (False, True)
        network.permit(stream, publish=True)
        network.permit(stream, "public", subscribe=True)
        info = theirs.stream(stream)
        assert (info.is_public, info.may_publish) == (True, True)


def test_each_command_tells_before_it_acts(
    chain: tuple[DevChain, Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = run(chain, capsys, "mint", "2LSAN", "--dry-run")
    assert (ran.status, ran.out) == (0, "nothing was sent\n")
    assert "will      buy 2 LSAN for" in ran.err
    assert "gas, at most" in ran.err
    ran = run(chain, capsys, "mint", "2LSAN", "--yes", "--json")
    assert (ran.status, ran.document["done"], len(ran.document["transactions"])) == (0, True, 1), ran.err
    ran = run(chain, capsys, "stream", "create", "/by-command", "--yes")
    assert (ran.status, ran.out) == (0, "done\n"), ran.err
    ran = run(chain, capsys, "stream", "show", f"0x{ME.address.hex()}/by-command")
    assert "it is not stored" in ran.out
    ran = run(chain, capsys, "balance", "--json")
    assert int(ran.document["tokens"]) >= 2 * WEI
    monkeypatch.setattr("typer.confirm", lambda *_, **__: False)
    ran = run(chain, capsys, "stake", "1LSAN")
    assert (ran.status, ran.out) == (0, "nothing was sent\n")


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("mint", "10"), 2, "no amount; write 100LSAN"),
        (("mint", "1000000LSAN", "--yes"), 1, "10000000 POL and gas are needed"),
        (("stake", "1LSAN", "--stream", "0x/none", "--yes"), 2, "no such stream"),
        (("stake", "1LSAN", "--for", "me", "--yes"), 2, "is no address"),
        (("withdraw", "--stream", "0x/none", "--yes"), 2, "nothing of 0x/none waits"),
        (("withdraw", "10000LSAN", "--yes"), 1, "denied: the contract would refuse the call: InsufficientBalance"),
        (("stream", "create", "sensors", "--yes"), 2, "no path of a stream"),
        (("stream", "create", f"0x{FRIEND.address.hex()}/x", "--yes"), 2, "of another account"),
        (("stream", "show", "0x/none"), 2, "no such stream"),
        (("stream", "permit", "0x/none", "public", "--yes"), 2, "say what"),
    ],
)
def test_what_cannot_be_done_has_a_status_and_a_reason(
    chain: tuple[DevChain, Path], capsys: pytest.CaptureFixture[str], words: tuple[str, ...], status: int, said: str
) -> None:
    ran = run(chain, capsys, *words)
    assert ran.status == status, ran.err
    assert said in ran.err


def test_without_a_key_nothing_is_sent(chain: tuple[DevChain, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGSTORE_KEY", "LOGSTORE_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    with logstore.connect(chain[1] / "network.toml") as network:
        with pytest.raises(ConfigError, match="no key is named"):
            network.mint("1LSAN")
        with pytest.raises(ConfigError, match="no such stream"):
            network.stream("0x/none")
