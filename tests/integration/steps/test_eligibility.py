"""Who may not vote yet, or not now, follows all the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from tests.fakes.small_network import Member, SmallNetwork
from tests.fakes.world import GENESIS_MS, WINDOW_MS, some_parameters
from validator.protocol.model import InstanceId, InstanceKind
from validator.steps.context import Context
from validator.steps.eligibility import is_too_early, may_vote
from validator.steps.identity import Origin

MakeNetwork = Callable[..., SmallNetwork]
GENESIS_S = GENESIS_MS // 1000


def voted(member: Member) -> set[tuple[int, int]]:
    """(kind, number) of the instances in which a member has said anything."""
    return {(kind, number) for kind, number in member.rows("SELECT instance_kind, instance_number FROM journal")}


def window(number: int) -> InstanceId:
    return InstanceId(InstanceKind.WINDOW, GENESIS_MS + number * WINDOW_MS)


def begun(context: Context, created_s: int, config_count: int = 0) -> Context:
    return replace(context, identity=replace(context.identity, origin=Origin(created_s, config_count)))


def test_a_fresh_database_votes_from_the_first_window_after_the_wait_on(a_network: MakeNetwork) -> None:
    network = a_network(1, parameters=[some_parameters(epoch_windows=8, fresh_wait_windows=2)])
    context = begun(network.members[0].context, GENESIS_S + 1)
    assert [is_too_early(context, window(i)) for i in range(5)] == [True, True, True, False, False]
    context = begun(context, GENESIS_S + 2)
    assert [is_too_early(context, window(i)) for i in range(5)] == [True, True, True, False, False]
    context = begun(context, GENESIS_S + 2 * 2 + 1)
    assert [is_too_early(context, window(i)) for i in range(6)] == [True] * 5 + [False]


def test_without_a_wait_the_first_window_after_the_creation_counts(a_network: MakeNetwork) -> None:
    context = a_network(1).members[0].context
    assert not is_too_early(begun(context, GENESIS_S), window(0))
    assert is_too_early(begun(context, GENESIS_S + 1), window(0))
    assert not is_too_early(begun(context, GENESIS_S + 1), window(1))


def test_under_a_config_count_that_was_raised_later_nothing_was_said_before(a_network: MakeNetwork) -> None:
    context = a_network(1).members[0].context
    assert is_too_early(begun(context, GENESIS_S + 60, config_count=0), window(0))
    assert not is_too_early(begun(context, GENESIS_S + 60, config_count=-1), window(0))


def test_a_member_with_a_fresh_database_holds_everything_and_says_nothing(a_network: MakeNetwork) -> None:
    network = a_network(4)
    fresh = network.members[0]
    fresh.become(origin=Origin(GENESIS_S + 1, 0))
    network.world.publish(300, b"{}")
    network.run_to_held(1)
    network.run(lambda: all(m.is_final() for m in network.members[1:]))
    assert voted(fresh) == {(int(InstanceKind.WINDOW), window(1).number)}
    assert fresh.states().startswith("hh")
    assert all(len(voted(m)) == 3 for m in network.members[1:])


def test_the_late_set_of_a_bundle_counts_as_old_as_its_first_window(a_network: MakeNetwork) -> None:
    network = a_network(1)
    network.run_to_final()
    late = InstanceId(InstanceKind.LATE, 0)
    context = network.members[0].context
    assert not is_too_early(begun(context, GENESIS_S), late)
    assert is_too_early(begun(context, GENESIS_S + 1), late)


def test_what_is_in_the_way_silences_a_member_until_it_is_gone(a_network: MakeNetwork) -> None:
    network = a_network(4)
    full = network.members[0]
    reason = ["the disk"]
    full.become(voting_block=lambda: reason[0])
    network.run_to_held(0)
    assert voted(full) == set()
    reason[0] = ""
    network.run_to_final()
    assert (int(InstanceKind.LATE), 0) in voted(full)


def test_a_member_that_is_silenced_in_the_middle_of_an_instance_never_contradicts_itself(
    a_network: MakeNetwork,
) -> None:
    network = a_network(4)
    cut_off_ms = GENESIS_MS + WINDOW_MS + 1_000

    def silent(number: int) -> str:
        """One after the other, in the middle of the first instance."""
        return "off" if 20 * number <= network.clock.now_ms() - cut_off_ms < 20 * number + 400 else ""

    for member in network.members:
        member.become(voting_block=partial(silent, member.number))
    network.world.publish(300, b"{}")
    network.run_to_final()
    assert not any(m.rows("SELECT id FROM evidence") for m in network.members)


def test_an_observer_never_votes(a_network: MakeNetwork) -> None:
    member = a_network(1).members[0]
    assert may_vote(member.context, window(0))
    member.become(may_vote=False)
    assert not may_vote(member.context, window(0))
    member.become(may_vote=True, voting_key=None)
    assert not may_vote(member.context, window(0))
