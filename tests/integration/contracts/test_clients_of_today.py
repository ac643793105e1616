"""The clients that the first Log Store published, unchanged from npm, do with our contracts what their users call."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.builders import a_key
from tests.contract_network import BROKER_STAKE, ContractNetwork
from validator.devnet.contracts import TOKEN_PRICE_WEI, WEI
from validator.setup.binaries import VENV, find_node, find_npm
from validator.setup.console import SetupError

PROGRAM = Path(__file__).with_name("clients_of_today.mjs")
FOLDER = VENV / "clients_of_today"
PACKAGE: dict[str, Any] = {
    "private": True,
    "dependencies": {"@logsn/client": "0.0.7", "@logsn/contracts": "0.0.3"},
    # What loads with the client and is not used here: a binary of WebRTC, a compiled database, another network's key
    # exchange, questions at a terminal.
    "overrides": dict.fromkeys(
        ["node-datachannel", "sqlite3", "@lit-protocol/lit-node-client", "inquirer"], "file:./unused"
    ),
}
USER = a_key(5100)
AMOUNTS = {"bought": 5_000_000, "stored": 1_000_000, "queried": 700_000, "delegated": 300_000}


def _install() -> tuple[str, dict[str, str]]:
    """Node, and the environment with which it runs; the packages are there afterwards."""
    try:
        npm, node = find_npm(), find_node()
    except SetupError as error:
        pytest.skip(f"the clients need npm and Node: {error}")
    environment = {**os.environ, "PATH": f"{Path(node).parent}{os.pathsep}{os.environ['PATH']}"}
    installed = FOLDER / "installed.json"
    if installed.is_file() and json.loads(installed.read_text()) == PACKAGE:
        return node, environment
    unused = FOLDER / "unused"
    unused.mkdir(parents=True, exist_ok=True)
    (unused / "package.json").write_text('{"name": "unused", "version": "9.9.9", "main": "index.js"}')
    (unused / "index.js").write_text("module.exports = { cleanup() {}, initLogger() {} }")
    (FOLDER / "package.json").write_text(json.dumps(PACKAGE))
    words = [*npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=dev", "--omit=optional"]
    subprocess.run(words, cwd=FOLDER, check=True, capture_output=True, timeout=200, env=environment)
    installed.write_text(json.dumps(PACKAGE))
    return node, environment


def _settings(url: str, network: ContractNetwork) -> dict[str, Any]:
    names = {"tokenManager": "Token", **{f"{n}Manager": f"{n.title()}Manager" for n in ("node", "store", "query")}}
    addresses = {f"{name}Address": _hexed(network.chain.address_of(contract)) for name, contract in names.items()}
    return {
        "url": url,
        "chainId": network.chain.chain_id,
        "key": USER.secret_hex(),
        "streamRegistry": _hexed(network.chain.address_of("StreamRegistry")),
        "streamId": network.streams[0],
        "node": _hexed(network.brokers[0].address),
        "addresses": addresses,
        **AMOUNTS,
    }


def _hexed(data: bytes) -> str:
    return "0x" + data.hex()


@pytest.fixture(scope="module")
def answers(anvil: str, deployed: ContractNetwork) -> dict[str, Any]:
    node, environment = _install()
    deployed.chain.fund([USER.address])
    deployed.chain.call_rpc("evm_setAutomine", True)
    done = subprocess.run(
        [node, str(PROGRAM)],
        cwd=FOLDER,
        input=json.dumps(_settings(anvil, deployed)),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment,
    )
    deployed.chain.call_rpc("evm_setAutomine", False)
    assert done.returncode == 0, done.stderr[-3000:]
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers


def test_users_buy_stake_and_join_with_the_published_clients(
    deployed: ContractNetwork, answers: dict[str, Any]
) -> None:
    token = _hexed(deployed.chain.address_of("Token"))
    wei = AMOUNTS["bought"] * TOKEN_PRICE_WEI
    assert answers["buy"] == {
        "price": str(TOKEN_PRICE_WEI),
        "converted": str(wei),
        "gained": str(AMOUNTS["bought"]),
        "proceeds": str(wei),
    }
    stored = str(AMOUNTS["stored"])
    assert {**answers["store"], "stakeToken": answers["store"]["stakeToken"].lower()} == {
        "wasStored": True,
        "isStored": True,
        "gained": stored,
        "own": stored,
        "ownOfStream": stored,
        "stakeToken": token,
        "supply": str(3 * 1_000 * WEI + AMOUNTS["stored"]),
        "event": [deployed.streams[0], False, stored],
    }
    assert answers["query"]["balance"] == str(AMOUNTS["queried"])
    assert answers["query"]["supply"] == str(3 * 1_000 * WEI + AMOUNTS["queried"])
    assert answers["query"]["stakeToken"].lower() == token


def test_users_read_nodes_as_the_published_contracts_have_them(
    deployed: ContractNetwork, answers: dict[str, Any]
) -> None:
    found = answers["join"]
    nodes = [key.address for key in (*deployed.validators, *deployed.brokers, USER)]
    assert [bytes.fromhex(text[2:]) for text in found["addresses"]] == nodes
    assert found["total"] == str(len(nodes))
    assert json.loads(found["metadata"])["http"] == "http://127.0.0.1:8000"
    assert int(found["lastSeen"]) > 0
    assert found["ownMetadata"] == '{"http":"http://127.0.0.1:1"}'
    assert bytes.fromhex(found["ownPrevious"][2:]) == deployed.brokers[-1].address
    assert found["ownStake"] == found["delegated"] == str(AMOUNTS["delegated"])
    assert found["nodeStake"] == str(BROKER_STAKE + AMOUNTS["delegated"])
    assert found["isStaked"] is True
    assert found["required"] == str(WEI)
    assert found["treasury"] == "0"
    assert found["supply"] == str(7 * BROKER_STAKE + 2 * AMOUNTS["delegated"])
    assert found["stakeToken"].lower() == _hexed(deployed.chain.address_of("Token"))
