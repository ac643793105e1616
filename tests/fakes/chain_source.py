"""A chain as brokers read it: what it says is set by the test, and it may be away."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from validator.protocol.errors import TransientError
from validator.protocol.model import Account, Address, Block, ChainState, Digest, Node, Store


class FakeChainSource:
    """Everybody may publish everywhere but who is in ``barred``; whoever is in ``poor`` has no balance."""

    def __init__(self, streams: Mapping[str, int], nodes: Sequence[Node] = ()) -> None:
        self.streams = dict(streams)
        self.nodes = list(nodes)
        self.barred: set[bytes] = set()
        self.poor: set[bytes] = set()
        self.is_away = False
        self.contracts_accept = True
        self.asked = 0
        self.height = 1

    @property
    def system_stream(self) -> str:
        return f"0x{'ab' * 20}/system"

    def fetch_head(self) -> Block:
        self._answer()
        return Block(self.height, Digest(self.height.to_bytes(32, "big")), self.height)

    def fetch_state(self, block: Block) -> ChainState:
        self._answer()
        stores = tuple(Store(stream, 1, partitions) for stream, partitions in self.streams.items())
        return ChainState(block, tuple(self.nodes), stores, self.system_stream, {})

    def fetch_publish_permissions(
        self, pairs: Iterable[tuple[str, bytes]], block: Block
    ) -> Mapping[tuple[str, bytes], bool]:
        self._answer()
        return {pair: pair[1] not in self.barred for pair in pairs}

    def fetch_consumers(self, consumers: Sequence[Address], block: Block) -> Mapping[Address, Account]:
        self._answer()
        return {consumer: Account(0 if consumer in self.poor else 1, 1) for consumer in consumers}

    def fetch_is_valid_signature(self, contract: Address, digest: Digest, signature: bytes, block: Block) -> bool:
        self._answer()
        return self.contracts_accept

    def _answer(self) -> None:
        self.asked += 1
        if self.is_away:
            raise TransientError("no source answers", reason="unavailable")
