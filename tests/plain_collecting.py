"""What collecting a window means, with everything in memory: the yardstick for the one that streams."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence

from tests.fakes.held_pulls import HeldPull
from validator.ports.sources import Pull, PulledRecord
from validator.protocol.codec import cbor
from validator.protocol.codec.signatures import verify_batch
from validator.protocol.codec.variants import ServeCounts
from validator.protocol.consensus.proposal import Span
from validator.protocol.consensus.window import Union, unite
from validator.protocol.model import Address, BrokerShare, Digest, Identity, Record, StreamPart
from validator.steps.admission import Checked, ContractCheck, Permission, Refused, judge_record, read_record


def serve_counts_of(checked: Checked) -> dict[Digest, ServeCounts]:
    return {leaf: ServeCounts(len(who), 0) for leaf, who in checked.served.items()}


def union_of(checked: Checked) -> Union:
    return unite(checked.records.values(), serve_counts_of(checked))


def encode_sightings(checked: Checked) -> bytes:
    return cbor.encode_object("sightings/1", [[leaf, s.served] for leaf, s in sorted(serve_counts_of(checked).items())])


def check_pulls(
    pulls: Iterable[HeldPull],
    span: Span,
    permitted: Permission,
    contract_check: ContractCheck,
    *,
    message_limit: int,
) -> Checked:
    """Check everything that brokers served for one window."""
    sources: dict[tuple[StreamPart, str, bytes], list[PulledRecord]] = defaultdict(list)
    for pull in pulls:
        for pulled in pull.records:
            sources[(pull.stream_part, pulled.form, pulled.data)].append(pulled)
    checked = Checked()
    for (part, form, data), served_as in sources.items():
        try:
            record = read_record(part, form, data, span, message_limit)
            contract_signed = judge_record(record, verify_batch([record])[0], permitted, contract_check)
        except Refused as refusal:
            sha = hashlib.sha256(data).digest()
            for pulled in served_as:
                detail = f"position {pulled.position}: {refusal.detail}"[:300]
                checked.rejections.append((sha, refusal.reason.value, pulled.broker, detail))
            continue
        if contract_signed:
            checked.contract_signed.add(record.signed_digest)
        checked.records[record.leaf] = record
        checked.served[record.leaf].update(pulled.broker for pulled in served_as)
    return checked


def broker_shares(
    records: Iterable[Record], checked: Checked, pulls: Sequence[Pull], brokers: Sequence[Address]
) -> tuple[BrokerShare, ...]:
    """Per broker the signed bytes of distinct messages it served, and of those it missed."""
    complete: dict[StreamPart, set[Address]] = defaultdict(set)
    for pull in pulls:
        if pull.complete:
            complete[pull.stream_part].add(pull.broker)
    holders: dict[Identity, set[Address]] = defaultdict(set)
    sizes: dict[Identity, int] = {}
    for record in checked.records.values():
        holders[record.identity] |= checked.served[record.leaf]
    for record in records:
        sizes[record.identity] = record.signed_bytes
    served = dict.fromkeys(brokers, 0)
    missed = dict.fromkeys(brokers, 0)
    for identity, size in sizes.items():
        who = holders[identity]
        answered = complete[(identity[0], identity[1])]
        common = 2 * len(who & answered) > len(answered)
        for broker in brokers:
            if broker in who:
                served[broker] += size
            elif common:
                missed[broker] += size
    return tuple(BrokerShare(b, served[b], missed[b]) for b in sorted(brokers) if served[b] or missed[b])
