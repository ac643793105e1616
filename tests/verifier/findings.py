"""What a check found: how often each claim was examined, failures, one line each, and figures for the summary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from eth_abi.exceptions import DecodingError

from tests.verifier.claims import UNKNOWABLE, Claim
from validator.protocol.errors import ValidatorError

_UNREADABLE = (ValidatorError, DecodingError, OSError, LookupError, ValueError, TypeError)


class Unreachable(Exception):
    """A server that the whole check needs does not answer: nothing more can be examined, and it is said once."""


class Findings:
    """Collects; nothing here stops at the first failure."""

    def __init__(self) -> None:
        self.failures: list[str] = []
        self.figures: dict[str, Any] = {}
        self.checked: Counter[Claim] = Counter()
        self.failed: Counter[Claim] = Counter()

    def fail(self, claim: Claim, where: str, what: str) -> None:
        """One thing was examined, and the claim does not hold for it."""
        self.checked[claim] += 1
        self._note(claim, where, what)

    def expect(self, holds: bool, claim: Claim, where: str, what: str) -> bool:
        """Examine one thing: fail unless it holds; says whether it does."""
        if holds:
            self.checked[claim] += 1
        else:
            self.fail(claim, where, what)
        return holds

    def faultless(self, claim: Claim, where: str, faults: Iterable[str]) -> bool:
        """Examine one thing that may be wrong in several ways; says whether it is in none."""
        found = list(faults)
        self.checked[claim] += 1
        for fault in found:
            self._note(claim, where, fault)
        return not found

    @contextmanager
    def examining(self, claim: Claim, where: str) -> Iterator[None]:
        """What cannot be read is a failed claim like any other, and the next claim is still examined."""
        try:
            yield
        except _UNREADABLE as error:
            self.fail(claim, where, f"cannot be examined: {type(error).__name__}: {error}")

    def _note(self, claim: Claim, where: str, what: str) -> None:
        self.failed[claim] += 1
        self.failures.append(printable(f"{claim}: {where}: {what}"))

    @property
    def verified(self) -> bool:
        return not self.failures

    def claims(self) -> dict[str, dict[str, int]]:
        """Every claim, also those that nothing was examined for."""
        return {claim.value: {"checked": self.checked[claim], "failed": self.failed[claim]} for claim in Claim}

    def summary(self) -> dict[str, Any]:
        return {
            **self.figures,
            "verified": self.verified,
            "failures": list(self.failures),
            "claims": self.claims(),
            "unknowable": list(UNKNOWABLE),
        }


def render_claims(claims: dict[str, dict[str, int]], unknowable: Iterable[str]) -> list[str]:
    """The list that a check ends with."""
    lines = ["claims, and how often each was checked:"]
    for name, counts in claims.items():
        failed = f", {counts['failed']} FAILED" if counts["failed"] else ""
        lines.append(f"  {name}: {counts['checked']} checked{failed}")
    return [*lines, "cannot be known from outside:", *(f"  {line}" for line in unknowable)]


def printable(text: str) -> str:
    """Control characters as escapes: ids and reasons come from outside."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
