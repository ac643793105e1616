"""The independent check as a process of its own: it reads the run's folder, the chain and the gateway."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

from validator.devnet.children import ChildEnded, last_words
from validator.devnet.folder import RunFolder
from validator.devnet.roles import child_environment
from validator.setup.binaries import ROOT
from validator.setup.console import die_with_parent, stop_group

CHECK_LIMIT_S = 300.0


def check_from_outside(folder: RunFolder) -> dict[str, Any]:
    """What it found. Raises ChildEnded where it does not come to an end."""
    result, log = folder.path / "verified.json", folder.logs / "verifier.log"
    words = [sys.executable, "-m", "tests.verifier", "--run", str(folder.path), "--json", str(result)]
    with log.open("wb") as sink:
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            cwd=ROOT,
            env=child_environment(folder),
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
        try:
            status = process.wait(CHECK_LIMIT_S)
        except subprocess.TimeoutExpired as error:
            raise ChildEnded(f"the check has not ended within {CHECK_LIMIT_S:.0f} s", name="verifier") from error
        finally:
            stop_group(process)
    if not result.is_file():
        raise ChildEnded(f"the check ended with status {status}: {last_words(log)}", name="verifier")
    figures = json.loads(result.read_text())
    if not isinstance(figures, dict):
        raise ChildEnded("the check wrote no figures", name="verifier")
    figures["verified"] = figures.get("verified") is True and status == 0
    return figures
