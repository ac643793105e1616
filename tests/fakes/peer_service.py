"""A peer service in memory: sets, bodies, certificates; remembers what it was told and by whom."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tests.builders import an_unsigned_message
from validator.ports.peers import Gossip, Handshake, HeldVotes
from validator.protocol.codec.message import encode_message, leaf_of_canonical
from validator.protocol.codec.outcome import set_root as compute_set_root
from validator.protocol.columns import Page
from validator.protocol.consensus.reconcile import answer
from validator.protocol.errors import TransientError
from validator.protocol.merkle import compute_root
from validator.protocol.model import (
    Address,
    Digest,
    InstanceId,
    PartitionEntry,
    Root,
    StreamPart,
    VoteQuorum,
)
from validator.steps.reconcile import records_of


def a_body(number: int, size: int = 40) -> bytes:
    """Canonical bytes of a message that nobody signed."""
    message = an_unsigned_message(timestamp_ms=number, content=b"x" * size)
    return encode_message(message)


def _as_they_are(bodies: Sequence[bytes], _sizes: Sequence[int]) -> Sequence[bytes]:
    return bodies


@dataclass
class FakeSet:
    """Messages by partition as (timestamp_ms, canonical bytes), with entries and root that follow from them."""

    messages: Mapping[StreamPart, Sequence[tuple[int, bytes]]]
    entries: tuple[PartitionEntry, ...] = ()
    root: Root = Root(b"")
    bodies: dict[Digest, bytes] = field(default_factory=dict)

    def __post_init__(self) -> None:
        entries = []
        for (stream_id, partition), messages in sorted(self.messages.items()):
            if messages:
                leaves = [leaf_of_canonical(body) for _, body in sorted(messages)]
                size = sum(len(body) for _, body in messages)
                entries.append(
                    PartitionEntry(stream_id, partition, compute_root(leaves), len(messages), size // 2, size)
                )
                self.bodies.update({leaf_of_canonical(body): body for _, body in messages})
        self.entries = tuple(entries)
        self.root = compute_set_root(self.entries)

    def pages(self, part: StreamPart) -> Iterator[Page]:
        """Times and leaves are true, which is all that reconciliation asks for."""
        messages = sorted(self.messages.get(part, ()))
        if messages:
            zeros = [0] * len(messages)
            leaves = b"".join(leaf_of_canonical(body) for _, body in messages)
            times = [ms for ms, _ in messages]
            bodies = [body for _, body in messages]
            sizes = [len(body) for body in bodies]
            read = _as_they_are
            yield Page(
                part, times, zeros, [(b"", b"")], zeros, leaves, leaves, sizes, sizes, bytes(zeros), bodies, read
            )


class FakePeerService:
    """Fulfils ``PeerService``. ``hold`` blocks every call until it is set; ``failure`` is raised by every call."""

    def __init__(self, member: Address, members: Mapping[Address, str]) -> None:
        self.member = member
        self.known_members = dict(members)
        self.known_followers: frozenset[Address] = frozenset()
        self.sets: dict[Root, FakeSet] = {}
        self.known_bodies: dict[Digest, bytes] = {}
        self.known_certified: dict[InstanceId, tuple[bytes, VoteQuorum]] = {}
        self.lacks = Gossip()
        self.received: list[tuple[Address, Gossip]] = []
        self.late: list[tuple[Address, list[bytes]]] = []
        self.held: list[HeldVotes] = []
        self.calls = 0
        self.failure: Exception | None = None
        self.hold: threading.Event | None = None
        self._lock = threading.Lock()

    def _enter(self) -> None:
        with self._lock:
            self.calls += 1
        if self.hold is not None:
            self.hold.wait(20)
        if self.failure is not None:
            raise self.failure

    def add(self, a_set: FakeSet) -> FakeSet:
        self.sets[a_set.root] = a_set
        return a_set

    def members(self) -> Mapping[Address, str]:
        return self.known_members

    def followers(self) -> frozenset[Address]:
        return self.known_followers

    def receive(self, sender: Address, gossip: Gossip) -> None:
        self._enter()
        self.received.append((sender, gossip))

    def missing(self, sender: Address, held: HeldVotes) -> Gossip:
        self._enter()
        self.held.append(held)
        return self.lacks

    def entries(self, sender: Address, set_root: Root) -> tuple[PartitionEntry, ...]:
        self._enter()
        return self._set(set_root).entries

    def reconcile(
        self, sender: Address, set_root: Root, parts: Sequence[StreamPart], message: bytes, *, strong: bool
    ) -> bytes:
        self._enter()
        return answer(records_of(self._set(set_root), parts), message, strong=strong)

    def messages(self, sender: Address, set_root: Root, leaves: Sequence[Digest]) -> list[bytes]:
        self._enter()
        bodies = self._set(set_root).bodies
        return [bodies[leaf] for leaf in leaves if leaf in bodies]

    def body(self, sender: Address, digest: Digest) -> bytes:
        self._enter()
        if digest not in self.known_bodies:
            raise TransientError("body is not here")
        return self.known_bodies[digest]

    def observations(
        self, sender: Address, instance: InstanceId, config_digest: Digest, digests: Sequence[Digest]
    ) -> Gossip:
        self._enter()
        named = tuple(s for s in self.lacks.statements if s.value in digests and s.instance == instance)
        return Gossip(statements=named, bodies=tuple(self.known_bodies[d] for d in digests if d in self.known_bodies))

    def certified(self, sender: Address, instances: Sequence[InstanceId]) -> list[tuple[InstanceId, bytes, VoteQuorum]]:
        self._enter()
        return [(i, *self.known_certified[i]) for i in instances if i in self.known_certified]

    def receive_late(self, sender: Address, messages: Sequence[bytes]) -> None:
        self._enter()
        self.late.append((sender, list(messages)))

    def handshake(self, sender: Address | None) -> Handshake:
        self._enter()
        return Handshake(self.member, (1,), (b"config",), 1_700_000_000_000, 42)

    def _set(self, set_root: Root) -> FakeSet:
        if set_root not in self.sets:
            raise TransientError("set is not here")
        return self.sets[set_root]
