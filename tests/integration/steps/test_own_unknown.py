"""Statements with our own signature that our journal lacks: a second machine with our key, or a restored copy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.fakes.small_network import Member, SmallNetwork
from validator.ports.peers import Gossip
from validator.ports.stored import StoredInstance
from validator.protocol.codec.certificate import build_quorum
from validator.protocol.codec.statement import sign_statement
from validator.protocol.hashing import hash_body
from validator.protocol.model import Digest, InstanceId, Statement, StatementKind, VoteQuorum

MakeNetwork = Callable[..., SmallNetwork]
Logs = list[MutableMapping[str, Any]]
PREVOTE, PRECOMMIT = StatementKind.PREVOTE, StatementKind.PRECOMMIT
ELSEWHERE = hash_body(b"what the other machine voted")


@pytest.fixture
def logs() -> Iterator[Logs]:
    with capture_logs() as captured:
        yield captured


@pytest.fixture
def network(a_network: MakeNetwork) -> SmallNetwork:
    """Two of four work: nothing is decided until the others wake. The leader of round 0 is among those that sleep."""
    made = a_network(4)
    made.run_until(0)
    for i in range(4):
        made.world.publish(i * 100, b'{"i":%d}' % i)
    for member in made.leaders(made.window())[:2]:
        member.idle = True
    return made


def victim_of(network: SmallNetwork) -> Member:
    return network.leaders(network.window())[2]


def statement_of(
    network: SmallNetwork, member: Member, kind: StatementKind, value: Digest = ELSEWHERE, round_: int = 0
) -> Statement:
    unsigned = Statement(kind, network.committee_digest(), network.window(), round_, value, member.address)
    return sign_statement(unsigned, member.key, member.context.identity.signing)


def quorum_with(network: SmallNetwork, member: Member, kind: StatementKind, round_: int = 0) -> VoteQuorum:
    others = [m for m in network.members if m is not member][:2]
    return build_quorum([statement_of(network, m, kind, round_=round_) for m in (member, *others)])


def stored_of(member: Member, instance: InstanceId) -> StoredInstance:
    stored = member.store.instances.load_instance(instance)
    assert stored is not None
    return stored


def alarms(logs: Logs) -> list[MutableMapping[str, Any]]:
    return [e for e in logs if e["event"] == "journal.unknown_statement" and e["log_level"] == "error"]


def has_voted(member: Member, instance: InstanceId) -> bool:
    stored = member.store.instances.load_instance(instance)
    return stored is not None and any(s.kind is PREVOTE for s in stored.own)


def is_open(member: Member, instance: InstanceId) -> bool:
    return member.store.instances.load_instance(instance) is not None


Forge = Callable[[SmallNetwork, Member], Gossip]


def a_prevote(network: SmallNetwork, victim: Member) -> Gossip:
    return Gossip(statements=(statement_of(network, victim, PREVOTE),))


def a_precommit_of_the_round(network: SmallNetwork, victim: Member) -> Gossip:
    return Gossip(statements=(statement_of(network, victim, PRECOMMIT),))


def another_observation(network: SmallNetwork, victim: Member) -> Gossip:
    return Gossip(statements=(statement_of(network, victim, StatementKind.OBSERVATION),))


def a_proposal(network: SmallNetwork, victim: Member) -> Gossip:
    return Gossip(statements=(statement_of(network, victim, StatementKind.PROPOSAL, round_=2),))


def a_vote_far_ahead(network: SmallNetwork, victim: Member) -> Gossip:
    return Gossip(statements=(statement_of(network, victim, PREVOTE, round_=50),))


def inside_a_proof(network: SmallNetwork, victim: Member) -> Gossip:
    return Gossip(quorums=(quorum_with(network, victim, PREVOTE),))


FORGED: list[Forge] = [
    a_prevote,
    a_precommit_of_the_round,
    another_observation,
    a_proposal,
    a_vote_far_ahead,
    inside_a_proof,
]


@pytest.mark.parametrize("forge", FORGED, ids=lambda f: f.__name__)
@pytest.mark.parametrize("when", [is_open, has_voted, None], ids=["opened", "voted", "unopened"])
def test_whoever_hears_its_own_unknown_words_raises_the_alarm_and_signs_nothing_more_in_that_instance(
    network: SmallNetwork, logs: Logs, forge: Forge, when: Callable[[Member, InstanceId], bool] | None
) -> None:
    instance, victim = network.window(), victim_of(network)
    teller = network.leaders(instance)[3]
    if when is None:
        network.run_until(1_000)
        assert not is_open(victim, instance)
    else:
        network.run(lambda: when(victim, instance))
    said = {s.content for s in stored_of(victim, instance).own} if when is not None else set()
    victim.service.receive(teller.address, forge(network, victim))
    assert alarms(logs)
    network.run_until(15_000)
    victim.restart()
    network.run_until(20_000)
    assert {s.content for s in stored_of(victim, instance).own} == said
    assert victim.rows("SELECT waits_for FROM rounds WHERE instance_kind = 1")[0][0].startswith("halted: ")


def test_the_others_decide_and_a_barred_member_follows_without_a_word(network: SmallNetwork) -> None:
    instance, victim = network.window(), victim_of(network)
    network.run(lambda: has_voted(victim, instance))
    said = stored_of(victim, instance).own
    victim.service.receive(network.leaders(instance)[3].address, a_precommit_of_the_round(network, victim))
    for member in network.members:
        member.idle = False
    network.run_to_held()
    assert stored_of(victim, instance).own == said


def test_what_is_told_on_being_asked_bars_too(network: SmallNetwork, logs: Logs) -> None:
    """The peer has the words of the other machine, yet has not opened the instance itself."""
    instance, victim = network.window(), victim_of(network)
    teller = network.leaders(instance)[0]
    assert teller.idle
    foreign = statement_of(network, victim, PREVOTE)
    teller.service.receive(victim.address, Gossip(statements=(foreign,)))
    assert not is_open(teller, instance)
    network.run_until(20_000)
    assert alarms(logs)
    assert stored_of(victim, instance).own == ()


def test_after_the_decision_the_alarm_is_raised_once(network: SmallNetwork, logs: Logs) -> None:
    instance, victim = network.window(), victim_of(network)
    for member in network.members:
        member.idle = False
    network.run_to_held()
    assert not alarms(logs)
    teller = network.leaders(instance)[3]
    own = stored_of(victim, instance).own
    victim.service.receive(teller.address, Gossip(statements=own))
    assert not alarms(logs)
    for gossip in (a_prevote(network, victim), a_prevote(network, victim)):
        victim.service.receive(teller.address, gossip)
    assert len(alarms(logs)) == 1
    victim.service.receive(teller.address, Gossip(quorums=(quorum_with(network, victim, PRECOMMIT, round_=4),)))
    assert len(alarms(logs)) == 2


def test_own_words_of_a_settled_instance_raise_no_alarm_when_the_journal_has_been_swept(
    network: SmallNetwork, logs: Logs
) -> None:
    instance, victim = network.window(), victim_of(network)
    for member in network.members:
        member.idle = False
    network.run_to_final()
    own = stored_of(victim, instance).own
    settled = victim.store.retention.last_settled(network.clock.now_ms() + 1)
    assert settled is not None
    victim.store.retention.prune_instances(settled, 64)
    assert len(stored_of(victim, instance).own) == 1 < len(own)
    victim.restart()
    victim.service.receive(network.leaders(instance)[3].address, Gossip(statements=own))
    assert not alarms(logs)
