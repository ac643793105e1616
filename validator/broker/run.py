"""``logstore-validator broker``: both listeners and all loops of a broker in one process, on one event loop.

    chain      registry and nodes every few seconds, and the stream partitions that follow from them
    ingest     while there is a bus
    lead       sums, repair and heartbeats: in one process of those that share a database
    keeping    retention and accounts
    listeners  public and operator's

Loops outlive what they call (``lasting``'s rule): each goes on after any failure, with a pause, and says so. ``--role``
splits them where several processes share one folder, or on several machines one database: ``serve`` has no bus, and
never leads.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.routing import Route
from starlette.types import ASGIApp

from validator import log as logs
from validator.broker import operator
from validator.broker.admission import Admission, Limits
from validator.broker.certified_layer import CertifiedLayer
from validator.broker.chain_view import ChainView
from validator.broker.config import PREFIX, BrokerSettings
from validator.broker.core import Broker
from validator.broker.dialects import Dialects
from validator.broker.explorer.reading import Parts
from validator.broker.explorer.routes import Explorer
from validator.broker.gate import Gate, Terms
from validator.broker.heartbeat import BEAT_S
from validator.broker.ingest import Ingest, Told
from validator.broker.interpreter import tune_interpreter
from validator.broker.keeping import DAY_MS, DiskFloor, sweep
from validator.broker.leading import Leading
from validator.broker.neighbours import Neighbours
from validator.broker.serve import Server, build_app
from validator.broker.state import open_state
from validator.broker.storage_node import StorageNode
from validator.lasting import pause_s
from validator.net.chain.reader import ChainReader
from validator.net.chain.registries import Registry, StreamrRegistries
from validator.net.chain.rpc import Rpc
from validator.net.http.listening import EXCHANGE_S, listen, listener_config
from validator.net.streamr.bridge import BridgeBus
from validator.net.streamr.sharding import ShardedBus
from validator.ports.bus import MessageBus
from validator.ports.message_store import MessageStore
from validator.protocol.codec.statement import SigningContext
from validator.protocol.errors import TransientError, ValidatorError
from validator.protocol.model import Address, Record, StreamPart
from validator.protocol.parameters import Network, parse_network
from validator.settings import read_text_file

log = logs.get_logger(__name__)

SAVE_S = 5.0
PING_S = 1.0
SILENT_S = 3.0
"""After so long a database that has said nothing is away."""


@dataclass
class Hooks:
    """What a development network puts in: a bus of its own, with losses behind it, ears, and a door for tests."""

    open_bus: Callable[[], Awaitable[MessageBus]] | None = None
    on_judged: Told | None = None
    on_kept: Callable[[Sequence[Record]], None] | None = None
    on_signed: Callable[[Record], None] | None = None
    on_published: Callable[[Record], None] | None = None
    routes: Callable[[Admission], Sequence[Route]] | None = None
    """Paths beside the public ones."""
    interfere: Callable[[Neighbours], None] | None = None
    """Told of the part that speaks with other brokers, before it does."""
    arrivals: Callable[[MessageStore], MessageStore] | None = None
    """Between what is admitted and the store."""
    app: Callable[[ASGIApp], ASGIApp] | None = None
    """Between the public paths and the world."""


def run_broker(settings: BrokerSettings, hooks: Hooks | None = None) -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigError before anything is opened."""
    process = _Process(settings, hooks or Hooks())
    tune_interpreter()
    asyncio.run(process.run())


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def load_network(settings: BrokerSettings) -> Network:
    """Raises ConfigError."""
    return parse_network(read_text_file(settings.network_file, f"{PREFIX}NETWORK_FILE"))


class _Process:
    """The parts of one process, and their loops."""

    def __init__(self, settings: BrokerSettings, hooks: Hooks) -> None:
        self._settings = settings
        self._hooks = hooks
        self._sockets = [
            listen(settings.fd, settings.host, settings.port, f"{PREFIX}PORT"),
            listen(settings.operator_fd, settings.operator_host, settings.operator_port, f"{PREFIX}OPERATOR_PORT"),
        ]
        network = load_network(settings)
        key = settings.signing_key()
        folder = settings.data_dir
        folder.mkdir(parents=True, exist_ok=True)
        self._reader = ChainReader(
            list(settings.rpc_urls),
            network.contracts,
            deployment_block=network.deployment_block,
            finality=network.sets[0].finality,
            chain_id=network.chain_id,
        )
        self._floor = DiskFloor(folder, settings.disk_floor)
        self._state = open_state(settings, key.address, network, self._floor)
        chain = ChainView(self._reader)
        self._neighbours = Neighbours(
            self._state.messages,
            self._state.sums,
            self._state.book,
            key,
            network,
            chain,
            from_ms=now_ms() - settings.retention_days * DAY_MS,
            now_ms=now_ms,
            nets=settings.nets,
            allow_http=settings.allow_http,
            settles=settings.role != "serve" and not self._state.lead.is_shared,
        )
        store = self._neighbours.store
        context = SigningContext(network.chain_id, network.contracts.report_manager)
        terms = Terms(settings.balance, settings.streamr)
        if hooks.interfere is not None:
            hooks.interfere(self._neighbours)
        self._admission = Admission(
            store if hooks.arrivals is None else hooks.arrivals(store),
            chain,
            Limits(
                message_bytes=max(parameters.message_limit for parameters in network.sets),
                part_per_s=settings.part_per_s,
                publisher_per_s=settings.publisher_per_s,
                past_ms=settings.retention_days * DAY_MS,
                future_ms=round(settings.future_s * 1000),
            ),
            now_ms=now_ms,
            threads=settings.verify_threads,
        )
        self._admission.on_kept = hooks.on_kept
        self._neighbours.attach(self._admission)
        gate = Gate(key.address, context, chain, self._state.accounts, terms, now_ms=now_ms)
        self._broker = Broker(key, network, store, chain, self._admission, self._state.accounts, gate, now_ms)
        self._leading = Leading(self._state.lead, self._broker, self._neighbours)
        self._database = operator.Answering()
        self._broker.retained_from_ms = lambda: now_ms() - settings.retention_days * DAY_MS
        self._broker.on_signed, self._broker.on_published = hooks.on_signed, hooks.on_published
        self._broker.ask_others = self._neighbours.ask_others
        self._certified = self._open_certified(network, folder, store)
        self._server = Server(self._broker, Dialects(self._broker, settings.eras))
        self._ingest: Ingest | None = None
        self._explorer = self._open_explorer() if settings.explorer else None
        self._routes = [] if hooks.routes is None else hooks.routes(self._admission)

    def _open_certified(self, network: Network, folder: Path, store: MessageStore) -> CertifiedLayer | None:
        """What is certified, if there are gateways to read it from. Raises ConfigError."""
        settings = self._settings
        if not settings.gateway_urls:
            return None
        layer = CertifiedLayer(
            network,
            self._reader,
            settings.gateway_urls,
            folder,
            store,
            lake_bytes=settings.lake_mib << 20,
            retained_from_ms=self._broker.retained_from_ms,
            now_ms=now_ms,
        )
        self._broker.history = layer.history
        return layer

    def _open_explorer(self) -> Explorer:
        certified, neighbours = self._certified, self._neighbours
        parts = Parts(
            self._broker,
            None if certified is None else certified.bundles,
            None if certified is None else certified.history,
            neighbours.sums,
            neighbours.hearing,
            neighbours.book.counts,
        )
        return Explorer(parts, self._settings.explorer_rpc_url)

    async def run(self) -> None:
        settings, broker = self._settings, self._broker
        async with contextlib.AsyncExitStack() as stack:
            stack.callback(self._close)
            bus = await stack.enter_async_context(self._open_bus())
            if bus is not None:
                broker.bus = bus
                self._ingest = Ingest(
                    bus,
                    self._admission,
                    broker.chain,
                    max_parts=settings.max_parts,
                    on_judged=self._hooks.on_judged,
                    patient=self._state.lead.is_shared,
                )
            log.info("broker.started", address="0x" + broker.address.hex(), network=broker.network.name)
            loops = [
                asyncio.create_task(_lasting("chain", self._read_chain, settings.chain_every_s)),
                asyncio.create_task(_lasting("keeping", self._keep, SAVE_S)),
            ]
            if settings.role != "serve":
                loops.append(asyncio.create_task(_lasting("lead", self._lead, 1.0)))
            if self._state.lead.is_shared:
                loops.append(asyncio.create_task(_lasting("database", self._look_at_database, PING_S)))
            if self._certified is not None:
                loops.append(asyncio.create_task(_lasting("certified", self._follow_bundles, settings.chain_every_s)))
            if self._ingest is not None:
                loops.append(asyncio.create_task(_lasting("ingest", self._ingest.run, 1.0)))
            if bus is not None and settings.storage_registry:
                storage = StorageNode(self._registries(stack), broker.key, bus, now_ms, self._join)
                loops.append(asyncio.create_task(_lasting("storage", storage.look, settings.chain_every_s)))
            try:
                await self._listen()
            finally:
                for loop in loops:
                    loop.cancel()
                await asyncio.gather(*loops, return_exceptions=True)
        log.info("broker.stopped")

    @contextlib.asynccontextmanager
    async def _open_bus(self) -> AsyncIterator[MessageBus | None]:
        """The network's bus, if this process reads one."""
        sockets = self._settings.bridge_sockets
        bus: MessageBus | None = None
        if self._settings.role == "serve":
            pass
        elif self._hooks.open_bus is not None:
            bus = await self._hooks.open_bus()
        elif len(sockets) == 1:
            bus = await BridgeBus.open(Path(sockets[0]))
        elif sockets:
            bus = ShardedBus([await BridgeBus.open(Path(path)) for path in sockets])
        if bus is None:
            yield None
            return
        try:
            yield bus
        finally:
            await bus.close()

    async def _read_chain(self) -> None:
        await asyncio.to_thread(self._broker.chain.refresh)
        if self._ingest is not None:
            await self._ingest.follow_registry()

    async def _join(self, _parts: Sequence[StreamPart]) -> None:
        """What has just been assigned is joined as the chain says, and not when the chain is next looked at."""
        await self._read_chain()

    def _registries(self, stack: contextlib.AsyncExitStack) -> StreamrRegistries:
        rpc = Rpc(list(self._settings.rpc_urls))
        stack.callback(rpc.close)
        addresses = {
            Registry.STREAMS: self._broker.network.contracts.stream_registry,
            Registry.STORAGE: Address(bytes.fromhex(self._settings.storage_registry[2:])),
        }
        return StreamrRegistries(rpc, addresses)

    async def _lead(self) -> None:
        await self._leading.run(
            [
                lambda: _lasting("repair", self._neighbours.mend, 1.0),
                lambda: _lasting("heartbeat", self._beat, BEAT_S),
            ]
        )

    async def _look_at_database(self) -> None:
        """Whether it answers, for the operator; and what another process has caught others at."""
        book = self._state.book
        asked = asyncio.ensure_future(asyncio.to_thread(self._state.ping))
        try:
            if not (await asyncio.wait({asked}, timeout=SILENT_S))[0]:
                self._database.error = "does not answer"
            await asked
            self._database.error = ""
            if not self._leading.is_here:
                book.learn(await asyncio.to_thread(book.load_new))
        except TransientError as error:
            self._database.error = str(error)
            raise

    async def _beat(self) -> None:
        """Say what is held, once the chain has told whether this is a broker: others would not listen."""
        broker = self._broker
        if any(node.address == broker.address for node in broker.chain.brokers):
            newest = None if self._certified is None else self._certified.bundles.newest()
            bundle = None if newest is None else (newest.number, newest.root)
            await self._neighbours.beat(broker.publish_on_system_stream, bundle)

    async def _follow_bundles(self) -> None:
        assert self._certified is not None
        while await asyncio.to_thread(self._certified.step, compares=self._has_lead):
            pass  # more is waiting

    async def _keep(self) -> None:
        """The floor rises in every process; days are dropped by one, where they are shared."""
        await asyncio.to_thread(self._broker.accounts.save)
        if self._has_lead:
            await asyncio.to_thread(sweep, self._neighbours.store, now_ms(), self._settings.retention_days)
        else:
            await asyncio.to_thread(self._neighbours.sums.drop_before, self._broker.retained_from_ms())

    @property
    def _has_lead(self) -> bool:
        return self._leading.is_here or not self._state.lead.is_shared

    async def _listen(self) -> None:
        """Until a signal; answers under way have some seconds to end."""
        settings = self._settings
        database = self._database if self._state.lead.is_shared else None
        view = operator.View(
            self._broker,
            self._server,
            self._ingest,
            self._floor,
            self._neighbours,
            time.monotonic(),
            database,
            leads=lambda: self._leading.is_here,
        )
        certified = [] if self._certified is None else self._certified.routes()
        shown = [] if self._explorer is None else self._explorer.routes()
        public: ASGIApp = build_app(self._server, [*self._routes, *shown, *certified, *self._neighbours.routes()])
        apps = [public if self._hooks.app is None else self._hooks.app(public), operator.create_app(view)]
        servers = []
        for app, sock in zip(apps, self._sockets, strict=True):
            host, port = sock.getsockname()[:2]
            streams = app is apps[0]
            config = listener_config(
                app,
                host,
                port,
                allow_nets=settings.nets,
                connections=settings.connections,
                connections_per_address=settings.connections_per_address,
                streams=streams,
                exchange_s=settings.stall_s if streams else EXCHANGE_S,
                graceful_s=2,
            )
            servers.append(_Server(config))
            log.info("listening", listener="public" if streams else "operator", host=host, port=port)

        def stop() -> None:
            for server in servers:
                server.should_exit = True

        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        await asyncio.gather(
            *(server.serve(sockets=[sock]) for server, sock in zip(servers, self._sockets, strict=True))
        )

    def _close(self) -> None:
        self._broker.close()
        if self._explorer is not None:
            self._explorer.close()
        if self._certified is not None:
            self._certified.close()
        with contextlib.suppress(TransientError):
            self._broker.accounts.close()
        self._neighbours.close()
        self._state.close()
        self._reader.close()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are handled once for both listeners."""
        yield


async def _lasting(name: str, body: Callable[[], Awaitable[None]], every_s: float) -> None:
    """Call for ever; after a failure, following a pause that grows."""
    failures = 0
    while True:
        try:
            await body()
            failures = 0
        except ValidatorError as error:
            failures += 1
            log.warning("loop.failed", loop=name, reason=str(error), failures=failures)
        except Exception:
            failures += 1
            log.exception("loop.failed", loop=name, failures=failures)
        await asyncio.sleep(pause_s(failures) if failures else every_s)
