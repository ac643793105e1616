"""The task queue, and how a step says that it ended."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from validator.protocol.errors import TransientError


class Ending(StrEnum):
    """How steps end, as Flower and logs show it. ``round.advance`` ends with the step that the round is in."""

    AGREED = "agreed"
    ALREADY_DONE = "already done"
    ALREADY_HERE = "already here"
    ATTESTED = "attested"
    CAUGHT_UP = "caught up"
    COLLECTED = "collected"
    DECIDED_BEFORE = "decided before"
    ESTIMATED = "estimated"
    FEE_CAP = "fee cap"
    FINAL = "final"
    FOLLOWED = "followed"
    IN_HAND = "in hand"
    LEVEL = "level"
    LOOKED = "looked"
    MADE_ANEW = "made anew"
    MALFORMED = "malformed"
    MENDED = "mended"
    NONCE_GAP = "nonce gap"
    NONCE_TAKEN = "nonce taken"
    NOTHING_TO_DO = "nothing to do"
    NOT_OPENED_YET = "not opened yet"
    NOT_YET = "not yet"
    NO_FUNDS = "no funds"
    OBTAINED = "obtained"
    OVERTAKEN = "overtaken"
    PENDING = "pending"
    PRUNED = "pruned"
    PULLED = "pulled"
    REFUSED = "refused"
    REPLACED = "replaced"
    RE_PRICED = "re-priced"
    SEALED = "sealed"
    SEEDED = "seeded"
    SENT_AGAIN = "sent again"
    SIGNED = "signed"
    SKIPPED = "skipped"
    SUBMITTED = "submitted"
    SUPERSEDED = "superseded"
    SWEPT = "swept"
    UNDECIDED = "undecided"
    UNKNOWN_WINDOW = "unknown window"
    VERIFIED = "verified"
    WAITING_ITS_TURN = "waiting its turn"
    WHOLE = "whole"


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
