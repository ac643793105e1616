"""The native ``sqlite3`` that Streamr's SDK names: ``python -m tests.native_sqlite`` compiles it, and the tests of
private streams that find it use it.

Not part of set-up: it is compiled for two minutes on two cores (a C++ compiler, make, Python and Node's headers are
needed), and SQLite of WebAssembly stands for it everywhere else (``validator/devnet/sdk/stubs/sqlite3``).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.paths import ROOT
from validator.setup.binaries import VENV, find_node, find_npm
from validator.setup.console import SetupError

VERSION = "5.1.7"
FOLDER = VENV / "sqlite3"
MODULE = FOLDER / "node_modules" / "sqlite3"
HOOK = ROOT / "tests" / "native_sqlite.cjs"
"""Loaded into Node before anything else: ``require('sqlite3')`` is the module that SQLITE3_MODULE names."""
_COMPILED = MODULE / "build" / "Release" / "node_sqlite3.node"


def install() -> None:
    """Fetch it with npm, and compile it. Raises: SetupError, CalledProcessError."""
    npm = find_npm()
    environment = {**os.environ, "npm_config_build_from_source": "true"}
    prefix = Path(find_node()).resolve().parent.parent
    if (prefix / "include" / "node" / "node.h").is_file():
        environment.setdefault("npm_config_nodedir", str(prefix))  # else node-gyp fetches the headers
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / "package.json").write_text(json.dumps({"private": True, "dependencies": {"sqlite3": VERSION}}))
    for words in (["install", "--ignore-scripts", "--no-audit", "--no-fund"], ["rebuild", "sqlite3"]):
        subprocess.run([*npm, *words], cwd=FOLDER, env=environment, check=True)


def what_is_missing() -> str | None:
    """Why it cannot be used here; None where it can."""
    return None if _COMPILED.is_file() else "sqlite3 is not compiled: python -m tests.native_sqlite"


if __name__ == "__main__":
    try:
        install()
    except (SetupError, subprocess.CalledProcessError) as error:
        sys.exit(f"sqlite3: {error}")
    sys.exit(what_is_missing())
