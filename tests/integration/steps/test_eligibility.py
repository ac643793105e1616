"""Who may not vote yet, or not now, follows all the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from tests.fakes.small_network import Member, SmallNetwork
from tests.fakes.world import GENESIS_MS, WINDOW_MS, some_parameters
from validator.durations import show_span
from validator.protocol.model import Address, ChainState, InstanceId, InstanceKind
from validator.protocol.quorum import choose_committee
from validator.steps.context import Context
from validator.steps.eligibility import is_too_early, may_vote
from validator.steps.identity import Origin
from validator.steps.seat import describe_seat, find_seat, load_newest_state

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


def committee_of(network: SmallNetwork) -> tuple[Address, ...]:
    epoch = network.world.network.epoch(0)
    assert epoch is not None
    nodes = network.world.nodes_at(network.world.head().number)
    return choose_committee(nodes, epoch.parameters.committee_limit)


def test_an_observer_has_all_that_members_agree_on_and_asks_no_broker(a_network: MakeNetwork) -> None:
    network = a_network(5, parameters=[some_parameters(committee_limit=4)])
    (observer,) = [m for m in network.members if m.address not in committee_of(network)]
    observer.become(may_vote=False, voting_key=None)
    asked: list[object] = []
    observer.source.stream_window = lambda *a, **k: asked.append((a, k)) or []  # type: ignore[method-assign, func-returns-value]
    network.world.publish(300, b"{}")
    network.run(lambda: observer.states().partition("|")[2].startswith("verified"))
    other = next(m for m in network.members if m is not observer)
    assert observer.held(window(0)) == other.held(window(0)) != []
    assert asked == []
    assert observer.rows("SELECT * FROM journal") == []
    assert observer.address in other.service.followers()
    assert other.address not in other.service.followers()


def test_who_has_no_seat_yet_reads_when_it_joins(a_network: MakeNetwork) -> None:
    network = a_network(2, parameters=[some_parameters(committee_limit=1, epoch_windows=4, last=False)])
    member, other = network.members
    if member.address not in committee_of(network):
        member, other = other, member
    network.run_until(1_000)
    now_ms = network.clock.now_ms()

    def read(who: Member, newest: ChainState | None, *, observer: bool = False) -> str:
        seat = find_seat(who.context, who.address, newest, observer=observer)
        return describe_seat(seat, now_ms)

    newest = load_newest_state(member.context)
    assert newest is not None
    assert read(member, newest) == "votes in epoch 0, 1 member, quorum 1"
    full = "has no seat in epoch 0, 1 member, quorum 1: 1 node has more stake, and a committee has no more seats"
    assert read(other, newest) == full
    richer = replace(
        newest, nodes=tuple(replace(n, stake=n.stake + (n.address == other.address)) for n in newest.nodes)
    )
    span = show_span(GENESIS_MS + 4 * WINDOW_MS - now_ms)
    assert read(other, richer) == f"joins with epoch 1, in {span}; epoch 0, 1 member, quorum 1"
    assert read(member, richer).endswith(f"; leaves with epoch 1, in {span}")
    gone = replace(newest, nodes=tuple(n for n in newest.nodes if n.address != other.address))
    assert read(other, gone).endswith("it is no staked node: members do not answer it")
    assert read(other, gone, observer=True).startswith("observes and signs nothing (LOGSTORE_OBSERVER); epoch 0")
