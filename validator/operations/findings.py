"""What a check found: one line each, and how a check that cannot be made becomes one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from validator.protocol.errors import ValidatorError


class Level(StrEnum):
    """``FAIL``: it will not work; ``WARN``: it works, and an operator should know."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of ``check``: what was looked at, and what was seen or is to be done."""

    level: Level
    name: str
    text: str


def ok(name: str, text: str) -> Finding:
    return Finding(Level.OK, name, text)


def warn(name: str, text: str) -> Finding:
    return Finding(Level.WARN, name, text)


def fail(name: str, text: str) -> Finding:
    return Finding(Level.FAIL, name, text)


def guarded(name: str, check: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """The findings of one check; an error of ours ends it as a failure that names the reason."""
    try:
        yield from check()
    except ValidatorError as error:
        yield fail(name, str(error))
