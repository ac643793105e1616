"""``--kill-one``: one validator's processes get SIGKILL, come back on the same database, and vote again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from validator.devnet.children import Children
from validator.devnet.collect import Operators
from validator.devnet.places import ValidatorProcess
from validator.devnet.plan import GRACE_MS, KillPlan
from validator.devnet.process import now_ms
from validator.devnet.progress import Progress, read_field, read_items
from validator.ports.states import UploadState

SETTLED_UPLOADS = (UploadState.VERIFIED, UploadState.DROPPED)


@dataclass(slots=True)
class Crash:
    """Carries out the plan, step by step, from the run's loop."""

    plan: KillPlan
    validator: ValidatorProcess
    progress: Progress
    killed_ms: int | None = None
    started_ms: int | None = None
    returned_ms: int | None = None
    votes: dict[int, list[str]] = field(default_factory=dict)
    """Window start to own statements, windows that began after the return."""

    def advance(self, children: Children, operators: Operators) -> list[str]:
        """Do what is due; lines to show."""
        now = now_ms()
        if self.killed_ms is None:
            if now < self.plan.kill_ms or self._has_upload_under_way():
                return []
            children.kill(self.validator.process_names)
            self.killed_ms = now
            self.progress.away.add(self.validator.name)
            self.progress.note_change(time.monotonic())
            return [f"{self.validator.name} killed in window {self.progress.index_of(now)}"]
        if self.started_ms is None:
            if now < self.restart_ms:
                return []
            self.validator.start(children)
            self.started_ms = now
            self.progress.note_change(time.monotonic())
            return [f"{self.validator.name} started again in window {self.progress.index_of(now)}"]
        if self.returned_ms is None:
            if self.validator.name in operators.fetch_unready([self.validator.name]):
                return []
            self.returned_ms = now_ms()
            self.progress.away.discard(self.validator.name)
            self.progress.note_change(time.monotonic())
            return [f"{self.validator.name} is back in window {self.progress.index_of(self.returned_ms)}"]
        return []

    @property
    def restart_ms(self) -> int:
        """Two cut-offs after the kill, wherever that came to lie."""
        assert self.killed_ms is not None
        window_ms = self.progress.options.window_ms
        index = self.progress.index_of(self.killed_ms)
        return max(self.plan.restart_ms, self.progress.genesis_ms + (index + 2) * window_ms + GRACE_MS + 500)

    def collect(self, operators: Operators) -> None:
        """Fetch its votes in the windows that it could vote in. Raises TransientError or RemoteFault."""
        status = operators.fetch_status(self.validator.name)
        for window in read_items(status, "windows"):
            start_ms = read_field(window, "start_ms", int, 0)
            if self.returned_ms is not None and start_ms >= self.returned_ms:
                self.votes[start_ms] = operators.fetch_votes(self.validator.name, start_ms)

    @property
    def back_at_ms(self) -> int | None:
        """Start of the first window that began after the return."""
        if self.returned_ms is None:
            return None
        window_ms = self.progress.options.window_ms
        return self.progress.genesis_ms + (self.progress.index_of(self.returned_ms) + 1) * window_ms

    def windows_away(self) -> int:
        """How many cut-offs passed between the kill and the return."""
        if self.killed_ms is None or self.returned_ms is None:
            return 0
        first = self.progress.index_of(self.killed_ms - GRACE_MS)
        return max(0, self.progress.index_of(self.returned_ms - GRACE_MS) - first)

    def describe(self) -> dict[str, Any] | None:
        """For collected.json, ``back_at_window`` as the window's start, times in Unix ms; None if nobody was killed."""
        if self.killed_ms is None:
            return None
        return {
            "validator": self.validator.name,
            "signal": "SIGKILL",
            "at_window": self.progress.index_of(self.killed_ms),
            "windows_away": self.windows_away(),
            "back_at_window": -1 if self.back_at_ms is None else self.back_at_ms,
            "killed_ms": self.killed_ms,
            "back_ms": -1 if self.returned_ms is None else self.returned_ms,
        }

    def summarise(self) -> dict[str, Any] | None:
        """For the summary: windows by their number."""
        told = self.describe()
        if told is not None:
            back = self.back_at_ms
            del told["killed_ms"], told["back_ms"]
            told["back_at_window"] = None if back is None else self.progress.index_of(back)
        return told

    def statements(self) -> Mapping[str, list[str]]:
        """All votes after the return, hex, under the validator's name."""
        return {self.validator.name: [text for texts in self.votes.values() for text in texts]}

    def _has_upload_under_way(self) -> bool:
        status = self.progress.statuses.get(self.validator.name, {})
        return any(
            upload.get("own") is True and read_field(upload, "state", str, "") not in SETTLED_UPLOADS
            for bundle in read_items(status, "bundles")
            for upload in read_items(bundle, "uploads")
        )
