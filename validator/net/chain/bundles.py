"""What the contract holds: one accepted report per bundle, with the bundle's root and where its file lies.

All answers of one object are about one block, so they fit together. A report whose block is final can no longer go
away.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from validator.net.chain.reader import ChainReader, ContractConfig
from validator.ports.chain import AcceptedReport
from validator.protocol.errors import RemoteFault
from validator.protocol.model import Block, Root, StorageId
from validator.protocol.parameters import Network

PAGE = 100


@dataclass(frozen=True, slots=True)
class AcceptedBundle:
    """A bundle whose report the contract accepted: windows from ``first_ms`` to ``end_ms``, which is not in it."""

    number: int
    root: Root
    storage_id: StorageId
    first_ms: int
    end_ms: int
    block_number: int
    is_final: bool

    @property
    def leaves_open(self) -> str:
        """What the contract's word does not settle yet, or nothing."""
        return "" if self.is_final else "the report's block is not final yet; ask again in a while"


class AcceptedBundles:
    """Bundles by number and by time, at one block. One thread."""

    def __init__(self, chain: ChainReader, network: Network, at: Block | None = None) -> None:
        """``at``: a block that is final; without it the newest, when it is first asked."""
        self.chain = chain
        self.network = network
        self._at = at
        self._known: dict[int, AcceptedReport] = {}

    @cached_property
    def head(self) -> Block:
        """The block that everything is read at."""
        return self._at or self.chain.fetch_head()

    @cached_property
    def final_number(self) -> int:
        """Number of the newest block that is known to be final."""
        return self._at.number if self._at is not None else self.chain.fetch_finalised().number

    @cached_property
    def contract(self) -> ContractConfig:
        """Committee, config digest and counter; how many bundles there are."""
        return self.chain.fetch_config(self.head)

    @property
    def count(self) -> int:
        """How many bundles were accepted: they are numbered from 0."""
        return self.contract.next_number

    def fetch(self, number: int) -> AcceptedBundle | None:
        """A bundle by its number; None if the contract has not accepted its report."""
        return self.fetch_many(number, number + 1)[0] if 0 <= number < self.count else None

    def fetch_many(self, first: int, end: int) -> list[AcceptedBundle]:
        """Bundles ``first`` up to, not including, ``end``, as far as there are any."""
        first, end = max(first, 0), min(end, self.count)
        wanted = [n for n in range(max(first - 1, 0), end) if n not in self._known] if first < end else []
        for at in range(0, len(wanted), PAGE):
            page = wanted[at : at + PAGE]
            self._known.update(zip(page, self.chain.fetch_reports(page, self.head), strict=True))
        return [self._bundle(number) for number in range(first, end)]

    def find(self, from_ms: int, to_ms: int) -> range:
        """Numbers of the bundles that hold windows of [from_ms, to_ms)."""
        if from_ms >= to_ms or to_ms <= self.network.genesis_ms:
            return range(0)
        first = self._first_that_ends_after(from_ms)
        last = self._first_that_ends_after(to_ms - 1)
        return range(first, min(last + 1, self.count))

    def late_numbers(self, from_ms: int, until_ms: int) -> tuple[range, bool]:
        """Bundles so far whose late sets reach into [from_ms, until_ms), and whether later ones cannot."""
        first = number = self.find(from_ms, until_ms).start
        size = 1
        while number < self.count:
            for bundle in self.fetch_many(number, number + size):
                epoch = self.network.epoch_at(bundle.first_ms)
                if epoch is not None and bundle.end_ms - epoch.parameters.late_reach_ms >= until_ms:
                    return range(first, bundle.number), True
            number, size = number + size, min(2 * size, PAGE)
        return range(first, self.count), False

    def _first_that_ends_after(self, ms: int) -> int:
        """Bundles follow each other without gaps, so halving finds it in log2(n) questions."""
        low, high = 0, self.count
        while low < high:
            middle = (low + high) // 2
            (bundle,) = self.fetch_many(middle, middle + 1)
            low, high = (low, middle) if bundle.end_ms > ms else (middle + 1, high)
        return low

    def _bundle(self, number: int) -> AcceptedBundle:
        report = self._known[number]
        first_ms = self._end_ms(self._known[number - 1]) if number else self.network.genesis_ms
        return AcceptedBundle(
            number,
            report.bundle_root,
            report.storage_id,
            first_ms,
            self._end_ms(report),
            report.block_number,
            report.block_number <= self.final_number,
        )

    def _end_ms(self, report: AcceptedReport) -> int:
        window = self.network.window(report.last_ms)
        if window is None:
            raise RemoteFault(
                f"bundle {report.number} ends with a window at {report.last_ms}, which the network file does not know:"
                " it is older than the network's newest parameters",
                number=report.number,
            )
        return window.end_ms
