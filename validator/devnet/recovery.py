"""``--chaos`` carried out: one injury after the other while windows flow, and how long after each all was well again.

All is well when every validator is ready, knows a fresh block, names no cause outside and has nothing lying undone, and
every broker is ready: every look for six seconds, since what a process leaves undone shows only after a while.
Measured is from the end of the injury (the process is started again, goes on, the clock is right) to the first of these
looks.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import httpx

from validator.devnet.chaos import INJURIES, Ground
from validator.devnet.collect import Operators
from validator.devnet.display import clean
from validator.devnet.plan import ChaosKind
from validator.devnet.process import now_ms
from validator.devnet.progress import Progress, read_field

LOOK_S = 0.5
WELL_MS = 6_000
LIMIT_S = 90.0
"""Who is not well by then has not recovered."""
UNDONE_MS = 3_000
"""What is due is looked for every second in these networks."""
BLOCK_MS = 6_000
ASK_S = 2.0


@dataclass(slots=True)
class Case:
    """One injury: times in Unix ms, None as long as it is not so far."""

    kind: ChaosKind
    whom: str
    began_ms: int
    ended_ms: int | None = None
    recovered_ms: int | None = None
    waits_for: str = ""
    is_given_up: bool = False

    @property
    def is_closed(self) -> bool:
        return self.is_given_up or self.recovered_ms is not None

    @property
    def recovered_after_s(self) -> float | None:
        if self.ended_ms is None or self.recovered_ms is None:
            return None
        return (self.recovered_ms - self.ended_ms) / 1000


class Chaos:
    """All injuries of a run, from the run's loop."""

    def __init__(self, kinds: Sequence[ChaosKind], ground: Ground, progress: Progress, operators: Operators) -> None:
        self.cases: list[Case] = []
        self._left = list(kinds)
        self._ground = ground
        self._progress = progress
        self._operators = operators
        self._under_way: Iterator[float] | None = None
        self._next_ms = progress.genesis_ms + progress.options.window_ms // 2
        self._next_look_s = 0.0
        self._well: list[int] = []
        self._waits_for = ""
        self._client = httpx.Client(timeout=ASK_S, trust_env=False)

    @property
    def is_over(self) -> bool:
        """Nothing more will be hurt, and nothing is waited for."""
        return not self._left and (not self.cases or self.cases[-1].is_closed)

    def close(self) -> None:
        self._client.close()

    def advance(self) -> list[str]:
        """Do what is due; lines to show."""
        now = now_ms()
        if self._under_way is not None:
            return self._go_on(now) if now >= self._next_ms else []
        if self.cases and not self.cases[-1].is_closed:
            return self._look(self.cases[-1])
        if not self._left or now < self._next_ms:
            return []
        if not self.cases:
            return self._wait_until_well(now)
        return self._begin(now)

    def _wait_until_well(self, now: int) -> list[str]:
        """Nothing is hurt before everybody is up and has been well for as long as after an injury: what is left of the
        start would be taken for damage."""
        self._next_ms = now + 1_000
        if reason := self._find_unwell():
            self._well = []
            is_new, self._waits_for = reason != self._waits_for, reason
            return [f"chaos: begins once all is well: {clean(reason)}"] if is_new else []
        self._well.append(now)
        return self._begin(now) if now - self._well[0] >= WELL_MS else []

    def _begin(self, now: int) -> list[str]:
        kind = self._left.pop(0)
        self._ground.turn = len(self.cases)
        injury = INJURIES[kind]
        case = Case(kind, injury.of(self._ground), now)
        self.cases.append(case)
        self._under_way = injury.hurt(self._ground)
        said = f"chaos: {kind} in window {self._progress.index_of(now)}: {case.whom}: {injury.what}"
        return [said, *self._go_on(now)]

    def _go_on(self, now: int) -> list[str]:
        assert self._under_way is not None
        self._progress.note_change(time.monotonic())
        case = self.cases[-1]
        lasts_s = next(self._under_way, None)
        if lasts_s is not None:
            self._next_ms = now + round(lasts_s * 1000)
            return []
        self._under_way, self._well, self._next_look_s = None, [], 0.0
        case.ended_ms = now_ms()
        return [f"chaos: {case.kind} ends in window {self._progress.index_of(case.ended_ms)}: {case.whom}"]

    def _look(self, case: Case) -> list[str]:
        """Ask everybody, every half second."""
        assert case.ended_ms is not None
        if time.monotonic() < self._next_look_s:
            return []
        self._next_look_s = time.monotonic() + LOOK_S
        asked_ms = now_ms()
        case.waits_for = self._find_unwell()
        self._well = [] if case.waits_for else [*self._well, asked_ms]
        if self._well and asked_ms - self._well[0] >= WELL_MS:
            case.recovered_ms = self._well[0]
        elif asked_ms - case.ended_ms > LIMIT_S * 1000:
            case.is_given_up = True
        else:
            return []
        self._progress.note_change(time.monotonic())
        window_ms = self._progress.options.window_ms
        index = self._progress.index_of(now_ms())
        self._next_ms = self._progress.genesis_ms + (index + 1) * window_ms + window_ms // 2
        return [f"chaos: {describe_case(case)}"]

    def _find_unwell(self) -> str:
        """The first thing that is not well; "" where all is."""
        progress, brokers = self._progress, self._ground.brokers
        for name, reason in self._operators.fetch_unready(progress.names).items():
            return f"{name}: {reason}"
        statuses = self._operators.fetch_statuses(progress.names)
        for name in progress.names:
            if reason := find_ill(statuses.get(name)):
                return f"{name}: {reason}"
        for broker in brokers:
            if not self._is_broker_ready(broker.operator_url):
                return f"{broker.name}: is not ready"
        return ""

    def _is_broker_ready(self, url: str) -> bool:
        with suppress(httpx.HTTPError):
            return self._client.get(f"{url}/readyz").status_code == 200
        return False

    # --- what is told -----------------------------------------------------------------------------

    def summarise(self) -> list[dict[str, Any]]:
        """For the summary: windows by their number."""
        return [
            {
                "kind": str(case.kind),
                "whom": case.whom,
                "what": INJURIES[case.kind].what,
                "at_window": self._progress.index_of(case.began_ms),
                "seconds": None if case.ended_ms is None else round((case.ended_ms - case.began_ms) / 1000, 1),
                "recovered_after_s": case.recovered_after_s,
            }
            for case in self.cases
        ]

    def brokers_away(self) -> list[dict[str, Any]]:
        """For collected.json: which broker did not answer from when until when, Unix ms."""
        names = [broker.name for broker in self._ground.brokers]
        return [
            {"broker": case.whom, "from_ms": case.began_ms, "to_ms": case.recovered_ms or now_ms()}
            for case in self.cases
            if case.whom in names
        ]

    def chain_away(self) -> list[dict[str, Any]]:
        """The same of the chain: meanwhile no broker can say whether a message may be kept."""
        return [
            {"from_ms": case.began_ms, "to_ms": case.recovered_ms or now_ms()}
            for case in self.cases
            if case.kind is ChaosKind.PAUSE_CHAIN
        ]

    def failures(self, statuses: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Injuries that nothing recovered from, and double votes: whatever is hurt, nobody votes twice."""
        found = [
            f"chaos: {case.kind}: {case.whom}: not well within {LIMIT_S:.0f} s: {case.waits_for}"
            for case in self.cases
            if case.recovered_ms is None
        ]
        for name, status in statuses.items():
            if double := read_field(status, "evidence_count", int, 0):
                found.append(f"chaos: {name} has noticed double votes: {double}")
        return found


def find_ill(status: Mapping[str, Any] | None) -> str:
    """Why a validator is not well by its status; "" where it is."""
    if status is None:
        return "does not answer"
    for cause in read_field(status, "causes", list, []):
        return str(cause)
    now = read_field(status, "now_ms", int, 0)
    due_ms = read_field(status, "oldest_due_ms", int, now)
    if now - due_ms > UNDONE_MS:
        return f"work lies undone for {(now - due_ms) / 1000:.0f} s"
    seen_ms = read_field(read_field(status, "head", dict, {}), "seen_ms", int, 0)
    if now - seen_ms > BLOCK_MS:
        return f"no block for {(now - seen_ms) / 1000:.0f} s"
    return ""


def describe_case(case: Case) -> str:
    """What, whom, recovered after how long."""
    after_s = case.recovered_after_s
    if after_s is None:
        return f"{case.kind}: {case.whom}: not recovered: {clean(case.waits_for)}"
    return f"{case.kind}: {case.whom}: recovered after {after_s:.1f} s"
