"""What pages show, read from the broker's parts. Synchronous, for a thread of the explorer's own; all of it bounded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from validator.broker.certified import CertifiedBundles, OpenedBundle
from validator.broker.core import Broker
from validator.broker.evidence import Lie
from validator.broker.explorer.counting import BARS, Rate, Span, count_all, count_part
from validator.broker.heartbeat import Heard, Hearing, make_heartbeat
from validator.broker.history import History
from validator.broker.slices import SliceSums
from validator.net.chain.bundles import AcceptedBundle
from validator.ports.message_store import SortKey, StoredRow
from validator.protocol.codec.config import decode_config
from validator.protocol.codec.message import decode_message
from validator.protocol.codec.stored_message import StoredMessage
from validator.protocol.errors import RemoteFault, TransientError
from validator.protocol.model import Address, Certified, Digest, InstanceId, Message, Node, StreamPart
from validator.protocol.parameters import Config

STREAMS = 20
LOOKED_PARTITIONS = 4
"""Of a stream, whose newest message is looked up for the list."""
MESSAGES = 50
BUNDLES = 25
PREVIEW = 160


@dataclass(frozen=True, slots=True)
class Parts:
    """Of the broker, what pages are read from. ``None``: this process has none."""

    broker: Broker
    bundles: CertifiedBundles | None = None
    history: History | None = None
    sums: SliceSums | None = None
    hearing: Hearing | None = None
    lies: Mapping[tuple[Address, Lie], int] = field(default_factory=dict)

    @property
    def now_ms(self) -> int:
        return self.broker.now_ms()


@dataclass(frozen=True, slots=True)
class Head:
    """What stands above every page."""

    network: str
    broker: Address
    now_ms: int
    block_number: int | None
    block_ms: int | None


@dataclass(frozen=True, slots=True)
class StreamLine:
    stream_id: str
    partitions: int
    newest: StoredRow | None
    newest_partition: int


@dataclass(frozen=True, slots=True)
class StreamsView:
    asked: str
    page: int
    found: int
    lines: Sequence[StreamLine]
    rate: Rate | None
    newest: AcceptedBundle | None
    brokers: int


@dataclass(frozen=True, slots=True)
class PartView:
    """Messages newest first, or, from a time on, oldest first."""

    part: StreamPart
    partitions: int
    rows: Sequence[tuple[StoredRow, Message]]
    from_ms: int | None
    has_more: bool
    rate: Rate
    certified_ms: int | None


@dataclass(frozen=True, slots=True)
class MessageView:
    """``stored`` None: no bundle that is verified here holds it; ``trouble``: or that could not be found out now."""

    part: StreamPart
    leaf: Digest
    canonical: bytes
    message: Message
    arrived_ms: int | None
    stored: StoredMessage | None = None
    bundle: AcceptedBundle | None = None
    certified: Certified | None = None
    config: Config | None = None
    preimage: bytes = b""
    trouble: str = ""


@dataclass(frozen=True, slots=True)
class BundleView:
    opened: OpenedBundle
    config: Config
    newest: int


@dataclass(frozen=True, slots=True)
class BrokerLine:
    node: Node
    is_this: bool
    heard: Heard | None
    is_silent: bool
    lies: Mapping[Lie, int]


def read_head(parts: Parts) -> Head:
    block = parts.broker.chain.block
    return Head(
        parts.broker.network.name,
        parts.broker.address,
        parts.now_ms,
        None if block is None else block.number,
        None if block is None else block.timestamp_s * 1000,
    )


def read_streams(parts: Parts, asked: str, page: int, span: Span) -> StreamsView:
    """One page of the registered streams whose ids hold ``asked``."""
    chain = parts.broker.chain
    ids = [stream_id for stream_id, partition in chain.parts() if partition == 0 and asked in stream_id]
    shown = ids[page * STREAMS : (page + 1) * STREAMS]
    lines = [_read_line(parts, stream_id, chain.partitions_of(stream_id)) for stream_id in shown]
    return StreamsView(
        asked,
        page,
        len(ids),
        lines,
        None if parts.sums is None else count_all(parts.sums, span, parts.now_ms),
        None if parts.bundles is None else parts.bundles.newest(),
        len(chain.brokers),
    )


def _read_line(parts: Parts, stream_id: str, partitions: int) -> StreamLine:
    newest, place = None, 0
    for partition in range(min(partitions, LOOKED_PARTITIONS)):
        for row in parts.broker.store.last((stream_id, partition), 1):
            if newest is None or row.key > newest.key:
                newest, place = row, partition
    return StreamLine(stream_id, partitions, newest, place)


def read_part(parts: Parts, part: StreamPart, from_ms: int | None, after: SortKey | None, span: Span) -> PartView:
    store = parts.broker.store
    newest = store.last(part, 1 if from_ms is not None else MESSAGES + 1)
    if from_ms is None:
        rows = list(reversed(newest))
    else:
        rows = store.scan(part, from_ms, 1 << 53, after=after, limit=MESSAGES + 1)
    number, bar_ms = BARS[span]
    end_ms = parts.now_ms
    if from_ms is not None:
        end_ms = min(end_ms, from_ms + number * bar_ms // 2)
    elif newest and end_ms - newest[-1].key.timestamp_ms > number * bar_ms:
        end_ms = newest[-1].key.timestamp_ms
    return PartView(
        part,
        parts.broker.chain.partitions_of(part[0]),
        [(row, decode_message(row.canonical)) for row in rows[:MESSAGES]],
        from_ms,
        len(rows) > MESSAGES,
        count_part(store, part, span, end_ms),
        _certified_until(parts),
    )


def _certified_until(parts: Parts) -> int | None:
    newest = None if parts.bundles is None else parts.bundles.newest()
    return None if newest is None else newest.end_ms


def read_message(parts: Parts, part: StreamPart, timestamp_ms: int, leaf: Digest) -> MessageView | None:
    """A message with its proof as far as there is one; None where neither store nor bundles have it.

    Raises:
        TransientError, RemoteFault: it is not held, and the bundles cannot be asked now.
    """
    rows = parts.broker.store.fetch(part, [(timestamp_ms, leaf)])
    stored, trouble = None, ""
    try:
        stored = _prove(parts, part, timestamp_ms, leaf)
    except (TransientError, RemoteFault) as error:
        if not rows:
            raise
        trouble = str(error)
    if not rows and stored is None:
        return None
    canonical = rows[0].canonical if stored is None else stored.canonical
    view = MessageView(
        part, leaf, canonical, decode_message(canonical), rows[0].arrived_ms if rows else None, trouble=trouble
    )
    return view if stored is None else _with_proof(parts, view, stored)


def _prove(parts: Parts, part: StreamPart, timestamp_ms: int, leaf: Digest) -> StoredMessage | None:
    newest = None if parts.history is None else parts.history.newest()
    if parts.history is None or newest is None:
        return None
    return parts.history.prove_message(part, timestamp_ms, leaf, newest)


def _with_proof(parts: Parts, view: MessageView, stored: StoredMessage) -> MessageView:
    assert parts.bundles is not None
    opened = parts.bundles.describe(stored.number)
    assert opened is not None
    manifest = opened.manifest
    return replace(
        view,
        stored=stored,
        bundle=opened.bundle,
        certified=find_certified(opened, stored.proof.window.instance),
        config=decode_config(manifest.config_preimage),
        preimage=manifest.config_preimage,
    )


def find_certified(opened: OpenedBundle, instance: InstanceId) -> Certified:
    """An outcome of the bundle with its certificate."""
    sets = (*opened.manifest.windows, opened.manifest.late)
    return next(certified for certified in sets if certified.outcome.instance == instance)


def read_bundles(parts: Parts, newest: int | None) -> tuple[Sequence[AcceptedBundle], int | None]:
    """Bundles from number ``newest`` down, and the number behind the page; they are read from the index alone."""
    if parts.bundles is None:
        return (), None
    numbers = parts.bundles.index.numbers()
    top = numbers.stop - 1 if newest is None else min(newest, numbers.stop - 1)
    wanted = range(top, max(numbers.start, top - BUNDLES + 1) - 1, -1)
    found = [bundle for number in wanted if (bundle := parts.bundles.index.bundle(number)) is not None]
    return found, wanted[-1] - 1 if wanted and wanted[-1] > numbers.start else None


def read_bundle(parts: Parts, number: int) -> BundleView | None:
    """Raises TransientError, RemoteFault: nobody gives its manifest now."""
    opened = None if parts.bundles is None else parts.bundles.describe(number)
    newest = None if parts.bundles is None else parts.bundles.newest()
    if opened is None or newest is None:
        return None
    return BundleView(opened, decode_config(opened.manifest.config_preimage), newest.number)


def read_brokers(parts: Parts) -> list[BrokerLine]:
    """The staked nodes, by stake. ``hearing`` is another thread's: each question to it is one look-up."""
    heard = {} if parts.hearing is None else dict(parts.hearing.newest)
    own = parts.broker.address
    if parts.sums is not None:
        heard[own] = _own_heartbeat(parts, parts.sums)
    lines = [
        BrokerLine(
            node,
            node.address == own,
            heard.get(node.address),
            parts.hearing is None or parts.hearing.is_silent(node.address),
            {lie: count for (whose, lie), count in dict(parts.lies).items() if whose == node.address},
        )
        for node in parts.broker.chain.brokers
    ]
    return sorted(lines, key=lambda line: (-line.node.stake, line.node.address))


def _own_heartbeat(parts: Parts, sums: SliceSums) -> Heard:
    """What this broker says itself, or would say now."""
    newest = None if parts.bundles is None else parts.bundles.newest()
    bundle = None if newest is None else (newest.number, newest.root)
    return Heard(make_heartbeat(sums, parts.now_ms, (), bundle), parts.now_ms, parts.now_ms, b"")
