"""Times as people write them, and written for people. Unix milliseconds inside.

2026-11-30, 2026-11-30T12:00, 2026-11-30 12:00:05.250, …Z, …+01:00    without a zone: UTC
1795996800000                                                        Unix milliseconds
now, -90s, -30m, -1h, -2d, -1w, -1h30m                                before now
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from functools import lru_cache

from validator.protocol.errors import ConfigError

UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 604_800_000}
MAX_MS = 253_402_300_800_000
"""The year 10 000, after which dates have no text."""

_MS = re.compile(r"[0-9]{9,15}")
_BEFORE = re.compile(r"-((?:[0-9]{1,9}(?:ms|[smhdw]))+)")
_PART = re.compile(r"([0-9]+)(ms|[smhdw])")


def parse_time(text: str, now_ms: int, what: str = "time") -> int:
    """Raises ConfigError, which names ``what``."""
    text = text.strip()
    before = _BEFORE.fullmatch(text)
    if before:
        return _bounded(now_ms - sum(int(n) * UNITS_MS[unit] for n, unit in _PART.findall(before[1])), text, what)
    if text == "now":
        return now_ms
    if _MS.fullmatch(text):
        return _bounded(int(text), text, what)
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        since = moment - datetime(1970, 1, 1, tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise ConfigError(
            f"{what}: {text!r} is no time; write 2026-11-30T12:00, -1h or Unix milliseconds", field=what
        ) from error
    return _bounded((since.days * 86_400 + since.seconds) * 1_000 + since.microseconds // 1_000, text, what)


def _bounded(ms: int, text: str, what: str) -> int:
    if not 0 <= ms < MAX_MS:
        raise ConfigError(f"{what}: {text!r} lies outside of the years 1970 to 9999", field=what)
    return ms


def format_time(ms: int) -> str:
    """2026-11-30T12:00:05Z, with milliseconds where there are any."""
    second, rest = divmod(ms, 1_000)
    return f"{_format_second(second)}.{rest:03}Z" if rest else f"{_format_second(second)}Z"


@lru_cache(maxsize=4096)
def _format_second(second: int) -> str:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
