"""The commands of the README's chapter for readers do what it says, in a shell, in its order."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT
from tests.stored_network import STREAMS, StoredNetwork


def read_commands() -> list[str]:
    """Indented lines of the chapter but samples of output."""
    chapter = (ROOT / "README.md").read_text().split("## Read and verify the data")[1].split("\n## ")[0]
    lines = [line[4:] for line in chapter.splitlines() if line.startswith("    ")]
    return [line for line in lines if re.match(r"(logstore|export|\.) |[A-Z]+=", line)]


@pytest.mark.timeout(400)
def test_every_command_of_the_chapter_runs_as_written(stored: StoredNetwork, tmp_path: Path) -> None:
    """Against this network instead of a run of the development network, whose messages are of today."""
    commands = read_commands()
    assert len([c for c in commands if c.startswith("logstore ")]) >= 13
    run = tmp_path / "devnet-data" / "run-20231114-221320"
    run.mkdir(parents=True)
    (run / "network.toml").write_text(stored.network_file.read_text())
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").write_text(f"PATH={Path(sys.executable).parent}:$PATH\n")
    script = "\n".join(re.sub("^STREAM=.*", f"STREAM={STREAMS[0]}", command) for command in commands)
    script = script.replace("--from -1d", "--from 2023-11-14")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOGSTORE_")}
    done = subprocess.run(
        ["bash", "-c", f"set -eu\n{script}"],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={**environment, "LOGSTORE_CACHE_DIR": str(tmp_path / "cache")},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.count("verified\n") >= 4
    assert (tmp_path / "messages.csv").exists()
