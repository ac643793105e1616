"""The overall verdict, and the one name that a cause has: on the page, in ``/status.json``, in ``status``, in logs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from validator.durations import show_span
from validator.quantities import show_count
from validator.server.causes import Cause, CauseFound, find_causes
from validator.server.surroundings import Surroundings
from validator.steps.seat import Standing, describe_seat
from validator.store.view.status import Check, Status, WindowView, shown_state

WAITS_MS = 60_000
"""A window that is undecided so long after its end waits for something."""


class Level(StrEnum):
    """``status`` ends with the place in this list: 0, 1, 2."""

    HEALTHY = "healthy"
    DEGRADED = "degraded"
    OUT = "not taking part"


@dataclass(frozen=True, slots=True)
class Verdict:
    """``text``: one line; ``reasons``: one line each, the gravest first."""

    level: Level
    text: str
    reasons: tuple[str, ...] = ()


def judge(status: Status, checks: Sequence[Check], around: Surroundings) -> Verdict:
    """What an operator asks first."""
    causes = tuple(str(cause) for cause in find_causes(status))
    out = [f"{check.name}: {check.detail}" for check in checks if not check.ok]
    seat = around.seat
    if seat is not None and not seat.observer and seat.standing is not Standing.MEMBER:
        out.append(describe_seat(seat, status.now_ms))
    if seat is not None and seat.observer and seat.standing is Standing.STRANGER:
        out.append(describe_seat(seat, status.now_ms))
    if out:
        return Verdict(Level.OUT, f"{Level.OUT}: {out[0]}", (*out, *causes))
    reasons = [*causes, *_find_weaknesses(status, around)]
    if reasons:
        return Verdict(Level.DEGRADED, f"{Level.DEGRADED}: {reasons[0]}", tuple(reasons))
    return Verdict(Level.HEALTHY, f"{Level.HEALTHY}: {_describe_health(status, around)}")


def _find_weaknesses(status: Status, around: Surroundings) -> list[str]:
    found = [f"peer {peer.name or '0x' + peer.address.hex()} does not answer: {peer.error}" for peer in around.peers
             if peer.clock_ms is None]  # fmt: skip
    waiting = [w for w in status.windows if is_overdue(w, status.now_ms)]
    if waiting:
        late = show_span(status.now_ms - waiting[0].end_ms)
        found.append(f"undecided windows: {len(waiting)}, the oldest for {late}")
    if around.seen_ms and around.queues is None:
        found.append("Redis does not answer: rounds go on only when beat and workers reach it again")
    if status.damaged_sets:
        found.append(f"damaged sets on disk, not obtained again yet: {status.damaged_sets}")
    return found


def is_overdue(window: WindowView, now_ms: int) -> bool:
    return now_ms - window.end_ms > WAITS_MS and shown_state(window) not in ("agreed", "held")


def _describe_health(status: Status, around: Surroundings) -> str:
    seat = around.seat
    if seat is None:
        return "no neighbour was looked at yet"
    if seat.epoch is None:
        return seat.reason
    others = len(around.peers)
    own = int(seat.standing is Standing.MEMBER)
    answering = f"{around.reachable + own} of {show_count(others + own, 'member')}"
    ends = [w.end_ms for w in status.windows if w.end_ms > status.now_ms]
    duty = f", next cut-off in {show_span(min(ends) - status.now_ms)}" if ends else ""
    return f"{'observes, ' if seat.observer else ''}{answering}{duty}"


def waits_for(window: WindowView, status: Status, causes: Sequence[CauseFound]) -> str:
    """Why a window does not move, by the name of the cause where it has one; "" once it is agreed."""
    if shown_state(window) in ("agreed", "held"):
        return ""
    if status.now_ms < window.end_ms:
        return "its end"
    chain = [str(cause) for cause in causes if cause.name is Cause.CHAIN]
    round_ = window.round
    if round_ is None or (window.state == "open" and not round_.waits_for):
        return chain[0] if chain else "its cut-off: grace, and a block after its end"
    return round_.waits_for
