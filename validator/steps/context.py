"""What every step is given: adapters behind ports, who we are, and the libraries that keep something in memory."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from validator.ports.chain import Chain, ReportSender
from validator.ports.clock import Clock
from validator.ports.peers import Peers
from validator.ports.queue import Tasks
from validator.ports.sources import MessageSource
from validator.ports.storage import BundleReader, BundleStorage, BundleWriter
from validator.ports.store import Store
from validator.protocol.model import Digest, InstanceId
from validator.protocol.parameters import Network
from validator.protocol.report import Debt
from validator.steps.asking import Asking
from validator.steps.claims import Claims
from validator.steps.cut_points import CutPoints
from validator.steps.identity import Identity
from validator.steps.kept import Kept
from validator.steps.noticed import Noticed

KEPT_SIZES = 10_000
KEPT_LEDGERS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """One validator in one process. Each part has a lock of its own."""

    network: Network
    identity: Identity
    data_dir: Path

    clock: Clock
    store: Store
    tasks: Tasks
    chain: Chain
    source: MessageSource
    peers: Peers
    storage: BundleStorage
    writer: BundleWriter
    reader: BundleReader
    sender: ReportSender

    cut_points: CutPoints
    asking: Asking
    noticed: Noticed
    claims: Claims = field(default_factory=Claims)
    sizes: Kept[InstanceId, int] = field(default_factory=lambda: Kept(KEPT_SIZES))
    """Canonical bytes of windows that are held and in no bundle yet."""
    debts: Kept[Digest, Mapping[str, Debt]] = field(default_factory=lambda: Kept(KEPT_LEDGERS))
    """What streams owe, by the block at which a report was the last accepted."""
    resumed: set[tuple[InstanceId, Digest]] = field(default_factory=set)
    """Instances in which this process has asked its peers for its own words."""


def make_context(
    *,
    network: Network,
    identity: Identity,
    data_dir: Path,
    clock: Clock,
    store: Store,
    tasks: Tasks,
    chain: Chain,
    source: MessageSource,
    peers: Peers,
    storage: BundleStorage,
    writer: BundleWriter,
    reader: BundleReader,
    sender: ReportSender,
    workers: ThreadPoolExecutor | None = None,
    askers: ThreadPoolExecutor | None = None,
) -> Context:
    """The context of a process that has these adapters; ``workers`` and ``askers`` as for ``Asking``."""
    return Context(
        network=network,
        identity=identity,
        data_dir=data_dir,
        clock=clock,
        store=store,
        tasks=tasks,
        chain=chain,
        source=source,
        peers=peers,
        storage=storage,
        writer=writer,
        reader=reader,
        sender=sender,
        cut_points=CutPoints(network, clock, store, chain),
        asking=Asking(clock, tasks, workers, askers),
        noticed=Noticed(clock),
    )
