"""What the screen shows, as values, and how a window's state is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from validator.ports.states import WindowState
from validator.protocol.model import Address, Digest, InstanceId


@dataclass(frozen=True, slots=True)
class RoundView:
    """One instance: where it stands, who leads, how many members have spoken in its round, what it waits for."""

    instance: InstanceId
    state: str
    round: int
    step: str
    leader: Address | None
    votes: Mapping[str, int]
    waits_for: str
    opened_ms: int
    decided_ms: int | None


@dataclass(frozen=True, slots=True)
class WindowView:
    """One window and, once it is collected, its round."""

    start_ms: int
    end_ms: int
    epoch: int
    state: str
    bundle: int | None
    round: RoundView | None


@dataclass(frozen=True, slots=True)
class CertificateView:
    """A decision and who signed it."""

    instance: InstanceId
    round: int
    value: bytes
    signers: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class UsedObservations:
    """The observations that a decided outcome used: their digests, and (statement, body) of those that are kept."""

    named: tuple[Digest, ...]
    held: tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class UploadView:
    """An announced or own upload of a bundle."""

    storage_id: bytes
    by: Address | None
    state: str
    reason: str
    own: bool


@dataclass(frozen=True, slots=True)
class BundleView:
    """One bundle and its uploads."""

    number: int
    epoch: int
    state: str
    first_ms: int
    last_ms: int
    messages: int
    size: int
    root: bytes | None
    sealed_ms: int
    uploads: tuple[UploadView, ...]


@dataclass(frozen=True, slots=True)
class ReportView:
    """One report with one storage id, and who attested it."""

    number: int
    storage_id: bytes
    digest: bytes
    state: str
    signers: tuple[Address, ...]
    transaction: bytes | None
    gas_used: int | None


@dataclass(frozen=True, slots=True)
class BrokerView:
    """Signed bytes served and missed in the newest own observations, and distinct records refused, by reason."""

    address: Address
    served: int
    missed: int
    invalid: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class MemberView:
    """Statements of one member held for the windows shown, by kind, and evidence against it."""

    address: Address
    statements: Mapping[str, int]
    evidence: int


@dataclass(frozen=True, slots=True)
class EvidenceView:
    """Two statements of one member where only one is allowed."""

    signer: Address
    instance: InstanceId
    round: int
    kind: str
    first: bytes
    second: bytes
    noticed_ms: int


@dataclass(frozen=True, slots=True)
class EventView:
    """A warning or alarm of this validator's log."""

    at_ms: int
    level: str
    event: str
    fields: str


@dataclass(frozen=True, slots=True)
class HeadView:
    """A block as the head watcher saw it last."""

    number: int
    timestamp_s: int
    seen_ms: int


@dataclass(frozen=True, slots=True)
class GatewayView:
    """A gateway's circuit, as the process saw it that asked last: "closed" or "open", and after what."""

    host: str
    state: str
    failures: int
    error: str
    changed_ms: int


@dataclass(frozen=True, slots=True)
class WalletView:
    """Winston in our wallet, and what a header costs: a base, and a step for each chunk begun."""

    wallet_address: bytes
    balance: int
    base: int
    step: int
    seen_ms: int


@dataclass(frozen=True, slots=True)
class PaymentsView:
    """What was paid for. ``headers``: of all members, in blocks, of ``bundles``; of ``twice`` more than one was.

    ``own_``: winston of our headers in blocks, and messages and bytes of their bundles.
    """

    headers: int
    bundles: int
    twice: int
    own_winston: int
    own_messages: int
    own_bytes: int


@dataclass(frozen=True, slots=True)
class ParticipationView:
    """Of ``windows`` that have ended: how many are decided; of these, whose outcome used our observation, whose
    certificate has our signature, where our last prevote named something else, and which have incomplete entries."""

    windows: int = 0
    decided: int = 0
    observed: int = 0
    included: int = 0
    signed: int = 0
    disagreed: int = 0
    incomplete: int = 0
    messages: int = 0


@dataclass(frozen=True, slots=True)
class Status:
    """One screen: the whole validator at one moment."""

    now_ms: int
    address: Address | None
    network: str
    observer: bool
    head: HeadView | None
    finalised: HeadView | None
    due: int
    window_counts: Mapping[str, int]
    windows: tuple[WindowView, ...]
    late: tuple[RoundView, ...]
    certificates: tuple[CertificateView, ...]
    bundle_counts: Mapping[str, int]
    bundles: tuple[BundleView, ...]
    report_counts: Mapping[str, int]
    reports: tuple[ReportView, ...]
    brokers: tuple[BrokerView, ...]
    members: tuple[MemberView, ...]
    invalid_rejected: Mapping[str, int]
    evidence: tuple[EvidenceView, ...]
    evidence_count: int
    events: tuple[EventView, ...]
    sets: int
    set_bytes: int
    damaged_sets: int
    reorganisations: int
    late_candidates: int
    gateways: tuple[GatewayView, ...] = ()
    wallet: WalletView | None = None
    payments: PaymentsView = PaymentsView(0, 0, 0, 0, 0, 0)
    participation: ParticipationView = ParticipationView()
    """Of the newest windows."""
    oldest_due_ms: int | None = None
    """Since when the row that is due the longest is."""


@dataclass(frozen=True, slots=True)
class Check:
    """One condition of readiness."""

    name: str
    ok: bool
    detail: str


def shown_state(window: WindowView) -> str:
    """The window's rung, a decided or observed round being higher than a window that was only collected."""
    round_ = window.round
    if window.state in (WindowState.OPEN, WindowState.COLLECTED) and round_ is not None:
        if round_.state == "decided":
            return WindowState.AGREED
        if window.state == WindowState.COLLECTED and round_.step not in ("", "waiting"):
            return "observed"
    return window.state
