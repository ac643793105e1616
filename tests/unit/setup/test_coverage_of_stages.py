"""No test lies where no stage looks."""

from __future__ import annotations

from pathlib import Path

from validator.setup import stages
from validator.setup.binaries import ROOT

TESTS = ROOT / "tests"


def test_every_folder_with_tests_belongs_to_a_stage() -> None:
    words = {word for stage in stages.STAGES for command in stage.commands for word in command}
    folders = {Path("tests", path.relative_to(TESTS).parts[0]) for path in TESTS.rglob("test_*.py")}
    assert {str(folder) for folder in folders} <= words


def test_a_stage_is_left_out_only_as_long_as_its_folder_is_missing() -> None:
    there = {stage.name for stage in stages.ALL_STAGES if all((ROOT / path).exists() for path in stage.needs)}
    assert not stages.NOT_YET & there


def test_stages_that_hang_end_ci_within_four_times_its_thirty_minutes() -> None:
    """Two one-core stages run at a time, so the sum is more than it ever takes."""
    assert sum(stage.limit_s for stage in stages.ALL_STAGES) <= 4 * 30 * 60
