"""The recipe for contracts does what it says: its contract is the one that is compiled, its program makes its call."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from tests.contract_network import ContractNetwork
from tests.integration.contracts.test_stored_messages import PART, prove, store
from tests.paths import ROOT
from tests.proving import a_bundle
from validator.protocol.codec.message import decode_message
from validator.protocol.codec.stored_message import StoredMessage, encode_stored

RECIPE = (ROOT / "docs" / "recipes" / "prove-a-reading-to-a-contract.md").read_text()


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", RECIPE, re.MULTILINE | re.DOTALL)
    return str(found)


def test_its_contract_is_the_example_that_is_compiled() -> None:
    source = (ROOT / "contracts_abi" / "src" / "MessageReader.sol").read_text()
    for piece in block("solidity").strip().split("\n\n"):
        assert piece in source


def test_its_program_turns_a_kept_proof_into_a_call_that_the_contract_takes(
    network: ContractNetwork, tmp_path: Path
) -> None:
    proven = a_bundle((2, 5, 3))
    store(network, proven.root)
    manager = network.chain.address_of("ReportManager")
    network.chain.deploy_beside("MessageReader", f"0x{manager.hex()}", PART[0], f"0x{bytes(20).hex()}")
    canonical, proof = prove(proven, 2)
    kept = encode_stored(StoredMessage(31337, manager, 0, proven.root, canonical, proof))
    (tmp_path / "message.proof").write_bytes(kept)
    (tmp_path / "call.py").write_text(block("python"))
    words = [sys.executable, "call.py"]
    call = subprocess.run(words, capture_output=True, text=True, check=True, timeout=60, cwd=tmp_path).stdout.strip()
    receipt = network.chain.transact_raw(network.validators[0], "MessageReader", bytes.fromhex(call[2:]))
    assert int(receipt["gasUsed"], 16) < 1.5 * 110_000
    assert network.chain.call("MessageReader", "newestMs") == (decode_message(canonical).timestamp_ms,)
