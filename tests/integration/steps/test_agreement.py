"""InstanceState where somebody is behind, away, or sees what others do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from msgspec import structs

from tests.builders import a_key
from tests.fakes.small_network import SmallNetwork
from tests.fakes.world import some_parameters
from validator.protocol.codec.message import make_record
from validator.protocol.codec.signatures import sign_message
from validator.protocol.errors import TransientError
from validator.protocol.model import Flag, InstanceId, Message, Record, SignatureType
from validator.protocol.parameters import ParameterSet
from validator.steps.advance import advance

MakeNetwork = Callable[..., SmallNetwork]


def publish_ten(network: SmallNetwork) -> list[Record]:
    return [network.world.publish(i * 390, b'{"i":%d}' % i) for i in range(10)]


def test_a_worker_that_was_overtaken_saves_nothing_and_the_instance_goes_on(a_network: MakeNetwork) -> None:
    """Between a worker's look and its vote another worker of the same validator votes."""
    network = a_network(4)
    records = publish_ten(network)
    member, instance = network.members[1], network.window()
    slow = member.context
    other = member.another_context()
    real = slow.store.instances
    overtaken = []

    class Overtaken:
        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def load_instance(self, wanted: InstanceId) -> Any:
            stored = real.load_instance(wanted)
            if wanted == instance and stored is not None and stored.certificate is None:
                result = advance(other, instance)
                again = real.load_instance(instance)
                if again is not None and again.version != stored.version:
                    overtaken.append(result.name)
            return stored

    rooms = ("due", "windows", "sets", "archive", "bundles", "reports", "chain", "retention")
    store: Any = SimpleNamespace(instances=Overtaken(), **{room: getattr(slow.store, room) for room in rooms})
    member.context = replace(slow, store=store)
    network.run_to_held()
    assert overtaken
    assert any(r.name == "overtaken" for r in network.log if r.member == 1)
    for m in network.members:
        assert m.held(instance) == records[:6]
        assert m.rows("SELECT count(*) FROM evidence") == [(0,)]


@pytest.mark.parametrize("until", ["agreed", "verified", "final"])
def test_who_was_away_gets_certificates_bodies_and_sets_from_its_peers(a_network: MakeNetwork, until: str) -> None:
    network = a_network(4)
    records = publish_ten(network)
    network.run_until(0)
    # The one that is away leads first: without it the window takes a second round.
    away = network.leaders(network.window())[0]
    away.away = True
    others = [m for m in network.members if m is not away]
    if until == "agreed":
        network.run_to_held(1)
    elif until == "verified":
        network.run(lambda: any(m.states().endswith("verified") for m in others))
    else:
        network.run_to_final()
    # Brokers have forgotten: what it holds in the end is from peers alone.
    network.world.brokers_down.update(network.world.brokers)
    away.away = False
    network.run_to_final()
    assert away.windows() == records
    assert away.rows("SELECT state FROM windows") == [("held",), ("held",)]
    assert len(network.world.paid()) == 1


def test_fewer_than_a_quorum_agree_on_nothing_and_lose_nothing(a_network: MakeNetwork) -> None:
    network = a_network(4)
    records = publish_ten(network)
    network.members[2].away = network.members[3].away = True
    network.run_until(15_000)
    for member in network.members[:2]:
        assert member.states() == "cc|"
    network.members[2].away = network.members[3].away = False
    network.run_to_final()
    for member in network.members:
        assert member.windows() == records


# --- late ---------------------------------------------------------------------------------------------


def test_what_one_broker_gets_after_the_cut_off_ends_in_exactly_one_late_set(a_network: MakeNetwork) -> None:
    """Two bundles of one window each; the message is in the reach of both."""
    network = a_network(4, parameters=two_bundles())
    network.world.publish(100, b'{"first":1}')
    late = network.world.publish(700, b'{"late":1}', delays={1: 2_600})
    network.world.publish(2_500, b'{"second":1}')
    network.run_to_final(bundles=2)
    for member in network.members:
        assert [late] in (member.late(0), member.late(1))
        assert len(member.late(0)) + len(member.late(1)) == 1


def test_a_variant_of_a_stored_message_that_comes_late_is_not_stored_again(a_network: MakeNetwork) -> None:
    network = a_network(parameters=two_bundles())
    record = network.world.publish(100, b'{"i":1}', signature_type=SignatureType.ECDSA_SECP256K1_EVM)
    variant: Message = structs.replace(
        record.message, group_key_id="any", encryption_type=type(record.message.encryption_type)(1)
    )
    assert make_record(variant).identity == record.identity
    network.world.deliver(variant, {1: 3_200})
    network.run_to_final(bundles=2)
    member = network.members[0]
    assert member.windows() == [record]
    assert (member.late(0), member.late(1)) == ([], [])
    assert member.rows("SELECT count(*) FROM late_candidates") == [(0,)]


def test_a_window_that_no_broker_answers_is_agreed_as_incomplete_and_its_messages_come_late(
    a_network: MakeNetwork,
) -> None:
    network = a_network(4)
    records = publish_ten(network)
    network.run_until(2_000)
    network.world.brokers_down.update(network.world.brokers)
    network.run_to_held()
    network.world.brokers_down.clear()
    network.run_to_final()
    for member in network.members:
        assert all(Flag.INCOMPLETE in e.flags for e in member.outcome(network.window(0)).entries)
        assert not any(Flag.INCOMPLETE in e.flags for e in member.outcome(network.window(1)).entries)
        assert member.held(network.window(0)) == []
        assert member.late() == records[:6]


def test_one_validator_without_brokers_does_not_make_the_window_incomplete(a_network: MakeNetwork) -> None:
    network = a_network(4)
    records = publish_ten(network)
    network.members[0].source.down.update(network.world.brokers)
    network.run_to_held()
    assert network.members[0].held(network.window()) == records[:6]
    assert not any(e.flags for e in network.members[0].outcome(network.window()).entries)


# --- contract signatures --------------------------------------------------------------------------------


WALLET = a_key(31).address
"""A contract; the key that signs for it is another's."""


def a_contract_message(network: SmallNetwork) -> Message:
    unsigned = network.world.publish(200, b'{"contract":1}', delays={}).message
    network.world.publishers.add((unsigned.stream_id, WALLET))
    return sign_message(
        a_key(32), structs.replace(unsigned, signature_type=SignatureType.ERC_1271, publisher_id=WALLET)
    )


@pytest.mark.parametrize(("believers", "included"), [(0, False), (1, False), (2, True), (3, True), (4, True)])
def test_a_contract_signature_is_in_the_window_exactly_if_one_honest_observer_must_have_found_it_valid(
    a_network: MakeNetwork, believers: int, included: bool
) -> None:
    network = a_network(4)
    plain = network.world.publish(100, b'{"plain":1}')
    message = a_contract_message(network)
    network.world.deliver(message, {0: 0, 1: 0})
    for i, member in enumerate(network.members):
        member.chain.signature_answer = i < believers
    network.run_to_held(limit_s=20)
    contract = make_record(message)
    for member in network.members:
        assert member.held(network.window()) == ([plain, contract] if included else [plain])
    network.run(lambda: all(m.states().endswith("|sealed") for m in network.members), limit_s=20)


def test_a_contract_that_sources_disagree_about_keeps_no_other_message_out(a_network: MakeNetwork) -> None:
    network = a_network(1)
    plain = network.world.publish(100, b'{"plain":1}')
    network.world.deliver(a_contract_message(network), {0: 0, 1: 0})
    (member,) = network.members

    def divided(*_arguments: object) -> bool:
        raise TransientError("not yet: RPC sources disagree on eth_call", reason="disagreement")

    member.chain.fetch_is_valid_signature = divided  # type: ignore[method-assign,assignment]
    network.run_to_held(limit_s=20)
    assert member.held(network.window()) == [plain]
    assert member.rows("SELECT DISTINCT reason FROM rejections") == [("erc1271_unknown",)]


def test_a_contract_signature_that_comes_late_is_in_the_late_set(a_network: MakeNetwork) -> None:
    network = a_network(4)
    message = a_contract_message(network)
    network.world.valid_for.add((WALLET, make_record(message).signed_digest))
    network.world.deliver(message, {0: 4_200, 1: 4_200})
    network.run(lambda: all(m.states().endswith("|sealed") for m in network.members), limit_s=20)
    for member in network.members:
        assert member.late() == [make_record(message)]


def two_bundles() -> list[ParameterSet]:
    """Of one window each; the pull at the first one's horizon lies before the second one's end."""
    return [some_parameters(bundle_windows=1, horizon_ms=2_000)]
