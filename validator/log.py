"""Logs are events with fields: JSON lines for machines, or a console form for people.

ERROR: a human must act. WARNING: degraded, still moving. INFO: one per state change. DEBUG: dropped input and why.
URLs lose paths and credentials wherever they stand, tracebacks and libraries' own messages included; bytes are 0x-hex;
control characters are spelt out, so that no message from outside can steer a terminal.

Logging never raises and never ends what logs: a full disk, a pipe whose reader has gone or a value that cannot be
shown loses lines, which are counted and said once lines get through again.
"""

from __future__ import annotations

import json
import logging
import os
import queue
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

import structlog

from validator.protocol.errors import ConfigError

_URL = re.compile(r"(\b[a-z][a-z0-9+.-]*://)(?:[^/\s'\"]*@)?([^/\s?#'\"<>]*)[^\s'\"<>]*", re.IGNORECASE)
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_WAITING_WARNINGS = 1_000
_said_as = "json"

WarningSink = Callable[[str, str, Mapping[str, Any]], None]
"""(level, event, fields) of a warning or error."""


def configure(level: str = "INFO", form: str = "json") -> None:
    """Set up logging for this process: structlog and the standard library's loggers, to standard error.

    Raises:
        ConfigError: no such level.
    """
    threshold = logging.getLevelNamesMapping().get(level.upper())
    if threshold is None:
        raise ConfigError(
            f"LOGSTORE_LOG_LEVEL: {level!r} is none of DEBUG, INFO, WARNING, ERROR", field="LOGSTORE_LOG_LEVEL"
        )
    global _said_as
    _said_as = form
    sink = _Sink(sys.stderr)
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if form == "json"
        else structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    )
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
        _make_presentable,
    ]
    structlog.configure(
        processors=[*shared, _offer_warning, renderer],
        wrapper_class=_never_raising(structlog.make_filtering_bound_logger(threshold), sink),
        logger_factory=structlog.PrintLoggerFactory(cast("TextIO", sink)),  # write and flush are all it uses
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sink)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared[:3], structlog.stdlib.add_logger_name],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _make_presentable,
                renderer,
            ],
        )
    )
    logging.basicConfig(level=max(threshold, logging.WARNING), handlers=[handler], force=True)
    logging.captureWarnings(True)  # Python's own warnings are events too
    logging.getLogger("httpx").setLevel(logging.WARNING)  # at INFO it prints whole URLs


class _Sink:
    """A text stream that never raises: what it cannot write is counted, and the count is written when it can again."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lost = 0

    def write(self, text: str) -> int:
        try:
            if self._lost:
                self._stream.write(_line("log.lines_lost", level="warning", lost=self._lost))
                self._lost = 0
            self._stream.write(text)
        except (OSError, ValueError):
            self._lost += 1
        return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._lost += 1


def _line(event: str, **fields: Any) -> str:
    """An event about logging itself, which takes none of its ways."""
    return json.dumps({"event": event, **fields}) + "\n"


def say_in_a_signal(event: str, **fields: Any) -> None:
    """An event from a signal's handler: takes no lock that what was interrupted may hold, and never raises."""
    text = _line(event, level="info", **fields)
    if _said_as != "json":
        text = f"[info     ] {event} {' '.join(f'{name}={value}' for name, value in fields.items())}\n"
    with suppress(OSError):
        os.write(2, text.encode(errors="replace"))


def _never_raising(logger_class: Any, sink: _Sink) -> Any:
    class Logger(logger_class):  # type: ignore[misc]
        def _proxy_to_logger(self, method_name: str, event: str | None = None, **fields: Any) -> Any:
            try:
                return super()._proxy_to_logger(method_name, event, **fields)
            except Exception as error:
                sink.write(_line("log.unshowable", of=str(event), reason=type(error).__name__))
                return None

    return Logger


def get_logger(name: str) -> Any:
    """A bound logger; ``name`` is the module's, shown as ``part``."""
    return structlog.get_logger(part=name.removeprefix("validator."))


@contextmanager
def log_context(**fields: Any) -> Iterator[None]:
    """Fields that every event inside carries."""
    with structlog.contextvars.bound_contextvars(**fields):
        yield


def trim_urls(text: str) -> str:
    """Scheme and host of every URL in a text; credentials, paths and queries are dropped."""
    return _URL.sub(r"\1\2", text)


def spell_controls(text: str) -> str:
    r"""Control characters as \x1b or \u202e; tab and newline stay."""
    return _CONTROL.sub(lambda found: _spell(ord(found.group())), text)


def _spell(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def _make_presentable(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        event[key] = _present(value)
    return event


def _present(value: Any) -> Any:
    if isinstance(value, str):
        text = trim_urls(value) if "://" in value else value
        return spell_controls(text)
    if isinstance(value, bytes | bytearray | memoryview):
        return f"0x{bytes(value).hex()}"
    if isinstance(value, Mapping):
        return {str(key): _present(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_present(item) for item in value]
    if isinstance(value, Exception):
        return _present(str(value))
    return value


# --- the operator's screen ------------------------------------------------------------------------------


class _Warnings:
    """Hands warnings to a sink from a thread of its own: whoever logs may hold a database transaction."""

    def __init__(self) -> None:
        self.sink: WarningSink | None = None
        self._queue: queue.Queue[tuple[str, str, Mapping[str, Any]]] = queue.Queue(_WAITING_WARNINGS)
        self._process = 0
        self._lock = threading.Lock()

    def offer(self, level: str, event: str, fields: Mapping[str, Any]) -> None:
        if self.sink is None:
            return
        with self._lock:
            if self._process != os.getpid():  # first use, or first use after a fork
                self._process = os.getpid()
                self._queue = queue.Queue(_WAITING_WARNINGS)
                threading.Thread(target=self._work, args=(self._queue,), name="warnings", daemon=True).start()
        try:
            self._queue.put_nowait((level, event, fields))
        except queue.Full:
            return  # the log has it; the screen shows the newest that fit

    def flush(self) -> None:
        """Wait until all that was offered was handed over."""
        self._queue.join()

    def _work(self, waiting: queue.Queue[tuple[str, str, Mapping[str, Any]]]) -> None:
        while True:
            level, event, fields = waiting.get()
            sink = self.sink
            try:
                if sink is not None:
                    sink(level, event, fields)
            except Exception as error:  # must not log: that would come back here
                _Sink(sys.stderr).write(_line("warning.not_on_page", of=event, reason=trim_urls(str(error))))
            finally:
                waiting.task_done()


_warnings = _Warnings()


def show_warnings(sink: WarningSink | None) -> None:
    """Hand every warning and error of this process to ``sink`` too, such as the store's ``events.save_event``."""
    _warnings.sink = sink


def flush_warnings() -> None:
    """Wait until the sink has all warnings; for tests and an orderly end."""
    _warnings.flush()


def _offer_warning(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    level = event.get("level")
    if level in ("warning", "error", "critical"):
        fields = {key: value for key, value in event.items() if key not in ("event", "level", "timestamp")}
        _warnings.offer("warning" if level == "warning" else "error", str(event.get("event")), fields)
    return event
