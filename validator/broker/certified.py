"""Bundles as the chain and Arweave prove them: followed from the contract, verified before anything is made of them.

A report counts when its block is final, so a reorganisation takes nothing away; should the contract hold another report
than one that was final, everything from there on is forgotten and read anew. A bundle counts when its manifest gives
the root in that report and its certificates are good. Manifests are asked for by range, from any gateway that answers;
one that does not fit is asked for again chunk by chunk, and only if the very bytes that were signed do not fit it is
the report that lies: that is kept as evidence, and history ends before it.

New bundles are read from where retention begins; older ones page by page behind that, so that an empty broker answers
for the newest time first. Of those the manifest is fetched when somebody asks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from itertools import pairwise

from validator.broker.certified_index import CertifiedIndex, Evidence
from validator.broker.entry_tree import Remembered
from validator.log import get_logger
from validator.net.arweave.ranges import ProvenRanges, fetch_footer
from validator.net.arweave.storage import ArweaveStorage
from validator.net.chain.bundles import AcceptedBundle, AcceptedBundles
from validator.net.chain.reader import ChainReader
from validator.ports.certified import CertifiedSet, NotVerifiedYet
from validator.protocol.codec.bundle_front import read_tail
from validator.protocol.codec.config import decode_config
from validator.protocol.codec.manifest import bundle_leaves, decode_manifest, encode_manifest, manifest_root
from validator.protocol.codec.manifest_rules import bundle_end_ms, check_manifest
from validator.protocol.codec.outcome import outcome_digest
from validator.protocol.errors import MalformedInput, RemoteFault, TransientError, require
from validator.protocol.model import Digest, InstanceId, InstanceKind, Manifest, Outcome, PartitionEntry, StreamPart
from validator.protocol.parameters import Network

log = get_logger(__name__)

PAGE = 100
ENTRIES_REMEMBERED = 50_000
"""Of manifests in memory, in entries: some 300 bytes each."""


class Refusal(StrEnum):
    """Why a bundle or an entry is not served as certified."""

    BUNDLE_ROOT = "bundle root"
    """The manifest gives another root than the report."""
    MANIFEST = "manifest"
    """It gives the root and breaks a rule: a certificate, its place, its times."""
    FILE = "file"
    """What the storage id names is no file of a bundle."""
    ENTRY_ROOT = "entry root"
    """The rows give another root than the entry."""
    REORGANISED = "reorganised"
    """The contract holds another report now."""


@dataclass(frozen=True)
class OpenedBundle:
    """A verified manifest, and what is asked of it again and again."""

    bundle: AcceptedBundle
    manifest: Manifest

    @cached_property
    def late_reach_ms(self) -> int:
        """How far before the bundle's end a message of its late set may lie."""
        return decode_config(self.manifest.config_preimage).parameters.late_reach_ms

    @cached_property
    def leaves(self) -> list[Digest]:
        """Of the bundle's tree."""
        windows = [outcome_digest(c.outcome) for c in self.manifest.windows]
        return bundle_leaves(self.manifest.header, windows, outcome_digest(self.manifest.late.outcome))

    @cached_property
    def entries(self) -> dict[tuple[InstanceId, StreamPart], PartitionEntry]:
        sets = (*self.manifest.windows, self.manifest.late)
        return {(c.outcome.instance, e.stream_part): e for c in sets for e in c.outcome.entries}

    def find_set(self, instance: InstanceId, part: StreamPart) -> CertifiedSet:
        """A window or late set of this bundle, as far as a stream partition is concerned."""
        entry = self.entries.get((instance, part))
        if instance.kind is InstanceKind.LATE:
            end_ms = self.bundle.end_ms
            return CertifiedSet(self.bundle.number, instance, max(0, end_ms - self.late_reach_ms), end_ms, entry)
        from_ms, until_ms = self.spans[instance]
        return CertifiedSet(self.bundle.number, instance, from_ms, until_ms, entry)

    @cached_property
    def outcomes(self) -> dict[InstanceId, Outcome]:
        return {c.outcome.instance: c.outcome for c in (*self.manifest.windows, self.manifest.late)}

    @cached_property
    def spans(self) -> dict[InstanceId, tuple[int, int]]:
        """Start and end of every window, in order."""
        instances = [c.outcome.instance for c in self.manifest.windows]
        starts = [instance.number for instance in instances]
        return dict(zip(instances, pairwise([*starts, self.bundle.end_ms]), strict=True))

    @property
    def weight(self) -> int:
        return 16 + sum(len(c.outcome.entries) for c in (*self.manifest.windows, self.manifest.late))


class CertifiedBundles:
    """Bundles by number and time. ``step`` is one thread's; everything else any thread's."""

    def __init__(
        self,
        network: Network,
        chain: ChainReader,
        storage: ArweaveStorage,
        ranges: ProvenRanges,
        index: CertifiedIndex,
        retained_from_ms: Callable[[], int],
        now_ms: Callable[[], int],
    ) -> None:
        """``retained_from_ms``: from when on this broker keeps messages."""
        self.index = index
        self.network = network
        self._chain = chain
        self._storage = storage
        self._ranges = ranges
        self._retained_from_ms = retained_from_ms
        self._now_ms = now_ms
        self._opened: Remembered[int, OpenedBundle] = Remembered(ENTRIES_REMEMBERED, lambda opened: opened.weight)

    # --- what is known

    def newest(self) -> AcceptedBundle | None:
        numbers = self.index.numbers()
        return self.index.bundle(numbers[-1]) if numbers else None

    def describe(self, number: int) -> OpenedBundle | None:
        """A bundle with its manifest; None where none of that number is verified here. Raises as ``open``."""
        bundle = self.index.bundle(number)
        return None if bundle is None else self.open(bundle)

    def require(self, as_of: int) -> AcceptedBundle:
        """The bundle, if it is verified here. Raises NotVerifiedYet."""
        bundle = self.index.bundle(as_of)
        if bundle is None:
            numbers = self.index.numbers()
            newest = numbers[-1] if numbers else None
            said = "none is" if newest is None else f"{numbers[0]} to {newest} are"
            raise NotVerifiedYet(f"asOf: bundle {as_of} is not verified here, {said}", newest=newest, field="asOf")
        return bundle

    def ending_after(self, ms: int, as_of: int) -> Iterator[AcceptedBundle]:
        """Bundles up to ``as_of`` that end after ``ms``, ascending.

        Raises:
            TransientError: the oldest of them are not read from the chain yet.
        """
        numbers = self.index.numbers()
        oldest = self.index.bundle(numbers[0]) if numbers else None
        if oldest is not None and oldest.number > 0 and ms < oldest.first_ms:
            raise TransientError(
                f"not yet: bundles before number {oldest.number} are still being read from the chain", reason="history"
            )
        return self.index.ending_after(ms, as_of)

    def open(self, bundle: AcceptedBundle) -> OpenedBundle:
        """With its manifest, fetched if it is not here.

        Raises:
            TransientError: nobody has it now.
            RemoteFault: it is not what the report says.
        """
        opened = self._opened.find(bundle.number)
        if opened is not None and opened.bundle == bundle:
            return opened
        kept = self.index.manifest(bundle.number)
        manifest = None if kept is None else decode_manifest(kept)
        if manifest is None or manifest_root(manifest) != bundle.root:  # not here, or a damaged disk
            manifest = self._fetch_manifest(bundle)
            self.index.keep_manifest(bundle.number, encode_manifest(manifest))
        return self._opened.add(bundle.number, OpenedBundle(bundle, manifest))

    # --- following

    def step(self) -> list[AcceptedBundle]:
        """Read on: new bundles, verified, in order; then a page of old ones. Safe to repeat, and to end anywhere.

        Raises:
            TransientError: the chain or the gateways do not answer; what was verified before stays.
            RemoteFault: a report's file is not what it says.
        """
        accepted = AcceptedBundles(self._chain, self.network, self._chain.fetch_finalised())
        self._drop_reorganised(accepted)
        numbers = self.index.numbers()
        start = numbers.stop if numbers else self._first_wanted(accepted)
        new: list[AcceptedBundle] = []
        for bundle in accepted.fetch_many(start, min(start + PAGE, accepted.count)):
            manifest = self._fetch_manifest(bundle)
            self.index.add([bundle])
            self.index.keep_manifest(bundle.number, encode_manifest(manifest))
            self._opened.add(bundle.number, OpenedBundle(bundle, manifest))
            log.info("certified.verified", number=bundle.number, root=bundle.root, until_ms=bundle.end_ms)
            new.append(bundle)
        numbers = self.index.numbers()
        if numbers and numbers[0] > 0:
            self.index.add(accepted.fetch_many(max(0, numbers[0] - PAGE), numbers[0]))
        return new

    def _first_wanted(self, accepted: AcceptedBundles) -> int:
        """Where retention begins, or the newest bundle if that is older."""
        from_ms = max(self._retained_from_ms(), self.network.genesis_ms)
        return max(0, min(accepted.find(from_ms, from_ms + 1).start, accepted.count - 1)) if accepted.count else 0

    def _drop_reorganised(self, accepted: AcceptedBundles) -> None:
        """Forget what the contract no longer holds: nothing, as long as final blocks are."""
        numbers = self.index.numbers()
        newest = self.index.bundle(numbers[-1]) if numbers else None
        if newest is None or accepted.head.number < newest.block_number:
            return  # a source that lags says nothing
        first = numbers.stop
        for number in reversed(numbers):
            known = self.index.bundle(number)
            if known is not None and accepted.fetch(number) == known:
                break
            first = number
        if first < numbers.stop:
            log.error("certified.reorganised", reason=Refusal.REORGANISED, number=first, newest=numbers[-1])
            self.index.drop_from(first)
            self._opened.clear()

    def _fetch_manifest(self, bundle: AcceptedBundle) -> Manifest:
        try:
            return self._read(bundle, *fetch_footer(self._storage, bundle.storage_id))
        except (TransientError, RemoteFault) as error:  # a gateway that lies, or has it by chunks only
            log.debug("certified.by_chunks", number=bundle.number, reason=str(error))
        try:
            return self._read(bundle, *self._ranges.read_footer(bundle.storage_id))
        except MalformedInput as error:
            reason = Refusal(error.fields.get("refusal", Refusal.FILE))
            self.keep_evidence(bundle, reason, str(error))
            raise RemoteFault(
                f"bundle {bundle.number}: {reason}: {error}", number=bundle.number, reason=reason.value
            ) from error

    def _read(self, bundle: AcceptedBundle, size: int, tail: bytes) -> Manifest:
        """The manifest in a file's last bytes, if it is what the report says. Raises MalformedInput."""
        _, manifest = read_tail(size, tail)
        root = manifest_root(manifest)
        if root != bundle.root:
            raise MalformedInput(
                "bundle.root",
                f"0x{root.hex()}, where the contract holds 0x{bundle.root.hex()}",
                refusal=Refusal.BUNDLE_ROOT,
            )
        try:
            self._check(bundle, manifest)
        except MalformedInput as error:
            raise MalformedInput("manifest", str(error), refusal=Refusal.MANIFEST) from error
        return manifest

    def _check(self, bundle: AcceptedBundle, manifest: Manifest) -> None:
        header = manifest.header
        require(header.number == bundle.number, "header.number", f"{header.number}, not {bundle.number}")
        require(header.first_ms == bundle.first_ms, "header.first_ms", "not where the bundle before it ends")
        require(bundle_end_ms(manifest) == bundle.end_ms, "header.last_ms", "not the last window of the report")
        before = self.index.bundle(bundle.number - 1)
        if before is not None:
            require(header.previous_root == before.root, "header.previous_root", "not the root of the bundle before it")
        check_manifest(manifest)

    def keep_evidence(self, bundle: AcceptedBundle, reason: Refusal, detail: str) -> None:
        """A final report, and bytes that its own storage id proves, that do not fit each other."""
        evidence = Evidence(bundle.number, bundle.root, bundle.storage_id, reason.value, self._now_ms())
        if self.index.keep_evidence(evidence):
            log.error("certified.refused", number=bundle.number, reason=reason, detail=detail)
