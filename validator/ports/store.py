"""Our own database and files, by room."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from validator.ports.chain import PreparedTransaction
from validator.ports.peers import Attestation
from validator.ports.states import AnnouncedState, BundleState, ReportState, UploadState, WindowState
from validator.ports.storage import Tariff
from validator.ports.stored import (
    Accepted,
    AnnouncedUpload,
    CutPoint,
    DamagedSet,
    InstanceChange,
    InstanceHead,
    Reorganisation,
    Settled,
    StoredBundle,
    StoredInstance,
    StoredReport,
    StoredUpload,
    StoredWindow,
)
from validator.protocol.columns import MessageSet, Page
from validator.protocol.errors import TransientError
from validator.protocol.model import (
    Address,
    Block,
    ChainState,
    Digest,
    Identity,
    InstanceId,
    PartitionEntry,
    Record,
    Root,
    Statement,
    StorageId,
    StreamPart,
    UploadAnnouncement,
    VoteQuorum,
    Window,
)


class StaleState(TransientError):
    """Another worker saved this instance first; load it again."""


PRUNED = "pruned"
"""Reason of a TransientError where chain sources lack old state; and how the wait that follows from it begins."""


class Due(Protocol):
    """What is to be looked at again, and when: one row per (task, key)."""

    def schedule(self, task: str, key: str, wake_ms: int) -> None:
        """Set the wake time; an earlier one already there stands."""

    def postpone(self, task: str, key: str, wake_ms: int) -> None:
        """Set the wake time, whatever stands."""

    def done(self, task: str, key: str) -> None: ...

    def pending(self, task: str) -> list[str]:
        """Keys of a task that are not done, whenever they are due."""

    def claim(self, now_ms: int, limit: int, lease_ms: int) -> list[tuple[str, str]]:
        """Rows whose time has passed, oldest first; their wake time moves to now + lease, so a lost one returns."""


class Windows(Protocol):
    def open_window(self, window: Window, epoch: int) -> bool:
        """False if it is there already."""

    def load_window(self, start_ms: int) -> StoredWindow | None: ...

    def last_opened(self) -> int | None:
        """Start of the newest window in the database."""

    def load_windows(self, first_ms: int, until_ms: int) -> list[StoredWindow]:
        """Windows with first_ms <= start < until_ms, in order."""

    def load_undecided(self, until_ms: int, limit: int) -> list[int]:
        """Starts of windows that ended by ``until_ms`` and are not agreed here, oldest first."""

    def save_collected(
        self,
        start_ms: int,
        observation: bytes,
        record_shas: Collection[tuple[bytes, str, Address, str]],
        serve_counts: bytes = b"",
    ) -> None:
        """The own observation's body and how often each record was seen, once; later calls change nothing."""

    def forget_etags(self, start_ms: int) -> None:
        """The next pull asks for the whole window."""

    def load_serve_counts(self, start_ms: int) -> bytes | None: ...

    def save_late_observation(self, number: int, observation: bytes) -> None:
        """The own observation of a bundle's late set, once."""

    def load_late_observation(self, number: int) -> Digest | None: ...

    def save_state(self, start_ms: int, state: WindowState) -> None: ...

    def load_etags(self, start_ms: int) -> Mapping[tuple[Address, StreamPart], str]: ...

    def save_etags(self, start_ms: int, etags: Mapping[tuple[Address, StreamPart], str]) -> None: ...

    def save_rejections(self, start_ms: int, rejections: Collection[tuple[bytes, str, Address, str]]) -> None:
        """(SHA-256 of the record, reason, broker, detail): distinct records are counted once per reason."""


class Instances(Protocol):
    """Instances, statements and the vote journal (design: persist, then speak)."""

    def create_instance(self, instance: InstanceId, config_digest: Digest, now_ms: int) -> bool: ...

    def load_head(self, instance: InstanceId) -> InstanceHead | None: ...

    def load_instance(self, instance: InstanceId) -> StoredInstance | None: ...

    def load_unopened(self, instance: InstanceId, config_digest: Digest) -> StoredInstance:
        """What is held of an instance that has no row here."""

    def save_instance(self, stored: StoredInstance, change: InstanceChange, now_ms: int) -> None:
        """One transaction: own votes into the journal, state on condition of ``stored.version``.

        Raises:
            StaleState: another worker was first.
            InvariantError: the journal holds another vote under the same key.
        """

    def save_statements(self, statements: Sequence[Statement]) -> int:
        """How many were new."""

    def accept(
        self,
        statements: Sequence[Statement],
        bodies: Mapping[Digest, bytes],
        quorums: Sequence[VoteQuorum],
        own: Address | None = None,
    ) -> Accepted:
        """Keep what peers sent and is verified, as far as the core would keep it, in one transaction; and what
        ``own`` has signed that the journal lacks, whatever the core would do with it."""

    def save_observations(self, observations: Sequence[tuple[Statement, bytes]]) -> None:
        """Keep verified observations that an outcome names, beside the two that are kept of each signer."""

    def load_observations(
        self, instance: InstanceId, config_digest: Digest, digests: Collection[Digest]
    ) -> list[Statement]:
        """The statements held, whoever signed them, that name these observations."""

    def save_quorum(self, quorum: VoteQuorum) -> bool: ...

    def save_body(self, body: bytes) -> Digest: ...

    def load_body(self, digest: Digest) -> bytes | None:
        """Its bytes if they are here whole."""

    def find_set(self, set_root: Root, window_starts: Sequence[int]) -> InstanceId | None:
        """The instance of which this is an outcome's set, or an observed one: of these windows, or of any late set."""

    def mark_queued(self, instance: InstanceId) -> bool:
        """Set the flag of a queued ``round.advance``; False if it was set already."""

    def clear_queued(self, instance: InstanceId) -> None: ...

    def save_wait(self, instance: InstanceId, waits_for: str) -> None:
        """Why an open instance is not worked on, for the status page."""

    def load_certificate(self, instance: InstanceId) -> VoteQuorum | None: ...

    def untouched(self, limit: int) -> list[InstanceId]:
        """Of the ``limit`` oldest undecided instances those that nobody has begun to work on, oldest first."""


class Sets(Protocol):
    """Sets of messages: files of canonical bytes, named by their root.

    Reading one that is not held, or is damaged, raises TransientError: it is not here yet, or not here again.
    """

    def save_set(self, set_root: Root, records: Sequence[Record]) -> None:
        """Durable before it returns; saving one that is there changes nothing."""

    def save_ordered(self, pages: Iterable[Page], *, expected: Root | None = None) -> tuple[PartitionEntry, ...]:
        """The same for distinct messages whose pages come in canonical order; returns the set's entries, flags zero.

        Raises Disagreement: they have another root than the expected one.
        """

    def has_set(self, set_root: Root) -> bool: ...

    def open_set(self, set_root: Root) -> MessageSet:
        """The set as the rules see it, its pages read when they are asked for."""

    def iterate(self, set_root: Root, parts: Collection[StreamPart] | None = None) -> Iterator[Record]:
        """Records in canonical order, of all partitions or of some, one by one."""

    def load_entries(self, set_root: Root) -> tuple[PartitionEntry, ...] | None: ...

    def load_messages(self, set_root: Root, leaves: Sequence[Digest]) -> list[bytes] | None: ...

    def damaged(self, limit: int) -> list[DamagedSet]:
        """What was held, and is to be obtained again."""

    def salvage(self, set_root: Root) -> tuple[list[Record], frozenset[Digest] | None]:
        """Of a damaged set: messages that can still be read, and the leaves of all, if those are known."""

    def note_attempt(self, set_root: Root, *, needed: bool) -> None: ...

    def glance(self, after: Root | None) -> Root | None:
        """Glance at some files for damage, in the order of roots; where to go on, None at the end."""


class Archive(Protocol):
    """What is already in agreed sets, and what came too late for its window."""

    def save_identities(self, instance: InstanceId, identities: Iterable[Identity]) -> None: ...

    def stored_identities(self, identities: Iterable[Identity]) -> set[Identity]: ...

    def identities_of(self, instance: InstanceId, identities: Iterable[Identity]) -> set[Identity]:
        """Which of these messages are in the agreed set of one instance."""

    def save_late(self, records: Sequence[Record], now_ms: int) -> list[Record]:
        """Candidates of late sets; returns those that were new."""

    def load_late(self, from_ms: int, until_ms: int) -> list[Record]:
        """Candidates with from_ms <= timestamp < until_ms that no agreed set holds."""


class Bundles(Protocol):
    def load_bundle(self, number: int) -> StoredBundle | None: ...

    def last_bundle(self) -> StoredBundle | None: ...

    def create_bundle(self, bundle: StoredBundle) -> bool: ...

    def save_sealed(self, bundle: StoredBundle) -> None: ...

    def save_file(self, number: int, size: int, sha256: Digest) -> None: ...

    def save_bundle_state(self, number: int, state: BundleState) -> None: ...

    def load_uploads(self, number: int) -> list[StoredUpload]: ...

    def count_open_uploads(self) -> int:
        """Own uploads that may still be charged: prepared, posted or seeded, for a bundle without a final report."""

    def save_upload(self, upload: StoredUpload) -> None:
        """Unique by (number, attempt): a second prepared upload of one attempt is refused with AlreadyDone."""

    def save_upload_state(self, number: int, attempt: int, state: UploadState) -> None: ...

    def save_posted(self, number: int, attempt: int, posted_to: str) -> None:
        """Posted; the first host that took it stays."""

    def load_seeds(self, storage_id: StorageId) -> dict[str, int]:
        """Which chunks of an upload each gateway has taken: bits by host."""

    def save_seeds(self, storage_id: StorageId, taken: Mapping[str, int]) -> None:
        """What gateways have taken, beside what is known of them already."""

    def forget_seeds(self, storage_id: StorageId) -> None: ...

    def save_announced(self, announcement: UploadAnnouncement, now_ms: int) -> bool: ...

    def save_announcement_signed(self, announcement: UploadAnnouncement, unsigned: bytes) -> None:
        """Takes the place of one with the signature ``unsigned``, if such a one is kept; else nothing changes."""

    def save_announced_state(
        self, announcement: UploadAnnouncement, state: AnnouncedState, reason: str, tries: int = 0, *, read: int = 0
    ) -> None:
        """``read``: confirmations at which it was read back whole; what was higher stays."""

    def load_announced(self, number: int) -> list[AnnouncedUpload]: ...


class Reports(Protocol):
    def load_reports(self, number: int) -> list[StoredReport]: ...

    def save_report(self, report: StoredReport) -> None: ...

    def save_report_state(self, number: int, storage_id: StorageId, state: ReportState) -> None: ...

    def save_attestation(self, attestation: Attestation) -> bool: ...

    def load_attestations(self, report_digest: Digest) -> list[Attestation]: ...

    def save_transaction(self, number: int, storage_id: StorageId, transaction: PreparedTransaction) -> None: ...

    def load_transactions(self, number: int) -> list[PreparedTransaction]: ...

    def save_final(self, number: int, storage_id: StorageId, transaction: Digest, gas_used: int | None) -> None: ...

    def load_ledger(self, number: int) -> bytes | None:
        """The ledger after report ``number``."""


class ChainCache(Protocol):
    """Blocks and states by the time they are for, stored when first read; and the newest heads."""

    def load_block(self, timestamp_s: int) -> Block | None: ...

    def save_block(self, timestamp_s: int, block: Block) -> None: ...

    def load_cut_points(self, since_s: int, below_s: int | None, limit: int) -> list[CutPoint]:
        """The newest stored cut points of a time or later, and before another."""

    def replace_block(self, cut: CutPoint, block: Block | None, found: Reorganisation, epoch: int | None) -> bool:
        """Forget a cut point that the chain has replaced; ``epoch``: its committee stays, read at the old block."""

    def load_epoch_block(self, epoch: int) -> Block | None:
        """The block at which an epoch's committee was read, where the chain has replaced it since."""

    def load_state(self, block_hash: Digest) -> ChainState | None: ...

    def save_state(self, state: ChainState) -> None: ...

    def load_head(self) -> tuple[Block, Block] | None:
        """(head, newest finalised) as the head watcher saw them last."""

    def save_head(self, head: Block, finalised: Block) -> None: ...

    def load_permission(self, block_hash: Digest, stream_id: str, publisher: bytes) -> bool | None: ...

    def save_permissions(self, block_hash: Digest, answers: Mapping[tuple[str, bytes], bool]) -> None: ...


class Retention(Protocol):
    """What may be deleted once it has served. Every call is bounded by its ``limit`` and says how much it deleted."""

    def last_settled(self, before_ms: int) -> Settled | None:
        """The newest bundle that was final before a time, as were all bundles before it."""

    def delete_sets(self, before_ms: int, limit: int) -> int: ...

    def delete_set_files(self, before_ms: int, limit: int) -> int: ...

    def delete_identities(self, before_ms: int, limit: int) -> int: ...

    def delete_window_notes(self, before_ms: int, limit: int) -> int: ...

    def delete_rejections(self, before_ms: int, limit: int) -> int: ...

    def delete_states(self, before_ms: int, kept_s: Sequence[int], limit: int) -> int:
        """Chain states and permissions; those at the cut points of ``kept_s`` stay."""

    def prune_instances(self, settled: Settled, limit: int) -> int:
        """Leave of each settled instance its certificate, its outcome and the newest own statement."""

    def compact(self) -> None:
        """Give room back to the file system."""


class Weave(Protocol):
    """What was last seen of gateways and wallet, for who looks at this validator."""

    def save_gateway(self, host: str, state: str, failures: int, error: str) -> None:
        """State of a gateway's circuit, as the process saw it that asked last."""

    def save_wallet(self, address: bytes, balance: int, tariff: Tariff) -> None: ...


class Store(Protocol):
    """The whole database of one validator, by room."""

    @property
    def due(self) -> Due: ...
    @property
    def windows(self) -> Windows: ...
    @property
    def instances(self) -> Instances: ...
    @property
    def sets(self) -> Sets: ...
    @property
    def archive(self) -> Archive: ...
    @property
    def bundles(self) -> Bundles: ...
    @property
    def reports(self) -> Reports: ...
    @property
    def weave(self) -> Weave: ...
    @property
    def chain(self) -> ChainCache: ...
    @property
    def retention(self) -> Retention: ...
