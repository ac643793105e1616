"""A small Arweave: mempool, blocks, wallets and chunk data, with a node's rules and a node's texts.

What protects correctness is real: ids and signatures, anchors of the last 50 blocks, balances, prices by whole
chunks, every chunk's proof, data that is only readable when it is complete. Blocks come when ``mine`` is called;
``fork`` replaces the newest by others. Headers live in memory, chunk bytes in files below the data folder.

Codes and texts are those of the reference node (ar_tx_validator, ar_tx_replay_pool, ar_disk_pool,
ar_http_iface_middleware). Left out: owners with secp256k1 keys, denominations, transactions of format 1.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from validator.devnet.gateway.chunks import StoredChunk, StoredData
from validator.protocol.codec.arweave import Transaction, compute_address, compute_fault, encode_transaction_json
from validator.protocol.codec.arweave_chunks import (
    CHUNK_BYTES,
    ChunkUpload,
    build_inline_tree,
    compute_paid_size,
    judge_chunk,
)
from validator.protocol.codec.arweave_text import encode_base64url

ANCHOR_BLOCKS = 50
"""An anchor must be one of that many newest blocks."""
ANCHOR_DEPTH = 6
"""GET /tx_anchor answers the block this far below the tip."""
BLOCK_TRANSACTIONS = 1000
MEMPOOL_BYTES = 250 * 1024 * 1024
"""Headers that wait to be mined; beyond it those that pay least are pushed out."""
MAX_FORK_BLOCKS = 18
"""How deep the network reorganises at most."""
PENDING_ROOT_S = 1800.0
"""For so long after a header was seen its chunks are taken although it is not mined."""
FAILURE_S = 1800.0
"""For so long the codes of a refused header are answered."""
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
class Entry:
    """A transaction that was accepted. ``height`` is None while pending; ``weave_start`` is set when mined."""

    tx: Transaction
    sequence: int
    accepted_s: float
    header_bytes: int
    height: int | None = None
    weave_start: int = 0
    last_confirmed: bytes = b""
    """The wallet's last confirmed transaction before this one; what a fork goes back to."""
    is_first_of_target: bool = False

    @property
    def key(self) -> tuple[bytes, int]:
        """What its chunks are stored under."""
        return (self.tx.data_root, self.tx.data_size)


@dataclass(slots=True)
class BlockInfo:
    """A block. ``weave_size`` is where its data ends in the one weave of all blocks' data."""

    height: int
    hash: bytes
    previous: bytes
    timestamp_s: int
    weave_size: int
    transactions: list[bytes] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a header was refused, by the node's codes, and when."""

    codes: tuple[str, ...]
    at_s: float


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and text of a write."""

    status: int
    text: str


class Weave:
    """State of the development network. Not thread-safe: one event loop owns it."""

    def __init__(self, folder: Path, *, mempool_bytes: int = MEMPOOL_BYTES) -> None:
        self.folder = folder
        self.mempool_bytes = mempool_bytes
        self.clock: Callable[[], float] = time.monotonic
        self.entries: dict[bytes, Entry] = {}
        self.failed: dict[bytes, Failure] = {}
        self.data: dict[tuple[bytes, int], StoredData] = {}
        self.balances: dict[bytes, int] = {}
        self.last_confirmed: dict[bytes, bytes] = {}
        self.blocks: list[BlockInfo] = []
        self.price_permille = self.next_price_permille = 1000
        self.keeps_chunks = True
        """False: sound chunks are answered as by a node that does not expect to keep them, and are not stored."""
        self.spent = 0
        self.minted = 0
        self.headers_accepted: Counter[str] = Counter()
        """Headers that were ever taken, by Bundle-Root: what was signed and sent, mined or not."""
        self.chunks_accepted = 0
        self.chunks_refused = 0
        self._pending: set[bytes] = set()
        self._sequence = 0
        self._seed = os.urandom(16)
        self._made_blocks = 0
        for _ in range(ANCHOR_DEPTH + 1):
            self._add_block(0)

    # --- chain ---

    @property
    def tip(self) -> BlockInfo:
        return self.blocks[-1]

    @property
    def anchor(self) -> bytes:
        return self.blocks[-1 - ANCHOR_DEPTH].hash

    @property
    def pending(self) -> list[Entry]:
        return sorted((self.entries[i] for i in self._pending), key=lambda e: e.sequence)

    def _add_block(self, timestamp_s: int) -> BlockInfo:
        previous = self.blocks[-1] if self.blocks else None
        self._made_blocks += 1  # blocks of one height differ from fork to fork
        digest = hashlib.sha384(self._seed + self._made_blocks.to_bytes(8, "big")).digest()
        if previous is None:
            block = BlockInfo(0, digest, b"", timestamp_s, 0)
        else:
            block = BlockInfo(previous.height + 1, digest, previous.hash, timestamp_s, previous.weave_size)
        self.blocks.append(block)
        return block

    def mine(self, timestamp_s: int) -> list[Entry]:
        """Add one block with the best paying transactions that are still sound; what can never be mined is dropped.

        A header that pays too little for today's price stays: the price may fall while its anchor is still good.
        """
        self.price_permille = self.next_price_permille
        block = self._add_block(timestamp_s)
        mined: list[Entry] = []
        for entry in sorted(self.pending, key=lambda e: (-e.tx.reward, e.sequence)):
            fault = self._find_mining_fault(entry.tx)
            if fault is not None:
                self.drop(entry.tx.id, fault)
            elif len(mined) < BLOCK_TRANSACTIONS and entry.tx.reward >= self._price_now(entry.tx):
                self._include(entry, block)
                mined.append(entry)
        return mined

    def _find_mining_fault(self, tx: Transaction) -> str | None:
        if not self._is_anchor_valid(tx):
            return "invalid_last_tx"
        if self.balances.get(tx.address, 0) < tx.reward + tx.quantity:
            return "overspend"
        return None

    def _include(self, entry: Entry, block: BlockInfo) -> None:
        tx = entry.tx
        stored = self.find_data(tx)
        if stored is not None:
            for chunk in [c for c in stored.chunks.values() if not c.is_kept or self._is_expired(stored)]:
                del stored.chunks[chunk.start]
        self._pending.discard(tx.id)
        entry.height = block.height
        self.balances[tx.address] -= tx.reward + tx.quantity
        self.spent += tx.reward
        if tx.quantity:
            entry.is_first_of_target = tx.target not in self.balances
            self.balances[tx.target] = self.balances.get(tx.target, 0) + tx.quantity
        entry.last_confirmed = self.last_confirmed.get(tx.address, b"")
        self.last_confirmed[tx.address] = tx.id
        entry.weave_start = block.weave_size
        block.weave_size += compute_paid_size(tx.data_size)
        block.transactions.append(tx.id)

    def fork(self, depth: int, timestamp_s: int, *, drops: bool) -> list[Entry]:
        """Replace the newest blocks by one more empty one than they were; the transactions that were in them.

        They go back to the mempool, or are lost where ``drops``: the nodes of the other branch never had them.
        """
        depth = max(0, min(depth, MAX_FORK_BLOCKS, len(self.blocks) - ANCHOR_DEPTH - 1))
        replaced = self.blocks[len(self.blocks) - depth :]
        del self.blocks[len(self.blocks) - depth :]
        undone = [self.entries[i] for block in reversed(replaced) for i in reversed(block.transactions)]
        for entry in undone:
            self._undo(entry)
        for _ in range(depth + 1 if depth else 0):
            self._add_block(timestamp_s)
        for entry in undone if drops else ():
            self.forget(entry.tx.id)
        return undone[::-1]

    def _undo(self, entry: Entry) -> None:
        tx = entry.tx
        entry.height, entry.weave_start = None, 0
        stored = self.find_data(tx)
        if stored is not None:
            stored.seen_s = self.clock()
        self._pending.add(tx.id)
        self.balances[tx.address] += tx.reward + tx.quantity
        self.spent -= tx.reward
        if tx.quantity:
            self.balances[tx.target] -= tx.quantity
            if entry.is_first_of_target:
                del self.balances[tx.target]
        if entry.last_confirmed:
            self.last_confirmed[tx.address] = entry.last_confirmed
        else:
            del self.last_confirmed[tx.address]

    def forget(self, transaction_id: bytes) -> None:
        """Lose a pending transaction as if it had never come, with its chunks where no other names them."""
        self._pending.discard(transaction_id)
        entry = self.entries.pop(transaction_id)
        if not any(e.key == entry.key for e in self.entries.values()):
            stored = self.data.pop(entry.key, None)
            if stored is not None:
                stored.path.unlink(missing_ok=True)

    def drop(self, transaction_id: bytes, code: str) -> None:
        """Forget a pending transaction for good, and say why for a while."""
        self.forget(transaction_id)
        self.failed[transaction_id] = Failure((code,), self.clock())

    def find_failure(self, transaction_id: bytes) -> tuple[str, ...]:
        """Codes for which a header was refused or dropped, while they are remembered."""
        failure = self.failed.get(transaction_id)
        return failure.codes if failure is not None and self.clock() - failure.at_s <= FAILURE_S else ()

    # --- wallets and prices ---

    def mint(self, address: bytes, winston: int) -> int:
        self.minted += winston
        self.balances[address] = self.balances.get(address, 0) + winston
        return self.balances[address]

    def compute_price(self, size: int, target: bytes = b"") -> int:
        """What is answered to who asks for a price: the higher of this block's and the next one's."""
        return self._compute_fee(size, target, max(self.price_permille, self.next_price_permille))

    def _price_now(self, tx: Transaction) -> int:
        return self._compute_fee(tx.data_size, tx.target, self.price_permille)

    def _compute_fee(self, size: int, target: bytes, permille: int) -> int:
        """A base and a step per chunk begun; a target nobody knows costs more."""
        fee = BASE_FEE_WINSTON + compute_paid_size(size) // CHUNK_BYTES * CHUNK_FEE_WINSTON
        return fee * permille // 1000 + (NEW_ACCOUNT_FEE_WINSTON if target and target not in self.balances else 0)

    # --- headers ---

    def submit(self, tx: Transaction) -> Answer:
        """Judge a header as POST /tx does."""
        known = self.entries.get(tx.id)
        if known is not None:
            is_old = known.height is not None and self.clock() - known.accepted_s > RECENT_S
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
        if tx.reward < self._price_now(tx):
            return self._refuse(tx, "tx_too_cheap")
        owed = sum(e.tx.reward + e.tx.quantity for e in self.pending if e.tx.owner == tx.owner)
        if self.balances.get(tx.address, 0) < owed + tx.reward + tx.quantity:
            return self._refuse(tx, "overspend")
        self._accept(tx)
        return Answer(200, "OK")

    def _refuse(self, tx: Transaction, code: str) -> Answer:
        self.failed[tx.id] = Failure((code,), self.clock())
        return Answer(400, NOT_VERIFIED)

    def _accept(self, tx: Transaction) -> None:
        self._sequence += 1
        self.failed.pop(tx.id, None)
        entry = Entry(tx, self._sequence, self.clock(), len(encode_transaction_json(tx)))
        self.entries[tx.id] = entry
        self._pending.add(tx.id)
        root = dict(show_tags(tx.tags)).get("Bundle-Root")
        if root:
            self.headers_accepted[root] += 1
        if tx.data_size:
            self._expect_data(entry)
        self._push_out()

    def _expect_data(self, entry: Entry) -> None:
        tx = entry.tx
        stored = self.data.get(entry.key)
        if stored is None:
            path = self.folder / f"{tx.data_root.hex()}-{tx.data_size}"
            stored = self.data[entry.key] = StoredData(path, tx.data_size, self.clock())
        stored.seen_s = self.clock()
        if tx.data:
            stored.write(0, tx.data)
            tree = build_inline_tree(tx.data)
            for index, chunk in enumerate(tree.chunks):
                proof = tree.compute_data_path(index)
                stored.chunks[chunk.start] = StoredChunk(chunk.start, chunk.end, proof, True)

    def _push_out(self) -> None:
        """Bound the mempool: whoever pays least leaves, the newest first."""
        waiting = sorted(self.pending, key=lambda e: (e.tx.reward, -e.sequence))
        excess = sum(entry.header_bytes for entry in waiting) - self.mempool_bytes
        for entry in waiting:
            if excess <= 0:
                return
            excess -= entry.header_bytes
            self.forget(entry.tx.id)

    def _is_anchor_valid(self, tx: Transaction) -> bool:
        if tx.last_tx == self.last_confirmed.get(tx.address, b""):
            return True
        return any(block.hash == tx.last_tx for block in self.blocks[-ANCHOR_BLOCKS:])

    # --- chunks ---

    def add_chunk(self, upload: ChunkUpload, *, forgets: bool = False) -> str | None:
        """Judge a chunk as POST /chunk does, and store it unless this one is to be lost; the error code, or None."""
        verdict = judge_chunk(upload.data_root, upload.data_size, upload.offset, upload.data_path, upload.chunk)
        stored = self.data.get((upload.data_root, upload.data_size))
        is_known = stored is not None and not self._is_expired(stored)
        if not is_known and verdict.error in (None, "invalid_proof"):
            self.chunks_refused += 1
            return "data_root_not_found"
        if verdict.error is not None or stored is None or verdict.proven is None:
            self.chunks_refused += 1
            return verdict.error
        start, end = verdict.proven.start, verdict.proven.end
        is_wanted = self.keeps_chunks and not forgets and (verdict.is_kept or not self._is_mined(stored))
        if start not in stored.chunks and is_wanted:
            stored.write(start, upload.chunk)
            stored.chunks[start] = StoredChunk(start, end, upload.data_path, verdict.is_kept)
        self.chunks_accepted += 1
        return None

    def _is_mined(self, stored: StoredData) -> bool:
        return any(e.height is not None and self.data.get(e.key) is stored for e in self.entries.values())

    def _is_expired(self, stored: StoredData) -> bool:
        """Whether a header's data has been waited for too long while nobody mined it."""
        return self.clock() - stored.seen_s > PENDING_ROOT_S and not self._is_mined(stored)

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
            "headers_accepted": dict(self.headers_accepted),
            "balances": {encode_base64url(a): str(b) for a, b in sorted(self.balances.items())},
            "minted": str(self.minted),
            "spent": str(self.spent),
            "chunks_accepted": self.chunks_accepted,
            "chunks_refused": self.chunks_refused,
        }

    def _describe(self, entry: Entry) -> dict[str, object]:
        tx = entry.tx
        tags = dict(show_tags(tx.tags))
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


def show_tags(tags: Sequence[tuple[bytes, bytes]]) -> list[tuple[str, str]]:
    """Tags as text; bytes that are none are replaced, since anybody may post anything."""
    return [(name.decode(errors="replace"), value.decode(errors="replace")) for name, value in tags]
