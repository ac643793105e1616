"""Attest: build the report for each upload read back whole, sign it, tell the committee.

The report is a pure function of agreed data and chain state; only what was checked here is signed. Attestation is not
exclusive in the storage id: the contract accepts the first that reaches a quorum.
"""

from __future__ import annotations

from validator.log import get_logger
from validator.ports.peers import Attestation, Gossip
from validator.ports.queue import Ending, StepResult, Task
from validator.ports.states import BundleState, ReportState
from validator.ports.stored import StoredBundle, StoredReport
from validator.protocol.codec.arweave_text import encode_storage_id
from validator.protocol.codec.manifest import encode_ledger
from validator.protocol.codec.report import decode_report, encode_report, report_digest, report_payload
from validator.protocol.hashing import order_committee
from validator.protocol.quorum import quorum
from validator.quantities import show_count
from validator.steps.attestations import signatures_over, valid_signatures
from validator.steps.context import Context
from validator.steps.cut_points import EpochConfig, require_bundle
from validator.steps.drafts import draft_report
from validator.steps.uploads import confirmed_uploads

log = get_logger(__name__)

AGAIN_MS = 2_000


def attest(context: Context, number: int) -> StepResult:
    """Sign the report of each confirmed upload and repeat the signatures until the report is final."""
    bundle = require_bundle(context.store, number)
    task, key = Task.REPORT_ATTEST, str(number)
    if bundle.state == BundleState.FINAL:
        context.store.due.done(task, key)
        return StepResult(Ending.ALREADY_DONE)
    config = context.cut_points.epoch_config(bundle.epoch)
    context.store.due.postpone(task, key, context.clock.now_ms() + AGAIN_MS)
    known = {r.storage_id: r for r in context.store.reports.load_reports(number)}
    for announced in confirmed_uploads(context, bundle):
        announcement = announced.announcement
        if announcement.storage_id not in known:
            report, ledger = draft_report(context, bundle, announcement.storage_id, announcement.signer)
            digest = report_digest(report, context.network.chain_id, context.network.contracts.report_manager)
            stored = StoredReport(
                number,
                announcement.storage_id,
                digest,
                encode_report(report),
                encode_ledger(ledger),
                ReportState.DRAFTED,
            )
            context.store.reports.save_report(stored)
            known[announcement.storage_id] = stored
            log.info(
                "report.drafted", report=number, storage_id=encode_storage_id(announcement.storage_id), digest=digest
            )
    own = [_sign(context, stored) for stored in known.values()] if context.identity.voting_key is not None else []
    if own:
        gossip = Gossip(attestations=tuple(own))
        context.asking.in_background(context.peers.broadcast, gossip, context.identity.others(config.committee))
    attested = [s for s in known.values() if _promote(context, config, s)]
    if attested:
        _schedule_turn(context, bundle, config)
        return StepResult(Ending.ATTESTED, f"{len(attested)} of {len(known)} storage ids")
    return StepResult(Ending.SIGNED, show_count(len(own), "report"))


def transmit_subject(number: int) -> bytes:
    """What the transmitters' permutation is keyed by, beside the config digest."""
    return b"transmit" + number.to_bytes(8, "big")


def _sign(context: Context, stored: StoredReport) -> Attestation:
    """Our signature over the report: the one that is kept, if any, since the key may lie far away."""
    key = context.identity.voting_key
    assert key is not None
    held = signatures_over(context, (key.address,), stored.digest).get(key.address)
    if held is not None:
        return Attestation(stored.number, stored.digest, key.address, held)
    payload = report_payload(
        decode_report(stored.body), context.network.chain_id, context.network.contracts.report_manager
    )
    attestation = Attestation(stored.number, stored.digest, key.address, key.sign_payload(payload))
    context.store.reports.save_attestation(attestation)
    return attestation


def _promote(context: Context, config: EpochConfig, stored: StoredReport) -> bool:
    if len(valid_signatures(context, config, stored)) < quorum(len(config.committee)):
        return False
    if stored.state == ReportState.DRAFTED:
        context.store.reports.save_report_state(stored.number, stored.storage_id, ReportState.ATTESTED)
        report = decode_report(stored.body)
        log.info("report.attested", report=stored.number, treasury=report.treasury, streams=len(report.streams))
    return True


def _schedule_turn(context: Context, bundle: StoredBundle, config: EpochConfig) -> None:
    """Staged transmission: our place in the permutation says when we send if nobody else has. No seat, no turn."""
    task, key = Task.REPORT_SUBMIT, str(bundle.number)
    order = order_committee(config.committee, config.digest, transmit_subject(bundle.number))
    if context.identity.address not in order or key in context.store.due.pending(task):
        return
    place = order.index(context.identity.address)
    turn_ms = context.clock.now_ms() + place * config.parameters.transmit_stage_ms
    context.store.due.schedule(task, key, turn_ms)
    if place == 0:
        context.tasks.enqueue(task, key)
