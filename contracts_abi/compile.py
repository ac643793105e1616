"""Compile ``contracts_abi/src`` with solc-js: ``python -m contracts_abi.compile [--check]``.

What others compiled is exported beside it (exported.py).

The compiler is the npm package solc of exactly ``SOLC_VERSION``: the folder named by ``LOGSTORE_SOLC_JS``, or one
that npm installs into a temporary folder. The output has no metadata hash, so it depends on sources, compiler and
settings only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from contracts_abi.exported import ExportError, export_here

FOLDER = Path(__file__).parent
SOLC_VERSION = "0.8.37"
EVM_VERSION = "prague"
SETTINGS: dict[str, Any] = {
    "optimizer": {"enabled": True, "runs": 100_000},
    "viaIR": True,
    "evmVersion": EVM_VERSION,
    "metadata": {"bytecodeHash": "none", "appendCBOR": False},
    "outputSelection": {"*": {"*": ["abi", "evm.bytecode.object", "evm.deployedBytecode.object"]}},
}
CONTRACTS = ("Token", "NodeManager", "StoreManager", "QueryManager", "ReportManager", "SignerWallet", "MessageReader")
MOVE_TOKENS = ("NodeManager", "StoreManager", "QueryManager")
TRANSFER_ERRORS = ("InsufficientAllowance", "InsufficientBalance", "ZeroAddress")
"""What the token refuses comes back through those that move tokens, so their ABIs name its errors too."""
LEAVE_WARNING = '"leave" will be promoted to keyword'  # the network's own name for it
RUN_SOLC = "process.stdout.write(require(process.argv[1]).compile(require('fs').readFileSync(0,'utf8')))"


class CompileError(Exception):
    """The compiler is missing, of another version, or refuses the sources."""


def compile_sources(solc: Path) -> dict[str, str]:
    """File name → text of every artifact, made by the solc-js package in ``solc``. Raises CompileError."""
    found = json.loads((solc / "package.json").read_text())["version"]
    if found != SOLC_VERSION:
        raise CompileError(f"{solc} is solc {found}, {SOLC_VERSION} is needed")
    sources = {path.name: {"content": path.read_text()} for path in sorted((FOLDER / "src").glob("*.sol"))}
    request = {"language": "Solidity", "sources": sources, "settings": SETTINGS}
    done = subprocess.run(
        ["node", "-e", RUN_SOLC, str(solc.resolve())],
        input=json.dumps(request).encode(),
        capture_output=True,
        timeout=300,
        check=False,
    )
    if done.returncode != 0:
        raise CompileError(f"solc-js failed: {done.stderr.decode(errors='replace')[-2000:]}")
    answer = json.loads(done.stdout)
    problems = [e["formattedMessage"] for e in answer.get("errors", []) if LEAVE_WARNING not in e["message"]]
    if problems:
        raise CompileError("\n".join(problems))
    outputs = {name: answer["contracts"][f"{name}.sol"][name] for name in CONTRACTS}
    for name in MOVE_TOKENS:
        _add_errors(outputs[name]["abi"], outputs["Token"]["abi"])
    return {f"{name}.json": _artifact(output) for name, output in outputs.items()}


def install_solc(folder: Path) -> Path:
    """Install solc of the right version with npm below ``folder``. Raises CompileError."""
    if shutil.which("npm") is None:
        raise CompileError("npm is not on PATH; install Node or set LOGSTORE_SOLC_JS to the folder of the solc package")
    command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", str(folder)]
    done = subprocess.run([*command, f"solc@{SOLC_VERSION}"], capture_output=True, timeout=300, check=False)
    if done.returncode != 0:
        raise CompileError(f"npm could not install solc@{SOLC_VERSION}: {done.stderr.decode(errors='replace')[-2000:]}")
    return folder / "node_modules" / "solc"


def compile_here() -> dict[str, str]:
    """Artifacts from the compiler of LOGSTORE_SOLC_JS, else from a temporary install. Raises CompileError."""
    named = os.environ.get("LOGSTORE_SOLC_JS")
    if named:
        return compile_sources(Path(named))
    with tempfile.TemporaryDirectory(prefix="logstore-solc-") as folder:
        return compile_sources(install_solc(Path(folder)))


def _add_errors(abi: list[dict[str, Any]], others: list[dict[str, Any]]) -> None:
    """Add the token's errors to the ABI of a contract that moves tokens."""
    abi += [entry for entry in others if entry["type"] == "error" and entry["name"] in TRANSFER_ERRORS]


def _artifact(output: dict[str, Any]) -> str:
    evm = output["evm"]
    artifact = {
        "abi": output["abi"],
        "bytecode": "0x" + evm["bytecode"]["object"],
        "deployedBytecode": "0x" + evm["deployedBytecode"]["object"],
        "compiler": f"solc {SOLC_VERSION}",
        "evmVersion": EVM_VERSION,
    }
    return json.dumps(artifact, indent=1, sort_keys=True) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="Compile the contracts and write their artifacts.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if an artifact differs")
    arguments = parser.parse_args()
    try:
        artifacts = {**compile_here(), **export_here()}
    except (CompileError, ExportError) as error:
        sys.stderr.write(f"{error}\n")
        return 2
    different = 0
    for name, text in artifacts.items():
        path = FOLDER / name
        if path.exists() and path.read_text() == text:
            continue
        different += 1
        sys.stdout.write(f"{name}: {'differs' if arguments.check else 'written'}\n")
        if not arguments.check:
            path.write_text(text)
    return 1 if arguments.check and different else 0


if __name__ == "__main__":
    sys.exit(main())
