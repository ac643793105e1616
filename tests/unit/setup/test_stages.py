"""The runner of the test stages: what counts as passed, and what its last line says."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from validator.setup import stages
from validator.setup.console import SetupError
from validator.setup.stages import Kind, Stage


@pytest.fixture(autouse=True)
def _own_logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = tmp_path / "venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "python").symlink_to(sys.executable)
    pytest_program = programs / "pytest"
    pytest_program.write_text(f'#!/bin/sh\nexec {sys.executable} -m pytest -p no:cacheprovider "$@"\n')
    pytest_program.chmod(0o755)
    monkeypatch.setattr(stages, "VENV", tmp_path / "venv")
    monkeypatch.setattr(stages, "LOGS", tmp_path / "logs")
    monkeypatch.setattr(stages, "ROOT", tmp_path)
    monkeypatch.delenv(stages.PACKAGES_READY, raising=False)


def _program(name: str, code: str, **more: object) -> Stage:
    return Stage(name, (("python", "-c", code),), limit_s=30, **more)  # type: ignore[arg-type]


def _last_line(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().out.splitlines()[-1]


def test_stages_that_all_pass_end_with_status_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert stages.run_stages([_program("one", "pass"), _program("two", "pass")]) == 0
    assert _last_line(capsys) == "2 passed, 0 failed"


def test_one_failed_stage_shows_its_log_and_fails_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert stages.run_stages([_program("good", "pass"), _program("bad", "raise SystemExit('it broke here')")]) == 1
    said = capsys.readouterr().out
    assert "it broke here" in said
    assert "failed: status 1" in said
    assert said.splitlines()[-1] == "1 passed, 1 failed"


def test_every_command_of_a_stage_runs_and_any_of_them_can_fail_it(tmp_path: Path) -> None:
    commands = (("python", "-c", "raise SystemExit(4)"), ("python", "-c", "open('ran', 'w')"))
    assert stages.run_stages([Stage("style", commands, limit_s=30)]) == 1
    assert (tmp_path / "ran").exists()


def test_a_stage_over_its_limit_is_stopped_and_failed(capsys: pytest.CaptureFixture[str]) -> None:
    assert stages.run_stages([Stage("slow", (("python", "-c", "import time; time.sleep(60)"),), limit_s=0.5)]) == 1
    assert "failed: over" in capsys.readouterr().out


def test_a_folder_that_is_gone_fails_its_stage(capsys: pytest.CaptureFixture[str]) -> None:
    assert stages.run_stages([_program("moved", "pass", needs=("tests/moved",))]) == 1
    assert "tests/moved not found" in capsys.readouterr().out


def test_pytest_stages_are_counted_by_test(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "test_it.py").write_text("def test_a(): pass\ndef test_b(): pass\ndef test_c(): assert False\n")
    assert stages.run_stages([Stage("unit", (("pytest", "test_it.py"),), limit_s=60, kind=Kind.PYTEST)]) == 1
    assert _last_line(capsys) == "2 passed, 1 failed"


def test_a_skipped_test_counts_as_failed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "test_it.py").write_text("import pytest\ndef test_a(): pass\ndef test_b(): pytest.skip('later')\n")
    assert stages.run_stages([Stage("unit", (("pytest", "test_it.py"),), limit_s=60, kind=Kind.PYTEST)]) == 1
    assert _last_line(capsys) == "1 passed, 1 failed"


def test_a_test_that_may_be_skipped_is_named_and_counts_neither_way(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "test_it.py").write_text("def test_a(): pass\n")
    (tmp_path / "test_far.py").write_text("import pytest\ndef test_b(): pytest.skip('not there')\n")
    words = ("pytest", "test_it.py", "test_far.py")
    may = Stage("unit", (words,), limit_s=60, kind=Kind.PYTEST, may_skip=("test_far",))
    assert stages.run_stages([may]) == 0
    said = capsys.readouterr().out
    assert "skipped by name: test_far::test_b" in said
    assert said.endswith("1 passed, 0 failed\n")
    alone = Stage("unit", (("pytest", "test_far.py"),), limit_s=60, kind=Kind.PYTEST, may_skip=("test_far",))
    assert stages.run_stages([alone]) == 1, "a stage in which nothing ran has shown nothing"
    assert _last_line(capsys) == "0 passed, 1 failed"


def test_a_single_test_may_be_skipped_and_none_beside_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    skipping = (
        "import pytest\n@pytest.mark.parametrize('at', ['far', 'near'])\ndef test_b(at): pytest.skip('not there')\n"
    )
    (tmp_path / "test_it.py").write_text(f"{skipping}def test_a(): pass\n")
    may = Stage("unit", (("pytest", "test_it.py"),), limit_s=60, kind=Kind.PYTEST, may_skip=("test_it::test_b[far]",))
    assert stages.run_stages([may]) == 1
    said = capsys.readouterr().out
    assert "skipped by name: test_it::test_b[far]\n" in said
    assert said.endswith("1 passed, 1 failed\n")


def test_stages_that_want_system_packages_wait_for_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = tmp_path / "ready"
    monkeypatch.setenv(stages.PACKAGES_READY, str(ready))
    makes = _program("installs", f"import time; time.sleep(0.5); open({str(ready)!r}, 'w')")
    wants = _program("serves", f"open({str(ready)!r})", wants_packages=True)
    assert stages.run_stages([makes, wants]) == 0


def test_a_two_core_stage_has_the_machine_to_itself(tmp_path: Path) -> None:
    begin = "import os, time; open('busy', 'x'); time.sleep(0.4); os.unlink('busy')"
    assert stages.run_stages([_program("a", begin, cores=2), _program("b", begin, cores=2)]) == 0


def test_stages_are_chosen_by_name_and_unknown_names_refused() -> None:
    assert [stage.name for stage in stages.choose_stages(["style"])] == ["style"]
    assert stages.choose_stages([]) == stages.STAGES
    with pytest.raises(SetupError, match="unknown stage 'naps'"):
        stages.choose_stages(["naps"])


@pytest.mark.parametrize(
    ("given", "over"),
    [
        (["-k", "docs"], ["tests/unit", "tests/property"]),
        (["tests/unit/test_one.py::test_it", "-x"], []),
        (["tests/unit/absent.py"], ["tests/unit", "tests/property"]),
    ],
)
def test_pytest_runs_over_the_paths_that_are_named_else_over_all_folders(
    given: list[str], over: list[str], tmp_path: Path
) -> None:
    for folder in ("tests/unit", "tests/property", "docs"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "tests" / "unit" / "test_one.py").touch()
    assert stages.pytest_words(given)[1:] == [*over, *given]
