"""Contents: each message may be where it is, and marks and evidence of a set follow from its messages."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

from tests.verifier.admission import Admission
from tests.verifier.bundles import Archived, instances_of
from tests.verifier.claims import Claim
from tests.verifier.findings import Findings
from tests.verifier.folder import Run
from tests.verifier.observations import Used, contract_signed
from tests.verifier.scope import AgreedWindows
from tests.verifier.state import States
from validator.protocol.codec.signatures import VALID, verify_message
from validator.protocol.model import Digest, Equivocation, Flag, InstanceId, InstanceKind, Outcome, Reason, Record


def check_contents(run: Run, states: States, bundles: Sequence[Archived], used: Used, findings: Findings) -> None:
    """Of every stored message time, signature and permission; of every set its equivocations."""
    admission = Admission(run, states, AgreedWindows(run, bundles))
    for bundle in bundles:
        for instance, outcome, where in instances_of(bundle):
            records = bundle.records_of.get(instance, [])
            _check_equivocations(outcome, records, bundle.parameters.evidence_limit, where, findings)
            listed = contract_signed(used.get(instance, ()), len(bundle.accepted.committee))
            for record in records:
                named = f"{where}, {describe(record)}"
                _check_time(run, bundle, instance, record, named, findings)
                blocks = list(admission.blocks_of(record, outcome))
                with findings.examining(Claim.SIGNATURES, named):
                    faults = _find_signature_faults(states, record, blocks, listed)
                    findings.faultless(Claim.SIGNATURES, named, faults)
                with findings.examining(Claim.PERMISSIONS, named):
                    may = admission.admits(record, instance, bundle)
                    findings.expect(may, Claim.PERMISSIONS, named, "is of somebody who might not publish there")


def _check_time(
    run: Run, bundle: Archived, instance: InstanceId, record: Record, named: str, findings: Findings
) -> None:
    """In its own window; of a late set before the end of the bundle, within horizon and margin, not before genesis."""
    at_ms = record.message.timestamp_ms
    window = run.network.window_at(at_ms)
    faults = []
    if window is None:
        faults.append("lies in no window of the network")
    elif instance.kind is InstanceKind.WINDOW and window.start_ms != instance.number:
        faults.append(f"belongs into {InstanceId(InstanceKind.WINDOW, window.start_ms)}")
    elif instance.kind is InstanceKind.LATE:
        reach_ms = bundle.parameters.horizon_ms + bundle.parameters.margin_ms
        if not bundle.end_ms - reach_ms <= at_ms < bundle.end_ms:
            faults.append(f"lies further than {reach_ms} ms before the end of the bundle, or after it")
    findings.faultless(Claim.TIMES, named, faults)


def _find_signature_faults(
    states: States, record: Record, blocks: Sequence[Digest], listed: set[Digest]
) -> Iterator[str]:
    verdict = verify_message(record.message)
    if verdict is VALID:
        return
    if verdict is not Reason.ERC1271_UNKNOWN:
        yield f"is not signed by its publisher: {verdict.value}"
        return
    m = record.message
    if record.signed_digest not in listed:
        yield "is signed by a contract, and too few observers found that valid"
    elif not any(states.is_signed_by_contract(m.publisher_id, record.signed_digest, m.signature, b) for b in blocks):
        yield "is signed by a contract, which says it did not"


# --- one message id, two contents -------------------------------------------------------------------


def _check_equivocations(
    outcome: Outcome, records: Sequence[Record], limit: int, where: str, findings: Findings
) -> None:
    found = find_equivocations(records)
    said = f"{len(outcome.evidence)} pieces of evidence and counts {outcome.evidence_count}"
    findings.expect(
        (outcome.evidence, outcome.evidence_count) == (tuple(found[:limit]), len(found)),
        Claim.EQUIVOCATIONS,
        where,
        f"has {said}, where its messages give {len(found)}",
    )
    parts = {(e.stream_id, e.partition) for e in found}
    for entry in outcome.entries:
        marked = Flag.EQUIVOCATION in entry.flags
        word = "is marked although nobody equivocated" if marked else "is not marked although somebody equivocated"
        named = f"{where}, {entry.stream_id}#{entry.partition}"
        findings.expect(marked == (entry.stream_part in parts), Claim.EQUIVOCATIONS, named, word)


def find_equivocations(records: Sequence[Record]) -> list[Equivocation]:
    """One per message id that names two signed contents: the two smallest leaves of it, in order."""
    forms: dict[tuple[object, ...], list[Record]] = defaultdict(list)
    for record in records:
        forms[record.message.message_id].append(record)
    found = []
    for members in forms.values():
        if len({record.signed_digest for record in members}) > 1:
            first, second = sorted(record.leaf for record in members)[:2]
            found.append(Equivocation(*members[0].message.stream_part, first, second))
    return sorted(found, key=lambda e: (e.stream_id.encode(), e.partition, e.first, e.second))


def describe(record: Record) -> str:
    """Which message: its message id, short."""
    m = record.message
    return (
        f"message {m.stream_id}/{m.partition} at {m.timestamp_ms}.{m.sequence_number} "
        f"of 0x{m.publisher_id.hex()[:8]} chain {m.msg_chain_id}"
    )
