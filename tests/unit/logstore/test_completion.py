"""The shell completes commands and options of logstore, asked in a real bash."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paths import ROOT

BASH = shutil.which("bash") or ""
PYTHON = f"{sys.executable} -m logstore.cli"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A command ``logstore``, and what it prints for bash."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "logstore").write_text(f'#!/bin/sh\nexec {PYTHON} "$@"\n')
    (folder / "logstore").chmod(0o755)
    (folder / "script").write_text(in_bash(folder, "logstore --show-completion; true"))
    return folder


def in_bash(folder: Path, program: str) -> str:
    return subprocess.run(
        [BASH, "--norc", "-c", program],
        env={"PATH": f"{folder}:/usr/bin:/bin", "HOME": str(folder), "PYTHONPATH": str(ROOT), "SHELL": BASH},
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    ).stdout


COMMANDS = {"audit", "balance", "bundle", "export", "mint", "network", "prove", "publish", "query", "sql", "stake"}
COMMANDS |= {"quickstart", "stream", "verify", "withdraw"}


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["logstore", ""], COMMANDS),
        (["logstore", "bundle", ""], {"export", "fetch", "list", "show", "sql"}),
        (["logstore", "ver"], {"verify"}),
        (["logstore", "verify", "--off"], {"--offline"}),
    ],
)
def test_bash_offers_what_may_stand_there(folder: Path, words: list[str], offered: set[str]) -> None:
    typed = " ".join(f"'{word}'" for word in words)
    program = f"""
        . {folder / "script"}
        COMP_WORDS=({typed}); COMP_CWORD={len(words) - 1}
        _logstore_completion logstore
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    assert set(in_bash(folder, program).split()) == offered


def test_a_shell_without_completion_is_told_so(folder: Path) -> None:
    program = "_LOGSTORE_COMPLETE=complete_csh logstore 2>&1; echo status $?"
    assert in_bash(folder, program).splitlines() == ["Shell csh not supported.", "status 1"]
