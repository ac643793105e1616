"""arlocal, the ecosystem's own test gateway: ``python -m tests.arlocal`` installs it, tests that find it use it.

It checks less than a node and loses bytes that come out of order, so it is a second opinion on what is sent, never the
measure; the measure is the development gateway. Not part of set-up: 200 MB from npm, and its database is compiled for a
minute or two (a C++ compiler, make and Python are needed). It listens on all interfaces and cannot be told otherwise,
so it only runs while its tests do.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.npm_sqlite import database_of, install_compiled
from validator.setup.binaries import VENV, find_node
from validator.setup.console import SetupError

VERSION = "1.1.66"
FOLDER = VENV / "arlocal"
PROGRAM = FOLDER / "node_modules" / "arlocal" / "bin" / "index.js"
PACKAGE = {
    "private": True,
    "dependencies": {"arlocal": VERSION},
    "overrides": {"arbundles": {"avsc": "5.7.7"}},  # what it names itself is a Git address
}
START_LIMIT_S = 60.0


def install() -> None:
    """Fetch it with npm. Raises: SetupError, CalledProcessError."""
    install_compiled(FOLDER, PACKAGE)


def what_is_missing() -> str | None:
    """Why it cannot be run here; None where it can."""
    try:
        find_node()
    except SetupError as error:
        return str(error)
    is_there = PROGRAM.is_file() and database_of(FOLDER).is_file()
    return None if is_there else "arlocal is not installed: python -m tests.arlocal"


@contextmanager
def run_arlocal(folder: Path) -> Iterator[str]:
    """A fresh one with its data in this folder; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    words = [find_node(), str(PROGRAM), str(port), "--hidelogs", "--dbpath", "data"]
    with (folder / "arlocal.log").open("wb") as log:
        process = subprocess.Popen(words, cwd=folder, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        end = time.monotonic() + START_LIMIT_S
        while not _answers(url):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"arlocal does not serve: {(folder / 'arlocal.log').read_text()[-500:]}")
            time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(10)


def _answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/info", trust_env=False, timeout=5).status_code == 200
    except httpx.TransportError:
        return False


if __name__ == "__main__":
    os.chdir(VENV.parent)
    install()
    sys.exit(1 if what_is_missing() else 0)
