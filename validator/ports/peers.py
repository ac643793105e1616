"""The other validators: what is asked of them, and what they ask of us."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from validator.protocol.model import (
    Address,
    Digest,
    InstanceId,
    PartitionEntry,
    Root,
    Statement,
    StatementKind,
    StreamPart,
    UploadAnnouncement,
    VoteQuorum,
)


@dataclass(frozen=True, slots=True)
class Attestation:
    """A member's signature (65 bytes) over a report's EIP-712 digest."""

    number: int
    report_digest: Digest
    signer: Address
    signature: bytes


@dataclass(frozen=True, slots=True)
class Gossip:
    """What peers tell each other in one request; every part carries its own signature.

    ``bodies`` are canonical observations and outcomes, content-addressed by SHA-256; each is named by a statement.
    """

    statements: tuple[Statement, ...] = ()
    quorums: tuple[VoteQuorum, ...] = ()
    bodies: tuple[bytes, ...] = ()
    uploads: tuple[UploadAnnouncement, ...] = ()
    attestations: tuple[Attestation, ...] = ()


@dataclass(frozen=True, slots=True)
class HeldVotes:
    """The statements of one instance that a peer holds: per (kind, round, value) the signers."""

    config_digest: Digest
    instance: InstanceId
    held: tuple[tuple[StatementKind, int, Digest, tuple[Address, ...]], ...]


@dataclass(frozen=True, slots=True)
class Handshake:
    """Who a peer is and which configs it runs: preimages by epoch, protocol versions, its clock, its newest block."""

    member: Address
    versions: tuple[int, ...]
    configs: tuple[bytes, ...]
    now_ms: int
    head: int


class Peers(Protocol):
    """The committee over HTTP. Endpoints come from NodeManager metadata."""

    def broadcast(self, gossip: Gossip, members: Iterable[Address]) -> Mapping[Address, str]:
        """Send to all given members at once; returns "" or the error per member. Never raises."""

    def send(self, member: Address, gossip: Gossip) -> None: ...

    def fetch_missing(self, member: Address, held: HeldVotes) -> Gossip:
        """Tell which votes we hold of one instance; the answer is what we lack (vote relay)."""

    def fetch_entries(self, member: Address, set_root: Root) -> tuple[PartitionEntry, ...]:
        """The partition entries of a set (flags zero)."""

    def reconcile(
        self, member: Address, set_root: Root, parts: Sequence[StreamPart], message: bytes, *, strong: bool
    ) -> bytes:
        """One Negentropy V1 message to the member's set, restricted to ``parts``; its answer.

        ``strong``: SHA-256 over sorted ids as fingerprint."""

    def fetch_messages(self, member: Address, set_root: Root, leaves: Sequence[Digest]) -> list[bytes]:
        """Canonical messages by leaf hash, in pages, decompressed with bounds; only those asked for."""

    def fetch_body(self, member: Address, digest: Digest) -> bytes:
        """A canonical observation or outcome by its digest; checked."""

    def fetch_observations(
        self, member: Address, instance: InstanceId, config_digest: Digest, digests: Sequence[Digest]
    ) -> Gossip:
        """The signed statements that name these observations, with their bodies as far as these fit one answer."""

    def fetch_certified(
        self, member: Address, instances: Sequence[InstanceId]
    ) -> list[tuple[InstanceId, bytes, VoteQuorum]]:
        """(instance, outcome bytes, certificate) of those the member has decided."""

    def push_late(self, member: Address, messages: Sequence[bytes]) -> None:
        """Canonical messages that are valid and in no agreed set."""

    def handshake(self, member: Address) -> Handshake: ...


class PeerService(Protocol):
    """The other side of ``Peers``: what the peers listener calls. ``sender`` is the verified committee member."""

    def members(self) -> Mapping[Address, str]:
        """Members (of current and coming epochs) whose requests are served, with their URLs."""

    def followers(self) -> frozenset[Address]:
        """Staked nodes without a seat, such as observers: they are answered, and tell us nothing."""

    def receive(self, sender: Address, gossip: Gossip) -> None: ...

    def missing(self, sender: Address, held: HeldVotes) -> Gossip: ...

    def entries(self, sender: Address, set_root: Root) -> tuple[PartitionEntry, ...]: ...

    def reconcile(
        self, sender: Address, set_root: Root, parts: Sequence[StreamPart], message: bytes, *, strong: bool
    ) -> bytes: ...

    def messages(self, sender: Address, set_root: Root, leaves: Sequence[Digest]) -> list[bytes]: ...

    def body(self, sender: Address, digest: Digest) -> bytes: ...

    def observations(
        self, sender: Address, instance: InstanceId, config_digest: Digest, digests: Sequence[Digest]
    ) -> Gossip: ...

    def certified(
        self, sender: Address, instances: Sequence[InstanceId]
    ) -> list[tuple[InstanceId, bytes, VoteQuorum]]: ...

    def receive_late(self, sender: Address, messages: Sequence[bytes]) -> None: ...

    def handshake(self, sender: Address | None) -> Handshake: ...
