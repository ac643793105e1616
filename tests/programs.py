"""Programs that tests put in the way of the real ones."""

from __future__ import annotations

from pathlib import Path


def put_git(folder: Path, commit: str, *, status: int = 0) -> None:
    """A ``git`` in this folder that knows one commit, whichever checkout it is asked about."""
    folder.mkdir(exist_ok=True)
    path = folder / "git"
    path.write_text(f"#!/bin/sh\necho {commit}\nexit {status}\n")
    path.chmod(0o755)
