"""Submit: staged transmission. Whose turn it is simulates, saves, sends; all watch until the report is final."""

from __future__ import annotations

from validator.codec.report import decode_report
from validator.consensus.quorum import quorum
from validator.errors import TransientError
from validator.log import get_logger
from validator.model import StorageId
from validator.ports import AcceptedReport, PreparedTransaction, StepResult, StoredBundle, StoredReport
from validator.steps.attest import packed_signatures, valid_signatures
from validator.steps.context import Context, epoch_config, require_bundle

log = get_logger(__name__)

WATCH_MS = 1_000
STUCK_MS = 30_000
"""A transaction that is pending for longer is replaced with a higher fee."""


def submit(context: Context, number: int) -> StepResult:
    """Send the attested report in our turn; stop when somebody else's is there."""
    bundle = require_bundle(context, number)
    task, key = "report.submit", str(number)
    if bundle.state == "final" or context.chain.fetch_report(number) is not None:
        context.store.due.done(task, key)
        context.store.due.schedule("report.watch", key, context.clock.now_ms())
        return StepResult("skipped", "the contract has it already")
    context.store.due.postpone(task, key, context.clock.now_ms() + WATCH_MS)
    if number and context.chain.fetch_report(number - 1) is None:
        return StepResult("not yet", f"report {number - 1} is not accepted")
    transaction = context.store.reports.load_transaction(number)
    if transaction is not None:
        followed = _follow(context, number, transaction)
        if followed is not None:
            return followed
    config = epoch_config(context, bundle.epoch)
    for stored in context.store.reports.load_reports(number):
        signatures = valid_signatures(context, config, stored)
        if len(signatures) < quorum(len(config.committee)):
            continue
        bitmap, packed = packed_signatures(config, signatures)
        transaction = context.sender.prepare(decode_report(stored.body), bitmap, packed)
        context.store.reports.save_transaction(number, stored.storage_id, transaction)
        context.sender.send(transaction)
        context.store.reports.save_report_state(number, stored.storage_id, "submitted")
        log.info("report.submitted", report=number, transaction=transaction.hash.hex(), signers=len(signatures))
        return StepResult("submitted", transaction.hash.hex())
    return StepResult("not yet", "no report has a quorum")


def watch(context: Context, number: int) -> StepResult:
    """Follow the contract until the report is in a finalised block; then the bundle is final."""
    bundle = require_bundle(context, number)
    task, key = "report.watch", str(number)
    if bundle.state == "final":
        context.store.due.done(task, key)
        return StepResult("already done")
    context.store.due.postpone(task, key, context.clock.now_ms() + WATCH_MS)
    accepted = context.chain.fetch_report(number)
    if accepted is None:
        return StepResult("not yet", "not accepted")
    heads = context.store.chain.load_head()
    if heads is None or heads[1].number < accepted.block_number:
        return StepResult("not yet", "accepted, not final")
    _finish(context, bundle, accepted)
    context.store.due.done(task, key)
    return StepResult("final", f"block {accepted.block_number}")


def _follow(context: Context, number: int, transaction: PreparedTransaction) -> StepResult | None:
    """What became of our transaction: sent again if it is lost, replaced when stuck; None if it was reverted."""
    status = context.sender.fetch_status(transaction.hash)
    if status.state == "mined":
        if status.success:
            return StepResult("submitted", f"block {status.block_number}")
        log.warning("report.reverted", report=number, transaction=transaction.hash.hex())
        return None
    if status.state == "missing":
        context.sender.send(transaction)
        return StepResult("sent again", transaction.hash.hex())
    if _is_stuck(context, transaction):
        replacement = context.sender.replace(transaction)
        context.store.reports.save_transaction(number, _carried(context, number), replacement)
        context.sender.send(replacement)
        return StepResult("replaced", replacement.hash.hex())
    return StepResult("pending", transaction.hash.hex())


def _carried(context: Context, number: int) -> StorageId:
    """Storage id of the report that our transaction carries: the one marked so, else (a process died before it marked
    it) the first that has a quorum, which is the one that was taken."""
    reports = context.store.reports.load_reports(number)
    marked = [r for r in reports if r.state == "submitted"] or [r for r in reports if r.state == "attested"]
    return marked[0].storage_id


def _is_stuck(context: Context, transaction: PreparedTransaction) -> bool:
    """Pending for longer than ``STUCK_MS`` since this process first saw it so."""
    now_ms = context.clock.now_ms()
    with context.lock:
        until_ms = context.in_flight.setdefault(f"pending/{transaction.hash.hex()}", now_ms + STUCK_MS)
    return now_ms >= until_ms


def _finish(context: Context, bundle: StoredBundle, accepted: AcceptedReport) -> None:
    reports: list[StoredReport] = context.store.reports.load_reports(bundle.number)
    mine = next((r for r in reports if r.digest == accepted.report_digest), None)
    if mine is None and reports:
        log.error("report.foreign", report=bundle.number, digest=accepted.report_digest.hex())
    if mine is not None:
        transaction = context.store.reports.load_transaction(bundle.number)
        gas_used = 0
        if transaction is not None:
            try:
                gas_used = context.sender.fetch_status(transaction.hash).gas_used
            except TransientError as error:
                log.debug("receipt.not_fetched", report=bundle.number, reason=str(error))
        context.store.reports.save_final(
            bundle.number, accepted.storage_id, transaction.hash if transaction is not None else None, gas_used
        )
    context.store.bundles.save_bundle_state(bundle.number, "final")
    for task in ("bundle.upload", "bundle.verify", "report.attest", "report.submit"):
        context.store.due.done(task, str(bundle.number))
    log.info("report.final", report=bundle.number, block=accepted.block_number)
