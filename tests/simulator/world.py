"""Time, network, chain and members of one run. Everything is drawn from the seed, in the order of events."""

from __future__ import annotations

import random
import traceback
from collections.abc import Callable, Iterable
from heapq import heappop, heappush
from typing import Any

from tests.simulator.content import (
    Leaves,
    Value,
    end_of,
    late_instance,
    observe,
    root_of,
    window_instance,
    window_of,
)
from tests.simulator.liars import Liars
from tests.simulator.monitor import Monitor, Violation
from tests.simulator.node import BOOT_MS, Key, Node, Switches, budgets
from tests.simulator.scenario import Scenario, member
from validator.protocol.consensus.proposal import Scope
from validator.protocol.hashing import hash_body
from validator.protocol.model import (
    NIL,
    Address,
    Block,
    Digest,
    InstanceId,
    InstanceKind,
    Observation,
    Root,
    Statement,
    StatementKind,
)

GRACE_MS = 300
PATIENCE_MS = 1_200_000
"""Virtual time after healing within which everything must be decided, whatever rounds say."""
MAX_STEPS = 400_000

Content = tuple[int, Digest, InstanceId, int, Digest, int]


class World:
    """One run. ``run`` returns; what was wrong is in ``violations``."""

    def __init__(self, scenario: Scenario, switches: Switches, *, trace: bool = False) -> None:
        self.scenario = scenario
        self.switches = switches
        self.rng = random.Random(scenario.seed)
        self.now = end_of(0) - 2 * BOOT_MS
        self.queue: list[tuple[int, int, Callable[..., None], tuple[Any, ...]]] = []
        self.order = 0
        self.steps = 0
        self.packets = 0
        self.crashed = 0
        self.lost = 0
        self.repeated = 0
        self.stale = 0
        self.lies = 0
        self.twin_words = 0
        self.absences = 0
        self.met_in_rows = 0
        self.trace: list[str] | None = [] if trace else None
        self.tokens: dict[bytes, tuple[Address, Content]] = {}
        self.values: dict[Digest, Value] = {}
        self.observations: dict[Digest, Observation] = {}
        self.sets: dict[Root, Leaves] = {}
        self.met: dict[int, dict[InstanceId, int]] = {}
        self.block = Block(100, hash_body(b"block"), 1)
        self.reverted_block = Block(100, hash_body(b"reverted"), 1)
        self.blocks_read: dict[Digest, Block] = {}
        self.isolated: dict[Address, int] = {}
        self._scopes: dict[Digest, Scope] = {}
        self.instances = [window_instance(w) for w in range(scenario.windows)]
        self.instances += [late_instance(w) for w in range(scenario.windows)]
        self.digests = [hash_body(b"config/%d" % w) for w in range(scenario.windows)]
        if scenario.windows == 2 and scenario.committees[0] == scenario.committees[1]:
            self.digests[1] = self.digests[0]
        self.new_digest = hash_body(b"config/raised")
        self.keys: set[Key] = {(self.digests[window_of(i)], i) for i in self.instances}
        if scenario.reopen:
            self.keys |= {(self.new_digest, i) for i in self.instances if window_of(i) == 1}
        self._committees = {key: tuple(member(i) for i in scenario.committees[window_of(key[1])]) for key in self.keys}
        self.liar_addresses = frozenset(member(i) for i in scenario.liars)
        self.monitor = Monitor(self)
        self.nodes: dict[Address, Node] = {}
        self.reopens_ms: dict[int, int] = {}
        for i in range(scenario.members):
            if i not in scenario.liars:
                self.nodes[member(i)] = Node(self, i, member(i))
        self.liars = Liars(self, [member(i) for i in sorted(scenario.liars)])
        self.addresses = [member(i) for i in range(scenario.members)]
        self._prepare()

    def _prepare(self) -> None:
        s = self.scenario
        for address, node in self.nodes.items():
            if node.index in s.gone:
                node.down = True
                continue
            for window, rows in enumerate(s.sights):
                for sight in rows[node.index]:
                    if sight.at_ms < end_of(window):
                        node.disk.leaves.add(sight.leaf)
                        node.data.add(sight.leaf)
                        node.disk.served[sight.leaf] = sight.brokers
                    else:
                        self.at(sight.at_ms, node.collect, sight)
            self.at(end_of(0) - BOOT_MS + self.rng.randrange(300), node.plan)
            if node.index in s.old_copy:
                self.at(end_of(0) + self.rng.randrange(500, 6_000), node.snapshot)
            if s.reopen:
                self.reopens_ms[node.index] = end_of(1) + 20_000 + self.rng.randrange(2_000)
                self.at(self.reopens_ms[node.index], node.plan)
            if node.index in s.twins:
                self.monitor.excuse(node)
                for _ in range(self.rng.randrange(1, 5)):
                    self.at(end_of(0) + self.rng.randrange(-900, 9_000), self._twin_speaks, node)
            if node.index in s.disk_lost or node.index in s.old_copy:
                self.at(end_of(0) + self.rng.randrange(1_000, max(2_000, s.heal_ms - end_of(0))), self._break, address)

        for index, leaves_ms, returns_ms in s.away:
            absent = self.nodes.get(member(index))
            if absent is not None and index not in s.gone:
                self.at(leaves_ms, absent.leave, returns_ms)

    def _twin_speaks(self, node: Node) -> None:
        """A second machine with the member's key says something of its own, to some or to the member itself."""
        keys = [key for key in sorted(node.disk.cells, key=str) if node.address in self.committee(key)]
        keys = keys or [self.key_of(window_instance(0), node)]
        key, rng = self.rng.choice(keys), self.rng
        cell = node.disk.cells.get(key)
        kind = rng.choice(
            (StatementKind.OBSERVATION, StatementKind.PREVOTE, StatementKind.PREVOTE, StatementKind.PRECOMMIT)
        )
        at = cell.state.round if cell is not None else 0
        value = rng.choice([NIL, hash_body(b"of the twin"), *sorted(self.values)])
        if kind is StatementKind.OBSERVATION:
            value, observation = observe(node.address, key[1], frozenset(), None)
            self.root_of(frozenset())
            self.observations[value] = observation
        round = 0 if kind is StatementKind.OBSERVATION else max(0, at + rng.choice((-1, 0, 0, 0, 1, 2, 5)))
        s = self.sign(Statement(kind, key[0], key[1], round, value, node.address))
        self.twin_words += 1
        others = [a for a in self.addresses if a in self.nodes and rng.random() < 0.6]
        for address in others or [node.address]:
            self.at(
                self.now + rng.randrange(1, 60), self.deliver, self.addresses[0], address, ("say", key, (s,), (), ())
            )

    def _break(self, address: Address) -> None:
        node = self.nodes[address]
        if not node.down and self.is_rough():
            node.crash()

    # --- time ---

    def at(self, ms: int, run: Callable[..., None], *args: Any) -> None:
        self.order += 1
        heappush(self.queue, (ms if ms > self.now else self.now, self.order, run, args))

    def run(self) -> None:
        """Until every honest member holds every decision, or patience ends."""
        limit = max(self.scenario.heal_ms, end_of(self.scenario.windows - 1)) + PATIENCE_MS
        if self.scenario.reopen:
            limit += 30_000
        queue, monitor = self.queue, self.monitor
        try:
            while queue:
                ms, _, run, args = heappop(queue)
                if ms > limit or self.steps > MAX_STEPS:
                    break
                self.now = ms
                run(*args)
                if monitor.all_done:
                    break
            monitor.at_end()
        except Violation as violation:
            monitor.violations.append(str(violation))
        except Exception as error:
            monitor.violations.append(f"error: {error!r}")
            self.tell(traceback.format_exc())

    def is_rough(self) -> bool:
        """Before healing: the network and the machines may fail."""
        return self.now < self.scenario.heal_ms

    def is_over(self) -> bool:
        return self.monitor.all_done

    # --- configuration ---

    def committee(self, key: Key) -> tuple[Address, ...]:
        return self._committees[key]

    def key_of(self, instance: InstanceId, node: Node) -> Key:
        """The instance under the config digest that the member goes by now."""
        if self.switches.late_under_window and instance.kind is InstanceKind.LATE:
            instance = window_instance(instance.number)
        window = window_of(instance)
        reopened = self.reopens_ms.get(node.index)
        if reopened is not None and window == 1 and self.now >= reopened:
            return (self.new_digest, instance)
        return (self.digests[window], instance)

    def start_ms(self, node: Node, window: int) -> int:
        """The cut-off by clock and by chain."""
        end = end_of(window)
        by_clock = end + GRACE_MS - node.skew_ms
        by_chain = end + self.scenario.head_late_ms
        start = by_clock if self.switches.clock_only else max(by_clock, by_chain)
        reopened = self.reopens_ms.get(node.index)
        return start if reopened is None or window == 0 or self.now < reopened else max(start, reopened)

    def scope_of(self, block: Block) -> Scope:
        scope = self._scopes.get(block.hash)
        if scope is None:
            scope = self._scopes[block.hash] = Scope(block, budgets(self.scenario.budget))
        return scope

    def block_of_most(self, observations: Iterable[Digest]) -> Block:
        """What a block by majority of observations would be; liars name the reverted one."""
        read = [self.blocks_read.get(digest, self.reverted_block) for digest in observations]
        return max(self.block, self.reverted_block, key=read.count)

    def root_of(self, leaves: Leaves) -> Root:
        root = root_of(leaves)
        self.sets[root] = leaves
        return root

    # --- signatures ---

    def sign(self, s: Statement) -> Statement:
        """A token nobody can guess; every signing makes another one."""
        token = (len(self.tokens) + 1).to_bytes(65, "big")
        self.tokens[token] = (s.signer, s.content)
        return Statement(s.kind, s.config_digest, s.instance, s.round, s.value, s.signer, s.valid_round, token)

    def is_genuine(self, s: Statement) -> bool:
        return self.tokens.get(s.signature) == (s.signer, s.content)

    # --- network ---

    def broadcast(self, source: Node, packet: tuple[Any, ...]) -> None:
        if self.trace is not None:
            self.note(source, packet)
        self.liars.see(source.address, packet)
        if self.scenario.ambush and packet[0] == "say" and self.is_rough():
            self.maybe_isolate(source.address, packet)
        for address in self.addresses:
            if address != source.address:
                self.carry(source.address, address, packet)

    def send(self, source: Node, target: Address, packet: tuple[Any, ...]) -> None:
        self.liars.see(source.address, packet)
        self.carry(source.address, target, packet)

    def carry(self, source: Address, target: Address, packet: tuple[Any, ...]) -> None:
        """One packet over the network as it is now."""
        s, random_number = self.scenario, self.rng.random
        rough = self.now < s.heal_ms
        if (rough or s.lossy_for_ever) and (
            random_number() < s.loss or ((self.isolated or s.cut) and self.is_cut(source, target))
        ):
            self.lost += 1
            return
        least, longest = (s.delay_min_ms, s.delay_max_ms) if rough else (s.least_ms, s.bound_ms)
        delay = least + int(random_number() * (longest - least))
        self.at(self.now + delay, self.deliver, source, target, packet)
        if s.repeat and random_number() < s.repeat:
            self.repeated += 1
            self.at(self.now + delay + int(random_number() * longest), self.deliver, source, target, packet)

    def is_cut(self, source: Address, target: Address) -> bool:
        """Whether the network is split between the two just now."""
        s = self.scenario
        if self.isolated and self.now < max(self.isolated.get(source, 0), self.isolated.get(target, 0)):
            return True
        return s.cut_from_ms <= self.now < s.cut_until_ms and (source[0] - 1 in s.cut) != (target[0] - 1 in s.cut)

    def maybe_isolate(self, source: Address, packet: tuple[Any, ...]) -> None:
        """The network too is against us: who has just got a polka, or locked, is cut off with what it knows."""
        polka = any(q.kind is StatementKind.PREVOTE for q in packet[3])
        locks = any(s.kind is StatementKind.PRECOMMIT and any(s.value) for s in packet[2])
        free = self.now >= max(self.isolated.values(), default=0)
        if (polka or locks) and free and self.rng.random() < self.scenario.ambush:
            self.isolated[source] = self.now + self.rng.randrange(500, 9_000)
            self.tell(f"{source[0] - 1} is cut off for {self.isolated[source] - self.now} ms")

    def deliver(self, source: Address, target: Address, packet: tuple[Any, ...]) -> None:
        self.packets += 1
        node = self.nodes.get(target)
        if node is not None:
            node.on_packet(source, packet)
        else:
            self.liars.on_packet(target, source, packet)

    # --- faults ---

    def crash_point(self) -> int:
        """0, or where in this step a member crashes: 1 before saving, 2 before sending, 3 before performing."""
        s = self.scenario
        if self.crashed >= s.crashes or not self.is_rough() or self.rng.random() >= s.crash_rate:
            return 0
        return self.rng.randrange(1, 4)

    # --- trace ---

    def note(self, source: Node, packet: tuple[Any, ...]) -> None:
        if self.trace is not None and packet[0] == "say":
            for s in packet[2]:
                self.trace.append(f"{self.now - end_of(0):>7} {source.index} says {describe(s)}")
            for q in packet[3]:
                signers = ",".join(str(signer[0] - 1) for signer, _ in q.signatures)
                self.trace.append(
                    f"{self.now - end_of(0):>7} {source.index} shows {q.instance} round {q.round} "
                    f"{q.kind.name} {q.value.hex()[:6]} by {signers}"
                )

    def tell(self, text: str) -> None:
        if self.trace is not None:
            self.trace.append(f"{self.now - end_of(0):>7} {text}")


def describe(s: Statement) -> str:
    again = f" again from {s.valid_round}" if s.valid_round >= 0 else ""
    value = s.value.hex()[:6] if any(s.value) else "nil"
    return f"{s.instance} round {s.round} {s.kind.name} {value}{again} by {s.signer[0] - 1}"
