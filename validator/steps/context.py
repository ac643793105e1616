"""What every step is given: network, keys, adapters behind ports; and what is read of the chain, cached."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from validator.log import get_logger
from validator.ports.chain import Chain, ReportSender
from validator.ports.clock import Clock
from validator.ports.peers import Gossip, Peers
from validator.ports.queue import Tasks
from validator.ports.sources import MessageSource
from validator.ports.storage import BundleStorage
from validator.ports.store import Store, StoredBundle
from validator.protocol.codec.config import config_digest, encode_config
from validator.protocol.codec.secp256k1 import SigningKey
from validator.protocol.codec.statement import SigningContext, verify_quorum, verify_statement
from validator.protocol.consensus.proposal import Scope
from validator.protocol.consensus.quorum import choose_committee, quorum
from validator.protocol.consensus.window import Budget, partition_budget
from validator.protocol.errors import ConfigError, MalformedInput, TransientError, ValidatorError
from validator.protocol.model import (
    Address,
    Block,
    ChainState,
    Digest,
    InstanceId,
    InstanceKind,
    Node,
    Record,
    Root,
    Statement,
    StreamPart,
    VoteQuorum,
    Window,
)
from validator.protocol.parameters import Config, Epoch, Network, ParameterSet

log = get_logger(__name__)
T = TypeVar("T")

GATHER_S = 0.5
MAX_OWED = 4
MAX_SESSIONS = 2
"""Threads that may wait for the sets of one member: one that answers ever so slowly must not take all of them."""
SESSION_MS = 60_000
"""What one comparison of sets may take: 16 questions and answers, where the member means well."""
MAX_ASKED = 1_024
"""Questions remembered as under way; above it, those are forgotten that were answered and that nobody came back to."""
KEPT_STATES = 32
CONFIGS_FOR_MS = 10_000
"""How long configs of epochs are taken from memory before their blocks are looked at again."""
WORKERS = 16


@dataclass(frozen=True, slots=True)
class EpochConfig:
    """An epoch with its committee and the digest that names both."""

    epoch: Epoch
    config: Config
    digest: Digest
    preimage: bytes
    urls: Mapping[Address, str]
    """Where members are reached: what they named when they were chosen."""
    block: Block
    """Where the committee was read."""

    @property
    def committee(self) -> tuple[Address, ...]:
        return self.config.committee

    @property
    def parameters(self) -> ParameterSet:
        return self.epoch.parameters


@dataclass(frozen=True, slots=True)
class Origin:
    """When the database began: time of the newest block then, and the config count."""

    created_s: int
    config_count: int


def unhindered() -> str:
    """Where nothing keeps a validator from voting."""
    return ""


@dataclass(slots=True)
class Context:
    """Adapters and identity of one validator. ``voting_key`` is None for an observer and in workers that never vote."""

    network: Network
    clock: Clock
    store: Store
    tasks: Tasks
    chain: Chain
    source: MessageSource
    peers: Peers
    storage: BundleStorage
    sender: ReportSender
    voting_key: SigningKey | None
    data_dir: Path
    may_vote: bool = True
    origin: Origin | None = None
    hindrance: Callable[[], str] = unhindered
    workers: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(WORKERS, thread_name_prefix="steps"))
    askers: ThreadPoolExecutor | None = None
    """Threads of their own for questions to peers, so that slow answers hold up no broadcast; None: ``workers``."""
    resumed: set[tuple[InstanceId, Digest]] = field(default_factory=set)
    records: OrderedDict[Root, list[Record]] = field(default_factory=OrderedDict)
    configs: dict[int, EpochConfig] = field(default_factory=dict)
    states: OrderedDict[Digest, ChainState] = field(default_factory=OrderedDict)
    sizes: dict[InstanceId, int] = field(default_factory=dict)
    """Canonical bytes of windows that are held and in no bundle yet."""
    in_flight: dict[str, int] = field(default_factory=dict)
    sessions: dict[Address, int] = field(default_factory=dict)
    in_hand: dict[str, bool] = field(default_factory=dict)
    asked: dict[tuple[str, Address], Future[Any]] = field(default_factory=dict)
    glanced: bool = False
    """Whether all files of sets were glanced at since this process began, and up to which if not."""
    glanced_upto: Root | None = None
    compare_ms: int = 0
    """When stored cut points are compared with the chain again, and below which time it goes on with the older ones."""
    compare_below_s: int | None = None
    configs_until_ms: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def signing(self) -> SigningContext:
        return SigningContext(self.network.chain_id, self.network.contracts.report_manager)

    @property
    def address(self) -> Address | None:
        return self.voting_key.address if self.voting_key is not None else None

    def others(self, members: Iterable[Address]) -> list[Address]:
        """The members without ourselves, in their order."""
        return [member for member in members if member != self.address]

    def take_in_hand(self, key: str) -> bool:
        """Claim a row for this thread. False: another thread of this process has it and will look once more."""
        with self.lock:
            if key in self.in_hand:
                self.in_hand[key] = True
                return False
            self.in_hand[key] = False
            return True

    def let_go(self, key: str) -> bool:
        """Give a claimed row back. True: somebody asked for it meanwhile; it is still claimed, look once more."""
        with self.lock:
            if self.in_hand[key]:
                self.in_hand[key] = False
                return True
            del self.in_hand[key]
            return False

    def drop(self, key: str) -> None:
        """Give a claimed row back, whatever was asked: after an error beat's lease brings it again."""
        with self.lock:
            self.in_hand.pop(key, None)

    @contextmanager
    def session_with(self, member: Address) -> Iterator[Callable[[], bool]]:
        """For fetching a set from one member; yields whether its time is up.

        Raises:
            TransientError: ``MAX_SESSIONS`` threads of this process wait for that member already.
        """
        with self.lock:
            if self.sessions.get(member, 0) >= MAX_SESSIONS:
                raise TransientError(f"0x{member.hex()}: {MAX_SESSIONS} sessions with it are under way", member=member)
            self.sessions[member] = self.sessions.get(member, 0) + 1
        begun_ms = self.clock.now_ms()
        try:
            yield lambda: not 0 <= self.clock.now_ms() - begun_ms <= SESSION_MS
        finally:
            with self.lock:
                self.sessions[member] -= 1

    def background(self, call: Callable[..., object], *arguments: object) -> None:
        """Run a call whose result nobody waits for; its failure is logged."""

        def run() -> None:
            try:
                call(*arguments)
            except ValidatorError as error:
                log.debug("background.failed", call=getattr(call, "__name__", "call"), reason=str(error))

        self.workers.submit(run)

    def gather(
        self, subject: str, ask: Callable[[Address], T], members: Sequence[Address]
    ) -> list[tuple[Address, T | ValidatorError]]:
        """Ask all members about a subject; what came within ``GATHER_S``, answer or error: nobody waits for the silent.

        Who has not answered yet is not asked again: the answer comes with a later call. So slow peers, or a slow
        machine, are asked less often, and no answer is thrown away that somebody has worked for. A member that owes
        ``MAX_OWED`` answers is asked nothing more: one that hangs must not take all threads.
        """

        def run(member: Address) -> T | ValidatorError:
            try:
                return ask(member)
            except ValidatorError as error:
                return error

        with self.lock:
            if len(self.asked) > MAX_ASKED:
                self.asked = {key: future for key, future in self.asked.items() if not future.done()}
            owed = Counter(member for (_, member), future in self.asked.items() if not future.done())
            known = {
                member: self.asked.get((subject, member))
                for member in members
                if (subject, member) in self.asked or owed[member] < MAX_OWED
            }
        askers = self.askers or self.workers
        asked = {member: future or askers.submit(run, member) for member, future in known.items()}
        with self.lock:
            self.asked.update({(subject, member): future for member, future in asked.items()})
        wait(asked.values(), timeout=GATHER_S)
        answered = [member for member, future in asked.items() if future.done()]
        with self.lock:
            for member in answered:
                self.asked.pop((subject, member), None)
        return [(member, asked[member].result()) for member in answered]

    def obtain(self, instance: InstanceId, what: str, digest: Digest | Root, sources: Sequence[Address]) -> None:
        """Queue ``round.obtain`` for a set or value, once per second and source list at most."""
        key = f"{instance}/{what}/{digest.hex()}/{','.join(m.hex() for m in sources)}"
        now_ms = self.clock.now_ms()
        with self.lock:
            if self.in_flight.get(key, 0) > now_ms:
                return
            if len(self.in_flight) > 4096:
                self.in_flight = {k: t for k, t in self.in_flight.items() if t > now_ms}
            self.in_flight[key] = now_ms + 1_000
        self.tasks.enqueue("round.obtain", key)

    def verify_gossip(
        self, config: EpochConfig, gossip: Gossip, instance: InstanceId
    ) -> tuple[list[Statement], list[VoteQuorum]]:
        """Statements and quorums of one instance whose signatures hold; the others are dropped and logged."""
        statements, quorums = [], []
        for statement in gossip.statements:
            if (statement.instance, statement.config_digest) != (instance, config.digest):
                continue
            try:
                verify_statement(statement, self.signing)
            except MalformedInput as error:
                log.debug("statement.refused", instance=str(instance), reason=str(error))
                continue
            statements.append(statement)
        for votes in gossip.quorums:
            if (votes.instance, votes.config_digest) != (instance, config.digest):
                continue
            try:
                verify_quorum(votes, config.committee, quorum(len(config.committee)), self.signing)
            except MalformedInput as error:
                log.debug("quorum.refused", instance=str(instance), reason=str(error))
                continue
            quorums.append(votes)
        return statements, quorums


class NotYet(TransientError):
    """Something the step needs is not there yet; the row's wake time brings it back."""


# --- cut points (design: they come from the chain, never from a clock) ------------------------------


def block_for(context: Context, ms: int, parameters: ParameterSet) -> Block:
    """``B(t)``: highest block with timestamp <= t - lag, known once a later finalised block exists.

    Raises:
        NotYet: not finalised yet.
    """
    timestamp_s = ms // 1000 - parameters.lag_s
    block = context.store.chain.load_block(timestamp_s)
    if block is None:
        block = context.chain.fetch_block_at(timestamp_s)
        if block is None:
            raise NotYet(f"no finalised block after {timestamp_s}", timestamp_s=timestamp_s)
        context.store.chain.save_block(timestamp_s, block)
    return block


def state_at(context: Context, block: Block) -> ChainState:
    """Chain state at a block, stored when first read; the newest few stay in memory."""
    with context.lock:
        state = context.states.get(block.hash)
    if state is not None:
        return state
    state = context.store.chain.load_state(block.hash)
    if state is None:
        state = context.chain.fetch_state(block)
        context.store.chain.save_state(state)
    with context.lock:
        context.states[block.hash] = state
        while len(context.states) > KEPT_STATES:
            context.states.popitem(last=False)
    return state


def epoch_config(context: Context, number: int) -> EpochConfig:
    """Committee and config digest of an epoch, read at ``B``(epoch start). Where nobody offers itself there, the
    members of the epoch before stay, so no later committee is empty.

    Raises:
        NotYet: that block is not finalised yet.
        ConfigError: the network has no such epoch.
    """
    _forget_replaced(context)
    known = context.configs.get(number)
    if known is not None:
        return known
    epoch = context.network.epoch(number)
    if epoch is None:
        raise ConfigError(f"the network has no epoch {number}", field="epoch")
    block = epoch_block(context, epoch)
    state = state_at(context, block)
    committee = choose_committee(state.nodes, epoch.parameters.committee_limit)
    named = {node.address: node.validator_url for node in state.nodes}
    urls = {member: url for member in committee if (url := named[member]) is not None}
    if not committee and number:
        before = epoch_config(context, number - 1)
        committee, urls = before.committee, dict(before.urls)
    config = Config(
        chain_id=context.network.chain_id,
        deployment_parent_hash=context.network.deployment_parent_hash,
        contracts=context.network.contracts,
        parameters=epoch.parameters,
        epoch=number,
        config_count=context.network.config_count,
        committee=committee,
    )
    found = EpochConfig(epoch, config, config_digest(config), encode_config(config), urls, block)
    context.configs[number] = found
    return found


def epoch_block(context: Context, epoch: Epoch) -> Block:
    """``B`` of an epoch: where its committee is read, or was, if the chain has replaced that block since."""
    kept = context.store.chain.load_epoch_block(epoch.number)
    return kept if kept is not None else block_for(context, epoch.start_ms, epoch.parameters)


def _forget_replaced(context: Context) -> None:
    """Configs whose block the chain has replaced before anything was said under them; looked at now and then."""
    now_ms = context.clock.now_ms()
    if now_ms < context.configs_until_ms <= now_ms + CONFIGS_FOR_MS:
        return
    context.configs_until_ms = now_ms + CONFIGS_FOR_MS
    for number, known in list(context.configs.items()):
        try:
            block = epoch_block(context, known.epoch)
        except TransientError:
            continue
        if block.hash != known.block.hash:
            context.configs.pop(number, None)


def bind_wallets(nodes: Iterable[Node], committee: Iterable[Address]) -> Mapping[bytes, Address]:
    """The member behind each Arweave wallet: the one that names it in its NodeManager metadata.

    A wallet that two members name is nobody's, and neither may upload. Were it the lower address's, say, a member could
    name another's wallet and earn by what that one pays for; ``check`` tells both, and either can name another.
    """
    members = frozenset(committee)
    named = [(node.arweave, node.address) for node in nodes if node.arweave is not None and node.address in members]
    times = Counter(wallet for wallet, _ in named)
    return {wallet: member for wallet, member in named if times[wallet] == 1}


def wallets_of(context: Context, bundle: StoredBundle) -> Mapping[bytes, Address]:
    """``bind_wallets`` of a bundle's committee at ``B`` of its last window. Raises NotYet."""
    config = epoch_config(context, bundle.epoch)
    state = state_at(context, block_for(context, bundle.last_ms, config.parameters))
    return bind_wallets(state.nodes, config.committee)


def window_epoch(context: Context, window: Window) -> Epoch:
    epoch = context.network.epoch_at(window.start_ms)
    if epoch is None:
        raise ConfigError(f"window {window.start_ms} lies in no epoch", field="window")
    return epoch


def instance_config(context: Context, instance: InstanceId) -> EpochConfig:
    """The epoch config that an instance belongs to. Raises NotYet if its bundle is not known yet."""
    if instance.kind is InstanceKind.WINDOW:
        window = context.network.window(instance.number)
        if window is None:
            raise ConfigError(f"no window starts at {instance.number}", field="window")
        return epoch_config(context, window_epoch(context, window).number)
    return epoch_config(context, require_bundle(context, instance.number).epoch)


def require_bundle(context: Context, number: int) -> StoredBundle:
    bundle = context.store.bundles.load_bundle(number)
    if bundle is None:
        raise NotYet(f"bundle {number} is not known yet", number=number)
    return bundle


def system_stream(network: Network) -> str:
    """The network's own stream: always in scope, pays nothing, published to by nodes with an http URL."""
    return f"0x{network.contracts.node_manager.hex()}/system"


def budgets_of(network: Network, state: ChainState, parameters: ParameterSet) -> Mapping[StreamPart, Budget]:
    """The partitions in scope at a block, each with its budget."""
    budgets: dict[StreamPart, Budget] = {}
    system = system_stream(network)
    for store in state.stores:
        if store.stream_id == system or store.balance < max(1, parameters.scope_floor * store.partitions):
            continue
        limit = partition_budget(parameters, store.balance, store.partitions)
        for partition in range(store.partitions):
            budgets[(store.stream_id, partition)] = Budget(limit, message_limit=parameters.message_limit)
    budgets[(system, 0)] = Budget(
        parameters.partition_limit, per_publisher=True, message_limit=parameters.message_limit
    )
    return budgets


def scope_of(context: Context, instance: InstanceId) -> Scope:
    """Block and budgets of an instance: ``B``(window start), for a late set that of the bundle's last window."""
    if instance.kind is InstanceKind.WINDOW:
        start_ms = instance.number
    else:
        start_ms = require_bundle(context, instance.number).last_ms
    epoch = context.network.epoch_at(start_ms)
    if epoch is None:
        raise ConfigError(f"{instance} lies in no epoch", field="instance")
    block = block_for(context, start_ms, epoch.parameters)
    state = state_at(context, block)
    return Scope(block, budgets_of(context.network, state, epoch.parameters))
