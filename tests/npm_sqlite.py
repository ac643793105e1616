"""Packages of npm that need the native ``sqlite3``, which is compiled here: nothing is fetched but from npm."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from validator.setup.binaries import find_node, find_npm


def install_compiled(folder: Path, package: Mapping[str, Any]) -> None:
    """Fetch what the package names; of all install scripts only the database's is run.

    Raises: SetupError, CalledProcessError.
    """
    npm = find_npm()
    environment = {**os.environ, "npm_config_build_from_source": "true"}
    prefix = Path(find_node()).resolve().parent.parent
    if (prefix / "include" / "node" / "node.h").is_file():
        environment.setdefault("npm_config_nodedir", str(prefix))  # else node-gyp fetches the headers
    folder.mkdir(exist_ok=True)
    (folder / "package.json").write_text(json.dumps(package))
    for words in (["install", "--ignore-scripts", "--no-audit", "--no-fund"], ["rebuild", "sqlite3"]):
        subprocess.run([*npm, *words], cwd=folder, env=environment, check=True)


def database_of(folder: Path) -> Path:
    """What is compiled, where it is there."""
    return folder / "node_modules" / "sqlite3" / "build" / "Release" / "node_sqlite3.node"
