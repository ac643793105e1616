"""A network of some bundles without a chain or a gateway: what the contract holds and what files say are set by hand.

Bundle n holds windows 2n and 2n + 1 of four seconds. Messages are unsigned, since nobody judges them here; certificates
are real. A broker of this world has its own store, index and folder.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.builders import GENESIS_MS, a_stream_id, an_unsigned_message
from tests.bundle_builder import CHAIN_ID, CONTRACTS, MEMBERS, WINDOW_MS, a_config, a_manifest, rows_of
from validator.broker.certified import CertifiedBundles
from validator.broker.certified_index import CertifiedIndex
from validator.broker.comparing import Comparing
from validator.broker.history import History
from validator.broker.lake import Lake
from validator.broker.store import SqliteMessageStore
from validator.net.chain.reader import ContractConfig
from validator.ports.certified import CertifiedHistory, MarkedRow
from validator.ports.chain import AcceptedReport
from validator.ports.message_store import SortKey, StoredRow
from validator.protocol.codec.bundle_file import write_bundle
from validator.protocol.codec.bundle_front import footer_bytes
from validator.protocol.codec.config import config_digest
from validator.protocol.codec.manifest import manifest_root
from validator.protocol.codec.message import make_record, record_from_canonical
from validator.protocol.completeness import SetProof
from validator.protocol.errors import RemoteFault, TransientError
from validator.protocol.hashing import sha256
from validator.protocol.model import (
    NIL,
    Block,
    Digest,
    InstanceId,
    InstanceKind,
    Manifest,
    Record,
    Root,
    StorageId,
    StreamPart,
)
from validator.protocol.parameters import Network, ParameterSet

STREAM = a_stream_id(1, "a")
PART = (STREAM, 0)
BUNDLE_MS = 2 * WINDOW_MS
LATE_REACH_MS = 78_000
NOW_MS = GENESIS_MS + 3_600_000
PARAMETERS = ParameterSet(
    first_epoch=0,
    epoch_windows=1_000,
    window_ms=WINDOW_MS,
    bundle_windows=2,
    horizon_ms=18_000,
    margin_ms=60_000,
    finality="1",
)
NETWORK = Network(
    name="certified",
    chain_id=CHAIN_ID,
    deployment_block=1,
    deployment_parent_hash=Digest(b"\x11" * 32),
    contracts=CONTRACTS,
    genesis_ms=GENESIS_MS,
    sets=(PARAMETERS,),
)
CONFIG = a_config(epoch_windows=1_000, bundle_windows=2, horizon_ms=18_000, margin_ms=60_000)


def a_row(at_ms: int, number: int = 0, stream_id: str = STREAM, partition: int = 0, noise: int = 0) -> Record:
    """``noise``: so many characters of content that no compression removes."""
    text = Random(number).randbytes(noise // 2).hex() if noise else ""
    return make_record(
        an_unsigned_message(
            stream_id=stream_id,
            partition=partition,
            timestamp_ms=GENESIS_MS + at_ms,
            sequence_number=number,
            content=b'{"n":%d}' % number if not noise else b'{"n":"%b"}' % text.encode(),
        )
    )


def read_marked(
    history: CertifiedHistory, part: StreamPart, from_ms: int, until_ms: int, as_of: int, *, limit: int = 1_000
) -> list[MarkedRow]:
    """Every row of a span with its set, by pages."""
    windows = {
        found.from_ms: found
        for found in history.sets(part, from_ms, until_ms, as_of)
        if found.instance.kind is InstanceKind.WINDOW
    }
    starts = sorted(windows)
    complete_ms = history.complete_to(as_of)
    rows: list[MarkedRow] = []
    after: SortKey | None = None
    while (page := history.page(part, from_ms, until_ms, as_of, after=after, limit=limit)).columns:
        assert len(page.columns) <= limit
        exceptions = dict(page.exceptions)
        for place, canonical in enumerate(page.columns.messages()):
            record = record_from_canonical(canonical)
            key = page.columns.key(place)
            instance = None
            if key.timestamp_ms < complete_ms:
                instance = windows[starts[bisect_right(starts, key.timestamp_ms) - 1]].instance
            instance = exceptions.get(place, instance)
            rows.append(MarkedRow(StoredRow(key, record.signed_digest, canonical, record.signed_bytes, 0), instance))
        after = page.columns.last_key
    return rows


@dataclass
class FakeChain:
    """What a reader of the chain says: reports, of which those up to ``final`` are in final blocks."""

    reports: list[AcceptedReport] = field(default_factory=list)
    block: int = 1_000
    is_down: bool = False

    def fetch_finalised(self) -> Block:
        if self.is_down:
            raise TransientError("no source answers")
        return Block(self.block, Digest(b"\x07" * 32), NOW_MS // 1000)

    def fetch_config(self, block: Block) -> ContractConfig:
        count = sum(report.block_number <= block.number for report in self.reports)
        return ContractConfig(config_digest(CONFIG), 0, tuple(k.address for k in MEMBERS), count)

    def fetch_reports(self, numbers: Sequence[int], block: Block) -> list[AcceptedReport]:
        return [self.reports[number] for number in numbers]


@dataclass
class FakeFiles:
    """Files by storage id, as gateways give them: by range what they like, by chunks what was signed, or nothing."""

    files: dict[StorageId, bytes] = field(default_factory=dict)
    tails: dict[StorageId, bytes] = field(default_factory=dict)
    """What is said to be a file's end, where that is a lie."""
    is_down: bool = False
    asked_bytes: int = 0

    def fetch_tail(self, storage_id: StorageId, wanted: int) -> tuple[int, bytes]:
        data = self._file(storage_id)
        tail = self.tails.get(storage_id)
        return len(data), data[-wanted:] if tail is None else tail[-wanted:]

    def read(self, storage_id: StorageId, start: int, end: int) -> bytes:
        data = self._file(storage_id)
        if end > len(data):
            raise RemoteFault("behind the end")
        self.asked_bytes += end - start
        return data[start:end]

    def read_footer(self, storage_id: StorageId) -> tuple[int, bytes]:
        data = self._file(storage_id)
        return len(data), data[-8 - footer_bytes(len(data), data[-8:]) :]

    def _file(self, storage_id: StorageId) -> bytes:
        if self.is_down or storage_id not in self.files:
            raise TransientError("no gateway has it")
        return self.files[storage_id]


@dataclass
class World:
    """Bundles as they were made, the chain that holds their reports, and the gateways that have their files."""

    folder: Path
    chain: FakeChain = field(default_factory=FakeChain)
    gateways: FakeFiles = field(default_factory=FakeFiles)
    manifests: list[Manifest] = field(default_factory=list)
    records: dict[InstanceId, list[Record]] = field(default_factory=dict)

    def add_bundle(self, windows: Sequence[Iterable[Record]], late: Iterable[Record] = ()) -> Manifest:
        """The next bundle, certified, written, stored and reported."""
        number = len(self.manifests)
        sets = [sorted(records, key=lambda r: r.order) for records in (*windows, late)]
        manifest = a_manifest(
            sets[:-1],
            sets[-1],
            config=CONFIG,
            number=number,
            first_ms=GENESIS_MS + number * BUNDLE_MS,
            previous_root=manifest_root(self.manifests[-1]) if self.manifests else Root(NIL),
        )
        for instance, records in zip((*_instances(manifest), _late(number)), sets, strict=True):
            self.records[instance] = records
        path = self.folder / f"{number}.parquet"
        write_bundle(path, manifest, rows_of(manifest, sets[:-1], sets[-1]), level=1)
        self.manifests.append(manifest)
        self.report(manifest, path.read_bytes())
        return manifest

    def report(
        self, manifest: Manifest, data: bytes, root: Root | None = None, storage_id: StorageId | None = None
    ) -> None:
        number = manifest.header.number
        storage_id = storage_id or StorageId(sha256(data).digest())
        self.gateways.files[storage_id] = data
        said = AcceptedReport(
            number,
            root or manifest_root(manifest),
            storage_id,
            Digest(bytes(32)),
            number + 1,
            manifest.header.last_ms,
            Digest(bytes(32)),
        )
        self.chain.reports[number:] = [said]

    def root_of(self, number: int) -> Root:
        return self.chain.reports[number].bundle_root

    def broker(
        self, name: str, held: Iterable[Record] = (), *, retained_from_ms: int = 0, follow: bool = True
    ) -> Broker:
        return Broker(self, self.folder / name, list(held), retained_from_ms, follow)

    @property
    def all_records(self) -> list[Record]:
        return [record for records in self.records.values() for record in records]


class Broker:
    """One broker's certified layer over a store of its own."""

    def __init__(self, world: World, folder: Path, held: list[Record], retained_from_ms: int, follow: bool) -> None:
        self.world = world
        self.folder = folder
        self.retained_from_ms = retained_from_ms
        self.now_ms = NOW_MS
        self.store = SqliteMessageStore(folder / "messages")
        self.hold(held)
        self.open()
        if follow:
            self.follow()

    def open(self) -> None:
        """As after a restart: what was only in memory is gone."""
        files: Any = self.world.gateways
        chain: Any = self.world.chain
        self.index = CertifiedIndex(self.folder / "certified")
        self.bundles = CertifiedBundles(
            NETWORK, chain, files, files, self.index, lambda: self.retained_from_ms, lambda: self.now_ms
        )
        self.comparing = Comparing(
            self.store, self.bundles, Lake(files), lambda: self.retained_from_ms, lambda: self.now_ms
        )
        self.history: CertifiedHistory = History(self.store, self.bundles, self.comparing)

    def follow(self) -> None:
        for bundle in self.bundles.step():
            self.comparing.compare_bundle(self.bundles.open(bundle))

    def prove(self, part: StreamPart, from_ms: int, until_ms: int, as_of: int) -> Iterator[SetProof]:
        """Of every set that may hold messages of the span."""
        for found in self.history.sets(part, from_ms, until_ms, as_of):
            yield self.history.prove(found, part, from_ms, until_ms)

    def hold(self, records: Sequence[Record]) -> None:
        """Records that arrive now, later than all before."""
        self.now_ms += 1
        self.store.insert(records, self.now_ms)


def _instances(manifest: Manifest) -> list[InstanceId]:
    return [certified.outcome.instance for certified in manifest.windows]


def _late(number: int) -> InstanceId:
    return InstanceId(InstanceKind.LATE, number)
