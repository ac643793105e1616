"""Which Python set-up runs on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from validator.setup import __main__ as entry
from validator.setup import command


def _fake_python(folder: Path, name: str, answer: str) -> None:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\n{answer}\n")
    path.chmod(0o755)


@pytest.mark.parametrize(
    ("version", "fits"), [((3, 10), False), ((3, 11), True), ((3, 12), True), ((3, 13), True), ((3, 14), False)]
)
def test_python_3_11_to_3_13_fit(version: tuple[int, ...], fits: bool) -> None:
    assert entry.is_supported(version) is fits


def test_the_newest_python_that_really_answers_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _fake_python(tmp_path / "shims", "python3.13", "echo 'no such version' >&2; exit 127")
    _fake_python(tmp_path / "shims", "python3.12", "echo 3 12")
    _fake_python(tmp_path / "shims", "python3", "echo 3 11")
    monkeypatch.setenv("PATH", f"{tmp_path / 'shims'}{os.pathsep}{tmp_path / 'absent'}")
    assert entry.find_interpreter() == str(tmp_path / "shims" / "python3.12")


def test_without_a_python_that_fits_it_is_one_line_and_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _fake_python(tmp_path / "bin", "python3", "echo 3 14")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(sys, "version_info", (3, 14, 0, "final", 0))
    assert entry.main() == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "Python 3.14.0 does not fit" in said
    assert "install Python 3.11, 3.12 or 3.13" in said


def test_another_python_is_started_in_place_and_keeps_the_moment_of_the_first_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _fake_python(tmp_path / "bin", "python3.12", "echo 3 12")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setenv("LOGSTORE_STARTED_MS", "5")  # left over from elsewhere: not ours to believe
    monkeypatch.setattr(sys, "version_info", (3, 10, 13, "final", 0))
    monkeypatch.setattr(sys, "argv", ["setup", "devnet", "--windows", "2"])
    started: list[list[str]] = []

    def note(path: str, words: list[str]) -> None:
        started.append(words)
        raise SystemExit(0)

    monkeypatch.setattr(os, "execv", note)
    with pytest.raises(SystemExit):
        entry.main()
    assert started == [[str(tmp_path / "bin" / "python3.12"), entry.__file__, "devnet", "--windows", "2"]]
    assert os.environ["LOGSTORE_STARTED_MS"] == str(entry.STARTED_MS)
    assert os.environ[entry.PICKED] == str(os.getpid())


@pytest.mark.parametrize("words", [["dance"], ["install", "now"], ["ci-stages", "naps"]])
def test_a_wrong_word_is_one_line_and_status_2(words: list[str]) -> None:
    answer = subprocess.run(
        [sys.executable, entry.__file__, *words], capture_output=True, text=True, cwd="/", check=False
    )
    assert answer.returncode == 2
    assert answer.stdout == ""
    assert answer.stderr.startswith("set-up: ")
    assert answer.stderr.count("\n") == 1


def test_help_names_every_command_from_any_folder() -> None:
    answer = subprocess.run(
        [sys.executable, entry.__file__, "--help"], capture_output=True, text=True, cwd="/", check=True
    )
    assert all(f"  {word} " in answer.stdout for word in command.WORDS)
