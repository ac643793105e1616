"""slither, which looks for known kinds of mistakes in Solidity: its test installs it beside ``.venv``'s packages.

It wants an older web3 than ours, so it has an environment and a lock of its own (``tests/slither.lock``). It reads
syntax trees: solc-js is put before it as a compiler that writes no code, which would be most of the time.
"""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contracts_abi.compile import EVM_VERSION, install_solc
from validator.setup.binaries import VENV, find_node
from validator.setup.environment import find_pip, uv_environment

FOLDER = VENV / "slither"
LOCK = Path(__file__).with_name("slither.lock")
COMPILER = """#!{node}
const solc = require({solc})
const fs = require('fs')
if (process.argv.includes('--version')) {{
    console.log('Version: ' + solc.version().replace('Emscripten.clang', 'Linux.g++'))
    process.exit(0)
}}
const request = JSON.parse(fs.readFileSync(0, 'utf8'))
for (const source of Object.values(request.sources)) {{
    source.content = fs.readFileSync(source.urls[0], 'utf8')
    delete source.urls
}}
request.settings = {{ evmVersion: '{evm}', outputSelection: {{ '*': {{ '*': ['abi'], '': ['ast'] }} }} }}
const answer = JSON.parse(solc.compile(JSON.stringify(request)))
const code = {{ object: '', sourceMap: '', linkReferences: {{}} }}
const unwritten = {{ evm: {{ bytecode: code, deployedBytecode: code }}, metadata: '', userdoc: {{}}, devdoc: {{}} }}
for (const file of Object.values(answer.contracts || {{}}))
    for (const contract of Object.values(file))
        Object.assign(contract, unwritten)
process.stdout.write(JSON.stringify(answer))
"""


@dataclass(frozen=True, slots=True)
class Findings:
    """What slither says of a folder of sources."""

    serious: tuple[str, ...]
    """Of high or medium impact, and not waived: impact, detector, what it is."""
    unused_waivers: tuple[str, ...]
    """file:line of waivers that waive nothing."""
    contracts: int
    """Contracts that it has read."""


def run_slither(sources: Path, work: Path) -> Findings:
    """Analyse all ``*.sol`` of a folder. Needs npm. Raises: RuntimeError where slither itself fails."""
    _install()
    compiler = work / "solc"
    solc = os.environ.get("LOGSTORE_SOLC_JS") or str(FOLDER / "npm" / "node_modules" / "solc")
    if not Path(solc).is_dir():
        install_solc(FOLDER / "npm")
    compiler.write_text(COMPILER.format(node=find_node(), solc=json.dumps(solc), evm=EVM_VERSION))
    compiler.chmod(0o700)
    answer = work / "findings.json"
    answer.unlink(missing_ok=True)
    slither = str(FOLDER / "bin" / "slither")
    words = [slither, ".", "--solc-standard-json", "--solc", str(compiler), "--warn-unused-ignores"]
    environment = {**os.environ, "PATH": f"{FOLDER / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        [*words, "--json", str(answer)],
        cwd=sources,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    said = json.loads(answer.read_text()) if answer.exists() else {}
    if not said.get("success"):
        raise RuntimeError(f"slither failed: {said.get('error')} {done.stderr[-2000:]}")
    found = said["results"].get("detectors", [])
    idle = [waiver for one in found for waiver in one.get("unused_ignores", ())]
    return Findings(
        serious=tuple(_describe(one) for one in found if one["impact"] in ("High", "Medium")),
        unused_waivers=tuple(sorted({f"{Path(w['file']).name}:{w['line']}" for w in idle})),
        contracts=int(done.stderr.split(" analyzed (")[1].split()[0]),
    )


def _install() -> None:
    """Bring slither's environment to the state that its lock names."""
    stamp = FOLDER / "installed.lock"
    if stamp.exists() and stamp.read_bytes() == LOCK.read_bytes():
        return
    python = FOLDER / "bin" / "python"
    environment = {**os.environ, **uv_environment(find_pip())}
    own = VENV / "bin" / "uv"
    words: list[str | Path]
    if own.exists():
        subprocess.run(
            [own, "venv", "--clear", "--python", VENV / "bin" / "python", FOLDER], check=True, env=environment
        )
        words = [own, "pip", "sync", "--require-hashes", "--python", python, LOCK]
    else:
        subprocess.run([VENV / "bin" / "python", "-m", "venv", "--clear", FOLDER], check=True)
        words = [python, "-m", "pip", "install", "--require-hashes", "-r", LOCK]
    subprocess.run(words, check=True, env=environment, timeout=250)
    stamp.write_bytes(LOCK.read_bytes())


def _describe(finding: dict[str, Any]) -> str:
    return f"{finding['impact']} {finding['check']}: {finding['description'].strip()}"
