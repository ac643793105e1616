"""Permanent storage: where bundles go and are read back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from validator.protocol.codec.arweave_chunks import CHUNK_BYTES
from validator.protocol.codec.bundle import BundleFile, VerifiedBundle
from validator.protocol.errors import TransientError
from validator.protocol.model import Digest, Manifest, StorageId


@dataclass(frozen=True, slots=True)
class PreparedUpload:
    """A signed Arweave transaction before its first byte leaves: saved, then sent as it is, for ever.

    ``header`` is the wire JSON. ``reward`` in winston.
    """

    storage_id: StorageId
    owner: bytes
    header: str
    reward: int
    anchor_height: int
    data_size: int
    data_sha256: Digest


class StorageState(StrEnum):
    CONFIRMED = "confirmed"
    """So many confirmations are seen."""
    PENDING = "pending"
    MISSING = "missing"
    """Every gateway answered that it does not know it."""
    UNKNOWN = "unknown"
    """Anything less certain."""


@dataclass(frozen=True, slots=True)
class StorageStatus:
    """What the gateways say of a transaction; confirmations and height where it is confirmed."""

    state: StorageState
    confirmations: int = 0
    height: int = 0

    def is_deep(self, confirmations: int) -> bool:
        """Whether it is confirmed, by so many blocks."""
        return self.state == StorageState.CONFIRMED and self.confirmations >= confirmations


ENOUGH_GATEWAYS = 2
"""So many independent gateways must agree, or have the data; or as many as are configured, if there are fewer."""


@dataclass(frozen=True, slots=True)
class GatewaySeed:
    """What one gateway has taken of a bundle's chunks, in this run and before.

    ``taken``: bit n stands for chunk n. ``is_kept``: it also expects to keep those of this run. ``error``: why it has
    not taken all, if it was not this run's time.
    """

    host: str
    taken: int
    total: int
    is_kept: bool = True
    error: str = ""

    @property
    def is_complete(self) -> bool:
        return self.taken == (1 << self.total) - 1

    @property
    def is_stopped_by_time(self) -> bool:
        return not self.is_complete and not self.error

    def __str__(self) -> str:
        why = f" ({self.error})" if self.error else ""
        return f"{self.host} took {self.taken.bit_count()} of {self.total}{why}"


def is_seeded(seeds: Sequence[GatewaySeed]) -> bool:
    """Whether enough independent gateways have taken every chunk; ``seeds``: of all that are configured."""
    return sum(seed.is_complete for seed in seeds) >= min(ENOUGH_GATEWAYS, len(seeds))


@dataclass(frozen=True, slots=True)
class StoredTransaction:
    """A transaction read back; id and signature are verified."""

    storage_id: StorageId
    owner: bytes
    tags: tuple[tuple[str, str], ...]
    data_size: int
    data_root: bytes


@dataclass(frozen=True, slots=True)
class Tariff:
    """What a header costs now, in winston: a base, and a step for each chunk begun."""

    base: int
    step: int

    def compute_price(self, size: int) -> int:
        return self.base + self.step * -(-size // CHUNK_BYTES)


class BundleStorage(Protocol):
    """Arweave through gateways."""

    def wallet_address(self) -> bytes | None:
        """Who pays for what is prepared here; None where nobody can."""

    def read_header(self, storage_id: StorageId, header: bytes) -> StoredTransaction:
        """What a signed header says; nobody is asked. MalformedInput: not the header of that id, or not sound."""

    def compute_data_root(self, path: Path) -> bytes:
        """The root that a transaction carrying this file commits to."""

    def prepare(self, path: Path, tags: Sequence[tuple[str, str]], *, open_uploads: int = 0) -> PreparedUpload:
        """Sign what carries the file. ``open_uploads``: headers of ours under way, which the balance must cover too."""

    def post(self, prepared: PreparedUpload) -> str:
        """Accepted or already known; the host of who took it, "" where none did now.

        RemoteFault: refused for good; UnknownOutcome: the answer was lost.
        """

    def seed(
        self, prepared: PreparedUpload, path: Path, taken: Mapping[str, int] | None = None
    ) -> tuple[GatewaySeed, ...]:
        """Send each gateway the chunks that it has not taken (``taken``: bits by host), as far as one run's time goes.

        What each has taken now; a gateway's failure is part of that. Disagreement: another file than was prepared.
        """

    def fetch_status(self, storage_id: StorageId) -> StorageStatus: ...

    def fetch_is_dropped(self, prepared: PreparedUpload, status: StorageStatus) -> bool:
        """Whether it is certain that this transaction can no longer be mined: only then another may be signed."""

    def find_uploads(self, bundle_root: str, owners: Iterable[bytes]) -> list[StorageId]:
        """Ids of what gateways say is tagged with this bundle root (hex) and posted by one of ``owners`` (addresses).

        A claim only: to be read before it is believed. Raises TransientError, UnknownOutcome, RemoteFault: none tells.
        """

    def fetch_header(self, storage_id: StorageId) -> bytes:
        """The signed header as it is sent, of a transaction that is mined or that waits for it; id verified."""

    def fetch_transaction(self, storage_id: StorageId) -> StoredTransaction: ...

    def fetch_data(self, storage_id: StorageId, destination: Path, max_bytes: int, *, posted_to: str = "") -> int:
        """Download whole to ``destination``; returns the size. Bounded in bytes and time.

        Never from the host that it was posted to, where there is another.
        """

    def fetch_balance(self) -> int:
        """Winston in our wallet."""

    def fetch_tariff(self) -> Tariff: ...


class ReaderFailed(TransientError):
    """The reader came to no verdict: neither good nor bad. The same bytes may be read another time."""


class BundleWriter(Protocol):
    """Writes the files of bundles from the sets that are held here."""

    def write(self, path: Path, manifest: Manifest) -> BundleFile:
        """Write the whole file; it appears complete and synced, or not at all.

        Raises:
            TransientError: a set is not here, or not here again; the disk is full or refuses; the writer did not come
                to its end.
        """


class BundleReader(Protocol):
    """Reads files that anybody may have written, whatever happens to who reads them."""

    def verify(self, path: Path, expected: Manifest) -> VerifiedBundle:
        """Read a file whole. MalformedInput: what differs; ReaderFailed: it was not read to the end."""
