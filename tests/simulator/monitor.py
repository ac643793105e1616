"""The invariants, checked from outside with own arithmetic: nothing here calls the code under test to judge it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from tests.simulator.account import Account, Mismatch
from tests.simulator.content import (
    BAD_LEAVES,
    FORGED,
    IDENTITY,
    PARTS,
    RECORD_BYTES,
    RECORDS,
    Leaves,
    Value,
    end_of,
    late_instance,
    window_instance,
    window_of,
)
from validator.protocol.consensus.events import Effect, Event
from validator.protocol.consensus.evidence import Evidence
from validator.protocol.consensus.state import InstanceState, encode_progress, restore
from validator.protocol.consensus.votes import Held
from validator.protocol.model import (
    NIL,
    Address,
    Digest,
    InstanceId,
    InstanceKind,
    Statement,
    StatementKind,
    VoteQuorum,
)

if TYPE_CHECKING:
    from tests.simulator.node import Cell, Key, Node
    from tests.simulator.world import World

PREVOTE, PRECOMMIT = StatementKind.PREVOTE, StatementKind.PRECOMMIT
BEHIND, AHEAD = 16, 2
ROUNDS = BEHIND + 1 + AHEAD
"""Rounds of which statements are kept."""
STATEMENT_BYTES = 190
QUORUM_BYTES, SIGNATURE_BYTES = 100, 89
HELD_BYTES, ADDRESS_BYTES = 50, 22
"""The longest encodings: of a statement, of a quorum beside its signatures, of an item of a summary."""


class Violation(Exception):
    """An invariant does not hold; its text begins with the invariant's name."""


class Ballot:
    """What all honest members ever signed in one instance, and what liars can add."""

    def __init__(self, committee: tuple[Address, ...], faulty: set[Address]) -> None:
        n = len(committee)
        self.quorum = n - (n - 1) // 3
        self.committee = frozenset(committee)
        self.round_bytes = (4 + 2 * n) * STATEMENT_BYTES + 2 * (QUORUM_BYTES + n * SIGNATURE_BYTES)
        self.faulty = faulty
        self.votes: dict[tuple[int, int, Digest], set[Address]] = {}
        self.slots: dict[tuple[Address, int, int], Statement] = {}
        self.locks: dict[Address, tuple[int, Digest]] = {}
        self.state_locks: dict[Address, int] = {}
        self.last_round: dict[Address, int] = {}
        self.outcomes: set[Digest] = set()
        self.decided: dict[Address, Digest] = {}
        self.rounds: dict[Address, int] = {}
        self.settled_round: int | None = None

    def can_be_shown(self, kind: StatementKind, round: int, value: Digest) -> bool:
        """Whether a quorum can be assembled from all signatures, those of liars included."""
        honest = self.votes.get((kind, round, value), set()) - self.faulty
        return len(honest) + len(self.faulty & self.committee) >= self.quorum


class Monitor:
    """Watches one world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.violations: list[str] = []
        self.counts = {"halted": 0, "evidence": 0, "polkas": 0, "repeated": 0}
        self.ballots: dict[Key, Ballot] = {}
        self.excused: set[Address] = set()
        self.frozen: dict[Key, dict[Address, Leaves]] = {}
        self.obtained: dict[bytes, int] = {}
        self.outcomes: dict[InstanceId, Value] = {}
        self.holders: dict[InstanceId, set[Address]] = {}
        self.changed = 0
        self.looked: set[tuple[Key, Digest, int]] = set()
        self.proposed_ms: dict[tuple[Key, Digest], int] = {}
        self.waits_ms: list[int] = []
        """By decision and member: from when an honest leader first proposed the value, its data at hand."""
        self.moved_bytes = 0
        self.most_held_bytes = 0
        self.all_done = False
        self.faulty = {bytes_to_address(i) for i in world.scenario.liars}
        self.expected: set[Address] | None = None
        self.audits = world.scenario.seed % 16 == 0
        """Whether every saved state is restored and compared: that takes longer than the step itself. In other runs
        it is those in which a member moved, or none."""
        self.restores = self.audits or world.scenario.seed % 4 == 2

    def ballot(self, cell: Cell) -> Ballot:
        ballot: Ballot | None = cell.ballot
        if ballot is None:
            ballot = self.ballots.get(cell.key)
            if ballot is None:
                ballot = self.ballots[cell.key] = Ballot(self.world.committee(cell.key), self.faulty)
            cell.ballot = ballot
        return ballot

    def excuse(self, node: Node) -> None:
        """From here on a member without its disk, or with an old one, counts as faulty."""
        self.changed += 1
        self.faulty.add(node.address)
        self.excused.add(node.address)

    def fail(self, name: str, text: str) -> None:
        raise Violation(f"{name}: {text}")

    # --- after every step ---

    def on_said(self, node: Node, cell: Cell, s: Statement, after: InstanceState) -> None:
        ballot = self.ballot(cell)
        if s.config_digest != cell.key[0] or s.instance != cell.key[1]:
            self.fail("epoch-right", f"{by(node, s)}: another digest or instance than its own")
        if s.kind is StatementKind.OBSERVATION and self.world.now < self.world_head(cell):
            self.fail("no-future", f"{by(node, s)}: before the chain reached the window's end")
        if node.address in self.excused:
            ballot.votes.setdefault((s.kind, s.round, s.value), set())
            return
        row = cell.journal.get((s.kind, s.round))
        if row is None or row.signature != s.signature:
            self.fail("said-is-stored", f"{by(node, s)}: no row")
        slot = (node.address, s.kind, s.round)
        earlier = ballot.slots.get(slot)
        if earlier is not None and earlier.signature == s.signature:
            return  # said before
        earlier = ballot.slots.setdefault(slot, s)
        if earlier.content != s.content:
            self.fail("never-guilty", f"{by(node, s)}: {earlier.value.hex()[:6]} and {s.value.hex()[:6]}")
        if s.kind is StatementKind.PROPOSAL:
            self.proposed_ms.setdefault((cell.key, s.value), self.world.now)
        if s.kind is not StatementKind.OBSERVATION:
            if s.round < ballot.last_round.get(node.address, 0):
                self.fail("no-lower-round", f"{by(node, s)}: was in round {ballot.last_round[node.address]} before")
            ballot.last_round[node.address] = s.round
        if s.kind in (PREVOTE, PRECOMMIT) and s.value != NIL:
            self.on_vote(node, cell, ballot, s, after)

    def on_vote(self, node: Node, cell: Cell, ballot: Ballot, s: Statement, after: InstanceState) -> None:
        ballot.votes.setdefault((s.kind, s.round, s.value), set()).add(node.address)
        lock_round, lock_value = ballot.locks.get(node.address, (-1, NIL))
        if s.kind is PREVOTE:
            in_memory = self.world.switches.data_in_memory
            if s.value not in node.disk.durable and not in_memory:
                self.fail("said-is-stored", f"{by(node, s)}: the data behind a prevote is not durable")
            held = after.votes.of(StatementKind.PROPOSAL, s.round).values()
            fresh = any(p.value == s.value and p.valid_round == -1 for kept in held for p in kept)
            if not fresh and not any(ballot.can_be_shown(PREVOTE, r, s.value) for r in range(s.round)):
                self.fail("lock-kept", f"{by(node, s)}: not proposed to it afresh, and never proven")
            if lock_round < 0 or s.value == lock_value:
                return
            if not any(ballot.can_be_shown(PREVOTE, round, s.value) for round in range(lock_round, s.round)):
                self.fail("lock-kept", f"{by(node, s)}: against the lock of round {lock_round} without a polka")
            return
        if not ballot.can_be_shown(PREVOTE, s.round, s.value):
            self.fail("lock-kept", f"{by(node, s)}: without a polka")
        ballot.locks[node.address] = max((lock_round, lock_value), (s.round, s.value))
        if ballot.can_be_shown(PRECOMMIT, s.round, s.value):
            ballot.outcomes.add(s.value)
            if len(ballot.outcomes) > 1:
                self.fail("one-outcome", f"{s.instance}: certificates for two outcomes can be assembled")

    def on_state(self, node: Node, cell: Cell, after: InstanceState) -> None:
        before = cell.state
        if after.round_state is not before.round_state and node.address not in self.excused:
            ballot = self.ballot(cell)
            lock = after.round_state.locked_round
            if lock < ballot.state_locks.get(node.address, -1):
                self.fail("lock-kept", f"member {node.index}, {cell.instance}: lock fell to round {lock}")
            ballot.state_locks[node.address] = lock
            if after.round_state.round > ballot.rounds.get(node.address, -1):
                ballot.rounds[node.address] = after.round_state.round
                self.on_round(node, cell, ballot, after.round_state.round)
        if after.votes is not before.votes and len(after.votes.said) > 8:
            self.on_size(node, cell, after)

    def on_step(
        self,
        node: Node,
        cell: Cell,
        event: Event,
        before: InstanceState,
        after: InstanceState,
        effects: tuple[Effect, ...],
    ) -> None:
        """reasons, timers, rounds, wakes, kept, halted, recall: the step is what follows from what was heard."""
        watched = self.world.scenario.watched
        lost = node.address in self.excused and node.index not in self.world.scenario.twins
        if (watched is not None and watched != node.index) or lost or after.rules.own is None:
            return
        account = cell.account
        if account is None:
            rules = after.rules
            account = cell.account = Account(cell.key, node.address, rules.committee, rules.timeouts)
        try:
            account.follow(event, cell.rows if before.loaded else (), before, after, effects, node.clock())
        except Mismatch as mismatch:
            self.fail(mismatch.name, f"member {node.index}, {cell.instance}: {mismatch}")
        if self.restores and after is not before and (self.audits or after.round_state is not before.round_state):
            self.check_restored(node, cell, after)

    def check_restored(self, node: Node, cell: Cell, saved: InstanceState) -> None:
        """restored: what comes back from the rows is what went into them, every field."""
        votes = saved.votes
        own = tuple(cell.journal.values())
        journaled = {s.signature for s in own}
        rows = (s for slots in votes.said.values() for kept in slots.values() for s in kept)
        others = tuple(s for s in rows if s.signature not in journaled)
        again = restore(saved.rules, encode_progress(saved), own, others, tuple(votes.quorums.values()))
        floor = saved.round - BEHIND
        pairs = (
            ("round_state", again.round_state, saved.round_state),
            ("eligibility", again.eligibility, saved.eligibility),
            ("judgements", again.judgements or {}, saved.judgements or {}),
            ("decided", again.decided, saved.decided),
            ("wake", again.wake_ms, saved.wake_ms),
            ("statements", again.votes.said, votes.said),
            ("quorums", again.votes.quorums, votes.quorums),
            ("journal", again.journal, saved.journal),
            ("ahead", again.votes.ahead, votes.ahead),
            ("rounds heard", _above(again.votes.newest, floor), _above(votes.newest, floor)),
        )
        for name, restored, kept in pairs:
            if restored != kept:
                self.fail(
                    "restored", f"member {node.index}, {cell.instance}: {name}: {restored} where {kept} was saved"
                )

    def on_size(self, node: Node, cell: Cell, after: InstanceState) -> None:
        """bounded: rows and bytes held. Of each signer two of a kind are kept in each of ROUNDS, one far ahead.

        A round has one polka at most, since two would share an honest signer, and there is one certificate.
        """
        n = len(after.rules.committee)
        held, quorums = len(after.votes.statements()), after.votes.quorums.values()
        most = 2 * n + ROUNDS * (2 * 2 * n + 2) + n
        size = held * STATEMENT_BYTES + sum(quorum_bytes(q) for q in quorums)
        size_most = most * STATEMENT_BYTES + (ROUNDS + 2) * (QUORUM_BYTES + n * SIGNATURE_BYTES)
        self.most_held_bytes = max(self.most_held_bytes, size)
        far = [r for _, r in after.votes.said if r and not -BEHIND <= r - after.round <= AHEAD]
        if far:
            self.fail("bounded", f"member {node.index}, {cell.instance}: keeps round {far[0]} in round {after.round}")
        if held > most or size > size_most or len(after.judgements or ()) > most:
            self.fail(
                "bounded",
                f"member {node.index}, {cell.instance}: {held} statements, {size} bytes held; {size_most} allowed",
            )

    def on_sent(
        self, node: Node, cell: Cell, statements: Sequence[Statement], quorums: Sequence[VoteQuorum], receivers: int
    ) -> None:
        """bounded: bytes said unasked. To each receiver four statements a round, its polka twice and the certificate.

        Twice, since a polka is sent when it is complete and with a re-proposal. Resuming repeats them once. What a
        proposal takes along are the observations that it uses, of one member two at most. said-is-stored: of what it
        signed itself there is a row.
        """
        for s in statements:
            row = cell.journal.get((s.kind, s.round))
            mine = s.signer == node.address and node.address not in self.excused
            if mine and (row is None or row.content != s.content):
                self.fail("said-is-stored", f"{by(node, s)}: sent, and there is no row")
        size = len(statements) * STATEMENT_BYTES
        for q in quorums:
            size += quorum_bytes(q)
        self.moved_bytes += size * receivers
        cell.said_bytes += size
        allowed = (cell.state.round_state.round + 2 + AHEAD) * self.ballot(cell).round_bytes * (1 + node.crashed)
        if cell.said_bytes > allowed and node.address not in self.excused:
            self.fail(
                "bounded", f"member {node.index}, {cell.instance}: {cell.said_bytes} bytes said, {allowed} allowed"
            )

    def on_asked(self, held: Held, receivers: int) -> None:
        self.moved_bytes += receivers * sum(HELD_BYTES + ADDRESS_BYTES * len(item[3]) for item in held)

    def on_answered(
        self, node: Node, cell: Cell, held: Held, statements: Sequence[Statement], quorums: Sequence[VoteQuorum]
    ) -> None:
        """bounded: what is answered is the difference; nothing goes to somebody who said that it is there."""
        ballot = self.ballot(cell)
        theirs = {(kind, round, value): signers for kind, round, value, signers in held}
        again = [s for s in statements if s.signer in theirs.get((s.kind, s.round, s.value), ())]
        whole = [q for q in quorums if len(theirs.get((q.kind, q.round, q.value), ())) >= ballot.quorum]
        self.moved_bytes += len(statements) * STATEMENT_BYTES + sum(quorum_bytes(q) for q in quorums)
        if again or (whole and cell.state.decided is None):
            self.fail("bounded", f"member {node.index}, {cell.instance}: answered with what the other has")

    def on_round(self, node: Node, cell: Cell, ballot: Ballot, round: int) -> None:
        """After healing a bounded number of rounds is enough, whatever liars do."""
        world = self.world
        if world.now < self.settled_ms(cell):
            ballot.settled_round = None
            return
        if ballot.settled_round is None:
            others = [r for a, r in ballot.rounds.items() if a != node.address]
            ballot.settled_round = max([*others, 0])
        allowed = ballot.settled_round + 2 * len(ballot.committee) + self.growth()
        if round > max(allowed, 1):
            self.fail("decides", f"member {node.index}, {cell.instance}: round {round} where {allowed} are enough")

    def growth(self) -> int:
        """Rounds until timeouts exceed what an exchange over the healed network takes."""
        t, needed = self.world.scenario.timeouts, 10 * self.world.scenario.bound_ms
        return max(0, -((t.propose_ms - needed) // t.delta_ms)) + 1

    def settled_ms(self, cell: Cell) -> int:
        """When network, machines, pulls and chain are all well for this instance."""
        s, window = self.world.scenario, window_of(cell.instance)
        late = max(s.pull_ms, default=0) + max(s.block_late_ms, default=0) + s.head_late_ms
        spread = max(s.skew_ms, default=0) - min(s.skew_ms, default=0)
        settled = max(s.heal_ms + 8_000, end_of(window) + 300) + late + spread
        if s.reopen and window == 1:
            settled = max(settled, end_of(1) + 23_000 + late)
        if cell.instance.kind is InstanceKind.LATE:
            held = self.holders.get(window_instance(window), set())
            if len(held) < len(self.honest_alive()):
                return self.world.now + 1
        return settled

    def world_head(self, cell: Cell) -> int:
        """When the chain's newest block reaches the end of the instance's windows."""
        return end_of(window_of(cell.instance)) + self.world.scenario.head_late_ms

    def on_proposed_again(self, node: Node, s: Statement, quorums: Sequence[VoteQuorum]) -> None:
        self.counts["repeated"] += 1
        with_it = any(q.round == s.valid_round and q.value == s.value and q.kind is PREVOTE for q in quorums)
        if node.address not in self.excused and not with_it and s.round > 0:
            self.fail("proof-travels", f"member {node.index}, {s.instance} round {s.round}: re-proposal without polka")

    def on_quorum(self, node: Node, cell: Cell, q: VoteQuorum) -> None:
        ballot = self.ballot(cell)
        self.counts["polkas"] += 1
        if q.config_digest != cell.key[0]:
            self.fail("epoch-right", f"member {node.index}, {cell.instance}: a quorum of another config digest")
        if q.value == NIL:
            self.fail("all-valid", f"member {node.index}, {cell.instance}: a quorum for nil")
        if not ballot.can_be_shown(q.kind, q.round, q.value):
            self.fail("one-outcome", f"member {node.index}, {cell.instance}: took {q.kind.name}s nobody signed")
        if q.kind is PREVOTE:
            self.on_polka(cell, q)

    def on_polka(self, cell: Cell, q: VoteQuorum) -> None:
        """data-reachable: an honest signer has the data durably."""
        nodes = self.world.nodes
        honest = [nodes[a] for a, _ in q.signatures if a not in self.faulty]
        if honest and not any(q.value in node.disk.durable for node in honest):
            self.fail("data-reachable", f"{cell.instance}: no honest prevoter holds the proven set")

    def on_evidence(self, node: Node, cell: Cell, pair: Evidence) -> None:
        self.counts["evidence"] += 1
        if pair.first.content == pair.second.content:
            self.fail("never-guilty", f"member {node.index}: two signatures over one content reported")
        guilty = pair.first.signer
        if guilty not in self.faulty:
            self.fail("never-guilty", f"member {node.index} holds evidence against honest member {guilty[0] - 1}")

    def on_halted(self, node: Node, cell: Cell) -> None:
        self.counts["halted"] += 1
        self.world.tell(f"{node.index} is halted in {cell.instance}")
        if node.address not in self.faulty:
            self.fail("never-guilty", f"member {node.index}, {cell.instance}: honest, yet halted")

    def on_boot(self, node: Node) -> None:
        """said-is-stored: what was ever sent has its row, and data behind prevotes is there."""
        if node.address in self.excused:
            return
        for key, ballot in self.ballots.items():
            cell = node.disk.cells.get(key)
            for (signer, kind, round), s in ballot.slots.items():
                if signer != node.address:
                    continue
                row = cell.journal.get((StatementKind(kind), round)) if cell is not None else None
                if row is None or row.content != s.content:
                    self.fail(
                        "said-is-stored", f"member {node.index}: {s.kind.name} of round {round} was sent, not stored"
                    )
                if kind == PREVOTE and s.value != NIL and s.value not in node.disk.durable:
                    self.fail("said-is-stored", f"member {node.index}: data behind its prevote did not survive")

    # --- decisions ---

    def on_frozen(self, node: Node, cell: Cell) -> None:
        if cell.frozen is not None:
            self.changed += 1
            self.frozen.setdefault(cell.key, {})[node.address] = cell.frozen

    def on_obtained_late(self, node: Node, leaf: bytes) -> None:
        if node.address not in self.faulty:
            self.obtained.setdefault(leaf, self.world.now)

    def on_decided(self, node: Node, cell: Cell, certificate: VoteQuorum) -> None:
        ballot, value = self.ballot(cell), certificate.value
        who = f"member {node.index}, {cell.instance}"
        if self.world.trace is not None:
            self.world.tell(f"{node.index} decides {cell.instance} {value.hex()[:6]} round {certificate.round}")
        if certificate.config_digest != cell.key[0]:
            self.fail("epoch-right", f"{who}: decided by a certificate of another config digest")
        if value == NIL:
            self.fail("all-valid", f"{who}: nil decided")
        if not ballot.can_be_shown(PRECOMMIT, certificate.round, value):
            self.fail("one-outcome", f"{who}: decided without a certificate")
        proposed_ms = self.proposed_ms.get((cell.key, value))
        if proposed_ms is not None:
            self.waits_ms.append(self.world.now - proposed_ms)
        ballot.decided[node.address] = value
        if len(set(ballot.decided.values())) > 1:
            self.fail("one-outcome", f"{who}: two outcomes decided")
        if self.world.scenario.is_calm and certificate.round > 0:
            leader = node.disk.cells[cell.key].state.rules.leader(0)
            if leader is not None and leader not in self.faulty and leader[0] - 1 not in self.world.scenario.gone:
                self.fail(
                    "prompt", f"{who}: round {certificate.round} although round 0 had an honest leader and no loss"
                )
        self.on_outcome(cell, self.world.values[value], certificate.round)

    def on_outcome(self, cell: Cell, value: Value, round: int) -> None:
        where = str(cell.instance)
        if value.leaves & BAD_LEAVES:
            self.fail("all-valid", f"{where}: a message with a wrong signature")
        observers = {self.world.observations[digest].observer for digest in value.outcome.observations}
        if len(observers) < self.ballot(cell).quorum:
            self.fail("all-valid", f"{where}: built from {len(observers)} members' observations")
        if value.outcome.block_hash != self.world.block.hash:
            self.fail("all-valid", f"{where}: a block that was reverted")
        looked = (cell.key, value.digest, self.changed)
        if looked not in self.looked:  # the next member decides the same, and nothing of what is compared is new
            self.check_entries(where, value)
            self.check_price(cell, value)
            self.check_complete(cell, value)
            self.looked.add(looked)
        if round < len(self.ballot(cell).committee):
            self.check_variants(cell, value)

    def check_entries(self, where: str, value: Value) -> None:
        identities = [IDENTITY[leaf] for leaf in value.leaves]
        if len(set(identities)) != len(identities):
            self.fail("stored-once", f"{where}: an identity twice")
        names = [e.stream_part for e in value.outcome.entries]
        if names != sorted(set(names)):
            self.fail("all-valid", f"{where}: entries not sorted and unique")
        late = value.outcome.instance.kind is InstanceKind.LATE
        end = end_of(window_of(value.outcome.instance))
        for leaf in value.leaves:
            ts = RECORDS[leaf].message.timestamp_ms
            if ts >= end or (not late and ts < end - 60_000):
                self.fail("all-valid", f"{where}: a message outside its window")
        in_limited = sum(1 for leaf in value.leaves if RECORDS[leaf].message.stream_part == PARTS[0])
        if in_limited * RECORD_BYTES > self.world.scenario.budget:
            self.fail("all-valid", f"{where}: an entry beyond its budget")

    def check_price(self, cell: Cell, value: Value) -> None:
        """The lower median, which lies among what honest members read, whichever observations the leader picked."""
        if cell.instance.kind is InstanceKind.LATE:
            return
        s = self.world.scenario
        used = (self.world.observations[digest].price for digest in value.outcome.observations)
        prices = sorted(p for p in used if p is not None)
        f = (len(self.ballot(cell).committee) - 1) // 3
        median = prices[(len(prices) - 1) // 2] if len(prices) > 2 * f else 500
        if value.outcome.price != median:
            self.fail("all-valid", f"{cell.instance}: price {value.outcome.price} where the lower median is {median}")
        honest = [
            s.prices[window_of(cell.instance)][node.index]
            for node in self.world.nodes.values()
            if node.address in self.ballot(cell).committee
        ]
        read = [p for p in honest if p is not None]
        price = value.outcome.price
        if price != 500 and not (read and min(read) <= price <= max(read)):
            self.fail("all-valid", f"{cell.instance}: price {price} outside what honest members read")

    def check_complete(self, cell: Cell, value: Value) -> None:
        """complete-f+1: what f + 1 honest members froze is in, or behind the end of a full entry."""
        ballot = self.ballot(cell)
        f = (len(ballot.committee) - 1) // 3
        agreed = {IDENTITY[leaf] for leaf in value.leaves}
        seen: dict[object, set[Address]] = {}
        for address, leaves in self.frozen.get(cell.key, {}).items():
            if address in ballot.committee and address not in self.faulty:
                for leaf in leaves:
                    seen.setdefault(IDENTITY[leaf], set()).add(address)
        for identity, observers in seen.items():
            if len(observers) > f and identity not in agreed and not self.is_behind(value, identity):
                self.fail(
                    "complete-f+1", f"{cell.instance}: a message that {len(observers)} honest members observed is out"
                )

    def is_behind(self, value: Value, identity: object) -> bool:
        record = next(r for r in RECORDS.values() if r.identity == identity)
        part = record.message.stream_part
        entry = next((e for e in value.outcome.entries if e.stream_part == part), None)
        inside = [RECORDS[leaf].order for leaf in value.leaves if RECORDS[leaf].message.stream_part == part]
        full = entry is not None and bool(entry.flags & 1)
        return full and all(order < record.order for order in inside)

    def check_variants(self, cell: Cell, value: Value) -> None:
        """Where honest brokers outnumber the liar at every honest member, the publisher's own record is kept."""
        if cell.instance.kind is InstanceKind.LATE:
            return
        ballot = self.ballot(cell)
        honest = [n for n in self.world.nodes.values() if n.address in ballot.committee - self.faulty]
        for leaf in value.leaves & FORGED:
            true = [r.leaf for r in RECORDS.values() if r.identity == IDENTITY[leaf] and r.leaf not in FORGED]
            frozen = self.frozen.get(cell.key, {})
            holders = [
                n
                for n in honest
                if true[0] in frozen.get(n.address, frozenset()) and n.disk.served.get(true[0], 0) >= 2
            ]
            if len(holders) > (len(ballot.committee) - 1) // 3:
                self.fail("variant-kept", f"{cell.instance}: a forged variant of what {len(holders)} members hold")

    def on_held(self, node: Node, cell: Cell, value: Value) -> None:
        """A member holds the outcome's data. stored-once over everything it holds."""
        instance = cell.key[1]
        if self.world.switches.late_under_window:
            instance = cell.instance
        known = self.outcomes.get(instance)
        if not self.is_void(cell):
            self.outcomes[instance] = value
            self.holders.setdefault(instance, set()).add(node.address)
        if known is not None and known.digest != value.digest and not self.world.scenario.reopen:
            self.fail("same-bundles", f"{instance}: members hold different outcomes")
        if instance.kind is InstanceKind.LATE and known is None:
            for other, earlier in self.outcomes.items():
                if other != instance:
                    twice = {IDENTITY[leaf] for leaf in earlier.leaves} & {IDENTITY[leaf] for leaf in value.leaves}
                    if twice:
                        self.fail("stored-once", f"{instance}: {len(twice)} messages are in {other} too")
        self.check_done()

    def is_void(self, cell: Cell) -> bool:
        return self.world.scenario.reopen and window_of(cell.instance) == 1 and cell.key[0] != self.world.new_digest

    # --- the end ---

    def honest_alive(self) -> set[Address]:
        if self.expected is None:
            gone = self.world.scenario.gone
            self.expected = {n.address for n in self.world.nodes.values() if n.index not in gone}
        return self.expected

    def check_done(self) -> None:
        alive = self.honest_alive()
        self.all_done = all(alive <= self.holders.get(i, set()) for i in self.world.instances)

    def at_end(self) -> None:
        world = self.world
        if not self.all_done:
            missing = {
                str(i): sorted(a[0] - 1 for a in self.honest_alive() - self.holders.get(i, set()))
                for i in world.instances
            }
            missing = {i: who for i, who in missing.items() if who}
            self.fail("decides", f"undecided or not held at the end: {missing} after {world.steps} steps")
        if world.scenario.windows == 2:
            self.check_late()

    def check_late(self) -> None:
        """complete-late: what one honest member obtained well before the last late set began is in exactly one set."""
        world = self.world
        last = late_instance(1)
        times = [at for met in world.met.values() for instance, at in met.items() if instance == last]
        starts = min(times, default=0)
        stored = [IDENTITY[leaf] for value in self.outcomes.values() for leaf in value.leaves]
        for leaf, at in self.obtained.items():
            soon = max(at, world.scenario.heal_ms)
            reached = at >= world.scenario.heal_ms and soon + 3 * world.scenario.bound_ms + 6_000 < starts
            if not reached or RECORDS[leaf].message.timestamp_ms >= end_of(1):
                continue
            count = stored.count(IDENTITY[leaf])
            behind = any(self.is_behind(v, IDENTITY[leaf]) for v in self.outcomes.values())
            if count != 1 and not (count == 0 and behind):
                self.fail("complete-late", f"a message obtained {starts - at} ms before is in {count} sets")


def quorum_bytes(q: VoteQuorum) -> int:
    return QUORUM_BYTES + len(q.signatures) * SIGNATURE_BYTES


def _above(newest: Mapping[Address, int], floor: int) -> dict[Address, int]:
    """Of rounds long past nothing is kept that could tell."""
    return {signer: round for signer, round in newest.items() if round >= floor}


def by(node: Node, s: Statement) -> str:
    return f"member {node.index}, {s.instance} round {s.round} {s.kind.name}"


def bytes_to_address(index: int) -> Address:
    return Address(bytes([index + 1]) * 20)
