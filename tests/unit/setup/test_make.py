"""What make says of set-up's end: nothing after Ctrl-C, the status of what really failed."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from validator.setup import command
from validator.setup.binaries import ROOT


def _run(tmp_path: Path, program: str) -> int:
    """Status of the recipe of set-up's words as make's shell runs it, in a process group of its own, where Python is
    ``program``: make has something to report unless it is 0."""
    recipes = re.findall(r"^help devnet .*:\n\t@(.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    (recipe,) = (r.replace("$@", "devnet").replace("$(ARGS)", "").replace("$$", "$") for r in recipes)
    python = tmp_path / "python3"
    python.write_text(f"#!/bin/sh\n{program}\n")
    python.chmod(0o755)
    environment = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    return subprocess.run(["/bin/sh", "-c", recipe], env=environment, start_new_session=True, check=False).returncode


def test_ctrl_c_is_no_error_that_make_reports(tmp_path: Path) -> None:
    assert _run(tmp_path, "trap 'exit 130' INT; kill -INT 0; exit 9") == 0


@pytest.mark.parametrize("status", [0, 1, 2])
def test_any_other_end_is_reported_as_it_is(tmp_path: Path, status: int) -> None:
    assert _run(tmp_path, f"exit {status}") == status


def test_without_a_word_the_help_of_set_up_is_printed_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main([], 0) == 2
    assert capsys.readouterr().err == command.USAGE
