"""The composition root: settings in, adapters out. The only module that knows everything.

Each process makes one ``Node`` and keeps it. Adapters are made lazily, so a listener never loads what only a worker
needs; after a fork everything is made anew.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from validator import log as logs
from validator.keys import PURPOSES, load_key, load_signer, warn_of_open_keys
from validator.net.arweave.gateway import CircuitState
from validator.net.arweave.gateway import Limits as GatewayLimits
from validator.net.arweave.storage import ArweaveStorage
from validator.net.arweave.wallet import ArweaveWallet
from validator.net.brokers.client import BrokerClient
from validator.net.chain.pricing import GWEI
from validator.net.chain.reader import ChainReader
from validator.net.chain.store_index import StoreList
from validator.net.http.client import BoundedClient
from validator.net.http.connections import trust
from validator.net.http.urls import ParsedUrl, check_url
from validator.net.peers.client import HttpPeers
from validator.net.sandbox import Sandbox
from validator.net.signed.signing import network_digest
from validator.net.signer.remote import RemoteSigner
from validator.ports.chain import ReportSender
from validator.ports.queue import Tasks
from validator.ports.sources import MessageSource
from validator.protocol.codec.secp256k1 import Signer, SigningKey
from validator.protocol.codec.statement import SigningContext
from validator.protocol.errors import ConfigError, TransientError
from validator.protocol.model import Address
from validator.protocol.parameters import Network, parse_network
from validator.settings import Settings, read_text_file
from validator.steps.context import Context, make_context
from validator.steps.identity import Identity, Origin
from validator.steps.peer_service import LocalPeerService
from validator.store.bundle_writer import ChildWriter
from validator.store.database import Database, open_database, require_head
from validator.store.facade import SqlStore
from validator.store.identity import create_identity, renew_identity, require_identity, require_votes_of
from validator.store.meta import Meta, load_meta
from validator.store.segments import SegmentStore
from validator.store.view.screen import SqlView
from validator.store.voting_gate import VotingBlock

if TYPE_CHECKING:
    from validator.net.brokers.pull import PullMetrics
    from validator.net.chain.sender import ChainSender

log = logs.get_logger(__name__)
T = TypeVar("T")

DOWNLOAD_S = 60.0
SEED_RUN_S = 20.0
"""So long one run of a task sends chunks, and saves what was taken; the next goes on."""
ASKERS = 16


class SystemClock:
    """The port ``Clock``."""

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000


class NoTasks:
    """The port ``Tasks`` of a process that queues nothing: beat finds in the database what is due."""

    def enqueue(self, task: str, key: str, eta_ms: int | None = None) -> None:
        del task, key, eta_ms


class Node:
    """One validator in one process: settings, and every adapter made from them when first needed.

    ``uploads``: whether this process may pay for uploads; only then the Arweave wallet is read. ``has_begun``: the
    process has already found its release's schema in the database (``require_head``).
    """

    def __init__(self, settings: Settings, tasks: Tasks, *, uploads: bool = False, has_begun: bool = False) -> None:
        self.settings = settings
        self.tasks = tasks
        self.uploads = uploads
        self.has_begun = has_begun
        self.clock = SystemClock()

    def close(self) -> None:
        """Close what this process has opened; for short-lived ones."""
        made = self.__dict__  # cached properties that were used
        for name in ("peers", "http", "chain", "database"):
            if name in made:
                made.pop(name).close()
        for name in ("voting_key", "gas_key"):
            if isinstance(made.get(name), RemoteSigner):
                made.pop(name).close()

    # --- identity ---

    @cached_property
    def network(self) -> Network:
        return load_network(self.settings.network_file)

    @cached_property
    def signing(self) -> SigningContext:
        return SigningContext(self.network.chain_id, self.network.contracts.report_manager)

    @cached_property
    def voting_key(self) -> Signer:
        return load_signer(self.settings, "voting")

    @cached_property
    def gas_key(self) -> Signer:
        return load_signer(self.settings, "gas")

    @cached_property
    def query_key(self) -> SigningKey:
        return load_key(self.settings, "query")

    @cached_property
    def address(self) -> Address:
        return self.voting_key.address

    # --- adapters ---

    @cached_property
    def database(self) -> Database:
        database = open_database(self.settings.database_link())
        require_head(database, has_begun=self.has_begun)
        return database

    @cached_property
    def store(self) -> SqlStore:
        return SqlStore(self.database, SegmentStore(self.settings.sets_url), self.clock)

    @cached_property
    def http(self) -> BoundedClient:
        """The one client for strangers' URLs, so that its limits per address hold for brokers and peers together."""
        ca_file = self.settings.ca_file
        try:
            tls = trust(ca_file)
        except OSError as error:
            reason = error.strerror or error
            raise ConfigError(f"LOGSTORE_CA_FILE: {ca_file}: {reason}", field="LOGSTORE_CA_FILE") from error
        return BoundedClient(allow_nets=self.settings.nets, ssl_context=tls)

    @cached_property
    def chain(self) -> ChainReader:
        network = self.network
        return ChainReader(
            self.settings.rpc_urls,
            network.contracts,
            deployment_block=network.deployment_block,
            finality=network.sets[0].finality,
            chain_id=network.chain_id,
            index=_StoreIndex(self.store),
        )

    @cached_property
    def peers(self) -> HttpPeers:
        return HttpPeers(
            key=self.voting_key,
            context=self.signing,
            network=network_digest(self.network),
            endpoints=lambda: self.peer_service.members(),
            client=self.http,
            check=self._check_url,
            now_ms=self.clock.now_ms,
        )

    @cached_property
    def peer_service(self) -> LocalPeerService:
        return LocalPeerService(self.context, count_statement_refusal)

    @cached_property
    def context(self) -> Context:
        settings = self.settings
        return make_context(
            network=self.network,
            identity=self._identity(),
            clock=self.clock,
            store=self.store,
            tasks=self.tasks,
            chain=self.chain,
            source=lazy(self._source),
            peers=self.peers,
            storage=self._storage(),
            writer=ChildWriter(self.store.sets, settings.sets_url),
            reader=Sandbox(),
            sender=lazy(self._sender),
            data_dir=settings.data_dir,
            askers=ThreadPoolExecutor(ASKERS, thread_name_prefix="ask"),
        )

    @cached_property
    def view(self) -> SqlView:
        return SqlView(
            self.database,
            self.clock,
            address=self.address,
            network=self.network.name,
            data_dir=self.settings.data_dir,
            disk_floor=self.settings.disk_floor,
            observer=self.settings.observer,
        )

    # --- standing ---

    def create_identity(self, *, restored: bool = False) -> Meta:
        """Note in a new database what it is; ``restored``: begin anew, whatever was before. Needs the chain once.

        Raises:
            ConfigError: the database is another network's, or the key belongs to another database.
        """
        with self.database.read() as connection:
            held = load_meta(connection)
        head = self.chain.fetch_head() if held is None or restored else None
        make = renew_identity if restored else create_identity
        return make(self.database, self.settings.id_file, self.network, head, self.clock.now_ms())

    def require_identity(self) -> Meta:
        """Before a process begins its work: its database is at head, this network's, active, and the key's.

        Raises:
            ConfigError: names what differs and the remedy.
        """
        held = require_identity(self.database, self.settings.id_file, self.network)
        own: Address | None = None
        with suppress(ConfigError):  # a key that cannot be read is said where keys are looked at
            own = self.address
        if own is not None:
            require_votes_of(self.database, own)
        return held

    def require_secrets(self) -> None:
        """Before a process begins its work: every key that is set here can be used. What is not set is another's.

        Raises:
            ConfigError: names the variable and the remedy, never the value.
        """
        for purpose in PURPOSES:
            if self.settings.has_secret(purpose):
                getattr(self, f"{purpose}_key")
        load_wallet(self.settings)
        warn_of_open_keys(self.settings, self.network)

    def show_warnings(self) -> None:
        """From now on every warning and error of this process is on the status page too."""
        logs.show_warnings(self.store.events.save_event)

    def _identity(self) -> Identity:
        settings = self.settings
        return Identity(
            self.signing,
            None if settings.observer else self.voting_key,
            may_vote=not settings.observer,
            origin=self._origin(),
            voting_block=VotingBlock(self.database, self.clock, settings.data_dir, settings.disk_floor),
        )

    def _origin(self) -> Origin | None:
        with self.database.read() as connection:
            meta = load_meta(connection)
        return None if meta is None else Origin(meta.created_block_s, meta.config_count)

    def _storage(self) -> ArweaveStorage:
        settings = self.settings
        wallet = load_wallet(settings) if self.uploads else None
        limits = GatewayLimits(seed_s=SEED_RUN_S, download_s=DOWNLOAD_S)
        return ArweaveStorage(
            settings.gateway_urls,
            wallet,
            reward_cap=settings.max_reward_winston,
            limits=limits,
            on_circuit=self._show_circuit,
        )

    def _show_circuit(self, now: CircuitState) -> None:
        """On the status page. A database that cannot be written to has alarms of its own, and stops no upload."""
        try:
            self.store.weave.save_gateway(now.host, now.state, now.failures, now.last_error)
        except TransientError as error:
            log.debug("gateway.not_shown", gateway=now.host, reason=str(error))

    def _source(self) -> MessageSource:
        """Only a worker that collects needs the query key."""
        settings = self.settings
        return BrokerClient(
            self.query_key,
            http=self.http,
            allow_http=settings.allow_http,
            allow_nets=settings.nets,
            on_pull=count_pull,
            context=self.signing,
        )

    def _sender(self) -> ReportSender:
        """Only a worker that sends needs the gas key."""
        return make_sender(self.settings, self.network, self.gas_key)

    def _check_url(self, url: str) -> ParsedUrl:
        return check_url(url, allow_http=self.settings.allow_http, allow_nets=self.settings.nets)


def make_sender(settings: Settings, network: Network, key: Signer) -> ChainSender:
    """Sends transactions of this key, within the operator's limits."""
    from validator.net.chain.sender import ChainSender

    return ChainSender(
        settings.rpc_urls,
        network.contracts,
        key,
        chain_id=network.chain_id,
        max_cost_wei=int(settings.max_report_fee_pol * 10**18),
        min_tip_wei=None if settings.min_tip_gwei is None else int(settings.min_tip_gwei * GWEI),
    )


class Lazy:
    """Stands for an adapter that is made at its first use: where a process never uses it, its keys are never asked for.

    ``lazy`` makes one and says whose type it stands for.
    """

    def __init__(self, make: Callable[[], object]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._made: object = None

    def __getattr__(self, name: str) -> Any:
        with self._lock:
            if self._made is None:
                self._made = self._make()
        return getattr(self._made, name)


def lazy(make: Callable[[], T]) -> T:
    """What ``make`` gives, made when its first attribute is read; a failure is not remembered."""
    return cast(T, Lazy(make))


class _StoreIndex:
    """The chain reader's list of stores, kept in the database."""

    def __init__(self, store: SqlStore) -> None:
        self._rows = store.chain

    def load(self) -> StoreList | None:
        found = self._rows.load_stores()
        return None if found is None else StoreList(*found)

    def save(self, stores: StoreList) -> None:
        self._rows.save_stores(stores.upto, stores.stream_ids)


def share_metrics(settings: Settings) -> None:
    """Let all processes of this validator on this machine add up their counters: before the first one is made.

    The folder is data_dir/metrics, or PROMETHEUS_MULTIPROC_DIR where the operator names another.
    """
    folder = os.environ.setdefault("PROMETHEUS_MULTIPROC_DIR", str(settings.metrics_dir))
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"LOGSTORE_DATA_DIR: cannot create {folder}: {error.strerror}", field="LOGSTORE_DATA_DIR"
        ) from error


def count_pull(pull: PullMetrics) -> None:
    """One broker's answer for one partition, into the metrics."""
    from validator import metrics  # made where they are counted: the folder is known by then

    broker = f"0x{pull.broker.hex()}"
    result = "unchanged" if pull.unchanged else "complete" if pull.fault is None else pull.fault.value
    metrics.pulls.labels(broker, result).inc()
    metrics.pull_seconds.labels(broker).observe(pull.seconds)
    metrics.pull_bytes.labels(broker).inc(pull.bytes)
    metrics.pull_records.labels(broker).inc(pull.messages)


def count_statement_refusal(what: str, reason: str) -> None:
    """Something that a peer's request held and that was refused, into the metrics."""
    from validator import metrics  # made where they are counted: the folder is known by then

    metrics.statement_refusals.labels(what, reason).inc()


def load_wallet(settings: Settings) -> ArweaveWallet | None:
    """The wallet that is set here, if one is. Raises ConfigError, which never shows it."""
    text = settings.wallet_text()
    return None if text is None else ArweaveWallet.from_text(text.encode(), "LOGSTORE_WALLET")


def load_network(path: Path) -> Network:
    """The network of a file. Raises ConfigError naming the setting, or the field in the file."""
    return parse_network(read_text_file(path, "LOGSTORE_NETWORK_FILE"))
