"""What is away is said once, and once that it is back."""

from __future__ import annotations

import time

from structlog.testing import capture_logs

from validator.outages import Outage


def test_an_outage_is_one_warning_and_its_end_one_line_however_often_it_is_tried() -> None:
    outage = Outage("redis", at="here")
    with capture_logs() as logs:
        outage.worked()
        for reason in ("connection\nrefused", "timed out", "connection refused"):
            outage.failed(reason)
        for _ in range(3):
            outage.worked()
    assert [(entry["event"], entry["log_level"], entry["at"]) for entry in logs] == [
        ("redis.away", "warning", "here"),
        ("redis.back", "info", "here"),
    ]
    assert logs[0]["reason"] == "connection refused"
    assert logs[1]["lasted"] == "0 s"


def test_it_is_back_when_each_way_that_failed_works_again() -> None:
    outage = Outage("database")
    with capture_logs() as logs:
        outage.failed("read-only", "write")
        outage.worked("read")
        assert outage.is_away
        outage.failed("refused", "read")
        outage.worked("write")
        assert outage.is_away
        outage.worked("read")
        assert not outage.is_away
    assert len(logs) == 2


def test_what_began_before_a_failure_and_ends_after_it_is_no_return() -> None:
    outage = Outage("database")
    begun_s = time.monotonic()
    outage.failed("connection lost", "read")
    outage.worked("read", begun_s - 1)
    assert outage.is_away
    outage.worked("read", time.monotonic())
    assert not outage.is_away
