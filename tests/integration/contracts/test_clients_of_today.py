"""The clients that the first Log Store published, unchanged from npm, do with our contracts what their users call."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.builders import a_key
from tests.clients_of_today import FOLDER, describe_chain, hexed, install
from tests.contract_network import BROKER_STAKE, ContractNetwork
from validator.devnet.contracts import TOKEN_PRICE_WEI, WEI

PROGRAM = Path(__file__).with_name("clients_of_today.mjs")
USER = a_key(5100)
pytestmark = pytest.mark.timeout(300)  # npm takes its time on a busy machine
AMOUNTS = {"bought": 5_000_000, "stored": 1_000_000, "queried": 700_000, "delegated": 300_000}


def _settings(url: str, network: ContractNetwork) -> dict[str, Any]:
    return {
        **describe_chain(url, network.chain, USER),
        "streamId": network.streams[0],
        "node": hexed(network.brokers[0].address),
        **AMOUNTS,
    }


@pytest.fixture(scope="module")
def answers(anvil: str, deployed: ContractNetwork) -> dict[str, Any]:
    node, environment = install()
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
    token = hexed(deployed.chain.address_of("Token"))
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
    assert found["stakeToken"].lower() == hexed(deployed.chain.address_of("Token"))
