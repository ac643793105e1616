"""Logs are events with fields: JSON lines for machines, or a console form for people.

ERROR: a human must act. WARNING: degraded, still moving. INFO: one per state change. DEBUG: dropped input and why.
URLs lose paths and credentials.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import structlog

_URL = re.compile(r"(\b[a-z][a-z0-9+.-]*://)(?:[^/@\s]*@)?([^/\s?#'\"]+)[^\s'\"]*")


def configure(level: str = "INFO", form: str = "json") -> None:
    """Set up logging for this process: structlog and the standard library's loggers, to standard error."""
    renderer: Any = (
        structlog.processors.JSONRenderer() if form == "json" else structlog.dev.ConsoleRenderer(colors=False)
    )
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _trim_urls,
    ]
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level.upper())),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=max(logging.getLevelName(level.upper()), logging.WARNING), stream=sys.stderr)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # at INFO it prints whole URLs


def get_logger(name: str) -> Any:
    """A bound logger; ``name`` is the module's."""
    return structlog.get_logger(logger=name.removeprefix("validator."))


@contextmanager
def log_context(**fields: Any) -> Iterator[None]:
    """Fields that every event inside carries."""
    with structlog.contextvars.bound_contextvars(**fields):
        yield


def trim_urls(text: str) -> str:
    """Scheme and host of every URL in a text; credentials, paths and queries are dropped."""
    return _URL.sub(r"\1\2", text)


def _trim_urls(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for key, value in event.items():
        if isinstance(value, str) and "://" in value:
            event[key] = trim_urls(value)
    return event
