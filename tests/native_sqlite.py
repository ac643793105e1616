"""The native ``sqlite3`` that Streamr's SDK names: ``python -m tests.native_sqlite`` compiles it, and the tests of
private streams that find it use it.

Not part of set-up: it is compiled for two minutes on two cores (a C++ compiler, make, Python and Node's headers are
needed), and SQLite of WebAssembly stands for it everywhere else (``validator/devnet/sdk/stubs/sqlite3``).
"""

from __future__ import annotations

import subprocess
import sys

from tests.npm_sqlite import database_of, install_compiled
from tests.paths import ROOT
from validator.setup.binaries import VENV
from validator.setup.console import SetupError

VERSION = "5.1.7"
FOLDER = VENV / "sqlite3"
MODULE = FOLDER / "node_modules" / "sqlite3"
HOOK = ROOT / "tests" / "native_sqlite.cjs"
"""Loaded into Node before anything else: ``require('sqlite3')`` is the module that SQLITE3_MODULE names."""


def install() -> None:
    """Fetch it with npm, and compile it. Raises: SetupError, CalledProcessError."""
    install_compiled(FOLDER, {"private": True, "dependencies": {"sqlite3": VERSION}})


def what_is_missing() -> str | None:
    """Why it cannot be used here; None where it can."""
    return None if database_of(FOLDER).is_file() else "sqlite3 is not compiled: python -m tests.native_sqlite"


if __name__ == "__main__":
    try:
        install()
    except (SetupError, subprocess.CalledProcessError) as error:
        sys.exit(f"sqlite3: {error}")
    sys.exit(what_is_missing())
