"""What a member says that does not hold: a proposal, a set. It is refused with its reason, and the rest agrees."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from msgspec import structs
from structlog.testing import capture_logs

from tests.builders import a_key
from tests.fakes.small_network import Member, SmallNetwork
from tests.fakes.world import PART, STREAM
from tests.outcomes_in_memory import build_outcome
from validator.ports.peers import Gossip
from validator.protocol.codec.message import make_record
from validator.protocol.codec.outcome import decode_observation, encode_outcome, entries_root, set_root
from validator.protocol.codec.statement import sign_statement
from validator.protocol.columns import make_entry
from validator.protocol.consensus.proposal import Scope
from validator.protocol.consensus.window import Budget, unite
from validator.protocol.errors import TransientError
from validator.protocol.model import (
    NIL,
    Digest,
    EncryptionType,
    Flag,
    Outcome,
    Record,
    SignatureType,
    Statement,
    StatementKind,
    Store,
)
from validator.steps.scopes import scope_of

MakeNetwork = Callable[..., SmallNetwork]
Proposed = tuple[Outcome, list[Record]]
Logs = list[MutableMapping[str, Any]]


@pytest.fixture
def logs() -> Iterator[Logs]:
    with capture_logs() as captured:
        yield captured


@dataclass
class Stage:
    """Four validators at the cut-off of the first window; the first leader says what the test says."""

    network: SmallNetwork
    leader: Member
    honest: list[Member]
    records: list[Record] = field(default_factory=list)

    def scope(self) -> Scope:
        return scope_of(self.honest[0].context, self.network.window())

    def build(self, records: Sequence[Record] | None = None, scope: Scope | None = None) -> Proposed:
        """What an honest leader would propose, of these messages."""
        stored = self.honest[0].store.instances.load_instance(self.network.window())
        assert stored is not None
        told = [s for s in stored.statements if s.kind is StatementKind.OBSERVATION]
        observations = dict(_observation(self.honest[0], s) for s in told)
        outcome, kept = build_outcome(
            self.network.window(),
            scope or self.scope(),
            unite(self.records if records is None else records, {}),
            observations,
            4,
            self.network.network.sets[0],
        )
        return outcome, list(kept)

    def propose(self, outcome: Outcome, records: Sequence[Record]) -> None:
        body = encode_outcome(outcome)
        self.leader.store.instances.save_body(body)
        self.leader.store.sets.save_set(set_root(outcome.entries), records)
        digest = self.leader.store.instances.save_body(body)
        statement = Statement(
            StatementKind.PROPOSAL,
            self.network.committee_digest(),
            outcome.instance,
            0,
            digest,
            self.leader.address,
        )
        signed = sign_statement(statement, self.leader.key, self.leader.context.identity.signing)
        for member in self.honest:
            member.service.receive(self.leader.address, Gossip(statements=(signed,), bodies=(body,)))

    def prevotes(self) -> set[Digest]:
        """What the honest prevoted in the first round."""
        found = set()
        for member in self.honest:
            stored = member.store.instances.load_instance(self.network.window())
            assert stored is not None
            found |= {s.value for s in stored.own if s.kind is StatementKind.PREVOTE and s.round == 0}
        return found


def _observation(member: Member, statement: Statement) -> tuple[Digest, Any]:
    body = member.store.instances.load_body(statement.value)
    assert body is not None
    return statement.value, decode_observation(body)


def a_stage(network: SmallNetwork) -> Stage:
    """Messages published, observed by all but the leader, who sleeps; nobody has proposed."""
    network.run_until(0)
    leader = network.leaders(network.window())[0]
    leader.idle = True
    honest = [m for m in network.members if m is not leader]
    stage = Stage(network, leader, honest)
    stage.records = [network.world.publish(i * 100, b'{"i":%d}' % i) for i in range(4)]

    def observed() -> bool:
        rounds = [m.store.instances.load_instance(network.window()) for m in honest]
        return all(
            r is not None and len({s.signer for s in r.statements if s.kind is StatementKind.OBSERVATION}) == 3
            for r in rounds
        )

    network.run(observed)
    return stage


def wrong_price(stage: Stage) -> Proposed:
    outcome, records = stage.build()
    return replace(outcome, price=outcome.price + 1), records


def wrong_share(stage: Stage) -> Proposed:
    outcome, records = stage.build()
    first, *rest = outcome.shares
    return replace(outcome, shares=(replace(first, served=first.served - 1), *rest)), records


def wrong_flag(stage: Stage) -> Proposed:
    outcome, records = stage.build()
    entries = tuple(replace(e, flags=e.flags | Flag.INCOMPLETE) for e in outcome.entries)
    return replace(outcome, entries=entries, root=entries_root(entries)), records


def false_full_mark(stage: Stage) -> Proposed:
    outcome, records = stage.build()
    entries = tuple(replace(e, flags=e.flags | Flag.FULL) for e in outcome.entries)
    return replace(outcome, entries=entries, root=entries_root(entries)), records


def missing_message(stage: Stage) -> Proposed:
    return stage.build(stage.records[1:])


def foreign_block(stage: Stage) -> Proposed:
    outcome, records = stage.build()
    return replace(outcome, block_hash=Digest(b"\x13" * 32)), records


def partition_out_of_scope(stage: Stage) -> Proposed:
    outcome, records = stage.build()
    entries = tuple(sorted((*outcome.entries, make_entry(("zzz.eth/other", 0), [])), key=lambda e: e.stream_id))
    return replace(outcome, entries=entries, root=entries_root(entries)), records


def partition_left_out(stage: Stage) -> Proposed:
    outcome, _ = stage.build()
    entries = tuple(e for e in outcome.entries if e.stream_part != PART)
    return replace(outcome, entries=entries, root=entries_root(entries), shares=()), []


def message_of_another_window(stage: Stage) -> Proposed:
    return stage.build([*stage.records, stage.network.world.publish(2_500, b'{"next":1}', delays={})])


def message_of_nobody(stage: Stage) -> Proposed:
    """A signature that does not hold: the set cannot be obtained, and the outcome stays unjudged."""
    forged = structs.replace(stage.records[0].message, content=b'{"forged":1}')
    return stage.build([*stage.records, make_record(forged)])


def message_without_permission(stage: Stage) -> Proposed:
    stranger = stage.network.world.publish(300, b'{"stranger":1}', delays={}, key=a_key(666))
    return stage.build([*stage.records, stranger])


LIES: list[tuple[Callable[[Stage], Proposed], str]] = [
    (wrong_price, "price is not the median"),
    (wrong_share, "broker shares are not the medians"),
    (wrong_flag, "flag incomplete does not follow from the observations"),
    (false_full_mark, "any message would fit"),
    (missing_message, "lacks 1 observed messages"),
    (foreign_block, "block is not the one this validator reads"),
    (partition_out_of_scope, "entries are not the partitions in scope"),
    (partition_left_out, "entries are not the partitions in scope"),
    (message_of_another_window, "does not give its root"),
    (message_of_nobody, "does not give its root"),
    (message_without_permission, "does not give its root"),
]


@pytest.mark.parametrize(("lie", "reason"), LIES, ids=[lie.__name__ for lie, _ in LIES])
def test_a_lying_leader_is_refused_by_name_and_the_next_one_leads_to_the_true_window(
    a_network: MakeNetwork, logs: Logs, lie: Callable[[Stage], Proposed], reason: str
) -> None:
    network = a_network(4)
    stage = a_stage(network)
    stage.propose(*lie(stage))
    network.run_to_held()
    assert any(reason in entry.get("reason", "") for entry in logs)
    assert stage.prevotes() == {NIL}
    for member in stage.honest:
        assert member.held(network.window()) == stage.records


def test_more_than_the_chain_funds_is_refused(a_network: MakeNetwork, logs: Logs) -> None:
    network = a_network(4)
    parameters = network.network.sets[0]
    size = 250
    network.world.stores = (Store(STREAM, size * parameters.price_max * parameters.budget_windows >> 20, 1),)
    stage = a_stage(network)
    assert sum(r.signed_bytes for r in stage.records) > size
    generous = replace(stage.scope(), budgets=dict.fromkeys(stage.scope().budgets, Budget(1 << 20)))
    stage.propose(*stage.build(scope=generous))
    network.run_to_held()
    assert any("exceeds its budget" in entry.get("reason", "") for entry in logs)
    assert stage.prevotes() == {NIL}
    entry = next(e for e in stage.honest[0].outcome(network.window()).entries if e.stream_part == PART)
    assert Flag.FULL in entry.flags
    assert entry.signed_bytes <= size


def test_a_forged_variant_that_no_two_brokers_served_is_refused(a_network: MakeNetwork, logs: Logs) -> None:
    network = a_network(4)
    genuine = network.world.publish(50, b'{"evm":1}', signature_type=SignatureType.ECDSA_SECP256K1_EVM)
    variant = make_record(structs.replace(genuine.message, encryption_type=EncryptionType.AES, group_key_id="any"))
    assert variant.identity == genuine.identity
    stage = a_stage(network)
    outcome, records = stage.build([variant, *stage.records])
    stage.propose(outcome, records)
    network.run_to_held()
    assert any("holds a worse variant" in entry.get("reason", "") for entry in logs)
    for member in stage.honest:
        assert member.held(network.window()) == [*stage.records[:1], genuine, *stage.records[1:]]


def test_what_an_honest_leader_would_say_is_prevoted(a_network: MakeNetwork) -> None:
    """The stage itself is sound: else every lie would be refused for another reason."""
    network = a_network(4)
    stage = a_stage(network)
    outcome, records = stage.build()
    stage.propose(outcome, records)
    network.run_to_held()
    assert NIL not in stage.prevotes()


# --- sets -------------------------------------------------------------------------------------------


def forge_pages(member: Member) -> None:
    """It serves, in place of what was asked for, a message whose signature does not hold."""
    serve = member.service.messages

    def messages(sender: Any, root: Any, leaves: Any) -> list[bytes]:
        records = [r for r in member.store.sets.iterate(root) if r.leaf in set(leaves)]
        assert len(serve(sender, root, leaves)) == len(records)
        return [make_record(structs.replace(r.message, content=b"[]")).canonical for r in records]

    member.service.messages = messages  # type: ignore[method-assign,assignment]


def keep_silent(member: Member) -> None:
    def entries(sender: Any, root: Any) -> Any:
        raise TransientError("no answer")

    member.service.entries = entries  # type: ignore[method-assign,assignment]


@pytest.mark.parametrize("fault", [forge_pages, keep_silent])
def test_a_set_that_does_not_come_is_left_out_and_what_it_held_enters_through_the_late_set(
    a_network: MakeNetwork, fault: Callable[[Member], None]
) -> None:
    """One observer alone saw a message; until the window is agreed nobody gets it from there."""
    network = a_network(4, brokers=3)
    common = [network.world.publish(i * 100, b'{"i":%d}' % i) for i in range(3)]
    instance = network.window()
    network.run_until(0)
    lonely = network.leaders(instance)[2]
    alone = network.world.publish(700, b'{"alone":1}', delays={2: 0})
    for member in network.members:
        if member is not lonely:
            member.source.down.add(network.world.brokers[2])
    honest_service = lonely.service
    fault(lonely)
    network.run_to_held()
    for member in network.members:
        assert member.held(instance) == common
        member.source.down.clear()
    assert lonely.service is honest_service
    lonely.restart()
    network.run_to_final()
    for member in network.members:
        assert member.late() == [alone]
