"""Set-up on a copy of the checkout with an empty home: interrupted, twice at once, and again without network."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from validator.setup.binaries import ROOT

PARTS = (
    "validator",
    "tasks",
    "contracts_abi",
    "alembic",
    "pyproject.toml",
    "requirements.lock",
    "requirements-test.lock",
    "README.md",
    "LICENSE",
    "hatch_build.py",
)
LIMIT_S = 400


@pytest.fixture(scope="module")
def checkout() -> Iterator[Path]:
    """A copy of what a clone holds, without .venv; on disk, since set-up fills it with half a gigabyte."""
    folder = Path(tempfile.mkdtemp()) / "checkout"
    folder.mkdir()
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / part, folder / part)
    yield folder
    shutil.rmtree(folder.parent)


def _start(checkout: Path, home: Path, *words: str, **more: str) -> subprocess.Popen[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("LOGSTORE_", "VIRTUAL_ENV"))}
    base = getattr(sys, "_base_executable", sys.executable)
    return subprocess.Popen(
        [base, "-m", "validator.setup", *words],
        cwd=checkout,
        env={**kept, "HOME": str(home), **more},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.timeout(3 * LIMIT_S)
def test_a_first_run_killed_half_way_is_finished_by_the_next_two_and_then_needs_no_network(
    checkout: Path,
) -> None:
    home = checkout.with_name("home")
    home.mkdir()
    killed = _start(checkout, home, "install")
    assert killed.stderr is not None
    for line in killed.stderr:
        if "installing the packages" in line:
            killed.send_signal(signal.SIGKILL)
            break
    killed.communicate(timeout=60)
    assert killed.returncode == -signal.SIGKILL

    both = [_start(checkout, home, "install") for _ in range(2)]
    said = [run.communicate(timeout=LIMIT_S)[1] for run in both]
    assert [run.returncode for run in both] == [0, 0], said
    assert any("an earlier set-up was interrupted" in text for text in said)
    assert any("another set-up is at work" in text for text in said)

    nowhere = "http://127.0.0.1:9"
    offline = {"HTTPS_PROXY": nowhere, "HTTP_PROXY": nowhere, "PIP_INDEX_URL": nowhere}
    again = _start(checkout, home, "install", **offline)
    assert again.communicate(timeout=60) == ("", "")
    assert again.returncode == 0

    # What was installed is this checkout, and the words reach its command.
    script = checkout / ".venv" / "bin" / "logstore-validator"
    script.write_text('#!/bin/sh\necho "$LOGSTORE_STARTED_MS $@"\n')
    devnet = _start(checkout, home, "devnet", "--windows", "2", **offline)
    moment, *words = devnet.communicate(timeout=60)[0].split()
    assert int(moment) > 1_600_000_000_000
    assert words == ["devnet", "--windows", "2"]


@pytest.mark.timeout(LIMIT_S)
def test_without_network_the_first_run_ends_in_one_clear_error(checkout: Path, tmp_path: Path) -> None:
    empty = tmp_path / "clone"
    shutil.copytree(checkout, empty, ignore=shutil.ignore_patterns(".venv"))
    nowhere = "http://127.0.0.1:9"
    offline = {"HTTPS_PROXY": nowhere, "HTTP_PROXY": nowhere, "PIP_INDEX_URL": nowhere, "PIP_NO_INDEX": "0"}
    run = _start(empty, tmp_path, "install", PIP_FIND_LINKS="", **offline)
    said = run.communicate(timeout=LIMIT_S)[1].splitlines()
    assert run.returncode == 2
    assert said[-1].startswith("set-up: the Python packages not to be had in 3 tries")
    assert "HTTPS_PROXY" in said[-1]
    assert not any("Traceback" in line for line in said)
