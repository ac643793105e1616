"""What was read from the chain, kept by block when first read: heads, cut points, states, permissions.

chain state ["chain-state/3", number, hash, timestamp_s, [[address, stake, http, validator, arweave, index]…],
             [[stream, balance, partitions, leaving, index]…], system stream, [[consumer, balance, index]…]]

A revision that adds a field deletes the states that lack it: they are read from the chain again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from sqlalchemy import delete, select

from validator.ports.clock import Clock
from validator.ports.stored import CutPoint, Reorganisation
from validator.protocol.codec import cbor
from validator.protocol.errors import MalformedInput
from validator.protocol.hashing import hash_labelled
from validator.protocol.model import Account, Address, Block, ChainState, Digest, Node, Store
from validator.store import schema
from validator.store.database import Database
from validator.store.rows import from_row, insert_all_new, insert_new, insert_or_replace

STATE_KIND = "chain-state/3"
MAX_STATE_BYTES = 64 << 20
STORES = "stores"
"""Name of the cursor of the list of stores."""


def encode_state(state: ChainState) -> bytes:
    """Canonical bytes; nodes and consumers by address, stores by stream id."""
    return cbor.encode_object(
        STATE_KIND,
        state.block.number,
        state.block.hash,
        state.block.timestamp_s,
        [
            [n.address, cbor.pack_amount(n.stake), n.http_url, n.validator_url, n.arweave, n.index]
            for n in sorted(state.nodes, key=lambda n: n.address)
        ],
        [
            [s.stream_id, cbor.pack_amount(s.balance), s.partitions, cbor.pack_amount(s.leaving), s.index]
            for s in sorted(state.stores, key=lambda s: s.stream_id.encode())
        ],
        state.system_stream,
        [
            [consumer, cbor.pack_amount(account.balance), account.index]
            for consumer, account in sorted(state.consumers.items(), key=lambda item: item[0])
        ],
    )


def decode_state(data: bytes) -> ChainState:
    """Inverse of ``encode_state``. Raises MalformedInput."""
    f = cbor.decode_object(data, STATE_KIND, 7, max_bytes=MAX_STATE_BYTES)
    try:
        return ChainState(
            block=Block(f[0], Digest(f[1]), f[2]),
            nodes=tuple(_node(*item) for item in f[3]),
            stores=tuple(
                Store(s, cbor.unpack_amount(b, "balance"), p, cbor.unpack_amount(e, "leaving"), i)
                for s, b, p, e, i in f[4]
            ),
            system_stream=f[5],
            consumers={Address(c): Account(cbor.unpack_amount(b, "consumers"), i) for c, b, i in f[6]},
        )
    except (TypeError, ValueError) as error:
        raise MalformedInput("chain-state", str(error)) from error


def _node(address: Any, stake: Any, http_url: Any, validator_url: Any, arweave: Any, index: Any) -> Node:
    return Node(Address(address), cbor.unpack_amount(stake, "stake"), http_url, validator_url, arweave, index)


class ChainRows:
    """The port ``ChainCache``."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def load_block(self, timestamp_s: int) -> Block | None:
        """The cut point for a time."""
        t = schema.chain_blocks
        query = select(t.c.number, t.c.hash, t.c.timestamp_s).where(t.c.at_s == timestamp_s)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else Block(*row)

    def save_block(self, timestamp_s: int, block: Block) -> None:
        """Keep a final cut point; the first one stays."""
        row = {"at_s": timestamp_s, "number": block.number, "hash": block.hash, "timestamp_s": block.timestamp_s}
        with self._database.write() as connection:
            insert_new(connection, schema.chain_blocks, row)

    def load_cut_points(self, since_s: int, below_s: int | None, limit: int) -> list[CutPoint]:
        """The newest stored cut points of a time or later, and before another."""
        t = schema.chain_blocks
        query = select(t).where(t.c.at_s >= since_s).order_by(t.c.at_s.desc()).limit(limit)
        if below_s is not None:
            query = query.where(t.c.at_s < below_s)
        with self._database.read() as connection:
            return [CutPoint(r.at_s, Block(r.number, r.hash, r.timestamp_s)) for r in connection.execute(query)]

    def replace_block(self, cut: CutPoint, block: Block | None, found: Reorganisation, epoch: int | None) -> bool:
        """Forget a cut point that the chain has replaced, and note that; False if somebody else was first."""
        t, old = schema.chain_blocks, cut.block
        with self._database.write() as connection:
            stale = delete(t).where(t.c.at_s == cut.at_s, t.c.hash == old.hash)
            if connection.execute(stale).rowcount != 1:
                return False
            if block is not None:
                insert_new(connection, t, {"at_s": cut.at_s, **dataclasses.asdict(block)})
            if epoch is not None:
                insert_new(connection, schema.epoch_blocks, {"epoch": epoch, **dataclasses.asdict(old)})
            insert_new(connection, schema.reorganisations, dataclasses.asdict(found))
        return True

    def load_reorganisations(self, since_ms: int) -> list[Reorganisation]:
        """Replaced cut points found since a time, the newest first."""
        t = schema.reorganisations
        with self._database.read() as connection:
            rows = connection.execute(select(t).where(t.c.found_ms >= since_ms).order_by(t.c.at_s.desc()).limit(20))
            return [from_row(Reorganisation, row) for row in rows]

    def load_epoch_block(self, epoch: int) -> Block | None:
        """The block at which an epoch's committee was read, where the chain has replaced it since."""
        t = schema.epoch_blocks
        with self._database.read() as connection:
            row = connection.execute(select(t.c.number, t.c.hash, t.c.timestamp_s).where(t.c.epoch == epoch)).first()
        return None if row is None else Block(*row)

    def load_state(self, block_hash: Digest) -> ChainState | None:
        t = schema.chain_states
        with self._database.read() as connection:
            data = connection.scalar(select(t.c.bytes).where(t.c.block_hash == block_hash))
        return None if data is None else decode_state(data)

    def save_state(self, state: ChainState) -> None:
        """Keep a state; consumers' balances that were read later are not added to one that is there."""
        row = {"block_hash": state.block.hash, "block_number": state.block.number, "bytes": encode_state(state)}
        with self._database.write() as connection:
            insert_new(connection, schema.chain_states, row | {"saved_ms": self._clock.now_ms()})

    def load_head(self) -> tuple[Block, Block] | None:
        """(head, newest finalised) as the head watcher saw them last."""
        t = schema.chain_heads
        with self._database.read() as connection:
            rows = {row.name: Block(row.number, row.hash, row.timestamp_s) for row in connection.execute(select(t))}
        return (rows["head"], rows["finalised"]) if len(rows) == 2 else None

    def save_head(self, head: Block, finalised: Block) -> None:
        with self._database.write() as connection:
            for name, block in (("head", head), ("finalised", finalised)):
                row = {"name": name, "number": block.number, "hash": block.hash, "timestamp_s": block.timestamp_s}
                insert_or_replace(connection, schema.chain_heads, row | {"seen_ms": self._clock.now_ms()})

    def load_permission(self, block_hash: Digest, stream_id: str, publisher: bytes) -> bool | None:
        """Whether the publisher might publish at that block; None if it was never asked."""
        t = schema.permissions
        query = select(t.c.allowed).where(t.c.block_hash == block_hash, t.c.subject == _subject(stream_id, publisher))
        with self._database.read() as connection:
            return connection.scalar(query)

    def save_permissions(self, block_hash: Digest, answers: Mapping[tuple[str, bytes], bool]) -> None:
        place = {"block_hash": block_hash, "saved_ms": self._clock.now_ms()}
        rows = [{**place, "subject": _subject(*subject), "allowed": allowed} for subject, allowed in answers.items()]
        with self._database.write() as connection:
            insert_all_new(connection, schema.permissions, rows)

    def load_stores(self) -> tuple[int, frozenset[str]] | None:
        """(block up to which events were read, streams that they named); None before the first read."""
        with self._database.read() as connection:
            upto = connection.scalar(select(schema.cursors.c.value).where(schema.cursors.c.name == STORES))
            if upto is None:
                return None
            return upto, frozenset(connection.scalars(select(schema.store_index.c.stream_id)))

    def save_stores(self, upto: int, stream_ids: frozenset[str]) -> None:
        """The index only grows."""
        with self._database.write() as connection:
            insert_all_new(connection, schema.store_index, ({"stream_id": s} for s in sorted(stream_ids)))
            row = {"name": STORES, "value": upto, "changed_ms": self._clock.now_ms()}
            insert_or_replace(connection, schema.cursors, row)


def _subject(stream_id: str, publisher: bytes) -> Digest:
    """Key of a permission: a publisher's public key may be longer than an index entry can be."""
    return hash_labelled("permission", stream_id.encode(), publisher)
