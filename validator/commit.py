"""Which commit this copy of the package is of. Standard library only: the build hook runs it where nothing else is.

Two places know: the file ``commit.txt`` beside this module, which wheels, source archives and images are built with,
and Git, where the folder above the package is itself a checkout.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
FILE = "commit.txt"
GIT_LIMIT_S = 5.0


def find_commit(package: Path = PACKAGE) -> str | None:
    """The commit that the package in this folder was built from, else the one that its checkout is at."""
    return read_baked(package) or ask_git(package.parent)


def read_baked(package: Path) -> str | None:
    """What a build wrote down; None where it did not know, or nothing was built."""
    try:
        return (package / FILE).read_text(encoding="ascii").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def ask_git(checkout: Path) -> str | None:
    """Commit of this checkout, with ``-dirty`` where tracked files differ from it; None without Git or checkout.

    A folder that merely lies inside somebody's repository is no checkout of ours: an installed package would show the
    commit of whatever project it is installed in.
    """
    if not (checkout / ".git").exists():
        return None
    words = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        answer = subprocess.run(words, capture_output=True, text=True, timeout=GIT_LIMIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None if answer.returncode == 0 else None
