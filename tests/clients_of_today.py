"""The clients that the first Log Store published, unchanged from npm: installed once, and told of a chain of ours."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from validator.devnet.contracts import DevChain
from validator.protocol.codec.secp256k1 import SigningKey
from validator.setup.binaries import VENV, find_node, find_npm
from validator.setup.console import SetupError

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


def install() -> tuple[str, dict[str, str]]:
    """Node, and the environment with which it runs; the packages are there afterwards, whoever installs them."""
    try:
        npm, node = find_npm(), find_node()
    except SetupError as error:
        pytest.skip(f"the clients need npm and Node: {error}")
    environment = {**os.environ, "PATH": f"{Path(node).parent}{os.pathsep}{os.environ['PATH']}"}
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two npm in one folder take each other's files away
        _install(npm, environment)
    return node, environment


def _install(npm: Sequence[str], environment: dict[str, str]) -> None:
    installed = FOLDER / "installed.json"
    if installed.is_file() and json.loads(installed.read_text()) == PACKAGE:
        return
    unused = FOLDER / "unused"
    unused.mkdir(exist_ok=True)
    (unused / "package.json").write_text('{"name": "unused", "version": "9.9.9", "main": "index.js"}')
    (unused / "index.js").write_text("module.exports = { cleanup() {}, initLogger() {} }")
    (FOLDER / "package.json").write_text(json.dumps(PACKAGE))
    words = [*npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=dev", "--omit=optional"]
    subprocess.run(words, cwd=FOLDER, check=True, capture_output=True, timeout=200, env=environment)
    installed.write_text(json.dumps(PACKAGE))


def describe_chain(url: str, chain: DevChain, user: SigningKey) -> dict[str, Any]:
    """What the programs beside the tests are told: where the chain is, who acts, and the contracts in npm's names."""
    names = {"tokenManager": "Token", **{f"{n}Manager": f"{n.title()}Manager" for n in ("node", "store", "query")}}
    return {
        "url": url,
        "chainId": chain.chain_id,
        "key": user.secret_hex(),
        "streamRegistry": hexed(chain.address_of("StreamRegistry")),
        "addresses": {f"{name}Address": hexed(chain.address_of(contract)) for name, contract in names.items()},
    }


def hexed(data: bytes) -> str:
    return "0x" + data.hex()
