"""An honest member: the shell around the core, with a disk that survives a crash and a memory that does not.

It does what the real shell does: load, advance, save on condition of the version, perform. Every deviation that a
mutation of the shell needs is a field of ``Switches``; production code has none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from tests.outcomes_in_memory import build_outcome
from tests.simulator.content import (
    BAD_LEAVES,
    IDENTITY,
    PARAMETERS,
    PARTS,
    RECORDS,
    Leaves,
    Value,
    end_of,
    is_permitted,
    late_instance,
    make_value,
    observe,
    records_of,
    set_of,
    window_instance,
    window_of,
)
from tests.simulator.scenario import Sight
from validator.protocol.codec.variants import ServeCounts, ranks_worse
from validator.protocol.columns import Row, row_of
from validator.protocol.consensus import driver, views
from validator.protocol.consensus import proposal as proposals
from validator.protocol.consensus import state as states
from validator.protocol.consensus import window as windows
from validator.protocol.consensus.driver import Ready
from validator.protocol.consensus.events import (
    DataArrived,
    Decide,
    Effect,
    Event,
    FetchValue,
    GetValue,
    Halt,
    Observed,
    OwnVotesRecovered,
    ProposalValidated,
    ProposeValue,
    Received,
    ReceivedQuorum,
    RecoverOwnVotes,
    Resume,
    SetsHeld,
    SignAndBroadcast,
    Start,
    StoreEvidence,
    StoreQuorum,
    StoreStatement,
    SyncVotes,
    Tick,
    ValidateProposal,
    WakeAt,
)
from validator.protocol.consensus.proposal import Answer
from validator.protocol.consensus.state import InstanceState, Step
from validator.protocol.consensus.window import Budget
from validator.protocol.model import (
    Address,
    Block,
    Digest,
    Identity,
    InstanceId,
    InstanceKind,
    Record,
    Root,
    Statement,
    StatementKind,
    VoteQuorum,
)

if TYPE_CHECKING:
    from tests.simulator.world import World

Key = tuple[Digest, InstanceId]
Slot = tuple[StatementKind, int]
YES, NO, NOT_YET = Answer.YES, Answer.NO, Answer.NOT_YET
BOOT_MS = 1_000
"""Instances are met this long before their window's end."""
RETRY_MS = 700


@dataclass(slots=True)
class Switches:
    """Planted bugs of the shell, all off."""

    save_any_version: bool = False
    data_in_memory: bool = False
    forget_proposals: bool = False
    judge_without_set: bool = False
    relay_own_only: bool = False
    polka_left_out: bool = False
    value_first: bool = False
    stored_by_leaf: bool = False
    any_variant: bool = False
    block_early: bool = False
    block_by_majority: bool = False
    clock_only: bool = False
    late_under_window: bool = False
    observers_twice: bool = False
    permission_by_arrival: bool = False


@dataclass(slots=True)
class Cell:
    """What the database holds of one instance."""

    key: Key
    instance: InstanceId
    state: InstanceState
    version: int = 0
    journal: dict[Slot, Statement] = field(default_factory=dict)
    named: dict[Digest, Statement] = field(default_factory=dict)
    """Observations that outcomes name, beside the two that the core keeps of each signer."""
    frozen: Leaves | None = None
    served: dict[bytes, int] = field(default_factory=dict)
    block: Block | None = None
    closed: bool = False
    rows: list[Statement] = field(default_factory=list)
    """Put there by the door, and by no worker yet."""
    ballot: Any = None
    account: Any = None
    said_bytes: int = 0
    """These three belong to the monitor, which finds them here sooner."""

    def copy(self) -> Cell:
        return Cell(
            self.key,
            self.instance,
            self.state,
            self.version,
            dict(self.journal),
            dict(self.named),
            self.frozen,
            dict(self.served),
            self.block,
            self.closed,
            list(self.rows),
        )


@dataclass(slots=True)
class Disk:
    """Survives a crash."""

    cells: dict[Key, Cell] = field(default_factory=dict)
    durable: set[Digest] = field(default_factory=set)
    leaves: set[bytes] = field(default_factory=set)
    served: dict[bytes, int] = field(default_factory=dict)
    decided: dict[InstanceId, Digest] = field(default_factory=dict)
    created_ms: int = 0

    def copy(self) -> Disk:
        return Disk(
            {key: cell.copy() for key, cell in self.cells.items()},
            set(self.durable),
            set(self.leaves),
            dict(self.served),
            dict(self.decided),
            self.created_ms,
        )


class Overtaken(Exception):
    """Another worker was first: load again."""


class Refused(Exception):
    """The journal holds other words under the same key, and refuses the transaction."""


class Crashed(Exception):
    """The process is gone, and with it what was still to be done."""


class Worker:
    """What the driver calls for one event of one instance. It may crash between any two."""

    __slots__ = ("cell", "crash", "event", "node", "sign", "version")

    def __init__(self, node: Node, cell: Cell, event: Event, version: int) -> None:
        self.node = node
        self.cell = cell
        self.event = event
        self.version = version
        self.sign = node.world.sign
        self.crash = 0

    def crash_at(self, point: int) -> None:
        if self.crash == point:
            self.node.crash()
            raise Crashed

    def persist(self, ready: Ready) -> None:
        node, cell, world = self.node, self.cell, self.node.world
        if ready.is_idle:
            world.monitor.on_step(node, cell, self.event, ready.before, ready.state, ready.effects)
            return
        self.crash = world.crash_point() if world.scenario.crash_rate else 0
        self.crash_at(1)
        if cell.version != self.version and not world.switches.save_any_version:
            raise Overtaken
        node.save(cell, ready)
        world.monitor.on_step(node, cell, self.event, ready.before, ready.state, ready.effects)
        if cell.rows and ready.before.loaded:
            cell.rows = []
        self.crash_at(2)

    def send(self, ready: Ready) -> None:
        if len(ready.effects) != 1 or type(ready.effects[0]) is not StoreStatement:
            self.node.send(self.cell, ready)
        self.crash_at(3)

    def ask(self, ready: Ready) -> list[Event]:
        answers: list[Event] = []
        if not ready.is_idle:
            self.node.perform(self.cell, ready.effects, answers)
        return answers


class Node:
    """One honest member (or one that is faulty without lying: gone, disk lost, restored from an old copy)."""

    def __init__(self, world: World, index: int, address: Address) -> None:
        self.world = world
        self.index = index
        self.address = address
        self.skew_ms = world.scenario.skew_ms[index]
        self.down = False
        self.disk = Disk()
        self.old_copy: Disk | None = None
        self.crashed = 0
        self.arrived: dict[bytes, int] = {}
        """The window whose block was the newest when a record came. What is judged by it differs by member."""
        self.reset_memory()

    def reset_memory(self) -> None:
        self.data: set[bytes] = set(self.disk.leaves)
        self.bodies: set[Digest] = set(self.disk.durable)
        self.sets: set[Root] = set()
        self.wanted: dict[tuple[Key, bytes], int] = {}
        self.asked: dict[tuple[Root, Address], int] = {}
        self.wake: dict[Key, int] = {}
        self.told: dict[Key, tuple[frozenset[Address], frozenset[Address]]] = {}
        self.fetching: set[Key] = set()
        self.judged: dict[tuple[Digest, bool, bool], tuple[Answer, Answer]] = {}
        for digest in self.disk.durable:
            self.data |= self.world.values[digest].leaves
        for cell in self.disk.cells.values():
            if cell.frozen is not None:
                self.data |= cell.frozen
                self.sets.add(self.world.root_of(cell.frozen))

    def clock(self) -> int:
        return self.world.now + self.skew_ms

    # --- instances ---

    def meet(self, key: Key) -> Cell:
        """The cell of an instance; made when first met."""
        cell = self.disk.cells.get(key)
        if cell is None:
            digest, instance = key
            committee = self.world.committee(key)
            fresh = (
                self.disk.created_ms <= end_of(0) - 60_000
                or self.disk.created_ms < end_of(window_of(instance)) - 60_000
            )
            own = self.address if fresh else None
            rules = states.Rules.of(instance, digest, committee, own, self.world.scenario.timeouts)
            cell = Cell(key, instance, InstanceState(rules))
            self.disk.cells[key] = cell
            self.handle(cell, Resume())
        return cell

    def plan(self) -> None:
        """Meet, start and observe what is due. Safe to call at any time."""
        if self.down:
            return
        world, decided = self.world, self.disk.decided
        for window in range(world.scenario.windows):
            end = end_of(window)
            self.consider(window_instance(window), None, end - BOOT_MS)
            instance = late_instance(window)
            if all(earlier in decided for earlier in before(instance)):
                met = world.met.setdefault(self.index, {}).get(instance)
                if met is None:
                    met = world.met[self.index][instance] = world.now + world.rng.randrange(10, 60)
                self.consider(instance, met, 0)

    def consider(self, instance: InstanceId, start_ms: int | None, meet_ms: int) -> None:
        """``start_ms``: None for a window's cut-off."""
        world = self.world
        if world.now < meet_ms:
            world.at(meet_ms, self.plan)
            return
        key = world.key_of(instance, self)
        if instance in self.disk.decided:
            known = self.disk.cells.get(key)
            if known is not None and known.closed:
                return
            del self.disk.decided[instance]  # decided under a config digest that is void now
        cell = self.meet(key)
        if self.down or cell.state.decided is not None:
            return
        if start_ms is None:
            start_ms = world.start_ms(self, window_of(instance))
        if world.now < start_ms:
            world.at(start_ms, self.plan)
            return
        if not cell.state.eligibility.started:
            self.handle(cell, Start())
            if self.down:
                return
        if cell.frozen is not None:
            self.observe(cell)
        else:
            pull = start_ms + world.scenario.pull_ms[self.index]
            if world.now < pull:
                world.at(pull, self.plan)
            else:
                self.freeze(cell)

    def freeze(self, cell: Cell) -> None:
        """Freeze what was collected, durable first, then observe."""
        world, instance = self.world, cell.instance
        if instance.kind is InstanceKind.WINDOW:
            held = {leaf for leaf in self.disk.leaves if window_instance_of(leaf) == instance}
            held = {leaf for leaf in held if self.permits(cell, leaf)}
        else:
            stored = self.stored_identities(instance)
            held = {
                leaf
                for leaf in self.disk.leaves
                if IDENTITY[leaf] not in stored
                and ends_before(leaf, instance)
                and not self.behind_full(row_of(RECORDS[leaf]))
                and self.permits(cell, leaf)
            }
        cell.frozen = self.choose_variants(held)
        self.sets.add(world.root_of(cell.frozen))
        self.observe(cell)

    def permits(self, cell: Cell, leaf: bytes) -> bool:
        """By the block of the message's own window, or by that of the bundle's last: the same two for everybody."""
        own, last = window_of(window_instance_of(leaf)), window_of(cell.instance)
        if self.world.switches.permission_by_arrival:
            return is_permitted(leaf, self.arrived.get(leaf, own))
        return is_permitted(leaf, own) or is_permitted(leaf, last)

    def observe(self, cell: Cell) -> None:
        """Tell the core what was frozen, also after a crash in between."""
        if cell.frozen is None or cell.state.eligibility.observation is not None:
            return
        world, instance = self.world, cell.instance
        price = world.scenario.prices[window_of(instance)][self.index]
        price = price if instance.kind is InstanceKind.WINDOW else None
        digest, observation = observe(self.address, instance, cell.frozen, price)
        world.observations[digest] = observation
        final_ms = end_of(window_of(instance)) + world.scenario.block_late_ms[self.index]
        world.blocks_read[digest] = world.block if world.now >= final_ms else world.reverted_block
        world.monitor.on_frozen(self, cell)
        self.handle(cell, Observed(digest))

    def choose_variants(self, leaves: Iterable[bytes]) -> Leaves:
        sightings = {Digest(leaf): ServeCounts(count) for leaf, count in self.disk.served.items()}
        union = windows.unite([RECORDS[leaf] for leaf in sorted(leaves)], sightings)
        return frozenset(r.leaf for r in union.records)

    def collect(self, sight: Sight) -> None:
        """A broker's record arrives; what came too late for its window is pushed to all members."""
        if self.down:
            self.world.at(self.world.now + 500, lambda: self.collect(sight))
            return
        if sight.leaf not in self.disk.leaves:
            self.arrived[sight.leaf] = min(1, max(0, (self.world.now - end_of(0)) // 20_000))
            self.disk.leaves.add(sight.leaf)
            self.data.add(sight.leaf)
        self.disk.served[sight.leaf] = max(self.disk.served.get(sight.leaf, 0), sight.brokers)
        cell = self.disk.cells.get(self.world.key_of(window_instance_of(sight.leaf), self))
        if cell is not None and cell.frozen is not None:
            self.world.monitor.on_obtained_late(self, sight.leaf)
            self.push([sight.leaf])

    def push(self, leaves: Iterable[bytes]) -> None:
        self.world.broadcast(self, ("push", tuple(leaves)))

    # --- the real loop: advance, save, perform ---

    def handle(self, cell: Cell, event: Event) -> None:
        pending: list[Event] = [event]
        world = self.world
        stale_rate = world.scenario.stale_rate
        while pending:
            event = pending.pop(0)
            before, version = cell.state, cell.version
            if stale_rate and world.is_rough() and world.rng.random() < stale_rate:
                world.stale += 1
                world.at(world.now + world.rng.randrange(1, 4_000), self.second_worker(cell, event, before, version))
                continue
            if not self.step(cell, event, before, version, pending):
                return

    def second_worker(self, cell: Cell, event: Event, before: InstanceState, version: int) -> Callable[[], None]:
        """A worker that loaded the state now and saves it later."""
        crashed = self.crashed

        def run() -> None:
            if self.crashed != crashed or self.is_over(cell):
                return
            pending: list[Event] = []
            self.step(cell, event, before, version, pending)
            for more in pending:
                self.handle(cell, more)

        return run

    def step(self, cell: Cell, event: Event, before: InstanceState, version: int, pending: list[Event]) -> bool:
        """False: this process has crashed, or the database refused what it wanted to save."""
        self.world.steps += 1
        try:
            _, answers = driver.drive(before, (event,), self.clock(), Worker(self, cell, event, version))
        except Overtaken:
            pending.append(event)
            return True
        except Refused:
            return True
        except Crashed:
            return False
        pending += answers
        return not self.down

    def save(self, cell: Cell, ready: Ready) -> None:
        """One transaction: journal rows under their unique key, then the state. Raises Refused."""
        monitor, after = self.world.monitor, ready.state
        for statement in ready.said:
            known = cell.journal.get((statement.kind, statement.round))
            if known is not None and known.content != statement.content:
                raise Refused
        for statement in ready.said:
            cell.journal[statement.kind, statement.round] = statement
            monitor.on_said(self, cell, statement, after)
        if after is not cell.state:
            monitor.on_state(self, cell, after)
            cell.state = after
            cell.version += 1

    def send(self, cell: Cell, ready: Ready) -> None:
        """Everything that others see of one step, in one packet."""
        statements, quorums = list(ready.statements_to_send), ready.quorums_to_send
        if not statements and not quorums:
            return
        if self.world.switches.polka_left_out:
            quorums = () if any(s.valid_round >= 0 for s in statements) else quorums
            if not statements and not quorums:
                return
        bodies = self.attach(cell, statements)
        for s in statements:
            if s.valid_round >= 0:
                self.world.monitor.on_proposed_again(self, s, quorums)
        self.world.monitor.on_sent(self, cell, statements, quorums, len(self.world.addresses) - 1)
        self.world.broadcast(self, ("say", cell.key, tuple(statements), quorums, bodies))

    def observations_of(self, cell: Cell, value: Digest) -> list[Statement]:
        """The signed observations that an outcome names, as far as they are here."""
        used = self.world.values[value].outcome.observations
        slots = cell.state.votes.of(StatementKind.OBSERVATION, 0)
        held = {o.value: o for kept in slots.values() for o in kept}
        return [(cell.named | held)[digest] for digest in used if digest in cell.named or digest in held]

    def keep_named(self, cell: Cell, statements: Iterable[Statement], values: Iterable[Digest]) -> None:
        """Observations that came with the outcomes that name them."""
        named = {digest for value in values for digest in self.world.values[value].outcome.observations}
        for s in statements:
            if s.kind is StatementKind.OBSERVATION and s.value in named and self.world.is_genuine(s):
                cell.named[s.value] = s

    def attach(self, cell: Cell, statements: list[Statement]) -> tuple[Digest, ...]:
        """Bodies of proposals, and the observations they use."""
        bodies: list[Digest] = []
        proposals = [s for s in statements if s.kind is StatementKind.PROPOSAL]
        if not proposals:
            return ()
        for s in proposals:
            if s.value in self.bodies:
                bodies.append(s.value)
                statements += [o for o in self.observations_of(cell, s.value) if o not in statements]
        return tuple(bodies)

    def perform(self, cell: Cell, effects: tuple[Effect, ...], pending: list[Event]) -> None:
        for effect in effects:
            kind = type(effect)
            if kind is StoreStatement:
                if effect.statement.kind is StatementKind.OBSERVATION:  # type: ignore[union-attr]
                    self.gather(cell, pending)
            elif kind is ValidateProposal:
                validity, acceptable = self.judge(cell, effect)  # type: ignore[arg-type]
                pending.append(ProposalValidated(effect.value, effect.round, validity, acceptable))  # type: ignore[union-attr]
            elif kind is WakeAt:
                self.set_wake(cell, effect.ms)  # type: ignore[union-attr]
            elif kind is GetValue:
                self.build(cell, effect.round, pending)  # type: ignore[union-attr]
            elif kind is FetchValue:
                self.want(cell.key, effect.value, effect.sources)  # type: ignore[union-attr]
            elif kind is SyncVotes:
                held = views.summarise(cell.state)
                self.world.monitor.on_asked(held, len(self.world.addresses) - 1)
                self.world.broadcast(self, ("ask", cell.key, held))
            elif kind is RecoverOwnVotes:
                self.world.broadcast(self, ("own", cell.key))
            elif kind is StoreQuorum:
                self.world.monitor.on_quorum(self, cell, effect.quorum)  # type: ignore[union-attr]
            elif kind is StoreEvidence:
                self.world.monitor.on_evidence(self, cell, effect.evidence)  # type: ignore[union-attr]
            elif kind is Decide:
                self.decide(cell, effect.certificate)  # type: ignore[union-attr]
            elif kind is Halt:
                self.world.monitor.on_halted(self, cell)
            elif kind is SignAndBroadcast and effect.statement.kind is StatementKind.OBSERVATION:  # type: ignore[union-attr]
                self.gather(cell, pending)
        a = cell.state
        if a.round_state.step is Step.PROPOSE and a.leader == self.address:
            told = self.told.get(cell.key)
            if told is None or len(told[1]) < len(a.rules.committee):
                self.gather(cell, pending)

    def set_wake(self, cell: Cell, ms: int) -> None:
        due = max(ms - self.skew_ms, self.world.now)
        known = self.wake.get(cell.key)
        if known is None or due < known or known < self.world.now:
            self.wake[cell.key] = due
            self.world.at(due, lambda: self.on_wake(cell, due))

    def on_wake(self, cell: Cell, due: int) -> None:
        if self.wake.get(cell.key) != due or self.is_over(cell):
            return
        del self.wake[cell.key]
        wake = cell.state.wake_ms
        if wake is None:
            return
        if wake > self.clock():
            self.set_wake(cell, wake)
            return
        self.handle(cell, Tick())
        wake = cell.state.wake_ms
        if not self.down and wake is not None:
            self.set_wake(cell, wake)

    # --- packets ---

    def on_packet(self, source: Address, packet: tuple[Any, ...]) -> None:
        if self.down:
            return
        kind = packet[0]
        if kind == "say":
            self.on_say(source, *packet[1:])
        elif kind == "want":
            self.on_want(source, packet[1], packet[2])
        elif kind == "have":
            self.on_have(*packet[1:])
        elif kind == "ask":
            self.on_ask(source, packet[1], packet[2])
        elif kind == "own":
            self.on_own(source, packet[1])
        elif kind == "told":
            self.on_told(source, packet[1], packet[2])
        else:
            self.on_push(packet[1])

    def on_say(
        self,
        source: Address,
        key: Key,
        statements: tuple[Statement, ...],
        quorums: tuple[VoteQuorum, ...],
        bodies: tuple[Digest, ...],
    ) -> None:
        world = self.world
        cell = self.disk.cells.get(key)
        if cell is None or world.reopens_ms:
            if not self.is_current(key):
                return
            cell = self.meet(key)
        if bodies:
            self.bodies.update(bodies)
        self.keep_named(cell, statements, bodies)
        if cell.state.decided is not None:
            return
        doubted = source in world.liar_addresses
        if world.scenario.door_rate and statements and world.rng.random() < world.scenario.door_rate:
            self.meet_in_rows(cell, [s for s in statements if not doubted or world.is_genuine(s)])
            statements = ()
            if self.down:
                return
        for s in statements:
            if self.down or cell.state.decided is not None:
                return
            slots = cell.state.votes.said.get((s.kind, s.round))
            if slots is not None and s.signer in slots and any(kept is s for kept in slots[s.signer]):
                continue  # a resend stops at the door
            if not doubted or world.is_genuine(s):
                self.handle(cell, Received(s))
        for q in quorums:
            if self.down or cell.state.decided is not None:
                return
            if (q.kind, q.round, q.value) in cell.state.votes.quorums:
                continue
            if doubted and not all(world.is_genuine(s) for s in q.statements()):
                continue
            if world.switches.value_first and q.value not in self.bodies:
                continue
            self.handle(cell, ReceivedQuorum(q))
        if bodies and not self.down:
            self.handle(cell, DataArrived())

    def meet_in_rows(self, cell: Cell, statements: list[Statement]) -> None:
        """What the door put into the rows is looked at by the next worker, which loads them all."""
        for s in statements:
            if (s.signer == self.address or not views.why_ignored(cell.state, s)) and s not in cell.rows:
                cell.rows.append(s)
        if cell.rows:
            self.world.met_in_rows += 1
            cell.version += 1
            self.reload(cell)
            self.handle(cell, Tick())

    def is_current(self, key: Key) -> bool:
        """Known and not void: a window agreed anew has a new config digest."""
        world = self.world
        return key in world.keys and (not world.reopens_ms or key == world.key_of(key[1], self))

    def is_over(self, cell: Cell) -> bool:
        """For this process, or for the instance, whose config digest is void now."""
        return self.down or (bool(self.world.reopens_ms) and not self.is_current(cell.key))

    def on_ask(self, source: Address, key: Key, held: Any) -> None:
        cell = self.disk.cells.get(key)
        if cell is None:
            return
        statements, quorums = views.missing_for(cell.state, held)
        if self.world.switches.relay_own_only:
            statements, quorums = tuple(s for s in statements if s.signer == self.address), ()
            if cell.state.decided is not None:
                statements = tuple(cell.journal.values())
        if not statements and not quorums:
            return
        if not self.world.switches.relay_own_only:
            self.world.monitor.on_answered(self, cell, held, statements, quorums)
        listed = list(statements)
        bodies = self.attach(cell, listed)
        self.world.send(self, source, ("say", key, tuple(listed), quorums, bodies))

    def on_own(self, source: Address, key: Key) -> None:
        cell = self.disk.cells.get(key)
        known: tuple[Statement, ...] = ()
        if cell is not None:
            known = tuple(s for s in cell.state.votes.statements() if s.signer == source)
        self.world.send(self, source, ("told", key, known))

    def on_told(self, source: Address, key: Key, known: tuple[Statement, ...]) -> None:
        cell = self.disk.cells.get(key)
        if cell is None:
            return
        for s in known:
            if self.world.is_genuine(s) and not self.down:
                self.handle(cell, Received(s))
        if not self.down and not cell.state.eligibility.recovered:
            self.handle(cell, OwnVotesRecovered(source))

    def on_push(self, leaves: tuple[bytes, ...]) -> None:
        for leaf in leaves:
            if leaf not in BAD_LEAVES and leaf not in self.disk.leaves:
                self.arrived[leaf] = min(1, max(0, (self.world.now - end_of(0)) // 20_000))
                self.disk.leaves.add(leaf)
                self.data.add(leaf)

    # --- data ---

    def want(self, key: Key, digest: bytes, sources: Iterable[Address]) -> None:
        """Ask the next two of those who should have it."""
        listed = [m for m in sources if m != self.address]
        if not listed:
            return
        attempt = self.wanted.get((key, digest), 0)
        self.wanted[key, digest] = attempt + 1
        for i in range(min(2, len(listed))):
            self.world.send(self, listed[(2 * attempt + i) % len(listed)], ("want", key, digest))

    def on_want(self, source: Address, key: Key, digest: bytes) -> None:
        world = self.world
        if digest in self.bodies:
            value = world.values[Digest(digest)]
            if value.leaves <= self.data:
                cell = self.disk.cells.get(key)
                statements = tuple(self.observations_of(cell, value.digest)) if cell is not None else ()
                world.send(self, source, ("have", key, digest, value.leaves, statements))
        elif digest in self.sets:
            world.send(self, source, ("have", key, digest, world.sets[Root(digest)], ()))

    def on_have(self, key: Key, digest: bytes, leaves: Leaves, statements: tuple[Statement, ...]) -> None:
        cell = self.disk.cells.get(key)
        if cell is None or not self.is_current(key):
            return
        known = digest in self.bodies, len(self.data), len(cell.named)
        self.data |= leaves - BAD_LEAVES
        if digest in self.world.values:
            self.bodies.add(Digest(digest))
            self.keep_named(cell, statements, [Digest(digest)])
            news = known != (True, len(self.data), len(cell.named))
            for s in statements:
                if self.down:
                    return
                if self.world.is_genuine(s):
                    self.handle(cell, Received(s))
            if self.down:
                return
            if cell.state.decided is not None:
                self.apply_decision(cell)
            elif news:  # else the same question would bring the same answer, at the pace of the network
                self.handle(cell, DataArrived())
        elif not leaves & BAD_LEAVES:
            self.sets.add(Root(digest))
            self.data |= leaves
            pending: list[Event] = []
            self.gather(cell, pending)
            for event in pending:
                self.handle(cell, event)

    def gather(self, cell: Cell, pending: list[Event]) -> None:
        """While leading: whose observation and set are here; the others' sets are fetched, each on its own."""
        a = cell.state
        if cell.frozen is None or a.round_state.step is not Step.PROPOSE or a.leader != self.address:
            return
        observed, reproduced = [], []
        for member, kept in a.votes.of(StatementKind.OBSERVATION, 0).items():
            observed.append(member)
            root = self.world.observations[kept[0].value].set_root
            if root in self.sets:
                reproduced.append(member)
            elif self.asked.get((root, member), -RETRY_MS) + RETRY_MS // 2 <= self.world.now:
                self.asked[root, member] = self.world.now
                self.want(cell.key, root, (member,))
        told = (frozenset(observed), frozenset(reproduced))
        if self.told.get(cell.key) != told:
            self.told[cell.key] = told
            pending.append(SetsHeld(*told))

    # --- build and judge ---

    def scope(self, cell: Cell) -> proposals.Scope | None:
        """Block and budgets as this member's chain shows them, stored when first read."""
        world = self.world
        if cell.block is None:
            final_ms = end_of(window_of(cell.instance)) + world.scenario.block_late_ms[self.index]
            if world.now >= final_ms:
                cell.block = world.block
            elif world.switches.block_early:
                cell.block = world.reverted_block
            else:
                world.at(final_ms, lambda: self.look_again(cell))
                return None
        return world.scope_of(cell.block)

    def look_again(self, cell: Cell) -> None:
        if not self.is_over(cell):
            self.handle(cell, DataArrived())

    def build(self, cell: Cell, round: int, pending: list[Event]) -> None:
        world, instance = self.world, cell.instance
        scope = self.scope(cell)
        if scope is None or cell.frozen is None:
            return
        used = {}
        union: list[bytes] = []
        seen: dict[bytes, int] = {}
        for kept in cell.state.votes.of(StatementKind.OBSERVATION, 0).values():
            observation = world.observations[kept[0].value]
            used[kept[0].value] = observation
            if observation.set_root in self.sets:
                for leaf in world.sets[observation.set_root]:
                    seen[leaf] = seen.get(leaf, 0) + 1
                    union.append(leaf)
        if world.switches.block_by_majority:
            scope = world.scope_of(world.block_of_most(used))
        n = len(cell.state.rules.committee)
        served = self.disk.served
        sightings = {Digest(leaf): ServeCounts(served.get(leaf, 0), count) for leaf, count in seen.items()}
        records = [RECORDS[leaf] for leaf in sorted(set(union) - BAD_LEAVES) if self.permits(cell, leaf)]
        full_ends = None
        if instance.kind is InstanceKind.LATE:
            stored = self.stored_identities(instance)
            records = [r for r in records if r.identity not in stored and ends_before(r.leaf, instance)]
            full_ends = self.behind_full
        else:
            records = [r for r in records if window_instance_of(r.leaf) == instance]
        united = windows.unite(records, sightings)
        outcome, kept_records = build_outcome(instance, scope, united, used, n, PARAMETERS, full_ends)
        value = make_value(outcome, kept_records, used, n)
        world.values[value.digest] = value
        self.keep_value(value)
        pending.append(ProposeValue(round, value.digest))

    def keep_value(self, value: Value) -> None:
        self.bodies.add(value.digest)
        self.data |= value.leaves
        if not self.world.switches.data_in_memory:
            self.disk.durable.add(value.digest)

    def judge(self, cell: Cell, question: ValidateProposal) -> tuple[Answer, Answer]:
        world = self.world
        if question.value not in self.bodies:
            return NOT_YET, NOT_YET
        value = world.values[question.value]
        if value.leaves & BAD_LEAVES:
            return NO, NO
        signed = {s.value for s in self.observations_of(cell, value.digest)}
        if not signed.issuperset(value.outcome.observations) or not value.leaves <= self.data:
            return NOT_YET, NOT_YET
        if not value.valid or value.outcome.instance != cell.instance:
            return NO, NO
        used = value.outcome.observations
        if len({world.observations[d].observer for d in used}) < len(used) and not world.switches.observers_twice:
            return NO, NO
        self.keep_value(value)
        if not question.fresh:
            return YES, NOT_YET
        return YES, self.accept(cell, value, question.round)

    def accept(self, cell: Cell, value: Value, round: int) -> Answer:
        world = self.world
        own = cell.frozen
        if own is None:
            if not world.switches.judge_without_set:
                return NOT_YET
            own = frozenset()
        served = self.disk.served

        def worse(theirs: Row, ours: Row) -> bool:
            return ranks_worse(
                (theirs, ServeCounts(served.get(theirs.leaf, 0))), (ours, ServeCounts(served.get(ours.leaf, 0)))
            )

        if not all(self.permits(cell, leaf) for leaf in value.leaves):
            return NO
        late = cell.instance.kind is InstanceKind.LATE
        stored: set[Identity] | None = None
        if late:
            stored = self.stored_among(cell.instance, value.leaves)
        scope = self.scope(cell)
        if world.switches.block_by_majority:
            scope = world.scope_of(world.block_of_most(value.outcome.observations))
        ask_variants = round < len(cell.state.rules.committee) and not world.switches.any_variant
        verdict = proposals.judge_acceptability(
            value.outcome,
            set_of(value.leaves),
            scope,
            set_of(own),
            worse_variant=worse if ask_variants else None,
            stored=stored,
            behind_full=self.behind_full if late else None,
        )
        return verdict.answer

    def earlier_sets(self, late: InstanceId) -> list[Value]:
        decided, world = self.disk.decided, self.world
        return [world.values[decided[earlier]] for earlier in before(late)]

    def stored_identities(self, late: InstanceId) -> set[Identity]:
        return {IDENTITY[leaf] for value in self.earlier_sets(late) for leaf in value.leaves}

    def stored_among(self, late: InstanceId, leaves: Leaves) -> set[Identity]:
        if self.world.switches.stored_by_leaf:
            stored = {leaf for value in self.earlier_sets(late) for leaf in value.leaves}
            return {IDENTITY[leaf] for leaf in leaves & stored}
        identities = self.stored_identities(late)
        return {IDENTITY[leaf] for leaf in leaves} & identities

    def behind_full(self, row: Row) -> bool:
        """Whether it sorts behind the end of a full entry of its own window."""
        record = RECORDS[row.leaf]
        instance = window_instance_of(record.leaf)
        decided = self.disk.decided.get(instance)
        if decided is None:
            return False
        return is_behind_full(self.world.values[decided], record)

    # --- decision ---

    def decide(self, cell: Cell, certificate: VoteQuorum) -> None:
        self.world.monitor.on_decided(self, cell, certificate)
        self.apply_decision(cell)

    def apply_decision(self, cell: Cell) -> None:
        """Hold what was decided, then go on; fetched from the certificate's signers until it is here."""
        certificate = cell.state.decided
        if certificate is None or cell.closed or self.down or not self.is_current(cell.key):
            return
        world = self.world
        value = world.values[certificate.value] if certificate.value in self.bodies else None
        if value is not None and value.leaves <= self.data:
            cell.closed = True
            self.keep_value(value)
            self.disk.decided[cell.instance] = certificate.value
            world.monitor.on_held(self, cell, value)
            self.push_left_over(cell, value)
            self.plan()
        elif cell.key not in self.fetching:
            self.fetching.add(cell.key)
            self.fetch_decided(cell, certificate)

    def fetch_decided(self, cell: Cell, certificate: VoteQuorum) -> None:
        if self.down or cell.closed or cell is not self.disk.cells.get(cell.key):
            return
        self.want(cell.key, certificate.value, [signer for signer, _ in certificate.signatures])
        self.world.at(self.world.now + RETRY_MS, lambda: self.fetch_decided(cell, certificate))

    def push_left_over(self, cell: Cell, value: Value) -> None:
        """What was observed and is in no agreed set goes to all members at once."""
        agreed = {IDENTITY[leaf] for leaf in value.leaves}
        left = [leaf for leaf in cell.frozen or () if IDENTITY[leaf] not in agreed]
        if left:
            self.push(left)

    # --- crash ---

    def crash(self) -> None:
        """Memory is gone; a while later a new process reads the disk, or what is left of it."""
        world = self.world
        self.down = True
        self.crashed += 1
        world.crashed += 1
        if self.index in world.scenario.old_copy and self.old_copy is not None and world.rng.random() < 0.7:
            self.disk = self.old_copy.copy()
            world.monitor.excuse(self)
        elif self.index in world.scenario.disk_lost:
            self.disk = Disk(created_ms=world.now)
            world.monitor.excuse(self)
        world.at(world.now + world.rng.randrange(50, 4_000), self.boot)

    def leave(self, returns_ms: int) -> None:
        """Not there for a while, for no fault of its own; what it holds is on its disk."""
        if not self.down:
            self.world.absences += 1
            self.down = True
            self.crashed += 1
            self.world.at(returns_ms, self.boot)

    def boot(self) -> None:
        world = self.world
        self.down = False
        self.reset_memory()
        world.monitor.on_boot(self)
        for cell in list(self.disk.cells.values()):
            self.reload(cell)
        for cell in list(self.disk.cells.values()):
            if self.is_current(cell.key) and not self.down:
                self.handle(cell, Resume())
        for cell in list(self.disk.cells.values()):
            if not self.down:
                self.apply_decision(cell)
                if cell.state.wake_ms is not None:
                    self.set_wake(cell, cell.state.wake_ms)
        self.plan()

    def reload(self, cell: Cell) -> None:
        """The state as rows, and back, with what came into the rows meanwhile."""
        a = cell.state
        own = tuple(cell.journal.values())
        if self.world.switches.forget_proposals:
            own = tuple(s for s in own if s.kind is not StatementKind.PROPOSAL)
        journaled = {s.signature for s in cell.journal.values()}
        others = tuple(s for s in a.votes.statements() if s.signature not in journaled)
        cell.state = states.restore(
            a.rules, states.encode_progress(a), own, (*others, *cell.rows), tuple(a.votes.quorums.values())
        )

    def snapshot(self) -> None:
        if not self.down:
            self.old_copy = self.disk.copy()


@lru_cache(maxsize=64)
def before(late: InstanceId) -> tuple[InstanceId, ...]:
    """The sets that a late set has to know: all windows up to its bundle's, all late sets before it."""
    windows_known = (window_instance(w) for w in range(late.number + 1))
    return (*windows_known, *(late_instance(b) for b in range(late.number)))


def window_instance_of(leaf: bytes) -> InstanceId:
    return WINDOW_INSTANCE[leaf]


def _instance_of(record: Record) -> InstanceId:
    for window in range(16):
        if record.message.timestamp_ms < end_of(window):
            return window_instance(window)
    raise AssertionError("outside the simulated windows")


WINDOW_INSTANCE = {leaf: _instance_of(record) for leaf, record in RECORDS.items()}


def ends_before(leaf: bytes, late: InstanceId) -> bool:
    return RECORDS[leaf].message.timestamp_ms < end_of(late.number)


def is_behind_full(value: Value, record: Record) -> bool:
    """By the entry's own mark: full, and nothing of it sorts after the record."""
    part = record.message.stream_part
    entry = next((e for e in value.outcome.entries if e.stream_part == part), None)
    if entry is None or not entry.flags & 1:
        return False
    last = max((r.order for r in records_of(value.leaves) if r.message.stream_part == part), default=None)
    return last is None or record.order > last


def budgets(limit: int) -> dict[tuple[str, int], Budget]:
    return {part: Budget(limit if part == PARTS[0] else 1 << 30) for part in PARTS}
