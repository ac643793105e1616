"""Beat's scheduler: by a clock that nobody sets, without a file, and through anything a broker does."""

from __future__ import annotations

import time
from typing import Any

import pytest
from celery import Celery
from kombu.exceptions import OperationalError
from structlog.testing import capture_logs

from tasks.schedule import SWEEP_S, SteadyScheduler, beat_schedule


class Beat(SteadyScheduler):
    """The scheduler with a broker that takes or refuses as the test says."""

    def __init__(self, tick_s: float) -> None:
        app = Celery("test", broker="memory://")
        app.conf.beat_schedule = beat_schedule(tick_s)
        self.sent: list[str] = []
        self.error: Exception | None = None
        super().__init__(app)

    def apply_async(self, entry: Any, producer: Any = None, advance: bool = True, **kwargs: Any) -> None:
        if self.error is not None:
            raise self.error
        self.sent.append(entry.task)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the monotonic clock shows; the wall clock jumps wildly and must not matter."""
    shown = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: shown[0])
    monkeypatch.setattr(time, "time", lambda: -1e9 if int(shown[0]) % 2 else 1e9)
    return shown


def test_each_entry_comes_at_its_own_pace(clock: list[float]) -> None:
    beat = Beat(5.0)
    for _ in range(600):
        wait_s = beat.tick()
        assert 0 <= wait_s <= 1
        clock[0] += 0.2
    assert beat.sent.count("round.due") == 24
    assert beat.sent.count("retention.sweep") == 120 // SWEEP_S


@pytest.mark.parametrize("error", [OperationalError("gone"), OSError(28, "disk"), RuntimeError("odd"), KeyError("x")])
def test_a_tick_never_raises_and_says_once_that_nothing_is_queued(clock: list[float], error: Exception) -> None:
    beat = Beat(1.0)
    beat.tick()
    beat.sent.clear()
    beat.error = error
    with capture_logs() as logs:
        for _ in range(50):
            clock[0] += 0.2
            beat.tick()
        beat.error = None
        clock[0] += 1
        beat.tick()
    assert beat.sent == ["round.due"]
    assert [entry["event"] for entry in logs] == ["redis.away", "redis.back"]


def test_an_absence_is_not_made_up_for(clock: list[float]) -> None:
    """An hour of suspension ends with one look, not with 720."""
    beat = Beat(5.0)
    beat.tick()
    beat.sent.clear()
    clock[0] += 3_600
    for _ in range(20):
        beat.tick()
    assert sorted(beat.sent) == ["retention.sweep", "round.due"]
