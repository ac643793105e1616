"""What was read from the chain, kept by block: cut points, states, permissions.

chain state ["chain-state/1", number, hash, timestamp_s, [[address, stake, http, validator]…],
             [[stream, balance, partitions]…], system stream, [[consumer, balance]…]]
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, delete, select

from validator.codec import cbor
from validator.errors import MalformedInput
from validator.model import Address, Block, ChainState, Digest, Node, Store
from validator.store import schema
from validator.store.rows import insert_all_new, insert_new

MAX_STATE_BYTES = 64 << 20


def encode_state(state: ChainState) -> bytes:
    """Canonical bytes; nodes and consumers by address, stores by stream id."""
    return cbor.encode_object(
        "chain-state/1",
        state.block.number,
        state.block.hash,
        state.block.timestamp_s,
        [
            [n.address, cbor.pack_amount(n.stake), n.http_url, n.validator_url]
            for n in sorted(state.nodes, key=lambda n: n.address)
        ],
        [
            [s.stream_id, cbor.pack_amount(s.balance), s.partitions]
            for s in sorted(state.stores, key=lambda s: s.stream_id.encode())
        ],
        state.system_stream,
        [[consumer, cbor.pack_amount(balance)] for consumer, balance in sorted(state.consumers.items())],
    )


def decode_state(data: bytes) -> ChainState:
    """Inverse of ``encode_state``. Raises MalformedInput."""
    f = cbor.decode_object(data, "chain-state/1", 7, max_bytes=MAX_STATE_BYTES)
    try:
        return ChainState(
            block=Block(f[0], Digest(f[1]), f[2]),
            nodes=tuple(_node(*item) for item in f[3]),
            stores=tuple(Store(s, cbor.unpack_amount(b, "balance"), p) for s, b, p in f[4]),
            system_stream=f[5],
            consumers={Address(c): cbor.unpack_amount(b, "consumers") for c, b in f[6]},
        )
    except (TypeError, ValueError) as error:
        raise MalformedInput("chain-state", str(error)) from error


def _node(address: Any, stake: Any, http_url: Any, validator_url: Any) -> Node:
    return Node(Address(address), cbor.unpack_amount(stake, "stake"), http_url, validator_url)


def save_block_at(connection: Connection, at_s: int, block: Block) -> bool:
    """Keep B for a time (seconds); False if it is known."""
    row = {"at_s": at_s, "number": block.number, "hash": block.hash, "timestamp_s": block.timestamp_s}
    return insert_new(connection, schema.chain_blocks, row)


def load_block_at(connection: Connection, at_s: int) -> Block | None:
    t = schema.chain_blocks
    row = connection.execute(select(t.c.number, t.c.hash, t.c.timestamp_s).where(t.c.at_s == at_s)).one_or_none()
    return None if row is None else Block(*row)


def save_state(connection: Connection, state: ChainState) -> bool:
    """Keep the state of a block when it is first read; False if it is known."""
    row = {"block_hash": state.block.hash, "block_number": state.block.number, "bytes": encode_state(state)}
    return insert_new(connection, schema.chain_states, row)


def load_state(connection: Connection, block_hash: Digest) -> ChainState | None:
    t = schema.chain_states
    data = connection.scalar(select(t.c.bytes).where(t.c.block_hash == block_hash))
    return None if data is None else decode_state(data)


def save_permissions(connection: Connection, block: Block, allowed: Mapping[tuple[str, Address], bool]) -> None:
    """Keep who may publish where at a block, as first read."""
    place = {"block_hash": block.hash, "block_number": block.number}
    rows = ({**place, "stream_id": s, "publisher": p, "allowed": a} for (s, p), a in allowed.items())
    insert_all_new(connection, schema.permissions, rows)


def load_permissions(connection: Connection, block_hash: Digest) -> dict[tuple[str, Address], bool]:
    t = schema.permissions
    rows = connection.execute(select(t.c.stream_id, t.c.publisher, t.c.allowed).where(t.c.block_hash == block_hash))
    return {(stream_id, Address(publisher)): allowed for stream_id, publisher, allowed in rows}


def delete_states(connection: Connection, before_block: int) -> None:
    """Drop states and permissions of older blocks."""
    for table in (schema.chain_states, schema.permissions):
        connection.execute(delete(table).where(table.c.block_number < before_block))
