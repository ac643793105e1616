"""A member that shows every other member other observations: nobody's proposal may fail for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.fakes.small_network import Member, SmallNetwork
from validator.ports.peers import Gossip
from validator.ports.queue import StepResult
from validator.protocol.codec.outcome import decode_observation, decode_outcome, encode_observation, encode_outcome
from validator.protocol.codec.statement import sign_statement
from validator.protocol.errors import TransientError
from validator.protocol.hashing import hash_body, hash_object
from validator.protocol.model import (
    NIL,
    Address,
    Digest,
    InstanceId,
    InstanceKind,
    Observation,
    Statement,
    StatementKind,
)
from validator.steps.obtain import obtain

MakeNetwork = Callable[..., SmallNetwork]
OBSERVATION = StatementKind.OBSERVATION
LATE = InstanceId(InstanceKind.LATE, 0)


def is_open(member: Member, instance: InstanceId) -> bool:
    return member.store.instances.load_instance(instance) is not None


def own_observation(member: Member, instance: InstanceId) -> Observation:
    """What it froze: a liar says nearly the same."""
    if instance.kind is InstanceKind.WINDOW:
        window = member.store.windows.load_window(instance.number)
        digest = window.observation if window is not None else None
    else:
        digest = member.store.windows.load_late_observation(instance.number)
    assert digest is not None
    body = member.store.instances.load_body(digest)
    assert body is not None
    return decode_observation(body)


def signed(liar: Member, observation: Observation, config: Digest) -> tuple[Statement, bytes]:
    body = encode_observation(observation)
    statement = Statement(OBSERVATION, config, observation.instance, 0, hash_object(body), liar.address)
    return sign_statement(statement, liar.key, liar.context.identity.signing), body


def split(network: SmallNetwork, liar: Member, instance: InstanceId, per_receiver: int) -> None:
    """Everybody else hears ``per_receiver`` observations that no other hears."""
    others = [m for m in network.members if m is not liar and not m.away]
    true = own_observation(others[0], instance)
    number = 0
    for member in others:
        for _ in range(per_receiver):
            number += 1
            one = replace(true, observer=liar.address, count=true.count + number)
            statement, body = signed(liar, one, network.committee_digest())
            member.service.receive(liar.address, Gossip(statements=(statement,), bodies=(body,)))


@pytest.mark.parametrize("per_receiver", [1, 2, 5])
@pytest.mark.parametrize("seat", [0, 3], ids=["leads first", "leads last"])
def test_a_member_that_signs_other_observations_for_every_receiver_does_not_hold_a_window_up(
    a_network: MakeNetwork, per_receiver: int, seat: int
) -> None:
    network = a_network(4)
    network.run_until(0)
    instance = network.window()
    records = [network.world.publish(i * 100, b'{"i":%d}' % i) for i in range(4)]
    liar = network.leaders(instance)[seat]
    liar.idle = True
    honest = [m for m in network.members if m is not liar]
    network.run(lambda: all(is_open(m, instance) for m in honest))
    split(network, liar, instance, per_receiver)
    network.run_to_held()
    for member in honest:
        assert member.held(instance) == records
        certificate = member.store.instances.load_certificate(instance)
        assert certificate is not None
        assert certificate.round <= 1


@pytest.mark.parametrize("per_receiver", [1, 2])
def test_nor_a_late_set(a_network: MakeNetwork, per_receiver: int) -> None:
    network = a_network(4, brokers=3)
    network.world.publish(100, b'{"i":1}')
    late = network.world.publish(700, b'{"late":1}', delays={2: 3_500})
    network.run_until(0)
    liar = network.members[0]
    honest = network.members[1:]
    network.run(lambda: all(m.states().startswith("hh") for m in network.members))
    liar.idle = True
    network.run(lambda: all(is_open(m, LATE) for m in honest))
    split(network, liar, LATE, per_receiver)
    network.run(lambda: all(m.states().endswith("|sealed") for m in honest), limit_s=40)
    assert [m.late() for m in honest] == [[late]] * 3


def test_a_leader_that_needs_the_observation_of_such_a_member_names_one_and_the_others_fetch_it(
    a_network: MakeNetwork,
) -> None:
    """One honest member is away, so a quorum is possible with the liar's observation only."""
    network = a_network(4)
    network.run_until(0)
    instance = network.window()
    records = [network.world.publish(i * 100, b'{"i":%d}' % i) for i in range(4)]
    away, liar, *honest = reversed(network.leaders(instance))
    away.away = liar.idle = True
    network.run(lambda: all(is_open(m, instance) for m in honest))
    split(network, liar, instance, 2)

    def liar_votes_for_what_is_proven() -> bool:
        """It signs what two honest members have prevoted, so that with it there is a quorum."""
        for member in honest:
            stored = member.store.instances.load_instance(instance)
            assert stored is not None
            for s in stored.own:
                if s.kind in (StatementKind.PREVOTE, StatementKind.PRECOMMIT) and s.value != NIL:
                    vote = sign_statement(replace(s, signer=liar.address), liar.key, liar.context.identity.signing)
                    for other in honest:
                        other.service.receive(liar.address, Gossip(statements=(vote,)))
        return all(m.store.instances.load_certificate(instance) is not None for m in honest)

    network.run(liar_votes_for_what_is_proven)
    for member in honest:
        outcome = member.outcome(instance)
        assert member.held(instance) == records
        named = member.store.instances.load_observations(instance, network.committee_digest(), outcome.observations)
        assert liar.address in {s.signer for s in named}
        assert {s.value for s in named} == set(outcome.observations)


def test_an_observation_whose_body_was_withheld_is_fetched_by_the_leader(a_network: MakeNetwork) -> None:
    """Somebody passed the statement on without the body, and its signer's own message got lost."""
    network = a_network(4)
    network.run_until(0)
    instance = network.window()
    for i in range(4):
        network.world.publish(i * 100, b'{"i":%d}' % i)
    leader, teller, silent, idle = network.leaders(instance)
    leader.idle = idle.idle = True
    network.run(lambda: is_open(silent, instance) and bool(own_statements(silent, instance)))
    receive = leader.service.receive

    def lossy(sender: Address, gossip: Gossip) -> None:
        if sender != silent.address:
            receive(sender, gossip)

    leader.service.receive = lossy  # type: ignore[method-assign]
    receive(teller.address, Gossip(statements=own_statements(silent, instance)))
    leader.idle = False
    network.run(lambda: all(m.store.instances.load_certificate(instance) for m in (leader, teller, silent)), limit_s=3)
    assert silent.address in observers(leader, network, instance)


def own_statements(member: Member, instance: InstanceId) -> tuple[Statement, ...]:
    stored = member.store.instances.load_instance(instance)
    assert stored is not None
    return tuple(s for s in stored.own if s.kind is OBSERVATION)


def observers(member: Member, network: SmallNetwork, instance: InstanceId) -> set[Address]:
    named = member.outcome(instance).observations
    return {s.signer for s in member.store.instances.load_observations(instance, network.committee_digest(), named)}


@pytest.fixture
def decided(a_network: MakeNetwork) -> SmallNetwork:
    network = a_network(4)
    network.world.publish(100, b'{"i":1}')
    network.run_to_held()
    return network


def propose(network: SmallNetwork, leader: Member, observations: tuple[Digest, ...]) -> str:
    """The key under which another member obtains an outcome that names these observations."""
    outcome = decode_outcome(encode_outcome(replace(leader.outcome(network.window()), observations=observations)))
    digest = leader.store.instances.save_body(encode_outcome(outcome))
    return f"{network.window()}/value/{digest.hex()}/{leader.address.hex()}"


def test_no_more_observations_are_fetched_than_there_are_members(decided: SmallNetwork) -> None:
    leader, other = decided.members[:2]
    many = tuple(sorted(Digest(hash_body(b"%d" % i)) for i in range(1_000)))
    asked = []

    def observations(*arguments: object) -> Gossip:
        asked.append(arguments)
        raise TransientError("none")

    leader.service.observations = observations  # type: ignore[method-assign,assignment]
    assert obtain(other.context, propose(decided, leader, many)).name == "already here"
    assert not asked
    obtain(other.context, propose(decided, leader, many[:4]))
    assert len(asked) == 1


def test_what_is_told_of_an_observation_is_kept_only_if_its_observer_signed_it(decided: SmallNetwork) -> None:
    leader, other, third = decided.members[:3]
    config, instance = decided.committee_digest(), decided.window()
    true = own_observation(third, instance)
    strange = replace(true, observer=third.address, count=true.count + 9)
    by_another = signed(leader, strange, config)
    unsigned = (replace(by_another[0], signer=third.address), by_another[1])
    digest = by_another[0].value

    def ask(told: tuple[Statement, bytes]) -> StepResult:
        def observations(*arguments: object) -> Gossip:
            return Gossip(statements=(told[0],), bodies=(told[1],))

        leader.service.observations = observations  # type: ignore[method-assign,assignment]
        return obtain(other.context, f"{instance}/observation/{digest.hex()}/{leader.address.hex()}")

    for told in (by_another, unsigned):
        assert ask(told).name == "not yet"
        assert other.store.instances.load_observations(instance, config, [digest]) == []
    genuine = signed(third, strange, config)
    assert ask(genuine).name == "obtained"
    assert other.store.instances.load_observations(instance, config, [digest]) == [genuine[0]]
