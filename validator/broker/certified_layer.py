"""The certified layer of one broker, put together: what follows the chain, what answers, and its routes.

It owns two folders beside the messages: ``certified`` (the index) and ``lake`` (proven chunks of bundles, bounded).
Losing either costs requests and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from starlette.routing import Route

from validator.broker.certified import CertifiedBundles
from validator.broker.certified_index import CertifiedIndex
from validator.broker.certified_routes import CertifiedRoutes
from validator.broker.comparing import Comparing
from validator.broker.history import History
from validator.broker.lake import Lake
from validator.net.arweave.gateway import Limits
from validator.net.arweave.ranges import ProvenRanges
from validator.net.arweave.storage import ArweaveStorage
from validator.net.chain.reader import ChainReader
from validator.ports.message_store import MessageStore
from validator.protocol.parameters import Network

COMPARED = 16
"""Bundles that are compared in one step, the newest first."""
GATEWAY = Limits(read_s=10.0, request_s=20.0, call_s=30.0, attempts=2)
"""A reader waits behind it, and another gateway may have it."""


class CertifiedLayer:
    """``step`` is one thread's; the history any thread's."""

    def __init__(
        self,
        network: Network,
        chain: ChainReader,
        gateway_urls: Sequence[str],
        folder: Path,
        store: MessageStore,
        *,
        lake_bytes: int,
        retained_from_ms: Callable[[], int],
        now_ms: Callable[[], int],
    ) -> None:
        """Raises ConfigError: a gateway's URL is none."""
        self._storage = ArweaveStorage(gateway_urls, None, reward_cap=0, limits=GATEWAY)
        ranges = ProvenRanges(self._storage, folder / "lake", lake_bytes)
        self._index = CertifiedIndex(folder / "certified")
        self._retained_from_ms = retained_from_ms
        self.bundles = CertifiedBundles(network, chain, self._storage, ranges, self._index, retained_from_ms, now_ms)
        self._comparing = Comparing(store, self.bundles, Lake(ranges), retained_from_ms, now_ms)
        self.history = History(store, self.bundles, self._comparing)

    def step(self, *, compares: bool = True) -> bool:
        """Follow the contract and compare what it names with what is held; whether more is waiting.

        ``compares``: of several processes with one store one does; the others compare what they are asked for.

        Raises as ``CertifiedBundles.step``, behind what could be done.
        """
        try:
            new = self.bundles.step()
        finally:
            waiting = self._index.not_compared(self._retained_from_ms(), COMPARED) if compares else []
            done = [bundle for bundle in waiting if not self._comparing.compare_bundle(self.bundles.open(bundle))]
            self._index.mark_compared([bundle.number for bundle in done])
        return bool(new) or len(done) == COMPARED

    @property
    def filled(self) -> int:
        """Messages that were missing and came from bundles."""
        return self._comparing.filled

    def routes(self) -> list[Route]:
        return CertifiedRoutes(self.bundles, self.history).routes()

    def close(self) -> None:
        self._index.close()
        self._storage.close()
