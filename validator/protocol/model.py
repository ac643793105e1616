"""The nouns of the network: frozen, slotted, checked where they are built.

Bytes inside, hex at the edges; integers everywhere, no floats. Times are Unix milliseconds unless the
name ends in ``_s``. Addresses are 20 raw bytes, digests 32. Everything here is immutable, so a value may
be shared between threads and used as a dictionary key.

What exists once a message is a msgspec ``Struct``, built in a tenth of the time of a frozen dataclass and, holding no
cycle, no affair of the garbage collector; ``msgspec.structs.replace`` makes a changed copy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, IntFlag, StrEnum
from typing import NewType

from msgspec import Struct

from validator.protocol.errors import InvariantError

Address = NewType("Address", bytes)
"""20 bytes of an EVM account."""
Digest = NewType("Digest", bytes)
"""32 bytes of SHA-256 (or, where a signature scheme says so, keccak-256)."""
Root = NewType("Root", bytes)
"""32 bytes: root of an RFC 9162 tree."""
StorageId = NewType("StorageId", bytes)
"""32 bytes: id of an Arweave transaction."""
StreamPart = tuple[str, int]
"""(stream id, partition)."""

NIL = Digest(bytes(32))
"""The value of a vote for nothing."""

PPM = 1_000_000
MIB = 1 << 20


# --- time ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, order=True)
class Window:
    """Half-open span [start_ms, end_ms)."""

    start_ms: int
    end_ms: int

    def __post_init__(self) -> None:
        if not 0 <= self.start_ms < self.end_ms:
            raise InvariantError(f"window {self.start_ms}..{self.end_ms} is empty or negative")

    def __contains__(self, timestamp_ms: int) -> bool:
        return self.start_ms <= timestamp_ms < self.end_ms


class InstanceKind(IntEnum):
    WINDOW = 1
    LATE = 2


@dataclass(frozen=True, slots=True, order=True)
class InstanceId:
    """What is being decided: a window by its start_ms, or the late set of a bundle by its number."""

    kind: InstanceKind
    number: int

    def __str__(self) -> str:
        return f"{self.kind.name.lower()}:{self.number}"

    @classmethod
    def parse(cls, text: str) -> InstanceId:
        """Inverse of ``str``. Raises ValueError."""
        kind, _, number = text.partition(":")
        try:
            return cls(InstanceKind[kind.upper()], int(number))
        except KeyError:
            raise ValueError(f"unknown instance kind {kind!r}") from None


# --- messages -----------------------------------------------------------------------------------


class MessageType(IntEnum):
    """Body kinds as the 1.0 SDK numbers them; the array's 27, 28, 29."""

    MESSAGE = 0
    GROUP_KEY_REQUEST = 1
    GROUP_KEY_RESPONSE = 2


class ContentType(IntEnum):
    JSON = 0
    BINARY = 1


class EncryptionType(IntEnum):
    NONE = 0
    AES = 1


class SignatureType(IntEnum):
    """Numbers of the 1.0 wire; the two above 30 are array forms that cannot be converted exactly.

    ECDSA_SECP256K1_LEGACY also stands for the array's type 2 wherever conversion rebuilds the signed
    text byte for byte (reference: Streamr 8.5 to 100.0 conversion).
    """

    ECDSA_SECP256K1_LEGACY = 0
    ECDSA_SECP256K1_EVM = 1
    ERC_1271 = 2
    ML_DSA_87 = 3
    ECDSA_SECP256R1 = 4
    ARRAY_ETH_LEGACY = 31
    ARRAY_ETH = 32


class MessageRef(Struct, frozen=True, order=True, gc=False):
    timestamp_ms: int
    sequence_number: int


class NewGroupKey(Struct, frozen=True, gc=False):
    """A rotated key. ``data`` is ciphertext; for ARRAY_ETH the UTF-8 of the wire text, with id ""."""

    id: str
    data: bytes


class Message(Struct, frozen=True, gc=False):
    """One Streamr message, every field as its publisher made it (reference/Streamr section 2).

    ``content`` holds the bytes exactly as signed. ``publisher_id`` is 20 bytes for address types, the raw
    public key for types 3 and 4.
    """

    stream_id: str
    partition: int
    timestamp_ms: int
    sequence_number: int
    publisher_id: bytes
    msg_chain_id: str
    prev: MessageRef | None
    message_type: MessageType
    content_type: ContentType
    encryption_type: EncryptionType
    group_key_id: str | None
    new_group_key: NewGroupKey | None
    content: bytes
    signature_type: SignatureType
    signature: bytes

    @property
    def stream_part(self) -> StreamPart:
        return (self.stream_id, self.partition)

    @property
    def message_id(self) -> tuple[str, int, int, int, bytes, str]:
        """The six fields that Streamr calls the message id; two identities under one are an equivocation."""
        return (
            self.stream_id,
            self.partition,
            self.timestamp_ms,
            self.sequence_number,
            self.publisher_id,
            self.msg_chain_id,
        )


class Reason(StrEnum):
    """Why a record from outside is not taken: one name per check, used in metrics, logs and the database."""

    MALFORMED = "malformed"
    UNKNOWN_SIGNATURE_TYPE = "unknown_signature_type"
    UNSUPPORTED_MESSAGE_TYPE = "unsupported_message_type"
    BAD_SIGNATURE = "bad_signature"
    UNSIGNED = "unsigned"
    WRONG_STREAM = "wrong_stream"
    PARTITION_OUT_OF_RANGE = "partition_out_of_range"
    OUTSIDE_WINDOW = "outside_window"
    TOO_LARGE = "too_large"
    NOT_PERMITTED = "not_permitted"
    ERC1271_UNKNOWN = "erc1271_unknown"


Identity = tuple[str, int, int, bytes]
"""(stream id, partition, timestamp_ms, signed digest): what makes two records one message."""


class Record(Struct, frozen=True, gc=False):
    """A message with what is computed from it once: canonical bytes, hash of its leaf, signed digest and size."""

    message: Message
    canonical: bytes
    leaf: Digest
    signed_digest: Digest
    signed_bytes: int

    @property
    def identity(self) -> Identity:
        m = self.message
        return (m.stream_id, m.partition, m.timestamp_ms, self.signed_digest)

    @property
    def order(self) -> tuple[bytes, int, int, int, bytes, bytes, bytes]:
        """Canonical order: stream id, partition, timestamp, sequence, publisher, chain id, leaf (bytes order)."""
        m = self.message
        return (
            m.stream_id.encode(),
            m.partition,
            m.timestamp_ms,
            m.sequence_number,
            m.publisher_id,
            m.msg_chain_id.encode(),
            self.leaf,
        )


# --- what a window holds -------------------------------------------------------------------------


class Flag(IntFlag):
    """Marks of an entry."""

    FULL = 1
    INCOMPLETE = 2
    VARIANTS = 4
    EQUIVOCATION = 8


@dataclass(frozen=True, slots=True)
class PartitionEntry:
    """One stream partition of a set: root over its records in canonical order, and their totals."""

    stream_id: str
    partition: int
    root: Root
    count: int
    signed_bytes: int
    canonical_bytes: int
    flags: Flag = Flag(0)

    @property
    def stream_part(self) -> StreamPart:
        return (self.stream_id, self.partition)


@dataclass(frozen=True, slots=True)
class BrokerShare:
    """Signed bytes of distinct valid messages that a broker served and missed in one window."""

    broker: Address
    served: int
    missed: int


@dataclass(frozen=True, slots=True)
class Observation:
    """What one validator saw at the cut-off; signed, journaled, never changed.

    ``set_root`` is the root over the partition entries of the observed set (flags zero), ``count`` and
    ``signed_bytes`` their totals, which bound reconciliation. ``incomplete`` lists the partitions that no
    broker answered completely. ``erc1271`` are signed digests found valid by a contract. ``observer`` keeps the digests
    of members who saw the same apart. No block is named.
    """

    instance: InstanceId
    set_root: Root
    count: int
    signed_bytes: int
    incomplete: tuple[StreamPart, ...] = ()
    shares: tuple[BrokerShare, ...] = ()
    erc1271: tuple[Digest, ...] = ()
    price: int | None = None
    observer: Address = Address(bytes(20))


@dataclass(frozen=True, slots=True)
class Equivocation:
    """Two leaves under one message id."""

    stream_id: str
    partition: int
    first: Digest
    second: Digest


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an instance decides. Its digest (the hash of its window's leaf, codec.outcome) is what votes name.

    ``root`` is the RFC 9162 root over the entries, flags included. ``observations`` are the digests of the
    used observations, sorted. A late outcome has no price (0), no shares.
    """

    instance: InstanceId
    block_number: int
    block_hash: Digest
    entries: tuple[PartitionEntry, ...]
    root: Root
    price: int
    shares: tuple[BrokerShare, ...]
    observations: tuple[Digest, ...]
    evidence: tuple[Equivocation, ...] = ()
    evidence_count: int = 0

    @property
    def count(self) -> int:
        return sum(e.count for e in self.entries)

    @property
    def signed_bytes(self) -> int:
        return sum(e.signed_bytes for e in self.entries)

    @property
    def canonical_bytes(self) -> int:
        return sum(e.canonical_bytes for e in self.entries)


# --- statements ----------------------------------------------------------------------------------


class StatementKind(IntEnum):
    OBSERVATION = 1
    PROPOSAL = 2
    PREVOTE = 3
    PRECOMMIT = 4


@dataclass(frozen=True, slots=True)
class Statement:
    """A signed sentence of one committee member about one instance.

    ``value`` is the digest of the observation or outcome, NIL for a vote for nothing. ``round`` is 0 for
    observations. ``valid_round`` is -1 except in a proposal that comes back with a proof. ``signature`` is
    65 bytes r, s, v over the EIP-712 digest (codec.statement); empty while unsigned.
    """

    kind: StatementKind
    config_digest: Digest
    instance: InstanceId
    round: int
    value: Digest
    signer: Address
    valid_round: int = -1
    signature: bytes = b""

    @property
    def content(self) -> tuple[int, Digest, InstanceId, int, Digest, int]:
        """All that is signed, without signer and signature."""
        return (self.kind, self.config_digest, self.instance, self.round, self.value, self.valid_round)


@dataclass(frozen=True, slots=True)
class VoteQuorum:
    """A quorum of votes of one kind, one round, one value: a proof (prevotes) or a certificate (precommits).

    ``signatures`` are (signer, 65 bytes), sorted by signer, distinct.
    """

    kind: StatementKind
    config_digest: Digest
    instance: InstanceId
    round: int
    value: Digest
    signatures: tuple[tuple[Address, bytes], ...]

    def statements(self) -> tuple[Statement, ...]:
        return tuple(
            Statement(self.kind, self.config_digest, self.instance, self.round, self.value, signer, signature=signature)
            for signer, signature in self.signatures
        )


@dataclass(frozen=True, slots=True)
class UploadAnnouncement:
    """A committee member's word that it is about to post a bundle: storage id, Arweave owner address, bundle root.

    Beside what is signed travel the signed header of the transaction (wire JSON; its id proves it) and the certificates
    in the file's manifest: with them everybody can make the same file, post the same header and seed the same chunks.
    """

    config_digest: Digest
    number: int
    bundle_root: Root
    storage_id: StorageId
    owner: bytes
    signer: Address
    signature: bytes = b""
    header: bytes = b""
    certificates: tuple[VoteQuorum, ...] = ()


# --- bundles --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BundleHeader:
    """First leaf of the bundle root's tree. ``first_ms``/``last_ms``: starts of the first and last window."""

    config_digest: Digest
    number: int
    previous_root: Root
    first_ms: int
    last_ms: int


@dataclass(frozen=True, slots=True)
class Certified:
    """An outcome with the certificate that decided it."""

    outcome: Outcome
    certificate: VoteQuorum


@dataclass(frozen=True, slots=True)
class Manifest:
    """The canonical description of a bundle: header, windows and late set, digest preimage, ledger or its changes."""

    header: BundleHeader
    config_preimage: bytes
    windows: tuple[Certified, ...]
    late: Certified
    ledger: bytes
    """``codec.ledger_changes``: all of the ledger before this bundle's report, or what changed in it."""
    codec_versions: tuple[int, ...] = (3,)


# --- chain ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Block:
    number: int
    hash: Digest
    timestamp_s: int


@dataclass(frozen=True, slots=True)
class Node:
    """A registered node: stake in base units and its parsed metadata. ``arweave``: address of its wallet, 32 bytes."""

    address: Address
    stake: int
    http_url: str | None
    validator_url: str | None
    arweave: bytes | None = None
    index: int = 0
    """By which reports name it."""


@dataclass(frozen=True, slots=True)
class Store:
    """A stored stream: balance in base units, partitions from the stream registry; none where it is deleted there, so
    that it is out of scope and still pays what it owes. ``leaving``: what its stakeholders are taking out, which buys
    nothing more and pays until it is free. ``index``: by which reports name the stream."""

    stream_id: str
    balance: int
    partitions: int
    leaving: int = 0
    index: int = 0


@dataclass(frozen=True, slots=True)
class Account:
    """A consumer: what reports may capture, in base units, and the index by which they name it; 0: never had any."""

    balance: int
    index: int


@dataclass(frozen=True, slots=True)
class ChainState:
    """What a window or report needs of the chain, read by hash at one block.

    ``publishers`` are the (stream id, address) pairs that may publish; ``consumers`` the QueryManager balances that
    were asked for. ``committee`` is the one of the epoch, sorted.
    """

    block: Block
    nodes: tuple[Node, ...]
    stores: tuple[Store, ...]
    system_stream: str
    consumers: Mapping[Address, Account]

    @property
    def brokers(self) -> tuple[Node, ...]:
        return tuple(n for n in self.nodes if n.http_url)
