"""The comparison sees what differs. Here both sides are ours, one of them sometimes spoilt; no Node is needed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.conformance import negentropy_reference as program
from validator.setup import binaries

OURS = (sys.executable, "-m", "tests.conformance", "negentropy")
SPOILS = """
import sys
from tests.conformance import negentropy
from validator.protocol.consensus import reconcile
{change}
sys.exit(negentropy.main([]))
"""
SEED_OF_4096 = 17
"""Of 480 records at most, many of them different, with the smallest frames."""


def spoilt(change: str) -> tuple[str, ...]:
    return (sys.executable, "-c", SPOILS.format(change=change))


def test_equal_programs_agree(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.compare(OURS, OURS, range(SEED_OF_4096 - 1, SEED_OF_4096 + 1), ("62",)) == program.AGREED
    assert "2 pairs of sets" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("reconcile.BUCKETS = 15", "message 0 (query) differs at byte"),
        ("reconcile._RESERVE = 400", "(answer) differs at byte"),
        ("negentropy.initiate = lambda records: sys.exit(1)", "message 0 (query) differs at byte 0"),
        ("reconcile._compare = lambda *given: None", "other ids are found"),
    ],
)
def test_one_that_differs_is_named_with_its_seed(change: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert program.compare(spoilt(change), OURS, range(SEED_OF_4096, SEED_OF_4096 + 1), ()) == program.DIFFERED
    shown = capsys.readouterr().out
    assert f"seed {SEED_OF_4096} (" in shown
    assert said in shown


def test_a_version_that_is_answered_otherwise_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    spoiled = spoilt("negentropy.answer = lambda *given, **more: b'ab'")
    assert program.compare(spoiled, OURS, range(0), ("62",)) != program.AGREED
    assert "a message that begins with 62 is answered with" in capsys.readouterr().out


def test_nothing_compared_is_no_success(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.compare(OURS, OURS, range(0), ()) == program.DIFFERED


def test_sizes_and_limits_come_all_in_the_usual_number_of_seeds() -> None:
    cases = [program.make_case(seed) for seed in range(len(program.SIZES) * len(program.LIMITS))]
    assert {case.frame_limit for case in cases} == set(program.LIMITS)
    assert max(len(case.client) for case in cases) > 4900
    assert any(not case.client and not case.server for case in cases)
    assert any(case.differences for case in cases)


def test_a_machine_without_npm_is_told_so_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    node = tmp_path / "node"
    node.write_text("")
    node.chmod(0o755)
    monkeypatch.setenv("LOGSTORE_NODE_BIN", str(node))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("LOGSTORE_NPM_BIN", raising=False)
    monkeypatch.setattr(binaries, "NODE_FOLDER", tmp_path / "nowhere")
    assert program.main([]) == program.USAGE
    assert "npm not found" in capsys.readouterr().err
