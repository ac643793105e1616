"""What a check found: failures, one line each, and figures for the summary."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
from eth_abi.exceptions import DecodingError

from validator.errors import ValidatorError

_UNREADABLE = (ValidatorError, httpx.HTTPError, DecodingError, OSError, LookupError, ValueError, TypeError)


class Findings:
    """Collects; nothing here stops at the first failure."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self.figures: dict[str, Any] = {}

    def fail(self, claim: str, what: str) -> None:
        self.failures.append(printable(f"{claim}: {what}"))

    def expect(self, holds: bool, claim: str, what: str) -> bool:
        """Fail unless it holds; says whether it does."""
        if not holds:
            self.fail(claim, what)
        return holds

    @contextmanager
    def examining(self, claim: str) -> Iterator[None]:
        """What cannot be read is a failed claim like any other, and the next claim is still examined."""
        try:
            yield
        except _UNREADABLE as error:
            self.fail(claim, f"cannot be examined: {type(error).__name__}: {error}")

    @property
    def verified(self) -> bool:
        return not self.failures

    def summary(self) -> dict[str, Any]:
        return {**self.figures, "verified": self.verified, "failures": list(self.failures)}


def printable(text: str) -> str:
    """Control characters as escapes: ids and reasons come from outside."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
