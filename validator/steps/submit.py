"""Submit: staged transmission. Whose turn it is simulates, saves, sends; all watch until the report is final.

A saved transaction ends: it is mined, replaced, or the report is sent anew in another one. What has become of it the
chain says (``TransactionFate``); each state has its name in the outcome that operators see:

| the chain says | outcome | and then |
|---|---|---|
| mined, successful | submitted | until the contract shows the report |
| mined, reverted | made anew | simulated and sent with a new nonce, if the contract would take it |
| pending | pending; replaced | after ``STUCK_MS`` and ``STUCK_BLOCKS`` a higher fee under the same nonce |
| missing | sent again | it is unchanged, so sending it twice is harmless |
| missing, and refused for its fee | re-priced | a higher fee under the same nonce, at once |
| missing, and refused for no known reason | refused; re-priced | the same after ``REFUSED_MS``, bounded |
| it cannot be paid | no funds | waits for the operator |
| the operator's caps are reached | fee cap | waits for lower fees or another cap |
| overtaken: its nonce went to another transaction | nonce taken; made anew | after ``OVERTAKEN_MS`` a new nonce |
| unreachable: a nonce before it is free | nonce gap; made anew | after ``GAP_MS`` a new nonce |

Transactions that were replaced or given up are remembered: whichever is mined carries the same report, and of two the
contract takes one. A reorganisation that drops one makes it missing again.
"""

from __future__ import annotations

from validator.log import get_logger
from validator.ports.chain import AcceptedReport, PreparedTransaction, SendRefusal, TransactionState
from validator.ports.queue import Ending, StepResult, Task
from validator.ports.states import BundleState, ReportState
from validator.ports.stored import StoredBundle, StoredReport
from validator.protocol.codec.report import decode_report
from validator.protocol.errors import RemoteFault, TransientError
from validator.protocol.model import StorageId
from validator.protocol.quorum import quorum
from validator.steps.attestations import packed_signatures, valid_signatures
from validator.steps.context import Context
from validator.steps.cut_points import require_bundle

log = get_logger(__name__)

WATCH_MS = 1_000
STUCK_MS = 30_000
"""A transaction that is pending for longer is replaced with a higher fee."""
STUCK_BLOCKS = 3
"""So many blocks must have passed it over: while the chain stands still a higher fee helps nobody."""
REFUSED_MS = 10_000
"""A transaction that is refused for longer, without a word of its fee, is priced anew."""
OVERTAKEN_MS = 15_000
"""How long a nonce must be seen as taken: one of our receipts may only be late, at a source that lags."""
GAP_MS = 60_000
"""How long a nonce before ours must be free: whoever has a transaction for it may send it yet."""
SAY_AGAIN_MS = 60_000
WAIT_MS = 10_000
"""Between two looks at what an operator, or the market, must change."""


def submit(context: Context, number: int) -> StepResult:
    """Send the attested report in our turn; stop when somebody else's is there."""
    bundle = require_bundle(context.store, number)
    task, key = Task.REPORT_SUBMIT, str(number)
    if bundle.state == BundleState.FINAL or context.chain.fetch_report(number) is not None:
        context.store.due.done(task, key)
        context.store.due.schedule(Task.REPORT_WATCH, key, context.clock.now_ms())
        return StepResult(Ending.SKIPPED, "the contract has it already")
    context.store.due.postpone(task, key, context.clock.now_ms() + WATCH_MS)
    if number and context.chain.fetch_report(number - 1) is None:
        return StepResult(Ending.NOT_YET, f"report {number - 1} is not accepted")
    sent = context.store.reports.load_transactions(number)
    if sent:
        followed = _follow(context, number, sent)
        if followed is not None:
            return followed
    config = context.cut_points.epoch_config(bundle.epoch)
    for stored in context.store.reports.load_reports(number):
        signatures = valid_signatures(context, config, stored)
        if len(signatures) < quorum(len(config.committee)):
            continue
        bitmap, packed = packed_signatures(config, signatures)
        transaction = context.sender.prepare(decode_report(stored.body), bitmap, packed)
        context.store.reports.save_transaction(number, stored.storage_id, transaction)
        result = _send(context, number, transaction, Ending.MADE_ANEW if sent else Ending.SUBMITTED)
        context.store.reports.save_report_state(number, stored.storage_id, ReportState.SUBMITTED)
        log.info("report.submitted", report=number, transaction=transaction.hash, signers=len(signatures))
        return result
    return StepResult(Ending.NOT_YET, "no report has a quorum")


def watch(context: Context, number: int) -> StepResult:
    """Follow the contract until the report is in a finalised block; then the bundle is final."""
    bundle = require_bundle(context.store, number)
    task, key = Task.REPORT_WATCH, str(number)
    if bundle.state == BundleState.FINAL:
        context.store.due.done(task, key)
        return StepResult(Ending.ALREADY_DONE)
    context.store.due.postpone(task, key, context.clock.now_ms() + WATCH_MS)
    accepted = context.chain.fetch_report(number)
    if accepted is None:
        return StepResult(Ending.NOT_YET, "not accepted")
    heads = context.store.chain.load_head()
    if heads is None or heads[1].number < accepted.block_number:
        return StepResult(Ending.NOT_YET, "accepted, not final")
    _finish(context, bundle, accepted)
    context.store.due.done(task, key)
    return StepResult(Ending.FINAL, f"block {accepted.block_number}")


def _follow(context: Context, number: int, sent: list[PreparedTransaction]) -> StepResult | None:
    """What became of our transactions, and what follows from it; None: the report is to be sent anew."""
    newest, fate = sent[-1], context.sender.fetch_fate(sent)
    if fate.state == TransactionState.MINED:
        if fate.success:
            return StepResult(Ending.SUBMITTED, f"block {fate.block_number}")
        log.warning("report.reverted", report=number, transaction=fate.hash)
        context.store.reports.save_report_state(number, _carried(context, number), ReportState.REVERTED)
        return None
    if fate.state in _GIVEN_UP:
        name, patience_ms = _GIVEN_UP[fate.state]
        if not context.noticed.lasts(patience_ms, f"{fate.state}/{newest.hash.hex()}"):
            return StepResult(name, f"{newest.nonce} of 0x{newest.hash.hex()}")
        log.warning("report.made_anew", report=number, nonce=newest.nonce, reason=name)
        return None
    if fate.state == TransactionState.MISSING:
        return _send(context, number, newest, Ending.SENT_AGAIN)
    if _is_passed_over(context, newest):
        return _replace(context, number, newest, Ending.REPLACED)
    return StepResult(Ending.PENDING, f"0x{fate.hash.hex()}")


_GIVEN_UP = {
    TransactionState.OVERTAKEN: (Ending.NONCE_TAKEN, OVERTAKEN_MS),
    TransactionState.UNREACHABLE: (Ending.NONCE_GAP, GAP_MS),
}


def _send(context: Context, number: int, transaction: PreparedTransaction, name: Ending) -> StepResult:
    """Send what is saved; where it is refused, what follows from that."""
    try:
        context.sender.send(transaction)
    except RemoteFault as fault:
        reason = fault.fields.get("reason", SendRefusal.REFUSED)
        if reason in (SendRefusal.FUNDS, SendRefusal.FEE_CAP):
            return _wait(context, number, Ending.NO_FUNDS if reason == SendRefusal.FUNDS else Ending.FEE_CAP, fault)
        if reason == SendRefusal.FEES or context.noticed.lasts(REFUSED_MS, f"refused/{transaction.hash.hex()}"):
            return _replace(context, number, transaction, Ending.RE_PRICED, reason)
        log.debug("report.refused", report=number, reason=str(fault))
        return StepResult(Ending.REFUSED, str(fault))
    return StepResult(name, f"0x{transaction.hash.hex()}")


def _replace(
    context: Context, number: int, transaction: PreparedTransaction, name: Ending, refusal: str = ""
) -> StepResult:
    """The same call and nonce for more, saved and sent. Refused again, it is missing at the next look."""
    try:
        replacement = context.sender.replace(transaction, refusal)
    except RemoteFault as fault:
        if fault.fields.get("reason") != SendRefusal.FEE_CAP:
            raise
        return _wait(context, number, Ending.FEE_CAP, fault)
    context.store.reports.save_transaction(number, _carried(context, number), replacement)
    try:
        context.sender.send(replacement)
    except RemoteFault as fault:
        return StepResult(name, f"0x{replacement.hash.hex()}, refused too: {fault}")
    return StepResult(name, f"0x{replacement.hash.hex()}")


def _wait(context: Context, number: int, name: Ending, fault: RemoteFault) -> StepResult:
    """Nothing can be done here: look again later, and say so now and then."""
    now_ms = context.clock.now_ms()
    context.store.due.postpone(Task.REPORT_SUBMIT, str(number), now_ms + WAIT_MS)
    if context.noticed.once_per(SAY_AGAIN_MS, f"said/{name}/{number}"):
        log.error("report.not_sent", report=number, outcome=name, reason=str(fault))
    return StepResult(name, str(fault))


def _carried(context: Context, number: int) -> StorageId:
    """Storage id of the report that our transaction carries: the one marked so, else (a process died before it marked
    it) the first that has a quorum, which is the one that was taken."""
    reports = context.store.reports.load_reports(number)
    likely = (ReportState.SUBMITTED, ReportState.REVERTED, ReportState.ATTESTED)
    return next(r.storage_id for state in likely for r in reports if r.state == state)


def _is_passed_over(context: Context, transaction: PreparedTransaction) -> bool:
    """Whether blocks were made without this pending transaction for long enough."""
    heads = context.store.chain.load_head()
    number = heads[0].number if heads is not None else 0
    pending = f"pending/{transaction.hash.hex()}"
    first = context.noticed.first(pending, number)
    return context.noticed.lasts(STUCK_MS, pending) and number >= first + STUCK_BLOCKS


def _finish(context: Context, bundle: StoredBundle, accepted: AcceptedReport) -> None:
    reports: list[StoredReport] = context.store.reports.load_reports(bundle.number)
    mine = next((r for r in reports if r.digest == accepted.report_digest), None)
    if mine is None and reports:
        log.error("report.foreign", report=bundle.number, digest=accepted.report_digest)
    if mine is not None:
        gas_used = None
        try:
            gas_used = context.chain.fetch_gas_used(accepted.transaction)
        except (TransientError, RemoteFault) as error:  # the page lacks a number; the report is final all the same
            log.debug("receipt.not_fetched", report=bundle.number, reason=str(error))
        context.store.reports.save_final(bundle.number, accepted.storage_id, accepted.transaction, gas_used)
    context.store.bundles.save_bundle_state(bundle.number, BundleState.FINAL)
    for task in (Task.BUNDLE_UPLOAD, Task.BUNDLE_VERIFY, Task.REPORT_ATTEST, Task.REPORT_SUBMIT):
        context.store.due.done(task, str(bundle.number))
    log.info("report.final", report=bundle.number, block=accepted.block_number)
