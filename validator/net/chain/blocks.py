"""Blocks: the head, the newest finalised one, and B(t), the cut points of the network.

A block is what a majority of sources call by one hash. Head and finalised block are the highest that a majority has
reached, so a source that lags, or names blocks that nobody else has, moves neither.

Final blocks are remembered, yet where finality is a number of blocks even they may be replaced. So no cut point is
named from memory alone: it and the block behind it are compared with the chain as it is, and what is remembered is
forgotten where they differ.
"""

from __future__ import annotations

import threading
from bisect import bisect_right, insort
from collections.abc import Sequence
from typing import Any

from validator.net.chain.jsonrpc import Request
from validator.net.chain.rpc import Rpc
from validator.net.chain.values import parse_bytes, parse_number
from validator.protocol.codec.limits import MAX_TIMESTAMP_MS
from validator.protocol.errors import MalformedInput, RemoteFault, TransientError
from validator.protocol.model import Block, Digest

CACHED_BLOCKS = 4096
MAX_TIME_S = MAX_TIMESTAMP_MS // 1000
"""The last second in which a message can lie: its milliseconds fit wherever times are kept."""
MAX_SEARCHES = 3
"""Searches for one B(t); only a chain that is being replaced asks for a second."""
MAX_STEPS = 128
"""Reads of one search for B(t); halving alone needs 64."""


def parse_block(value: Any) -> Block | None:
    """A block header of ``eth_getBlockBy…``; None where the source does not have it. Raises MalformedInput."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise MalformedInput("block", "not an object")
    return Block(
        number=parse_number(value.get("number"), "block.number"),
        hash=Digest(parse_bytes(value.get("hash"), "block.hash", 32)),
        timestamp_s=parse_number(value.get("timestamp"), "block.timestamp", MAX_TIME_S),
    )


def _parse_present_block(value: Any) -> Block:
    block = parse_block(value)
    if block is None:
        raise MalformedInput("block", "not there")
    return block


def _parse_parent(value: Any) -> bytes:
    if not isinstance(value, dict):
        raise MalformedInput("block", "not there")
    return parse_bytes(value.get("parentHash"), "block.parentHash", 32)


class Blocks:
    """Finalised blocks are kept, up to ``CACHED_BLOCKS``. Thread-safe."""

    def __init__(self, rpc: Rpc, *, finality: str, first_block: int = 0) -> None:
        """``finality``: "finalized", or how many blocks below the head count as final."""
        self._rpc = rpc
        self._depth = int(finality) if finality.isdecimal() else None
        self._first_block = first_block
        self._lock = threading.Lock()
        self._known: dict[int, Block] = {}
        self._numbers: list[int] = []
        self._finalised: Block | None = None

    @property
    def tag(self) -> str | None:
        """How sources are asked for finality; None where blocks are counted."""
        return "finalized" if self._depth is None else None

    def fetch_head(self) -> Block:
        """The newest block that a majority of sources has. Raises TransientError."""
        return self._fetch_common("latest", 0)

    def fetch_finalised(self) -> Block:
        """The newest final block that a majority of sources has. Raises TransientError."""
        block = self._fetch_common("finalized", 0) if self._depth is None else self._fetch_common("latest", self._depth)
        with self._lock:
            if self._finalised is None or block.number > self._finalised.number:
                self._finalised = block
        self._keep(block)
        return block

    def fetch_block(self, number: int) -> Block:
        """The block of that number. Raises TransientError where a majority does not have it, or not by one hash."""
        known = self._known.get(number)
        if known is not None:
            return known
        block = self.fetch_blocks([number])[0]
        if self._finalised is not None and number <= self._finalised.number:
            self._keep(block)
        return block

    def fetch_parent_hash(self, number: int) -> Digest:
        """Hash of the block before ``number``. Raises TransientError."""
        request = Request("eth_getBlockByNumber", (hex(number), False), _parse_parent)
        return Digest(self._rpc.agree([request])[0])

    @property
    def finalised_number(self) -> int:
        """Number of the newest final block seen so far, -1 before the first."""
        return -1 if self._finalised is None else self._finalised.number

    def fetch_block_at(self, timestamp_s: int) -> Block | None:
        """B: the highest block with timestamp <= ``timestamp_s``; None until a final block with a later one exists.

        Raises:
            TransientError: sources do not answer or do not agree yet.
            RemoteFault: the chain has no block that old, or its timestamps fall.
        """
        for _ in range(MAX_SEARCHES):
            found = self._search(timestamp_s)
            if found is None:
                return None
            low, high = found
            if self.fetch_blocks([low.number, high.number]) == [low, high]:
                return low
            self._forget()
        raise TransientError(f"the chain changes while the block at {timestamp_s} is looked for", reason="unavailable")

    def fetch_blocks(self, numbers: Sequence[int]) -> list[Block]:
        """Blocks by number as the sources name them now, never from memory. Raises TransientError."""
        blocks: list[Block] = self._rpc.agree([block_by_number(number) for number in numbers])
        for number, block in zip(numbers, blocks, strict=True):
            if block.number != number:
                raise RemoteFault(f"asked for block {number}, got {block.number}", number=number)
        return blocks

    def _search(self, timestamp_s: int) -> tuple[Block, Block] | None:
        """B and the block behind it, partly from memory."""
        if self._finalised is None or self._finalised.timestamp_s <= timestamp_s:
            self.fetch_finalised()
        high = self._finalised
        if high is None or high.timestamp_s <= timestamp_s:
            return None
        low = self._lower_bound(timestamp_s, high)
        high = self._upper_bound(timestamp_s, high)
        halve = False
        for _ in range(MAX_STEPS):
            gap = high.number - low.number
            if gap <= 1:
                return low, high
            if high.timestamp_s < low.timestamp_s:
                raise RemoteFault("timestamps of blocks fall", first=low.number, last=high.number)
            if halve:
                guess = low.number + gap // 2
            else:
                span = max(high.timestamp_s - low.timestamp_s, 1)
                guess = low.number + (timestamp_s - low.timestamp_s) * gap // span
                guess = min(max(guess, low.number + 1), high.number - 1)
            block = self.fetch_block(guess)
            if block.timestamp_s <= timestamp_s:
                low = block
            else:
                high = block
            halve = (high.number - low.number) * 2 > gap  # a guess that gained little: halve once
        raise TransientError(f"block at {timestamp_s} not found in {MAX_STEPS} steps", reason="unavailable")

    def _lower_bound(self, timestamp_s: int, high: Block) -> Block:
        """The highest known block at or before the time; else one found by going back in growing steps."""
        with self._lock:
            earlier = [self._known[n] for n in self._numbers if self._known[n].timestamp_s <= timestamp_s]
        if earlier:
            return max(earlier, key=lambda block: block.number)
        step = 1 + min(2 * (high.timestamp_s - timestamp_s), 1 << 20)
        number = high.number
        while number > 0:
            number = max(number - step, self._first_block if number > self._first_block else 0, 0)
            block = self.fetch_block(number)
            if block.timestamp_s <= timestamp_s:
                return block
            step *= 4
        raise RemoteFault(f"the chain has no block at or before {timestamp_s}", timestamp_s=timestamp_s)

    def _upper_bound(self, timestamp_s: int, high: Block) -> Block:
        """The lowest known block after the time."""
        with self._lock:
            later = [self._known[n] for n in self._numbers if self._known[n].timestamp_s > timestamp_s]
        return min([high, *later], key=lambda block: block.number)

    def _fetch_common(self, tag: str, depth: int) -> Block:
        request = Request("eth_getBlockByNumber", (tag, False), _parse_present_block)
        if len(self._rpc.hosts) == 1:
            block: Block = self._rpc.agree([request])[0]
            if depth == 0:
                return block
            return self.fetch_block(max(block.number - depth, 0))
        blocks = self._rpc.each_at_least(request, self._rpc.majority)
        reached = sorted((block.number for block in blocks), reverse=True)[self._rpc.majority - 1]
        return self.fetch_blocks([max(reached - depth, 0)])[0]

    def _forget(self) -> None:
        """The chain has replaced a block that counted as final."""
        with self._lock:
            self._known.clear()
            self._numbers.clear()
            self._finalised = None

    def _keep(self, block: Block) -> None:
        with self._lock:
            if block.number in self._known:
                return
            if len(self._numbers) >= CACHED_BLOCKS:
                for number in self._numbers[: CACHED_BLOCKS // 2]:
                    del self._known[number]
                del self._numbers[: CACHED_BLOCKS // 2]
            position = bisect_right(self._numbers, block.number)
            if position == len(self._numbers):
                self._numbers.append(block.number)
            else:
                insort(self._numbers, block.number)
            self._known[block.number] = block


def block_by_number(number: int) -> Request[Block]:
    """The block of that number, by a source's own word; a source that does not have it has not answered."""
    return Request("eth_getBlockByNumber", (hex(number), False), _parse_present_block)
