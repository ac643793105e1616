"""How often a source is asked and how much at once: learned from its own answers.

The rule: a source that refuses is asked less, never the same again at once. One ``Pace`` per source says when it may
be asked again: a refusal doubles its rest, with jitter, so that many who were refused together do not come back
together; what the source itself asks for (Retry-After) is the least. One ``Allowance`` per source and kind of limit
says how much it takes at once: it shrinks where the source refuses, remembers, and grows again slowly.

No list of providers and no wording: every provider has limits and words of its own and changes both.
"""

from __future__ import annotations

import math
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

FIRST_REST_S = 0.5
LONGEST_REST_S = 10.0
"""Rests of our own choice: short, since a source that has come back must not be missed for long."""
LONGEST_ASKED_S = 60.0
"""Most that is heard of a Retry-After: a source that asks for an hour is looked at once a minute."""
STREAK = 4
"""Full portions in a row after which more is tried."""
FORGET_S = 600.0
"""After this time a refused amount is tried again: limits change, and a refusal may have had another reason."""
_SECONDS = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9})?", re.ASCII)


class Pace:
    """When one source may be asked again. Thread-safe. Times are monotonic seconds."""

    def __init__(
        self,
        *,
        first_s: float = FIRST_REST_S,
        longest_s: float = LONGEST_REST_S,
        now: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self._now = now
        self._chance = chance
        self._lock = threading.Lock()
        self._step_s = 0.0
        self._until = -math.inf
        self.reason = ""
        """Why it rests, or rested last."""

    def rest_s(self) -> float:
        """Seconds until the source may be asked; 0: now."""
        return max(self._until - self._now(), 0.0)

    def refused(self, reason: str, asked_s: float = 0.0) -> None:
        """It refused or did not answer; ``asked_s``: the rest that it asked for itself.

        Questions that were under way when the rest began are refused too: they prolong it only by what they ask for.
        """
        with self._lock:
            now = self._now()
            if now >= self._until:
                self._step_s = min(max(2 * self._step_s, self._first_s), self._longest_s)
                self._until = now + self._step_s * (1 + self._chance()) / 2
            if asked_s > 0:
                asked_s = min(asked_s, LONGEST_ASKED_S)
                self._until = max(self._until, now + asked_s + self._first_s * self._chance())
            self.reason = reason

    def answered(self) -> None:
        """It answered as it should. One that rests goes on resting: the answer is to an older question."""
        with self._lock:
            if self._now() >= self._until:
                self._step_s = 0.0


class Allowance:
    """How much a source takes at once, from ``least`` to ``most``. Thread-safe.

    A refused amount is a wall: below it the largest amount that was taken stands, else half. After ``STREAK`` full
    portions in a row more is tried, half-way to the wall, so a limit is found with few refusals; after ``FORGET_S``
    the wall is forgotten.
    """

    def __init__(
        self, most: int, *, least: int = 1, forget_s: float = FORGET_S, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._least = least
        self._most = most
        self._forget_s = forget_s
        self._now = now
        self._lock = threading.Lock()
        self._size = most
        self._proven = 0
        self._streak = 0
        self._wall: int | None = None
        self._wall_at = 0.0

    @property
    def size(self) -> int:
        """The portion to ask for now."""
        return self._size

    def after_refusal(self, amount: int) -> int:
        """What to try after ``amount`` was refused; smaller, unless it is the least."""
        with self._lock:
            return self._below(amount)

    def refused(self, amount: int) -> None:
        """The source took less, and not this much."""
        with self._lock:
            self._size = min(self._size, self._below(amount))
            if self._proven >= amount:
                self._proven = 0
            if self._wall is None or amount <= self._wall or self._is_old():
                self._wall, self._wall_at = amount, self._now()
            self._streak = 0

    def taken(self, amount: int) -> None:
        """The source took this much at once."""
        with self._lock:
            self._proven = max(self._proven, amount)
            if self._wall is not None and (amount >= self._wall or self._is_old()):
                self._wall = None
            self._streak = self._streak + 1 if amount >= self._size else self._streak
            if self._streak >= STREAK:
                self._streak = 0
                more = 2 * self._size if self._wall is None else (self._size + self._wall) // 2
                self._size = min(max(more, self._size), self._most)

    def _below(self, amount: int) -> int:
        return max(self._proven if self._proven < amount else 0, min(amount // 2, self._most), self._least)

    def _is_old(self) -> bool:
        return self._now() - self._wall_at > self._forget_s


def retry_after_s(headers: Mapping[str, str]) -> float:
    """Seconds that an answer asks us to wait: Retry-After as seconds or HTTP date (RFC 9110); 0 where it says nothing.

    ``headers``: names in lower case. A date counts from the answer's own Date, else from our clock, so that a clock
    of ours that is wrong does no harm. Never negative; ``Pace`` bounds it.
    """
    text = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(text):
        return float(text)
    at = _http_date(text)
    if at is None:
        return 0.0
    sent = _http_date(headers.get("date", "")) or datetime.now(UTC)
    return max((at - sent).total_seconds(), 0.0)


def _http_date(text: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(text)
    except (TypeError, ValueError, OverflowError):
        return None
    return date if date.tzinfo is not None else date.replace(tzinfo=UTC)
