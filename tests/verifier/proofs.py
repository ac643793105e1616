"""Proofs: the contract takes one of what is stored, and none of what was altered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.verifier.bundles import Archived, instances_of
from tests.verifier.chain import Chain
from tests.verifier.claims import Claim
from tests.verifier.findings import Findings
from validator.protocol.codec.manifest import bundle_leaves
from validator.protocol.codec.outcome import outcome_digest
from validator.protocol.codec.proof import decode_proof, encode_proof, message_values, proof_values
from validator.protocol.model import Digest, Outcome, Record
from validator.protocol.proof import MessageProof, build_message, verify_message


def check_proofs(chain: Chain, bundles: Sequence[Archived], findings: Findings) -> None:
    """Of each window and late set the first, the middle and the last message, offline and by the contract."""
    for bundle in bundles:
        m = bundle.manifest
        digests = [outcome_digest(c.outcome) for c in m.windows]
        leaves = bundle_leaves(m.header, digests, outcome_digest(m.late.outcome))
        for instance, outcome, where in instances_of(bundle):
            for record in _some(bundle.records_of.get(instance, [])):
                with findings.examining(Claim.PROVABLE, where):
                    proof = _prove(bundle.records_of[instance], record, outcome, leaves)
                    verify_message(proof, record.canonical, bundle.accepted.report.bundle_root)
                    findings.faultless(Claim.PROVABLE, where, ask_contract(chain, bundle.number, record, proof))


def _some(records: Sequence[Record]) -> list[Record]:
    places = {0, len(records) // 2, len(records) - 1} if records else set()
    return [records[place] for place in sorted(places)]


def _prove(records: Sequence[Record], record: Record, outcome: Outcome, bundle: Sequence[Digest]) -> MessageProof:
    """As it arrives at somebody who was sent its bytes."""
    part = record.message.stream_part
    leaves = [r.leaf for r in records if r.message.stream_part == part]
    proof = decode_proof(encode_proof(build_message(outcome, part, leaves, leaves.index(record.leaf), bundle)))
    if not isinstance(proof, MessageProof):
        raise TypeError(f"{type(proof).__name__} is no proof of a message")
    return proof


def ask_contract(chain: Chain, number: int, record: Record, proof: MessageProof) -> Iterator[str]:
    """What is wrong with what the contract says."""
    fields, values = message_values(record.message, record.canonical), proof_values(proof)
    if chain.call("report_manager", "verifyMessage", number, fields, values) != (True,):
        yield f"the contract does not take the proof of a message of {record.message.timestamp_ms}"
    altered = (*fields[:5], fields[5] + b"x", fields[6])
    if chain.call("report_manager", "verifyMessage", number, altered, values) != (False,):
        yield f"the contract takes a proof of another content than that of {record.message.timestamp_ms}"
