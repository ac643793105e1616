"""Messages: each valid one that reached a broker is stored exactly once, as its publisher made it; no other is.

Truth is what publishers and brokers logged when they signed: the line as it went over the wire. A delivery is a
broker's log of a line that can be queried there since ``time_ms``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.verifier.bundles import Archived
from tests.verifier.findings import Findings
from tests.verifier.folder import Run, read_lines
from validator.codec.legacy_array import read_legacy_array
from validator.codec.message import make_record
from validator.codec.signatures import VALID, verify_message
from validator.model import Identity, InstanceId, InstanceKind, Record

PULLED_BEFORE_CUT_OFF_MS = 2_000
"""A message that was at a broker this long before the cut-off could have been pulled by f + 1 validators."""


@dataclass(slots=True)
class Truth:
    """What was signed, and what of it reached brokers."""

    published: dict[Identity, Record] = field(default_factory=dict)
    receipts: set[Identity] = field(default_factory=set)
    delivered_ms: dict[Identity, int] = field(default_factory=dict)
    """First delivery of each valid message."""
    forged_delivered: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Distinct forged lines that reached a broker, by kind."""


def read_truth(run: Run, findings: Findings) -> Truth:
    """The logs of publishers and brokers."""
    truth = Truth()
    valid: dict[str, Identity] = {}
    logs = run.folder / "logs"
    for path in (logs / "publisher" / "published.jsonl", *(logs / name / "published.jsonl" for name in run.brokers)):
        for entry in read_lines(path):
            line = str(entry["line"])
            record = make_record(read_legacy_array(line.encode()))
            if verify_message(record.message) is not VALID:
                raise ValueError(f"{path.name} holds a message that is not valid: {describe(record)}")
            valid[line] = record.identity
            truth.published[record.identity] = record
            if entry["kind"] == "receipt":
                truth.receipts.add(record.identity)
    forged = {str(e["line"]): str(e["kind"]) for e in read_lines(logs / "publisher" / "forged.jsonl")}
    for name in run.brokers:
        for entry in read_lines(logs / name / "deliveries.jsonl"):
            line, time_ms = str(entry["line"]), int(entry["time_ms"])
            if line in valid:
                identity = valid[line]
                truth.delivered_ms[identity] = min(time_ms, truth.delivered_ms.get(identity, time_ms))
            elif line in forged:
                truth.forged_delivered[forged[line]].add(line)
            else:
                findings.fail(f"{name}, deliveries", f"a line that nobody logged as published: {line[:120]}")
    return truth


def check_messages(run: Run, truth: Truth, bundles: list[Archived], findings: Findings) -> None:
    """Complete, exact, once, in the right window; nothing else."""
    archived: dict[Identity, list[tuple[int, InstanceId, Record]]] = defaultdict(list)
    for bundle in bundles:
        for instance, record in bundle.records:
            archived[record.identity].append((bundle.number, instance, record))
    for identity, places in archived.items():
        _check_archived(truth, identity, places, findings)
    missing = [i for i in truth.delivered_ms if i not in archived]
    for identity in missing:
        findings.fail(describe(truth.published[identity]), "reached a broker and is in no bundle")
    for identity, time_ms in truth.delivered_ms.items():
        if identity in archived:
            _check_own_window(run, truth.published[identity], time_ms, archived[identity][0][1], findings)
    stored = [i for i in archived if i in truth.delivered_ms]
    findings.figures.update(
        messages_published=len(truth.published),
        messages_unique_valid=len(truth.delivered_ms),
        messages_archived=len(stored),
        messages_missing=len(missing),
        messages_late=sum(places[0][1].kind is InstanceKind.LATE for places in archived.values()),
        messages_archived_twice=sum(len(places) > 1 for places in archived.values()),
        invalid_archived=sum(not _is_published(truth, copy) for places in archived.values() for _, _, copy in places),
        forged_delivered={kind: len(lines) for kind, lines in sorted(truth.forged_delivered.items())},
    )


def _check_archived(
    truth: Truth, identity: Identity, places: Iterable[tuple[int, InstanceId, Record]], findings: Findings
) -> None:
    """One stored identity: published, delivered, unchanged, once."""
    places = list(places)
    number, instance, record = places[0]
    claim = f"bundle {number}, {describe(record)}"
    if len(places) > 1:
        where = ", ".join(f"bundle {n} {i}" for n, i, _ in places)
        findings.fail(claim, f"is stored {len(places)} times: {where}")
    original = truth.published.get(identity)
    if original is None:
        findings.fail(claim, f"was never published by anybody who may: {instance}")
        return
    findings.expect(identity in truth.delivered_ms, claim, "is stored although it reached no broker")
    for _, _, copy in places:
        findings.expect(copy.canonical == original.canonical, claim, "has other fields than its publisher made")


def _is_published(truth: Truth, record: Record) -> bool:
    original = truth.published.get(record.identity)
    return original is not None and original.canonical == record.canonical


def _check_own_window(run: Run, record: Record, time_ms: int, instance: InstanceId, findings: Findings) -> None:
    window = run.network.window_at(record.message.timestamp_ms)
    epoch = run.network.epoch_at(record.message.timestamp_ms)
    if window is None or epoch is None:
        findings.fail(describe(record), "lies in no window of the network")
        return
    own = InstanceId(InstanceKind.WINDOW, window.start_ms)
    if instance.kind is InstanceKind.WINDOW:
        findings.expect(instance == own, describe(record), f"is in {instance}, not in {own}")
        return
    cut_off_ms = window.end_ms + epoch.parameters.grace_ms
    early = time_ms <= cut_off_ms - PULLED_BEFORE_CUT_OFF_MS
    before = f"{cut_off_ms - time_ms} ms before the cut-off"
    findings.expect(not early, describe(record), f"is in {instance} although it was at a broker {before} of {own}")


def describe(record: Record) -> str:
    """Which message: its message id, short."""
    m = record.message
    return (
        f"message {m.stream_id}/{m.partition} at {m.timestamp_ms}.{m.sequence_number} "
        f"of 0x{m.publisher_id.hex()[:8]} chain {m.msg_chain_id}"
    )
