"""--kill-one: when the validator goes, when it comes back, and what is told about it."""

from __future__ import annotations

from typing import Any, cast

import pytest

from validator.devnet import crash as module
from validator.devnet.crash import Crash
from validator.devnet.plan import GRACE_MS, Options, plan_kill
from validator.devnet.progress import Progress

GENESIS = 1_700_000_000_000
OPTIONS = Options(kill_one=True, window_seconds=4.0)


class Clock:
    now_ms = GENESIS


class ValidatorProcess:
    name = "validator-2"
    process_names = ("validator-2.serve", "validator-2.worker")

    def __init__(self) -> None:
        self.starts = 0

    def start(self, _children: object) -> None:
        self.starts += 1


class Children:
    def __init__(self) -> None:
        self.killed: list[str] = []

    def kill(self, names: tuple[str, ...]) -> None:
        self.killed += names


class Operators:
    ready = False

    def fetch_unready(self, names: list[str]) -> dict[str, str]:
        return {} if self.ready else dict.fromkeys(names, "does not answer yet")

    def fetch_status(self, _name: str) -> dict[str, Any]:
        return {"windows": [{"start_ms": GENESIS + n * OPTIONS.window_ms} for n in range(8)]}

    def fetch_votes(self, _name: str, start_ms: int) -> list[str]:
        return [f"{start_ms:x}"]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "now_ms", lambda: clock.now_ms)
    return clock


def a_crash() -> Crash:
    progress = Progress(OPTIONS, GENESIS, {"0x01": "validator-2"})
    return Crash(plan_kill(OPTIONS, GENESIS), cast(Any, ValidatorProcess()), progress)


def test_it_is_killed_in_a_window_and_starts_again_after_two_cut_offs(clock: Clock) -> None:
    crash, children, operators = a_crash(), Children(), Operators()

    def advance(to_ms: int) -> list[str]:
        clock.now_ms = GENESIS + to_ms
        return crash.advance(cast(Any, children), cast(Any, operators))

    validator = cast(Any, crash.validator)
    assert advance(5_999) == []
    assert advance(6_000) == ["validator-2 killed in window 1"]
    assert children.killed == ["validator-2.serve", "validator-2.worker"]
    assert crash.progress.away == {"validator-2"}
    second_cut_off = 3 * OPTIONS.window_ms + GRACE_MS
    assert advance(second_cut_off) == []
    assert validator.starts == 0
    assert advance(second_cut_off + 500) == ["validator-2 started again in window 3"]
    assert advance(second_cut_off + 2_000) == []
    operators.ready = True
    assert advance(19_000) == ["validator-2 is back in window 4"]
    assert (validator.starts, crash.progress.away) == (1, set())
    assert advance(30_000) == []
    assert crash.describe() == {
        "validator": "validator-2",
        "signal": "SIGKILL",
        "at_window": 1,
        "windows_away": 3,
        "back_at_window": GENESIS + 5 * OPTIONS.window_ms,
        "killed_ms": crash.killed_ms,
        "back_ms": 19_000 + GENESIS,
    }
    summary = crash.summarise()
    assert summary is not None
    assert summary["back_at_window"] == 5
    assert "back_ms" not in summary


def test_an_upload_of_its_own_under_way_puts_the_kill_off(clock: Clock) -> None:
    crash, children = a_crash(), Children()
    clock.now_ms = crash.plan.kill_ms
    upload = {"own": True, "state": "posted"}
    crash.progress.statuses["validator-2"] = {"bundles": [{"number": 0, "uploads": [upload]}]}
    assert crash.advance(cast(Any, children), cast(Any, Operators())) == []
    upload["state"] = "verified"
    assert crash.advance(cast(Any, children), cast(Any, Operators())) != []


def test_only_votes_of_windows_that_began_after_the_return_are_shown(clock: Clock) -> None:
    crash, operators = a_crash(), Operators()
    crash.killed_ms, crash.started_ms = GENESIS + 6_000, GENESIS + 15_000
    crash.returned_ms = GENESIS + 19_000
    crash.collect(cast(Any, operators))
    later = [GENESIS + n * OPTIONS.window_ms for n in (5, 6, 7)]
    assert crash.statements() == {"validator-2": [f"{start_ms:x}" for start_ms in later]}


def test_nothing_is_told_where_nobody_was_killed() -> None:
    assert a_crash().describe() is None
    assert a_crash().summarise() is None
