"""A whole network in one thread under a clock of its own: real steps and databases, everything outside as fakes.

Each validator has a real database and sets on disk, and a queue of tasks; ``run`` takes the next task of all queues by
its time, as workers do, and moves the clock to it. Twice a second each validator watches the chain and looks for what
is due. Chain, brokers, gateway and contract are one shared ``World``; peers call each other's service directly.

A validator may be away; a task may be killed before any call of its ports (``kill_at``), and then a new
process goes on from database and files.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache
from heapq import heappop, heappush
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sqlalchemy import Dialect, text

from tests.builders import a_key
from tests.fakes.world import (
    CONTRACTS,
    GENESIS_MS,
    Clock,
    World,
    WorldChain,
    WorldSender,
    WorldSource,
    WorldStorage,
    some_parameters,
)
from validator.net.sandbox import Sandbox
from validator.ports.peers import Gossip, Handshake, HeldVotes
from validator.ports.queue import Task
from validator.ports.storage import ReaderFailed
from validator.ports.store import Sets
from validator.protocol.codec.bundle import BundleFile, VerifiedBundle
from validator.protocol.codec.bundle_file import verify_bundle_file, write_bundle
from validator.protocol.codec.manifest_rules import check_same_manifest
from validator.protocol.codec.outcome import set_root
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.codec.statement import SigningContext
from validator.protocol.errors import (
    TransientError,
    ValidatorError,
)
from validator.protocol.hashing import instance_subject, order_committee
from validator.protocol.model import (
    Address,
    Digest,
    InstanceId,
    InstanceKind,
    Manifest,
    Outcome,
    PartitionEntry,
    Record,
    Root,
    StreamPart,
    VoteQuorum,
)
from validator.protocol.parameters import Network, ParameterSet
from validator.steps import chain_watch, dispatch
from validator.steps.agreed import load_outcome
from validator.steps.context import Context, make_context
from validator.steps.identity import Identity
from validator.steps.peer_service import LocalPeerService
from validator.steps.pipeline import PIPELINE, perform
from validator.store.bundle_program import bundle_records
from validator.store.database import Database, migrate, open_database
from validator.store.facade import SqlStore
from validator.store.segments import SegmentStore

STAGES = dict(PIPELINE)
"""What workers do; a test may put another stage into it."""
Entry = tuple[int, int, str, str, tuple[int, ...]]
"""A queued task: time, order, name, key, further arguments."""


class Killed(BaseException):
    """The process ends here: nothing after this line runs, and no handler of the steps sees it."""


class DirectPeers:
    """The port ``Peers``: calls the other's service, unless one of the two is away."""

    def __init__(self, own: Address, network: SmallNetwork) -> None:
        self.own = own
        self.network = network

    def _ask(self, member: Address) -> LocalPeerService:
        node = self.network.by_address.get(member)
        if node is None or node.away or self.network.by_address[self.own].away:
            raise TransientError("connection refused")
        return node.service

    def broadcast(self, gossip: Gossip, members: Iterable[Address]) -> Mapping[Address, str]:
        result = {}
        for member in members:
            try:
                self.send(member, gossip)
                result[member] = ""
            except ValidatorError as error:
                result[member] = str(error)
        return result

    def send(self, member: Address, gossip: Gossip) -> None:
        self._ask(member).receive(self.own, gossip)

    def fetch_missing(self, member: Address, held: HeldVotes) -> Gossip:
        return self._ask(member).missing(self.own, held)

    def fetch_entries(self, member: Address, set_root: Root) -> tuple[PartitionEntry, ...]:
        return self._ask(member).entries(self.own, set_root)

    def reconcile(
        self, member: Address, set_root: Root, parts: Sequence[StreamPart], message: bytes, *, strong: bool
    ) -> bytes:
        return self._ask(member).reconcile(self.own, set_root, parts, message, strong=strong)

    def fetch_messages(self, member: Address, set_root: Root, leaves: Sequence[Digest]) -> list[bytes]:
        return self._ask(member).messages(self.own, set_root, leaves)

    def fetch_body(self, member: Address, digest: Digest) -> bytes:
        return self._ask(member).body(self.own, digest)

    def fetch_observations(
        self, member: Address, instance: InstanceId, config_digest: Digest, digests: Sequence[Digest]
    ) -> Gossip:
        return self._ask(member).observations(self.own, instance, config_digest, digests)

    def fetch_certified(
        self, member: Address, instances: Sequence[InstanceId]
    ) -> list[tuple[InstanceId, bytes, VoteQuorum]]:
        return self._ask(member).certified(self.own, instances)

    def push_late(self, member: Address, messages: Sequence[bytes]) -> None:
        self._ask(member).receive_late(self.own, messages)

    def handshake(self, member: Address) -> Handshake:
        return self._ask(member).handshake(self.own)


class Inline(ThreadPoolExecutor):
    """Runs what is submitted at once, in the caller's thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class Fuse:
    """Says before each call of a port whether the process ends there; between tasks it never does."""

    def __init__(self) -> None:
        self.burns: Callable[[str], bool] | None = None

    def reach(self, call: str) -> None:
        if self.burns is not None and self.burns(call):
            raise Killed


class Mortal:
    """Any port; before each of its calls the process may end."""

    def __init__(self, port: Any, fuse: Fuse, name: str) -> None:
        self._port = port
        self._fuse = fuse
        self._name = name

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        path = f"{self._name}.{name}"
        if not callable(found):
            return Mortal(found, self._fuse, path)

        def call(*arguments: Any, **keywords: Any) -> Any:
            self._fuse.reach(f"{path}{tuple(str(a) for a in arguments if isinstance(a, str))}")
            return found(*arguments, **keywords)

        return call


class Queue:
    """The port ``Tasks``: what one validator's workers will take, by time."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.entries: list[Entry] = []
        self.counter = 0

    def enqueue(self, task: str, key: str, eta_ms: int | None = None) -> None:
        self.counter += 1
        arguments = (eta_ms,) if eta_ms is not None and task == Task.ROUND_ADVANCE else ()
        heappush(self.entries, (max(eta_ms or 0, self.clock.now_ms()), self.counter, task, key, arguments))


@dataclass
class Ran:
    """One task as it ended: a step's result, or the error's name."""

    at_ms: int
    member: int
    task: str
    key: str
    name: str
    detail: str


@dataclass
class Reader:
    """The port ``BundleReader``, unless ``before`` raises: reads here, since a child for each file takes half a second.

    With ``in_child`` it is the real one.
    """

    before: Callable[[], None] = lambda: None
    in_child: bool = False

    def verify(self, path: Path, expected: Manifest) -> VerifiedBundle:
        self.before()
        if self.in_child:
            return Sandbox().verify(path, expected)
        try:
            bundle = verify_bundle_file(path)
        except OSError as error:
            raise ReaderFailed(f"bundle: {error}", path=str(path)) from error
        check_same_manifest(bundle.manifest, expected)
        return bundle


@dataclass
class Writer:
    """The port ``BundleWriter``: writes here, since a child for each file takes most of a second."""

    sets: Sets

    def write(self, path: Path, manifest: Manifest) -> BundleFile:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return write_bundle(path, manifest, bundle_records(manifest, self.sets.iterate))
        except OSError as error:
            raise TransientError(f"{path}: cannot write: {error.strerror or error}") from error


@dataclass
class Member:
    """One validator: what outlives its process, and the context of the process that runs now."""

    network: SmallNetwork
    number: int
    key: SigningKey
    folder: Path
    database: Database
    queue: Queue
    chain: WorldChain
    source: WorldSource
    storage: WorldStorage
    sender: WorldSender
    reader: Reader = field(default_factory=Reader)
    fuse: Fuse = field(default_factory=Fuse)
    away: bool = False
    idle: bool = False
    """Runs no task, yet answers its peers: a test speaks in its name."""
    context: Context = field(init=False)
    service: LocalPeerService = field(init=False)
    store: SqlStore = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    @property
    def address(self) -> Address:
        return self.key.address

    def restart(self) -> None:
        """A new process over the same database and files."""
        self.fuse.burns = None
        world = self.network.world
        store = SqlStore(self.database, SegmentStore(str(self.folder / "sets")), world.clock)
        self.store = store
        self.context = self._context(store, Fuse())
        self.service = LocalPeerService(self.context)  # the listener is a process of its own
        self.context = self._context(store, self.fuse)

    def become(self, **changed: Any) -> None:
        """From now on, and until it is restarted, the member is another in this."""
        self.context = replace(self.context, identity=replace(self.context.identity, **changed))

    def another_context(self) -> Context:
        """Of a second worker process at the same time."""
        return self._context(self.store, Fuse())

    def _context(self, store: SqlStore, fuse: Fuse) -> Context:
        def mortal(port: object) -> Any:
            return Mortal(port, fuse, type(port).__name__)

        world = self.network.world
        return make_context(
            network=world.network,
            identity=Identity(SigningContext(world.network.chain_id, world.network.contracts.report_manager), self.key),
            clock=world.clock,
            store=mortal(store),
            tasks=mortal(self.queue),
            chain=mortal(self.chain),
            source=mortal(self.source),
            peers=mortal(DirectPeers(self.address, self.network)),
            storage=mortal(self.storage),
            writer=Writer(mortal(store.sets)),
            reader=self.reader,
            sender=mortal(self.sender),
            data_dir=self.folder,
            workers=Inline(1),
        )

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        with self.database.read() as connection:
            return [tuple(row) for row in connection.execute(text(query))]

    def outcome(self, instance: InstanceId) -> Outcome:
        found = load_outcome(self.context, instance)
        assert found is not None, f"{instance} is not decided here"
        return found

    def held(self, instance: InstanceId) -> list[Record]:
        """The messages of a decided instance."""
        return list(self.store.sets.iterate(set_root(self.outcome(instance).entries)))

    def late(self, number: int = 0) -> list[Record]:
        return self.held(InstanceId(InstanceKind.LATE, number))

    def windows(self) -> list[Record]:
        """The messages of all windows."""
        return [r for start_ms in self.starts() for r in self.held(InstanceId(InstanceKind.WINDOW, start_ms))]

    def starts(self) -> list[int]:
        return [stored.window.start_ms for stored in self.store.windows.load_windows(0, 1 << 60)]

    def states(self) -> str:
        """First letters of the windows' states, then the states of the first four bundles; often asked, so in SQL."""
        found = self.rows(
            "SELECT 0, start_ms, substr(state, 1, 1) FROM windows "
            "UNION ALL SELECT 1, number, state FROM bundles WHERE number < 4 ORDER BY 1, 2"
        )
        windows = "".join(state for kind, _, state in found if kind == 0)
        return f"{windows}|{','.join(state for kind, _, state in found if kind == 1)}"

    def is_final(self, bundles: int = 1) -> bool:
        found = [self.store.bundles.load_bundle(k) for k in range(bundles)]
        return all(b is not None and b.state == "final" for b in found)


class SmallNetwork:
    """``n`` validators and their world."""

    def __init__(
        self,
        folder: Path,
        empty: Path,
        n: int = 1,
        *,
        brokers: int = 2,
        parameters: Sequence[ParameterSet] | None = None,
        databases: Mapping[int, str] | None = None,
    ) -> None:
        """``databases``: URLs, migrated, of members that do not keep theirs in a copy of ``empty``.

        In a folder in which a network was before its validators go on, in another process perhaps.
        """
        self.clock = Clock()
        sets = tuple(parameters) if parameters is not None else (some_parameters(),)
        network = Network("small", 31337, 1, Digest(b"\x01" * 32), CONTRACTS, GENESIS_MS, sets)
        keys = sorted((a_key(7_000 + i) for i in range(n)), key=lambda k: k.address)
        broker_addresses = [a_key(8_000 + i).address for i in range(brokers)]
        self.world = World(network, self.clock, [k.address for k in keys], broker_addresses)
        self.by_address: dict[Address, Member] = {}
        self.members: list[Member] = []
        self.log: list[Ran] = []
        self.on_killed: Callable[[Member, Entry], None] = self._redeliver
        self.kill_at: Callable[[Member, str, str, str], bool] | None = None
        """Member, task, key and call of a port, just before that call: whether the process ends there."""
        self._next_look = self.clock.now_ms()
        for i, key in enumerate(keys):
            home = folder / f"v{i}"
            is_new = not home.exists()
            home.mkdir(exist_ok=True)
            url = f"sqlite:///{home}/validator.sqlite"
            if databases is not None and i in databases:
                url = databases[i]
            elif is_new:
                shutil.copy(empty, home / "validator.sqlite")
            member = Member(
                self,
                i,
                key,
                home,
                share_compiled(open_database(url)),
                Queue(self.clock),
                WorldChain(self.world),
                WorldSource(self.world, set()),
                WorldStorage(self.world, key.address),
                WorldSender(self.world, key.address),
            )
            self.members.append(member)
            self.by_address[key.address] = member

    def close(self) -> None:
        for member in self.members:
            member.database.close()

    @property
    def network(self) -> Network:
        return self.world.network

    def committee_digest(self) -> Digest:
        return self.members[0].context.cut_points.epoch_config(0).digest

    # --- time ---

    def run(self, until: Callable[[], bool], limit_s: float = 120.0) -> None:
        """Let everybody work until the condition holds. Raises AssertionError after ``limit_s`` of network time."""
        end_ms = self.clock.now_ms() + round(limit_s * 1000)
        while not until():
            if self.clock.now_ms() > end_ms:
                states = " ".join(m.states() for m in self.members)
                raise AssertionError(f"not within {limit_s} s: {states}; last: {self.log[-8:]}")
            self._step()

    def run_until(self, offset_ms: int) -> None:
        """Up to genesis + offset."""
        self.run(lambda: self.clock.now_ms() >= GENESIS_MS + offset_ms)

    def window(self, number: int = 0) -> InstanceId:
        return InstanceId(InstanceKind.WINDOW, GENESIS_MS + number * self.network.sets[0].window_ms)

    def run_to_held(self, number: int = 0, limit_s: float = 60.0) -> None:
        """Until everybody who is there holds a window."""
        start_ms = self.window(number).number

        def held(member: Member) -> bool:
            stored = member.store.windows.load_window(start_ms)
            return stored is not None and stored.state == "held"

        self.run(lambda: all(m.away or m.idle or held(m) for m in self.members), limit_s)

    def leaders(self, instance: InstanceId) -> list[Member]:
        """By round."""
        order = order_committee(self.world.members, self.committee_digest(), instance_subject(instance))
        return [self.by_address[address] for address in order]

    def run_to_final(self, bundles: int = 1, limit_s: float = 120.0) -> None:
        self.run(lambda: all(m.away or m.idle or m.is_final(bundles) for m in self.members), limit_s)

    def _step(self) -> None:
        present = [m for m in self.members if not (m.away or m.idle)]
        waiting = [(m.queue.entries[0][:2], m) for m in present if m.queue.entries]
        first = min(waiting, key=lambda item: item[0], default=None)
        if first is None or first[0][0] >= self._next_look:
            self.clock.at_ms = max(self.clock.at_ms, self._next_look)
            self._next_look = self.clock.at_ms + 500
            for member in present:
                chain_watch.watch_head(member.context)
                chain_watch.prefetch_states(member.context)
                dispatch.dispatch_due(member.context)
            return
        entry = heappop(first[1].queue.entries)
        self.clock.at_ms = max(self.clock.at_ms + 1, entry[0])
        self.run_task(first[1], entry)

    def run_task(self, member: Member, entry: Entry) -> None:
        """What a worker does with one task: run the step, and put off what is not ready."""
        _, _, task, key, arguments = entry
        context = member.context
        kill_at = self.kill_at
        if kill_at is not None:
            member.fuse.burns = lambda call: kill_at(member, task, key, call)
        try:
            result = perform(context, Task(task), STAGES[Task(task)], key, *arguments)
        except Killed:
            self._note(member, task, key, "killed", "")
            member.restart()
            self.on_killed(member, entry)
            return
        member.fuse.burns = None
        self._note(member, task, key, result.name, result.detail)

    def _note(self, member: Member, task: str, key: str, name: str, detail: str) -> None:
        self.log.append(Ran(self.clock.now_ms(), member.number, task, key, name, detail))

    def _redeliver(self, member: Member, entry: Entry) -> None:
        """Acknowledged late: another worker gets the task."""
        heappush(member.queue.entries, replace_time(entry, self.clock.now_ms()))


_DIALECTS: dict[str, Dialect] = {}
_COMPILED: dict[Any, Any] = {}


def share_compiled(database: Database) -> Database:
    """The same; what SQLAlchemy made of a statement is shared by all, else each test compiles every one anew."""
    if database.is_sqlite:
        for engine in (database.writer, database.reader):
            with engine.connect():
                pass  # a dialect learns of its server when it first connects
            engine.dialect = _DIALECTS.setdefault(engine.dialect.name, engine.dialect)
            engine.update_execution_options(compiled_cache=_COMPILED)
    return database


def replace_time(entry: Entry, at_ms: int) -> Entry:
    return (at_ms, *entry[1:])


def an_empty_database(folder: Path) -> Path:
    """A migrated database to copy: migrating takes longer than most tests, so a process does it once."""
    path = folder / "empty.sqlite"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_migrated())
    return path


@cache
def _migrated() -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "empty.sqlite"
        migrate(f"sqlite:///{path}")
        return path.read_bytes()
