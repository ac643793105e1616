"""What reaches the log: no credentials, no control characters, and warnings on the operator's screen."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import structlog

from validator import log
from validator.protocol.errors import ConfigError, TransientError

SECRET_URL = "https://user:s3cret@rpc.example:8545/v2/api-key?token=abc"


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    log.show_warnings(None)
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def printed(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_events_are_json_lines_with_their_context(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("INFO", "json")
    with log.log_context(window=5):
        log.get_logger("validator.steps.collect").info("window.collected", messages=3, root=b"\x01\xff")
    log.get_logger("x").debug("not.shown")
    (event,) = printed(capsys)
    assert event["event"] == "window.collected"
    assert (event["window"], event["messages"], event["root"]) == (5, 3, "0x01ff")
    assert (event["part"], event["level"]) == ("steps.collect", "info")


@pytest.mark.parametrize(
    ("text", "trimmed"),
    [
        (SECRET_URL, "https://rpc.example:8545"),
        (f"GET {SECRET_URL} failed", "GET https://rpc.example:8545 failed"),
        ("'http://a.example/x' and <http://b.example/y>", "'http://a.example' and <http://b.example>"),
        ("postgresql+psycopg://me:p@ss@db/name", "postgresql+psycopg://db"),
        ("redis+socket:///run/redis.sock?virtual_host=3", "redis+socket://"),
        ("HTTPS://User:Pw@Host/Path", "HTTPS://Host"),
        ("no url: a/b@c", "no url: a/b@c"),
    ],
)
def test_urls_lose_paths_and_credentials(text: str, trimmed: str) -> None:
    assert log.trim_urls(text) == trimmed


def test_nothing_secret_leaves_through_fields_tracebacks_or_libraries(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("INFO", "json")
    logger = log.get_logger("x")
    logger.info("asked", url=SECRET_URL, all=[SECRET_URL, {"deep": SECRET_URL}], error=ValueError(SECRET_URL))
    try:
        raise ValueError(SECRET_URL)
    except ValueError:
        logger.exception("failed")
        logging.getLogger("urllib").warning("retry %s", SECRET_URL, exc_info=True)
    output = capsys.readouterr().err
    assert len(output.splitlines()) == 3
    assert "rpc.example" in output
    for secret in ("s3cret", "api-key", "token"):
        assert secret not in output


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_message_can_steer_a_terminal(capsys: pytest.CaptureFixture[str], form: str) -> None:
    log.configure("INFO", form)
    log.get_logger("x").warning("peer.said", text="\x1b[2Jred\x9b31m\u202e", nested={"k": "\x07"})
    logging.getLogger("lib").warning("\x1b]0;title\x07")
    output = capsys.readouterr().err
    assert "\\x1b[2Jred" in output.replace("\\\\", "\\")
    assert not any(char in output for char in "\x1b\x9b\x07\u202e")


def test_warnings_reach_the_screen_and_info_does_not() -> None:
    log.configure("INFO", "json")
    shown: list[tuple[str, str, Mapping[str, Any]]] = []
    log.show_warnings(lambda *event: shown.append(event))
    logger = log.get_logger("validator.x")
    logger.info("fine")
    logger.warning("gateway.slow", host="g")
    logger.error("journal.unknown_statement", round=3)
    log.flush_warnings()
    assert [(level, event) for level, event, _ in shown] == [
        ("warning", "gateway.slow"),
        ("error", "journal.unknown_statement"),
    ]
    assert shown[1][2]["round"] == 3


def test_an_unknown_level_is_named() -> None:
    with pytest.raises(ConfigError, match="LOGSTORE_LOG_LEVEL: 'LOUD'"):
        log.configure("LOUD")


def test_a_screen_that_fails_does_not_stop_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("INFO", "json")

    def broken(level: str, event: str, fields: Mapping[str, Any]) -> None:
        raise TransientError("database write: locked")

    log.show_warnings(broken)
    log.get_logger("x").warning("one")
    log.flush_warnings()
    log.get_logger("x").warning("two")
    log.flush_warnings()
    said = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [event["event"] for event in said] == ["one", "warning.not_on_page", "two", "warning.not_on_page"]
    assert said[1]["reason"] == "database write: locked"


class Sink(io.StringIO):
    """A stream whose disk is full, or whose reader has gone, for a while."""

    error: Exception | None = None

    def write(self, text: str) -> int:
        if self.error is not None:
            raise self.error
        return super().write(text)

    def flush(self) -> None:
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), BrokenPipeError(), ValueError("closed file")]
)
def test_what_cannot_be_written_is_counted_and_said_later(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    sink = Sink()
    monkeypatch.setattr(sys, "stderr", sink)
    log.configure("INFO", "json")
    sink.error = error
    log.get_logger("x").warning("lost.one")
    logging.getLogger("lib").warning("lost too")
    sink.error = None
    log.get_logger("x").info("after")
    first, second = (json.loads(line) for line in sink.getvalue().splitlines())
    assert (first["event"], first["level"]) == ("log.lines_lost", "warning")
    assert first["lost"] >= 2
    assert second["event"] == "after"


def test_a_value_that_cannot_be_shown_does_not_stop_what_logs(capsys: pytest.CaptureFixture[str]) -> None:
    class Odd:
        def __repr__(self) -> str:
            raise RuntimeError("no words for it")

    log.configure("INFO", "json")
    log.get_logger("x").info("odd.value", value=Odd())
    assert printed(capsys) == [{"event": "log.unshowable", "of": "odd.value", "reason": "RuntimeError"}]


def test_a_screen_that_fails_does_not_end_the_showing_of_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    shown: list[str] = []

    def sink(_level: str, event: str, _fields: Mapping[str, Any]) -> None:
        if event == "first":
            raise RuntimeError("the screen is broken")
        shown.append(event)

    log.configure("INFO", "json")
    log.show_warnings(sink)
    for event in ("first", "second"):
        log.get_logger("x").warning(event)
    log.flush_warnings()
    assert shown == ["second"]
    assert "the screen is broken" in capsys.readouterr().err
