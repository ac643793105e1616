"""A small Arweave: mempool, blocks, wallets and chunk data, with a node's rules and a node's texts.

What protects correctness is real: ids and signatures, anchors of the last 50 blocks, balances, prices by whole
chunks, every chunk's proof, data that is only readable when it is complete. There is one chain and no fork; blocks
come when ``mine`` is called. Headers live in memory, chunk bytes in files below the data folder.

Codes and texts are those of the reference node (ar_tx_validator, ar_disk_pool, ar_http_iface_middleware).
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path

from validator.protocol.codec.arweave import (
    CHUNK_BYTES,
    ChunkUpload,
    Transaction,
    compute_address,
    compute_fault,
    compute_paid_size,
    encode_base64url,
    judge_chunk,
)

ANCHOR_BLOCKS = 50
"""An anchor must be one of that many newest blocks."""
ANCHOR_DEPTH = 6
"""GET /tx_anchor answers the block this far below the tip."""
BLOCK_TRANSACTIONS = 1000
BASE_FEE_WINSTON = 1_000_000
CHUNK_FEE_WINSTON = 500_000_000
NEW_ACCOUNT_FEE_WINSTON = 10_000_000_000
RECENT_S = 600.0
"""For so long after acceptance a repeated header is answered 208; later "already on the weave"."""
KNOWN = "Transaction already processed."
ON_WEAVE = "Transaction is already on the weave."
INVALID_ANCHOR = "Invalid anchor (last_tx)."
INVALID_MEMPOOL_ANCHOR = "Invalid anchor (last_tx from mempool)."
UNKNOWN_SPLIT = "The attached data is split in an unknown way."
NOT_VERIFIED = "Transaction verification failed."


@dataclass(slots=True)
class StoredChunk:
    """One chunk on disk: half-open range in its data, its proof, and whether the current rules keep it."""

    start: int
    end: int
    data_path: bytes
    is_kept: bool


@dataclass(slots=True)
class StoredData:
    """The chunks of one (data root, data size), whatever transactions name it; bytes lie in one sparse file."""

    path: Path
    size: int
    chunks: dict[int, StoredChunk] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        end = 0
        for chunk in sorted(self.chunks.values(), key=lambda c: c.start):
            if chunk.start != end:
                return False
            end = chunk.end
        return end == self.size

    def find_chunk(self, offset: int) -> StoredChunk | None:
        """The chunk that holds byte ``offset`` of the data."""
        return next((c for c in self.chunks.values() if c.start <= offset < c.end), None)

    def write(self, start: int, data: bytes) -> None:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            os.pwrite(descriptor, data, start)
        finally:
            os.close(descriptor)

    def read(self, start: int, end: int) -> bytes:
        with self.path.open("rb") as file:
            file.seek(start)
            return file.read(end - start)


@dataclass(slots=True)
class Entry:
    """A transaction that was accepted. ``height`` is None while pending; ``weave_start`` is set when mined."""

    tx: Transaction
    sequence: int
    accepted_s: float
    height: int | None = None
    weave_start: int = 0


@dataclass(frozen=True, slots=True)
class BlockInfo:
    height: int
    hash: bytes
    timestamp_s: int


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and text of a write."""

    status: int
    text: str


class Weave:
    """State of the development network. Not thread-safe: one event loop owns it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.entries: dict[bytes, Entry] = {}
        self.failed: dict[bytes, tuple[str, ...]] = {}
        self.data: dict[tuple[bytes, int], StoredData] = {}
        self.balances: dict[bytes, int] = {}
        self.last_confirmed: dict[bytes, bytes] = {}
        self.block_times: dict[int, BlockInfo] = {}
        self.weave_size = 0
        self.spent = 0
        self.minted = 0
        self.chunks_accepted = 0
        self.chunks_refused = 0
        self._pending: set[bytes] = set()
        self._sequence = 0
        self._recent: deque[BlockInfo] = deque(maxlen=ANCHOR_BLOCKS)
        self._seed = os.urandom(16)
        for _ in range(ANCHOR_DEPTH + 1):
            self._add_block(0)

    # --- chain ---

    @property
    def tip(self) -> BlockInfo:
        return self._recent[-1]

    @property
    def anchor(self) -> bytes:
        return self._recent[-1 - ANCHOR_DEPTH].hash

    @property
    def pending(self) -> list[Entry]:
        return sorted((self.entries[i] for i in self._pending), key=lambda e: e.sequence)

    def _add_block(self, timestamp_s: int) -> BlockInfo:
        height = self._recent[-1].height + 1 if self._recent else 0
        block = BlockInfo(height, hashlib.sha384(self._seed + height.to_bytes(8, "big")).digest(), timestamp_s)
        self._recent.append(block)
        return block

    def mine(self, timestamp_s: int) -> list[Entry]:
        """Add one block with the best paying transactions that are still sound; what can never be mined is dropped."""
        self._add_block(timestamp_s)
        mined: list[Entry] = []
        for entry in sorted(self.pending, key=lambda e: (-e.tx.reward, e.sequence)):
            fault = self._find_mining_fault(entry.tx)
            if fault is not None:
                self.drop(entry.tx.id, fault)
            elif len(mined) < BLOCK_TRANSACTIONS:
                self._include(entry)
                mined.append(entry)
        if mined:
            self.block_times[self.tip.height] = self.tip
        return mined

    def _find_mining_fault(self, tx: Transaction) -> str | None:
        if not self._is_anchor_valid(tx):
            return "invalid_last_tx"
        if tx.reward < self.compute_price(tx.data_size, tx.target):
            return "tx_too_cheap"
        if self.balances.get(tx.address, 0) < tx.reward + tx.quantity:
            return "overspend"
        return None

    def _include(self, entry: Entry) -> None:
        tx = entry.tx
        self._pending.discard(tx.id)
        entry.height = self.tip.height
        self.balances[tx.address] -= tx.reward + tx.quantity
        self.spent += tx.reward
        if tx.quantity:
            self.balances[tx.target] = self.balances.get(tx.target, 0) + tx.quantity
        self.last_confirmed[tx.address] = tx.id
        entry.weave_start = self.weave_size
        self.weave_size += compute_paid_size(tx.data_size)
        stored = self.find_data(tx)
        if stored is not None:
            for chunk in [c for c in stored.chunks.values() if not c.is_kept]:
                del stored.chunks[chunk.start]

    def drop(self, transaction_id: bytes, code: str) -> None:
        """Forget a pending transaction for good."""
        self._pending.discard(transaction_id)
        entry = self.entries.pop(transaction_id)
        self.failed[transaction_id] = (code,)
        if not any(e.tx.data_root == entry.tx.data_root for e in self.entries.values()):
            stored = self.data.pop((entry.tx.data_root, entry.tx.data_size), None)
            if stored is not None:
                stored.path.unlink(missing_ok=True)

    # --- wallets and prices ---

    def mint(self, address: bytes, winston: int) -> int:
        self.minted += winston
        self.balances[address] = self.balances.get(address, 0) + winston
        return self.balances[address]

    def compute_price(self, size: int, target: bytes = b"") -> int:
        """Fee for ``size`` bytes: a base and a step per chunk begun; a target nobody knows costs more."""
        fee = BASE_FEE_WINSTON + compute_paid_size(size) // CHUNK_BYTES * CHUNK_FEE_WINSTON
        return fee + (NEW_ACCOUNT_FEE_WINSTON if target and target not in self.balances else 0)

    # --- headers ---

    def submit(self, tx: Transaction, now_s: float) -> Answer:
        """Judge a header as POST /tx does."""
        known = self.entries.get(tx.id)
        if known is not None:
            is_old = known.height is not None and now_s - known.accepted_s > RECENT_S
            return Answer(400, ON_WEAVE) if is_old else Answer(208, KNOWN)
        fault = compute_fault(tx)
        if fault == "tx_id_not_valid":
            return Answer(400, "Invalid hash.")
        if fault == "unknown_split":
            return Answer(400, UNKNOWN_SPLIT)
        if fault is not None:
            return self._refuse(tx, fault)
        if tx.last_tx in self._pending:
            return Answer(400, INVALID_MEMPOOL_ANCHOR)
        if not self._is_anchor_valid(tx):
            return Answer(400, INVALID_ANCHOR)
        if tx.reward < self.compute_price(tx.data_size, tx.target):
            return self._refuse(tx, "tx_too_cheap")
        owed = sum(e.tx.reward + e.tx.quantity for e in self.pending if e.tx.owner == tx.owner)
        if self.balances.get(tx.address, 0) < owed + tx.reward + tx.quantity:
            return self._refuse(tx, "overspend")
        self._accept(tx, now_s)
        return Answer(200, "OK")

    def _refuse(self, tx: Transaction, code: str) -> Answer:
        self.failed[tx.id] = (code,)
        return Answer(400, NOT_VERIFIED)

    def _accept(self, tx: Transaction, now_s: float) -> None:
        self._sequence += 1
        self.failed.pop(tx.id, None)
        self.entries[tx.id] = Entry(tx, self._sequence, now_s)
        self._pending.add(tx.id)
        if not tx.data_size:
            return
        key = (tx.data_root, tx.data_size)
        if key not in self.data:
            self.data[key] = StoredData(self.folder / f"{tx.data_root.hex()}-{tx.data_size}", tx.data_size)
        if tx.data:
            self.data[key].write(0, tx.data)
            self.data[key].chunks = {0: StoredChunk(0, len(tx.data), b"", True)}

    def _is_anchor_valid(self, tx: Transaction) -> bool:
        if tx.last_tx == self.last_confirmed.get(tx.address, b""):
            return True
        return any(block.hash == tx.last_tx for block in self._recent)

    # --- chunks ---

    def add_chunk(self, upload: ChunkUpload) -> str | None:
        """Judge and store a chunk as POST /chunk does; the error code, or None."""
        verdict = judge_chunk(upload.data_root, upload.data_size, upload.offset, upload.data_path, upload.chunk)
        stored = self.data.get((upload.data_root, upload.data_size))
        if stored is None and verdict.error in (None, "invalid_proof"):
            self.chunks_refused += 1
            return "data_root_not_found"
        if verdict.error is not None or stored is None or verdict.proven is None:
            self.chunks_refused += 1
            return verdict.error
        start, end = verdict.proven.start, verdict.proven.end
        is_mined = any(
            e.height is not None and (e.tx.data_root, e.tx.data_size) == (upload.data_root, upload.data_size)
            for e in self.entries.values()
        )
        if start not in stored.chunks and (verdict.is_kept or not is_mined):
            stored.write(start, upload.chunk)
            stored.chunks[start] = StoredChunk(start, end, upload.data_path, verdict.is_kept)
        self.chunks_accepted += 1
        return None

    def forget_chunk(self, entry: Entry, offset: int) -> bool:
        """Lose the chunk that holds byte ``offset`` of the transaction's data."""
        stored = self.find_data(entry.tx)
        chunk = stored.find_chunk(offset) if stored is not None else None
        if stored is None or chunk is None:
            return False
        del stored.chunks[chunk.start]
        stored.write(chunk.start, bytes(chunk.end - chunk.start))
        return True

    # --- reads ---

    def find_data(self, tx: Transaction) -> StoredData | None:
        return self.data.get((tx.data_root, tx.data_size))

    def find_readable(self, transaction_id: bytes) -> tuple[Entry, StoredData] | None:
        """A mined transaction with all of its data, else None: a short answer is never given."""
        entry = self.entries.get(transaction_id)
        stored = self.find_data(entry.tx) if entry is not None else None
        if entry is None or entry.height is None or stored is None or not stored.is_complete:
            return None
        return entry, stored

    def find_at(self, position: int) -> tuple[Entry, StoredData, StoredChunk] | None:
        """The chunk that holds byte ``position`` of the weave, counted from 1."""
        for entry in self.entries.values():
            start = entry.weave_start
            if entry.height is None or not start < position <= start + entry.tx.data_size:
                continue
            stored = self.find_data(entry.tx)
            chunk = stored.find_chunk(position - start - 1) if stored is not None else None
            return None if stored is None or chunk is None else (entry, stored, chunk)
        return None

    def compute_stats(self) -> dict[str, object]:
        """What was paid, by whom and for which bundle; balances add up to what was minted and not spent."""
        transactions = [self._describe(entry) for entry in sorted(self.entries.values(), key=lambda e: e.sequence)]
        paid: dict[str, dict[str, int]] = {}
        for line in transactions:
            if line["height"] is not None and line["bundle_root"]:
                owners = paid.setdefault(str(line["bundle_root"]), {})
                owners[str(line["owner"])] = owners.get(str(line["owner"]), 0) + 1
        return {
            "height": self.tip.height,
            "transactions": transactions,
            "paid": paid,
            "balances": {encode_base64url(a): str(b) for a, b in sorted(self.balances.items())},
            "minted": str(self.minted),
            "spent": str(self.spent),
            "chunks_accepted": self.chunks_accepted,
            "chunks_refused": self.chunks_refused,
        }

    def _describe(self, entry: Entry) -> dict[str, object]:
        tx = entry.tx
        tags = dict(text_tags(tx))
        stored = self.find_data(tx)
        return {
            "id": encode_base64url(tx.id),
            "owner": encode_base64url(compute_address(tx.owner)),
            "reward": str(tx.reward),
            "height": entry.height,
            "data_size": tx.data_size,
            "complete": stored is not None and stored.is_complete,
            "bundle_root": tags.get("Bundle-Root", ""),
            "bundle_number": tags.get("Bundle-Number", ""),
        }


def text_tags(tx: Transaction) -> list[tuple[str, str]]:
    """Tags as text; bytes that are none are replaced, since anybody may post anything."""
    return [(name.decode(errors="replace"), value.decode(errors="replace")) for name, value in tx.tags]
