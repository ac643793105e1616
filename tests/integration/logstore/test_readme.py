"""The commands of the README's chapter for readers do what it says, in a shell, in its order."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.logstore.conftest import Run
from tests.paths import ROOT
from tests.stored_network import PUBLISHER, STREAMS, StoredNetwork


def read_commands() -> list[str]:
    """Indented lines of the chapter but samples of output; what is indented twice goes on with the line before."""
    chapter = (ROOT / "README.md").read_text().split("## Read and verify the data")[1].split("\n## ")[0]
    commands: list[str] = []
    for line in chapter.splitlines():
        if line.startswith("        ") and commands:
            commands[-1] += f"\n{line[4:]}"
        elif re.match(r"    ((logstore|export|python|\.) |[A-Z]+=)", line):
            commands.append(line[4:])
    return commands


def for_this_network(command: str) -> str:
    """Against this network instead of a run of the development network, whose messages are of today."""
    command = re.sub("^STREAM=.*", f"STREAM={STREAMS[0]}", command)
    command = re.sub("^PUBLISHER=.*", f"PUBLISHER=0x{PUBLISHER.address.hex()}", command)
    return command.replace("--from -1d", "--from 2023-11-14")


@pytest.mark.timeout(400)
def test_every_command_of_the_chapter_runs_as_written(stored: StoredNetwork, tmp_path: Path) -> None:
    commands = read_commands()
    assert len([c for c in commands if c.startswith("logstore ")]) == 18
    run = tmp_path / "devnet-data" / "run-20231114-221320"
    run.mkdir(parents=True)
    (run / "network.toml").write_text(stored.network_file.read_text())
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").write_text(f"PATH={Path(sys.executable).parent}:$PATH\n")
    script = "\n".join(map(for_this_network, commands))
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
    assert len(re.findall("^verified$", done.stdout, re.MULTILINE)) == 5
    assert "the 4 messages are all of" in done.stdout
    assert len((tmp_path / "messages.csv").read_text().splitlines()) == 22


def test_the_five_questions_have_answers(run: Run) -> None:
    questions = [
        shlex.split(for_this_network(c)) for c in read_commands() if re.match("logstore sql --from .*select", c)
    ]
    assert len(questions) == 5
    own = f"0x{PUBLISHER.address.hex()}"
    answers = [run(*(word.replace("$PUBLISHER", own) for word in words[1:]), "--json") for words in questions]
    assert [(ran.status, ran.err) for ran in answers] == [(0, "")] * 5
    per_minute, fields, last, sent, chains = (ran.document for ran in answers)
    assert per_minute[0] == {"stream_id": STREAMS[0], "minute": "2023-11-14T22:13:00Z", "messages": 17}
    assert [row["number"] for row in fields] == ["0", "1", "2"]
    assert last == [{"publisher_id": own, "last": "2023-11-14T22:13:40.300Z", "number": None}]
    assert [(row["partition"], row["number"]) for row in sent] == [(0, "0"), (1, "1"), (0, "2")]
    assert chains == [{"bundle": 0, "next": 1, "chains": 1}]
