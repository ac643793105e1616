"""The order of the work, in one place: a newcomer starts here.

    window ends      window.collect ─ round.advance ─────────────── agreed, held ─┐
                     window.collect.horizon, some time later: what came too late  │
    bundle is long   late.collect ─── round.advance (of its late set) ────────────┤
    enough           wallet.look (what it will cost)                              │
                     bundle.seal ◀────────────────────────────────────────────────┘
                     bundle.upload (whose turn it is) ─ bundle.verify (everybody)
                     report.attest ─ report.submit (whose turn it is) ─ report.watch: final

Each task is a row here: when it is due, its step, and the tasks that follow from it. What is due stands in the
database; a message only says "look again", and beat's ``round.due`` queues every row whose time has passed, so a lost
message heals itself. Each step is safe to run twice and to stop anywhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from validator.log import get_logger
from validator.ports.queue import Ending, StepResult, Task
from validator.protocol.errors import AlreadyDone, Disagreement, RemoteFault, TransientError, UnknownOutcome
from validator.protocol.model import InstanceId
from validator.steps import (
    advance,
    attest,
    catchup,
    collect,
    dispatch,
    late,
    look_at_wallet,
    mend,
    obtain,
    retention,
    seal,
    submit,
    upload,
    verify,
)
from validator.steps.context import Context

log = get_logger(__name__)

SOON_MS = 300
LATER_MS = 2_000
LATEST_MS = 10_000
"""Most that a row waits since the sources it needs rest: others may have answered by then."""

Run = Callable[..., StepResult]


@dataclass(frozen=True, slots=True)
class Stage:
    """One task of the pipeline.

    ``queue``: where its workers are. ``soon``: "not yet" brings it back after 0.3 s, else after 2 s. ``has_row``: it
    has a row in ``due``. ``exclusive``: a second thread of a process leaves the key to the first.
    """

    queue: str
    due: str
    run: Run
    follows: tuple[Task, ...] = ()
    soon: bool = False
    has_row: bool = True
    exclusive: bool = True


def _of_number(step: Callable[[Context, int], StepResult]) -> Run:
    """A step whose key is a number: the start of a window, or a bundle's."""
    return lambda context, key: step(context, int(key))


def _of_all(step: Callable[[Context], StepResult]) -> Run:
    """A step that has one key, or none."""
    return lambda context, _key: step(context)


def _advance(context: Context, key: str, wake_ms: int | None = None) -> StepResult:
    return advance.advance(context, InstanceId.parse(key), wake_ms)


PIPELINE: Mapping[Task, Stage] = {
    Task.ROUND_DUE: Stage(
        queue="round",
        due="at every tick of beat",
        run=_of_all(dispatch.dispatch_due),
        follows=(Task.WINDOW_COLLECT, Task.ROUND_CATCH_UP, Task.SETS_MEND),
        has_row=False,
    ),
    Task.WINDOW_COLLECT: Stage(
        queue="collect",
        due="window end + grace, once the chain has passed it",
        run=_of_number(collect.collect_window),
        follows=(Task.ROUND_ADVANCE, Task.WINDOW_COLLECT_HORIZON),
        soon=True,
    ),
    Task.WINDOW_COLLECT_HORIZON: Stage(
        queue="collect",
        due="window end + horizon",
        run=_of_number(collect.collect_at_horizon),
    ),
    Task.ROUND_ADVANCE: Stage(
        queue="round",
        due="at a statement of a peer, at the instance's own wake time, and when another is decided",
        run=_advance,
        follows=(Task.ROUND_OBTAIN, Task.LATE_COLLECT, Task.WALLET_LOOK, Task.BUNDLE_SEAL),
        soon=True,
        exclusive=False,
    ),
    Task.ROUND_OBTAIN: Stage(
        queue="round",
        due="when a statement or a decision names what is not here",
        run=obtain.obtain,
        follows=(Task.ROUND_ADVANCE,),
        has_row=False,
    ),
    Task.ROUND_CATCH_UP: Stage(
        queue="round",
        due="while instances are overdue that others may have decided",
        run=_of_all(catchup.catch_up),
        follows=(Task.ROUND_ADVANCE,),
    ),
    Task.LATE_COLLECT: Stage(
        queue="collect",
        due="when a bundle's windows are held",
        run=_of_number(late.collect_late),
        follows=(Task.ROUND_ADVANCE,),
        soon=True,
    ),
    Task.BUNDLE_SEAL: Stage(
        queue="bundle",
        due="when a bundle's late set is held, and after the bundle before it",
        run=_of_number(seal.seal),
        follows=(Task.BUNDLE_UPLOAD, Task.BUNDLE_VERIFY, Task.REPORT_WATCH),
        soon=True,
    ),
    Task.BUNDLE_UPLOAD: Stage(
        queue="bundle",
        due="in our turn, one stage after another's",
        run=_of_number(upload.upload),
        follows=(Task.BUNDLE_VERIFY,),
    ),
    Task.BUNDLE_VERIFY: Stage(
        queue="bundle",
        due="when an upload is announced, and every second until the report is final",
        run=_of_number(verify.verify),
        follows=(Task.REPORT_ATTEST, Task.BUNDLE_UPLOAD),
    ),
    Task.WALLET_LOOK: Stage(
        queue="bundle",
        due="when a bundle's windows are held, before it is sealed",
        run=_of_number(look_at_wallet.look_at_wallet),
    ),
    Task.REPORT_ATTEST: Stage(
        queue="report",
        due="when an upload is verified and deep enough, and at another's signature",
        run=_of_number(attest.attest),
        follows=(Task.REPORT_SUBMIT,),
    ),
    Task.REPORT_SUBMIT: Stage(
        queue="report",
        due="in our turn, once a quorum has signed",
        run=_of_number(submit.submit),
        follows=(Task.REPORT_WATCH,),
    ),
    Task.REPORT_WATCH: Stage(
        queue="report",
        due="every second from sealing until the report is in a final block",
        run=_of_number(submit.watch),
    ),
    Task.SETS_MEND: Stage(
        queue="bundle",
        due="while a set is damaged",
        run=_of_all(mend.mend),
        follows=(Task.ROUND_ADVANCE,),
    ),
    Task.RETENTION_SWEEP: Stage(
        queue="bundle",
        due="every minute",
        run=_of_all(retention.sweep),
        has_row=False,
    ),
}


def perform(context: Context, task: Task, stage: Stage, key: str, *arguments: int) -> StepResult:
    """Run a step once: its own result, or what its error means for the task's row.

    "Not yet" brings the row back soon or later, or when the sources it needs have rested; so do a peer's or gateway's
    faults. Anything else fails the task in red, and beat's lease brings the row back.
    """
    try:
        return stage.run(context, key, *arguments)
    except AlreadyDone as error:
        return StepResult(Ending.ALREADY_DONE, str(error))
    except (TransientError, UnknownOutcome) as error:
        asked_ms = min(int(1000 * error.fields.get("retry_after_s", 0.0)), LATEST_MS)
        wake_ms = context.clock.now_ms() + max(SOON_MS if stage.soon else LATER_MS, asked_ms)
        if stage.has_row and _postpone(context, task, key, wake_ms) and stage.soon:
            context.tasks.enqueue(task, key, wake_ms)
        log.debug("step.not_yet", reason=str(error))
        return StepResult(Ending.NOT_YET, str(error))
    except (RemoteFault, Disagreement) as error:
        if stage.has_row:
            _postpone(context, task, key, context.clock.now_ms() + LATER_MS)
        log.warning("step.refused", reason=str(error))
        return StepResult(Ending.REFUSED, str(error))


def _postpone(context: Context, task: Task, key: str, wake_ms: int) -> bool:
    """Whether the row has its time; where the database does not take it, beat's lease brings it again."""
    try:
        context.store.due.postpone(task, key, wake_ms)
    except TransientError as error:
        log.debug("row.not_postponed", reason=str(error))
        return False
    return True
