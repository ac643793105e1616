"""Messages: each valid one that reached a broker is stored once, as its publisher made it, as early as it could be.

Truth is what publishers and brokers logged when they signed: the line as it went over the wire. A delivery is a
broker's log of a line that can be queried there since ``time_ms``, or that it refused, and why. A broker's whole answer
holds what it had when it was asked, and validators ask at a cut-off or later; so what was at every broker by then was
seen by whoever got one whole answer, and what was at one of them a little earlier by whoever got that one's.
"""

from __future__ import annotations

import base64
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from tests.verifier.admission import Admission
from tests.verifier.bundles import Archived, instances_of
from tests.verifier.claims import Claim
from tests.verifier.contents import describe
from tests.verifier.findings import Findings
from tests.verifier.folder import Run, read_json, read_lines
from tests.verifier.scope import AgreedWindows, is_cut
from tests.verifier.state import States
from validator.protocol.codec.legacy_array import read_legacy_array
from validator.protocol.codec.message import make_record
from validator.protocol.codec.protobuf import read_protobuf
from validator.protocol.codec.signatures import VALID, verify_message
from validator.protocol.model import (
    Flag,
    Identity,
    InstanceId,
    InstanceKind,
    Message,
    Outcome,
    Reason,
    Record,
    SignatureType,
    StreamPart,
)

STREAMR_TYPES = (
    SignatureType.ECDSA_SECP256K1_LEGACY,
    SignatureType.ECDSA_SECP256K1_EVM,
    SignatureType.ERC_1271,
    SignatureType.ML_DSA_87,
    SignatureType.ECDSA_SECP256R1,
)
"""Every way to sign that Streamr knows."""
REASON_OF = {
    "wrong_signature": "bad_signature",
    "altered_content": "bad_signature",
    "unknown_publisher": "not_permitted",
}
"""Under which reason brokers refuse each kind of forged message."""
ENOUGH_MESSAGES = 500
"""In so many a network's publishers have signed in every way, whatever chance and loss did."""
PULLED_BEFORE_CUT_OFF_MS = 2_000
"""A message that was at one broker only this long before a cut-off could have been pulled by f + 1 validators."""

CHAIN_UNKNOWN = "chain_unknown"
"""A broker's reason to refuse what nobody can judge, while the chain was made to stand still."""
PULL_MS = 5_000
"""So long after a cut-off validators may still be asking brokers."""


@dataclass(slots=True)
class Truth:
    """What was signed, and what of it reached brokers."""

    published: dict[Identity, dict[bytes, Record]] = field(default_factory=lambda: defaultdict(dict))
    """Every form of each valid message, by its leaf: fields that the signature does not cover may differ."""
    receipts: set[Identity] = field(default_factory=set)
    delivered_ms: dict[Identity, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    """When each valid message first reached each broker, by the broker's name."""
    forms: dict[Identity, set[bytes]] = field(default_factory=lambda: defaultdict(set))
    """The forms that reached brokers."""
    forged_delivered: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Distinct forged lines that reached a broker, by kind."""

    def any_form(self, identity: Identity) -> Record:
        return next(iter(self.published[identity].values()))


def read_truth(run: Run, findings: Findings) -> Truth:
    """The logs of publishers and brokers."""
    truth = Truth()
    valid: dict[str, Record] = {}
    logs = run.folder / "logs"
    names = [broker.name for broker in run.brokers]
    delivered = {name: list(read_lines(logs / name / "deliveries.jsonl")) for name in names}
    collected = read_json(run.folder / "collected.json")
    chain_away = [(int(away["from_ms"]), int(away["to_ms"])) for away in collected.get("chain_away", ())]
    # first of all: brokers go on meanwhile, and what reaches one was in its publisher's log before
    for path in (logs / name / "published.jsonl" for name in ("publisher", "sdk", *names)):
        if path.parent.name == "sdk" and not path.exists():
            continue  # only where Streamr's SDK took part
        for entry in read_lines(path):
            line = str(entry["line"])
            record = make_record(read_form(str(entry.get("form", "array")), line))
            if verify_message(record.message) not in (VALID, Reason.ERC1271_UNKNOWN):
                raise ValueError(f"{path.name} holds a message that is not valid: {describe(record)}")
            valid[line] = record
            truth.published[record.identity][record.leaf] = record
            if entry["kind"] == "receipt":
                truth.receipts.add(record.identity)
    forged = {str(e["line"]): str(e["kind"]) for e in read_lines(logs / "publisher" / "forged.jsonl")}
    for name in names:
        for entry in delivered[name]:
            line, time_ms, refused = str(entry["line"]), int(entry["time_ms"]), entry.get("refused")
            if line in valid:
                if refused is not None:
                    said = f"valid, but refused: {refused}"
                    nobody_knew = refused == CHAIN_UNKNOWN and any(a <= time_ms <= b for a, b in chain_away)
                    findings.expect(nobody_knew, Claim.REFUSALS, f"{name}, {describe(valid[line])}", said)
                    continue
                record = valid[line]
                times = truth.delivered_ms[record.identity]
                times[name] = min(time_ms, times.get(name, time_ms))
                truth.forms[record.identity].add(record.leaf)
            elif line in forged:
                kind = forged[line]
                truth.forged_delivered[kind].add(line)
                said = f"a forged message ({kind}) is {'kept' if refused is None else f'refused as {refused}'}"
                findings.expect(refused == REASON_OF.get(kind, ""), Claim.REFUSALS, name, said)
            else:
                findings.fail(Claim.EXACT, f"{name}, deliveries", f"a line that nobody logged: {line[:120]}")
    return truth


def read_form(form: str, line: str) -> Message:
    """A logged message: the array form as it stands, the protobuf form in base64. Raises ValidatorError, ValueError."""
    if form == "array":
        return read_legacy_array(line.encode())
    if form == "protobuf":
        return read_protobuf(base64.b64decode(line, validate=True))
    raise ValueError(f"messages are logged in the form {form}, which is unknown")


def check_messages(run: Run, states: States, truth: Truth, bundles: Sequence[Archived], findings: Findings) -> None:
    """Complete, exact, once, as early as possible; nothing else."""
    archived: dict[Identity, list[tuple[int, InstanceId, Record]]] = defaultdict(list)
    for bundle in bundles:
        for instance, record in bundle.records:
            archived[record.identity].append((bundle.number, instance, record))
    for identity, places in archived.items():
        _check_archived(truth, identity, places, findings)
    windows = AgreedWindows(run, bundles)
    admission = Admission(run, states, windows)
    timing = Timing(run, bundles, windows, admission, truth)
    missing = 0
    for identity in truth.delivered_ms:
        record = truth.any_form(identity)
        where = describe(record)
        if identity in archived:
            findings.expect(True, Claim.COMPLETE, where, "")
            findings.faultless(Claim.IN_TIME, where, timing.find_faults(record, archived[identity][0][1]))
        elif timing.is_admitted(record) and not is_cut(windows, record):
            missing += 1
            findings.fail(Claim.COMPLETE, where, "reached a broker and is in no bundle")
    _check_variants(truth, bundles, windows, findings)
    _check_served(run, truth, bundles, findings)
    stored = [places[0][2].message for identity, places in archived.items() if identity in truth.delivered_ms]
    check_signature_types(Counter(message.signature_type for message in stored), len(truth.delivered_ms), findings)
    findings.figures.update(
        messages_published=len(truth.published),
        messages_unique_valid=len(truth.delivered_ms),
        messages_archived=sum(identity in truth.delivered_ms for identity in archived),
        messages_missing=missing,
        messages_late=sum(places[0][1].kind is InstanceKind.LATE for places in archived.values()),
        messages_archived_twice=sum(len(places) > 1 for places in archived.values()),
        invalid_archived=sum(not _is_published(truth, copy) for places in archived.values() for _, _, copy in places),
        forged_delivered={kind: len(lines) for kind, lines in sorted(truth.forged_delivered.items())},
    )


def check_signature_types(archived: Mapping[SignatureType, int], delivered: int, findings: Findings) -> None:
    """What lies on Arweave, by how it was signed; in a run of enough messages no way is missing."""
    for kind in STREAMR_TYPES:
        there = archived.get(kind, 0) > 0 or delivered < ENOUGH_MESSAGES
        said = f"no message is signed so, among {sum(archived.values())} archived ones"
        findings.expect(there, Claim.SIGNATURE_TYPES, kind.name, said)
    findings.figures["signature_types"] = {kind.name: archived.get(kind, 0) for kind in STREAMR_TYPES}


def _check_archived(
    truth: Truth, identity: Identity, places: Iterable[tuple[int, InstanceId, Record]], findings: Findings
) -> None:
    """One stored identity: published, delivered, unchanged, once."""
    places = list(places)
    number, instance, record = places[0]
    named = f"bundle {number}, {describe(record)}"
    spots = ", ".join(f"bundle {n} {i}" for n, i, _ in places)
    findings.expect(len(places) == 1, Claim.ONCE, named, f"is stored {len(places)} times: {spots}")
    faults = []
    if identity not in truth.published:
        faults.append(f"was never published by anybody who may: {instance}")
    else:
        if identity not in truth.delivered_ms:
            faults.append("is stored although it reached no broker")
        if not all(_is_published(truth, copy) for _, _, copy in places):
            faults.append("has other fields than its publisher made")
    findings.faultless(Claim.EXACT, named, faults)


def _is_published(truth: Truth, record: Record) -> bool:
    forms = truth.published.get(record.identity, {})
    return record.leaf in forms and forms[record.leaf].canonical == record.canonical


# --- as early as possible -------------------------------------------------------------------------


class Timing:
    """When each message could be pulled, and in which sets it therefore has to be."""

    def __init__(
        self, run: Run, bundles: Sequence[Archived], windows: AgreedWindows, admission: Admission, truth: Truth
    ) -> None:
        self._run = run
        self._bundles = {bundle.number: bundle for bundle in bundles}
        self._windows = windows
        self._admission = admission
        self._truth = truth
        collected = read_json(run.folder / "collected.json")
        self._away = [(str(a["broker"]), int(a["from_ms"]), int(a["to_ms"])) for a in collected.get("brokers_away", ())]

    def is_admitted(self, record: Record) -> bool:
        """Whether its own window or the late set of its bundle or a later one may hold it."""
        own = self._windows.of(record)
        later = [b for b in self._bundles.values() if own is not None and b.number >= own[0].number]
        return any(self._admission.admits_to_late_set(record, bundle) for bundle in later)

    def find_faults(self, record: Record, instance: InstanceId) -> list[str]:
        """A message of a late set came too late for its window, and for every late set before this one."""
        own = self._windows.of(record)
        if instance.kind is InstanceKind.WINDOW or own is None:
            return []
        first, outcome = own
        part = record.message.stream_part
        faults = []
        cut_off_ms = self._cut_off_ms(outcome.instance.number)
        incomplete = any(e.stream_part == part and Flag.INCOMPLETE in e.flags for e in outcome.entries)
        may = not incomplete and self._admission.admits_to_window(record)
        if may and self._is_pulled_by(record, cut_off_ms):
            faults.append(f"is in {instance} although it was at brokers by the cut-off of {outcome.instance}")
        for number in range(first.number, instance.number):
            if number in self._bundles and self._is_in_reach(record, outcome, first, self._bundles[number]):
                faults.append(f"is in {instance} although it could be in late:{number}")
        return faults

    def _is_pulled_by(self, record: Record, cut_off_ms: int) -> bool:
        """Whether a pull that begins at a cut-off finds it: at all brokers by then, or at one of them well before.

        A broker that was hurt on purpose just then tells nobody what it has.
        """
        away = {n for n, from_ms, to_ms in self._away if from_ms <= cut_off_ms + PULL_MS and cut_off_ms <= to_ms}
        delivered = self._truth.delivered_ms[record.identity]
        times = [time_ms for name, time_ms in delivered.items() if name not in away]
        there = {broker.name for broker in self._run.brokers} - away
        if not times:
            return False
        everywhere = len(times) == len(there) and max(times) <= cut_off_ms
        return everywhere or min(times) <= cut_off_ms - PULLED_BEFORE_CUT_OFF_MS

    def _is_in_reach(self, record: Record, outcome: Outcome, first: Archived, late: Archived) -> bool:
        """Whether the pulls before a late set find it: of the own bundle's windows once the last of them has ended,
        and of every window at its horizon. A set that had no room may have left it out."""
        if any(
            e.stream_part == record.message.stream_part and Flag.FULL in e.flags
            for e in late.manifest.late.outcome.entries
        ):
            return False
        if not self._admission.admits_to_late_set(record, late):
            return False
        closed_ms = self._cut_off_ms(late.manifest.header.last_ms)
        horizon_ms = outcome.instance.number + first.parameters.window_ms + first.parameters.horizon_ms
        by_bundle = late is first and self._is_pulled_by(record, closed_ms)
        return by_bundle or (horizon_ms <= closed_ms and self._is_pulled_by(record, horizon_ms))

    def _cut_off_ms(self, start_ms: int) -> int:
        epoch = self._run.network.epoch_at(start_ms)
        if epoch is None:
            raise ValueError(f"window {start_ms} lies in no epoch")
        return start_ms + epoch.parameters.window_ms + epoch.parameters.grace_ms


# --- what the logs say of sets --------------------------------------------------------------------


def _check_variants(truth: Truth, bundles: Sequence[Archived], windows: AgreedWindows, findings: Findings) -> None:
    """Where an entry is marked, brokers had two forms of a message of that partition (of a window: of its time)."""
    varied: set[tuple[StreamPart, int | None]] = set()
    for identity, forms in truth.forms.items():
        if len(forms) > 1:
            record = truth.any_form(identity)
            own = windows.of(record)
            varied |= {(record.message.stream_part, None)}
            varied |= {(record.message.stream_part, own[1].instance.number)} if own else set()
    for bundle in bundles:
        for instance, outcome, where in instances_of(bundle):
            at = instance.number if instance.kind is InstanceKind.WINDOW else None
            for entry in outcome.entries:
                may = Flag.VARIANTS not in entry.flags or (entry.stream_part, at) in varied
                named = f"{where}, {entry.stream_id}#{entry.partition}"
                findings.expect(may, Claim.VARIANTS, named, "is marked, and no broker had two forms of a message")


def _check_served(run: Run, truth: Truth, bundles: Sequence[Archived], findings: Findings) -> None:
    """A broker served at most what ever reached it of a window; what is free counts for nobody."""
    reached: dict[tuple[int, str], int] = defaultdict(int)
    for identity, times in truth.delivered_ms.items():
        record = truth.any_form(identity)
        window = run.network.window_at(record.message.timestamp_ms)
        if window is not None and record.message.stream_id != run.system_stream:
            for name in times:
                reached[window.start_ms, name] += record.signed_bytes
    names: Mapping[bytes, str] = {broker.address: broker.name for broker in run.brokers}
    for bundle in bundles:
        for instance, outcome, where in instances_of(bundle):
            for share in outcome.shares:
                name = names.get(share.broker, f"0x{share.broker.hex()}")
                most = reached[instance.number, name]
                said = f"{name} served {share.served} bytes, and {most} ever reached it"
                findings.expect(share.served <= most, Claim.SERVED, where, said)
