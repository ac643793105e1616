"""What our own database gives and takes: rows of windows, instances, bundles, uploads and reports, as values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from validator.ports.states import AnnouncedState, BundleState, ReportState, UploadState, WindowState
from validator.ports.storage import PreparedUpload
from validator.protocol.model import (
    Address,
    Block,
    Digest,
    InstanceId,
    Root,
    Statement,
    StorageId,
    UploadAnnouncement,
    VoteQuorum,
    Window,
)


@dataclass(frozen=True, slots=True)
class StoredWindow:
    """A window as this validator has it."""

    window: Window
    epoch: int
    state: WindowState
    observation: Digest | None = None
    bundle: int | None = None


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """Everything of one instance that the core needs: its progress and all statements held."""

    instance: InstanceId
    config_digest: Digest
    version: int
    progress: bytes | None
    own: tuple[Statement, ...]
    statements: tuple[Statement, ...]
    quorums: tuple[VoteQuorum, ...]
    certificate: VoteQuorum | None
    wake_ms: int | None
    opened_ms: int
    waits_for: str = ""


@dataclass(frozen=True, slots=True)
class InstanceChange:
    """What one step of an instance is to save: its state, and what follows from it, in one transaction.

    ``wake_ms``: when to look again, None for never. ``round``, ``step``, ``leader`` and ``waits_for`` repeat of the
    progress what is asked without decoding it.
    """

    progress: bytes
    wake_ms: int | None
    said: Sequence[Statement] = ()
    quorums: Sequence[VoteQuorum] = ()
    certificate: VoteQuorum | None = None
    evidence: Sequence[tuple[Statement, Statement]] = ()
    round: int = 0
    step: str = ""
    leader: Address | None = None
    waits_for: str = ""


@dataclass(frozen=True, slots=True)
class InstanceHead:
    """The row of one instance: enough to tell whether it is to be worked on. ``older``: undecided instances before it;
    ``certified``: a certificate is held, looked at or not (told of those that are not the oldest)."""

    config_digest: Digest
    decided: bool
    round: int
    wake_ms: int | None
    queued: bool
    older: int
    certified: bool


@dataclass(frozen=True, slots=True)
class Accepted:
    """What became of statements and quorums of peers.

    ``enqueue``: open instances with news, whose advance is to be queued; ``kept``: statements that are held now, news
    or not; ``dropped``: how many are not, by reason; ``foreign``: news with our own signature that the journal lacks.
    """

    enqueue: tuple[InstanceId, ...]
    kept: tuple[Statement, ...]
    dropped: Mapping[str, int]
    foreign: tuple[Statement, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredBundle:
    """A bundle on its way."""

    number: int
    config_digest: Digest
    epoch: int
    first_ms: int
    last_ms: int
    end_ms: int
    state: BundleState
    previous_root: Root | None = None
    root: Root | None = None
    path: str = ""
    size: int = 0
    sha256: Digest | None = None
    manifest: bytes = b""
    sealed_ms: int = 0
    messages: int = 0


@dataclass(frozen=True, slots=True)
class StoredUpload:
    """Own upload of a bundle.

    ``replaces``: the attempt that was dropped before this one was signed. ``posted_to``: the host that took it first.
    """

    number: int
    attempt: int
    prepared: PreparedUpload
    state: UploadState
    replaces: int | None = None
    posted_to: str = ""


@dataclass(frozen=True, slots=True)
class AnnouncedUpload:
    """An announced upload.

    ``tries``: attempts to read it back that came to no verdict; the next comes ever later. ``checked_ms``: the last.
    ``read_confirmations``: how many it had when it was read back whole, the last time.
    """

    announcement: UploadAnnouncement
    state: AnnouncedState
    reason: str = ""
    announced_ms: int = 0
    tries: int = 0
    checked_ms: int = 0
    read_confirmations: int = 0

    def is_read_at(self, confirmations: int) -> bool:
        """Whether it was read back whole when it was so deep."""
        return self.state == AnnouncedState.VERIFIED and self.read_confirmations >= confirmations


@dataclass(frozen=True, slots=True)
class StoredReport:
    """A report with one storage id."""

    number: int
    storage_id: StorageId
    digest: Digest
    body: bytes
    ledger: bytes
    state: ReportState
    transaction: Digest | None = None


@dataclass(frozen=True, slots=True)
class DamagedSet:
    """A set that was held and is no more; ``newest_ms``: the timestamp of its newest message."""

    set_root: Root
    newest_ms: int


@dataclass(frozen=True, slots=True)
class CutPoint:
    """A stored B: the block for a time."""

    at_s: int
    block: Block


@dataclass(frozen=True, slots=True)
class Reorganisation:
    """A stored cut point that the chain has replaced. ``signed``: instances that were observed or agreed by it."""

    at_s: int
    number: int
    stored_hash: Digest
    present_hash: Digest
    depth: int
    signed: str
    found_ms: int


@dataclass(frozen=True, slots=True)
class Settled:
    """Up to and including this bundle every report is final; ``end_ms``: the end of its last window."""

    number: int
    end_ms: int
