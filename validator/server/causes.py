"""What stands still outside, by its one name and since when: on the page, in ``status``, in the log, in metrics."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from validator.durations import show_span
from validator.store.view.status import Status

FROZEN_MS = 30_000
"""So old a newest block means that the chain, or what we read it by, stands still."""


class Cause(StrEnum):
    """What may stand still outside: one name on the page, in ``status``, in the log, in metrics and alerts."""

    CHAIN = "chain frozen"
    GATEWAY = "gateway frozen"


@dataclass(frozen=True, slots=True)
class CauseFound:
    """``what``: which of several; ``text``: the whole sentence, with since when."""

    name: Cause
    what: str
    since_ms: int
    text: str

    def __str__(self) -> str:
        return self.text


def find_causes(status: Status) -> tuple[CauseFound, ...]:
    """What stands still outside, each by its name and since when."""
    causes = []
    head = status.head
    if head is not None:
        stood_ms = head.timestamp_s * 1000
        if status.now_ms - stood_ms > FROZEN_MS:
            age = show_span(status.now_ms - stood_ms)
            text = f"{Cause.CHAIN}: block {head.number} is the newest since {show_time(stood_ms)}, {age}"
            causes.append(CauseFound(Cause.CHAIN, "the chain", stood_ms, text))
    for gateway in status.gateways:
        if gateway.state == "open":
            since = f"since {show_time(gateway.changed_ms)}, {show_span(status.now_ms - gateway.changed_ms)}"
            text = f"{Cause.GATEWAY}: {gateway.host} {since}: {gateway.error}"
            causes.append(CauseFound(Cause.GATEWAY, gateway.host, gateway.changed_ms, text))
    return tuple(causes)


def show_time(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%H:%M:%S UTC")
