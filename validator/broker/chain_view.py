"""What a broker knows of the chain: registered streams, nodes, who may publish, who has a balance; remembered a while.

A broker answers at once and judges with the newest state it has read; validators judge every message once more at the
block of its window. So a yes is believed for minutes and a no for seconds: what a broker refuses is lost to it until
another brings it, what it takes too much of costs it room.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from validator.log import get_logger
from validator.protocol.errors import TransientError, ValidatorError
from validator.protocol.model import Account, Address, Block, ChainState, Digest, Node, Record, StreamPart

log = get_logger(__name__)

YES_S = 300.0
NO_S = 10.0
BALANCE_S = 60.0
BALANCE_STALE_S = 600.0
"""While the chain does not answer, what it said last counts this long."""
REMEMBERED = 100_000
"""Answers kept of each kind."""
Pair = tuple[str, bytes]
K = TypeVar("K")
V = TypeVar("V")


class ChainSource(Protocol):
    """What is asked of ``validator.net.chain.reader``."""

    @property
    def system_stream(self) -> str: ...

    def fetch_head(self) -> Block: ...

    def fetch_state(self, block: Block) -> ChainState: ...

    def fetch_publish_permissions(self, pairs: Iterable[Pair], block: Block) -> Mapping[Pair, bool]: ...

    def fetch_consumers(self, consumers: Sequence[Address], block: Block) -> Mapping[Address, Account]: ...

    def fetch_is_valid_signature(self, contract: Address, digest: Digest, signature: bytes, block: Block) -> bool: ...


class Remembered(Generic[K, V]):
    """Answers with the time until which they count; the oldest go when there are too many. For one lock's holder."""

    def __init__(self, limit: int = REMEMBERED, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._known: dict[K, tuple[V, float]] = {}

    def get(self, key: K, *, stale_s: float = 0.0) -> V | None:
        """``stale_s``: how long after its time an answer still serves."""
        found = self._known.get(key)
        return None if found is None or self._clock() >= found[1] + stale_s else found[0]

    def put(self, key: K, value: V, seconds: float) -> None:
        self._known.pop(key, None)
        while len(self._known) >= self._limit:
            del self._known[next(iter(self._known))]
        self._known[key] = (value, self._clock() + seconds)


@dataclass(frozen=True, slots=True)
class _Seen:
    block: Block
    partitions: Mapping[str, int]
    nodes: Mapping[Address, Node]


class ChainView:
    """Thread-safe. ``refresh`` is called every few seconds; everything else asks the chain only for what is new."""

    def __init__(self, source: ChainSource) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._seen: _Seen | None = None
        self._permissions: Remembered[Pair, bool] = Remembered()
        self._balances: Remembered[Address, bool] = Remembered()
        self.system_part: StreamPart = (source.system_stream, 0)

    def refresh(self) -> None:
        """Raises TransientError or RemoteFault; what was known stays."""
        block = self._source.fetch_head()
        with self._lock:
            if self._seen is not None and self._seen.block == block:
                return
        state = self._source.fetch_state(block)
        partitions = {store.stream_id: store.partitions for store in state.stores if store.partitions}
        partitions[self.system_part[0]] = 1
        with self._lock:
            self._seen = _Seen(block, partitions, {node.address: node for node in state.brokers})

    @property
    def block(self) -> Block | None:
        seen = self._seen
        return None if seen is None else seen.block

    @property
    def brokers(self) -> list[Node]:
        """Staked nodes with an HTTP URL, by address."""
        seen = self._seen
        return [] if seen is None else [seen.nodes[address] for address in sorted(seen.nodes)]

    def parts(self) -> list[StreamPart]:
        """Every registered stream partition, the system stream's first."""
        seen = self._seen
        if seen is None:
            return []
        others = sorted(seen.partitions.keys() - {self.system_part[0]})
        return [self.system_part, *((stream, n) for stream in others for n in range(seen.partitions[stream]))]

    def partitions_of(self, stream_id: str) -> int:
        """0 where the stream is not registered."""
        seen = self._seen
        return 0 if seen is None else seen.partitions.get(stream_id, 0)

    def permitted(self, pairs: Iterable[Pair]) -> dict[Pair, bool | None]:
        """May the publisher publish in the stream? None: nobody can say now."""
        seen = self._seen
        asked = set(pairs)
        if seen is None:
            return dict.fromkeys(asked)
        found: dict[Pair, bool | None] = {}
        missing = []
        with self._lock:
            for pair in asked:
                known: bool | None
                is_system = pair[0] == self.system_part[0]
                known = pair[1] in seen.nodes if is_system else self._permissions.get(pair)
                found[pair] = known
                if known is None:
                    missing.append(pair)
        if missing:
            try:
                answers = self._source.fetch_publish_permissions(missing, seen.block)
            except ValidatorError as error:
                log.warning("chain.permission_unknown", pairs=len(missing), reason=str(error))
                return found
            with self._lock:
                for pair, answer in answers.items():
                    found[pair] = answer
                    self._permissions.put(pair, answer, YES_S if answer else NO_S)
        return found

    def contract_accepts(self, record: Record) -> bool | None:
        """ERC-1271 at the newest block; None: nobody can say now."""
        seen = self._seen
        if seen is None:
            return None
        m = record.message
        try:
            return self._source.fetch_is_valid_signature(
                Address(m.publisher_id), record.signed_digest, m.signature, seen.block
            )
        except ValidatorError:
            return None

    def has_balance(self, consumer: Address) -> bool:
        """Whether QueryManager holds anything of a consumer. Raises TransientError if nobody can say."""
        with self._lock:
            known = self._balances.get(consumer)
        if known is not None:
            return known
        try:
            account = self._source.fetch_consumers([consumer], self._source.fetch_head())[consumer]
        except ValidatorError as error:
            with self._lock:
                known = self._balances.get(consumer, stale_s=BALANCE_STALE_S)
            if known is None:
                raise TransientError("the balance cannot be read now") from error
            return known
        with self._lock:
            self._balances.put(consumer, account.balance > 0, BALANCE_S if account.balance > 0 else NO_S)
        return account.balance > 0
