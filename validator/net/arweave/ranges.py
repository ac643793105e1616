"""Parts of a transaction's data: of a bundle's file, the footer and the row groups that somebody asks for.

A part cannot be checked against the data root; a chunk can. So what only our own strict readers see (the footer, whose
manifest must give the root that the contract holds) is asked for by its bytes, as every web server gives them, and
what a Parquet library will see is put together from chunks, each proven to stand there in the data that was signed,
which the committee has read whole. A gateway that lies can then only withhold: no byte of its own making is parsed by
anything that trusts footers.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from validator.net.arweave.gateway import Gateway
from validator.net.arweave.reading import fetch_chunk_at, find_first_byte
from validator.net.arweave.storage import ArweaveStorage
from validator.ports.storage import StoredTransaction
from validator.protocol.codec.arweave_chunks import cut_chunks
from validator.protocol.codec.arweave_text import encode_storage_id
from validator.protocol.codec.bundle_front import MAX_FOOTER_BYTES, footer_bytes
from validator.protocol.errors import RemoteFault
from validator.protocol.model import StorageId

K = TypeVar("K")
V = TypeVar("V")

TAIL_BYTES = 64 << 10
"""The footer of most bundles lies in so many last bytes."""
REMEMBERED = 1024
"""Transactions whose size, root and place are remembered."""


def fetch_footer(storage: ArweaveStorage, storage_id: StorageId) -> tuple[int, bytes]:
    """Size of a bundle's file, and last bytes of it that hold its footer, as a gateway says (``bundle_front``).

    Raises:
        TransientError: no gateway has it yet.
        RemoteFault: no gateway gives ranges, or it is no bundle.
    """
    size, tail = storage.fetch_tail(storage_id, TAIL_BYTES)
    needed = footer_bytes(size, tail[-8:]) + 8
    if len(tail) < needed <= MAX_FOOTER_BYTES + 8:
        size, tail = storage.fetch_tail(storage_id, needed)
    return size, tail


class ProvenRanges:
    """Bytes out of transactions, from the first gateway that proves them. Thread-safe.

    Chunks that were proven are kept in ``folder``, at most about ``limit_bytes`` of them, the least used go first.
    """

    def __init__(self, storage: ArweaveStorage, folder: Path, limit_bytes: int) -> None:
        self._storage = storage
        self._kept = KeptChunks(folder, limit_bytes)
        self._lock = threading.Lock()
        self._transactions: OrderedDict[StorageId, StoredTransaction] = OrderedDict()
        self._places: OrderedDict[tuple[str, StorageId], int] = OrderedDict()

    def size(self, storage_id: StorageId) -> int:
        """Bytes of the data, as they were signed. Raises as ``read``."""
        return self._transaction(storage_id).data_size

    def read(self, storage_id: StorageId, start: int, end: int) -> bytes:
        """Bytes [start, end) of the data.

        Raises:
            TransientError: no gateway has them now.
            RemoteFault: none gave what was signed, or the data has no such bytes.
        """
        transaction = self._transaction(storage_id)
        if not 0 <= start <= end <= transaction.data_size:
            raise RemoteFault(f"bytes {start} to {end} of {transaction.data_size}", size=transaction.data_size)
        pieces: list[bytes] = []
        at = start
        while at < end:
            first, piece = self._chunk(transaction, at)
            pieces.append(piece[at - first : end - first])
            at = first + len(piece)
        return b"".join(pieces)

    def read_footer(self, storage_id: StorageId) -> tuple[int, bytes]:
        """As ``fetch_footer``, from chunks: where no gateway gives ranges, or they lie."""
        size = self.size(storage_id)
        tail = self.read(storage_id, max(0, size - TAIL_BYTES), size)
        needed = footer_bytes(size, tail[-8:]) + 8
        return size, tail if len(tail) >= needed else self.read(storage_id, size - needed, size)

    def _transaction(self, storage_id: StorageId) -> StoredTransaction:
        with self._lock:
            known = self._transactions.get(storage_id)
        if known is None:
            known = self._storage.fetch_transaction(storage_id)
            _remember(self._lock, self._transactions, storage_id, known)
        return known

    def _chunk(self, transaction: StoredTransaction, at: int) -> tuple[int, bytes]:
        """The chunk that holds byte ``at``, and where it begins."""
        kept = self._kept.find(transaction, at)
        if kept is not None:
            return kept
        first, piece = self._storage.gateways.first(lambda gateway: self._ask(gateway, transaction, at))
        self._kept.add(transaction, first, piece)
        return first, piece

    def _ask(self, gateway: Gateway, transaction: StoredTransaction, at: int) -> tuple[int, bytes]:
        key = (gateway.host, transaction.storage_id)
        with self._lock:
            place = self._places.get(key)
        if place is None:
            place = find_first_byte(gateway, transaction)
        found = fetch_chunk_at(gateway, transaction, place, at)
        _remember(self._lock, self._places, key, place)  # only one that led to a proven chunk
        return found


def _remember(lock: threading.Lock, known: OrderedDict[K, V], key: K, value: V) -> None:
    with lock:
        known[key] = value
        known.move_to_end(key)
        while len(known) > REMEMBERED:
            known.popitem(last=False)


class KeptChunks:
    """Files of one chunk each, named by transaction and first byte. Losing any costs a request."""

    def __init__(self, folder: Path, limit_bytes: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._limit_bytes = limit_bytes
        self._added = 0
        self._lock = threading.Lock()

    def find(self, transaction: StoredTransaction, at: int) -> tuple[int, bytes] | None:
        """The chunk that holds byte ``at``, and where it begins: if the data is cut as clients cut it."""
        starts = [chunk.start for chunk in cut_chunks(transaction.data_size)]
        first = starts[bisect_right(starts, at) - 1]
        path = self._path(transaction, first)
        with suppress(OSError):
            piece = path.read_bytes()
            if first <= at < first + len(piece):
                os.utime(path)
                return first, piece
        return None

    def add(self, transaction: StoredTransaction, first: int, piece: bytes) -> None:
        """Keep it if the disk allows."""
        path = self._path(transaction, first)
        unfinished = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.part")
        with suppress(OSError):
            unfinished.write_bytes(piece)
            unfinished.replace(path)
        with self._lock:
            self._added += len(piece)
            if self._added > self._limit_bytes // 8:
                self._added = 0
                self._tidy()

    def _path(self, transaction: StoredTransaction, first: int) -> Path:
        return self._folder / f"{encode_storage_id(transaction.storage_id)}-{first}.chunk"

    def _tidy(self) -> None:
        with suppress(OSError):
            statuses = [(path.stat(), path) for path in self._folder.iterdir()]
            kept = 0
            for status, path in sorted(statuses, key=lambda found: -found[0].st_mtime_ns):
                kept += status.st_size
                if kept > self._limit_bytes:
                    path.unlink(missing_ok=True)
