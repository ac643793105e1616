"""The task queue, and how a step says that it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from validator.protocol.errors import TransientError


@dataclass(frozen=True, slots=True)
class StepResult:
    """How a step ended, for Flower and logs: a name such as "agreed", "not yet", "already done", and a detail."""

    name: str
    detail: str = ""
    fields: Mapping[str, object] = field(default_factory=dict)


class NotYet(TransientError):
    """Something the step needs is not there yet; the row's wake time brings it back."""


class Task(StrEnum):
    """The names of all tasks; ``steps.pipeline`` says what each does, and what follows."""

    ROUND_DUE = "round.due"
    WINDOW_COLLECT = "window.collect"
    WINDOW_COLLECT_HORIZON = "window.collect.horizon"
    LATE_COLLECT = "late.collect"
    ROUND_ADVANCE = "round.advance"
    ROUND_OBTAIN = "round.obtain"
    ROUND_CATCH_UP = "round.catch_up"
    BUNDLE_SEAL = "bundle.seal"
    BUNDLE_UPLOAD = "bundle.upload"
    BUNDLE_VERIFY = "bundle.verify"
    WALLET_LOOK = "wallet.look"
    REPORT_ATTEST = "report.attest"
    REPORT_SUBMIT = "report.submit"
    REPORT_WATCH = "report.watch"
    SETS_MEND = "sets.mend"
    RETENTION_SWEEP = "retention.sweep"


class Tasks(Protocol):
    """The queue: a message only says "look again", its arguments are ids."""

    def enqueue(self, task: str, key: str, eta_ms: int | None = None) -> None:
        """Queue ``task`` for ``key``, now or at a time at most 60 s ahead. Never raises: beat repairs what is lost."""
