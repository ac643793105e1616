"""Late messages where scope or permission changes between the blocks: everybody judges by the same ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.builders import a_key
from tests.fakes.small_network import SmallNetwork
from tests.fakes.world import GENESIS_MS, STREAM, some_parameters
from validator.protocol.model import Block, InstanceId, InstanceKind, Record, Store

MakeNetwork = Callable[..., SmallNetwork]
OTHER = a_key(9_777)
OWN_S = GENESIS_MS // 1000 - 4
"""Time of ``B`` of the first window; that of the bundle's last window lies two seconds later."""
FUNDED = 10**15


def by_first_window(block: Block) -> bool:
    return block.timestamp_s <= OWN_S


def by_last_window(block: Block) -> bool:
    return block.timestamp_s > OWN_S


def later_only(block: Block) -> bool:
    """Not before the bundle's last block, and not by it."""
    return block.timestamp_s > OWN_S + 2


def always(_block: Block) -> bool:
    return True


def never(_block: Block) -> bool:
    return False


def sealed(network: SmallNetwork) -> Callable[[], bool]:
    return lambda: all(
        m.states().split("|")[1].split(",")[0] in ("sealed", "verified", "final") for m in network.members
    )


def a_late_message(network: SmallNetwork, holders: int, **fields: object) -> Record:
    """It reaches one broker after the cut-off, and ``holders`` of the validators reach that broker."""
    late = network.world.publish(700, b'{"late":1}', delays={2: 3_500}, key=OTHER, **fields)
    for member in network.members[holders:]:
        member.source.down.add(network.world.brokers[2])
    return late


@pytest.mark.parametrize("holders", [1, 2, 3])
@pytest.mark.parametrize(
    ("permitted", "stored"),
    [(always, True), (by_first_window, True), (by_last_window, True), (later_only, False), (never, False)],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_permission_counts_by_the_messages_own_window_or_by_the_bundles_last_whoever_holds_it(
    a_network: MakeNetwork, permitted: Callable[[Block], bool], stored: bool, holders: int
) -> None:
    network = a_network(4, brokers=3)
    publishers = network.world.publishers
    network.world.permits = lambda stream, who, block: (
        permitted(block) if who == OTHER.address else (stream, who) in publishers
    )
    network.world.publish(100, b'{"i":1}')
    late = a_late_message(network, holders)
    network.run(sealed(network), limit_s=40)
    assert [m.late() for m in network.members] == [[late] if stored else []] * 4


@pytest.mark.parametrize("holders", [1, 2, 3])
@pytest.mark.parametrize(
    ("stores", "partition", "stored"),
    [
        (lambda block: 1 if by_last_window(block) else 0, 0, True),
        (lambda block: 1 if by_first_window(block) else 0, 0, False),
        (lambda block: 3 if by_first_window(block) else 1, 2, True),
        (lambda block: 3 if by_last_window(block) else 1, 2, True),
        (lambda block: 3 if later_only(block) else 1, 2, False),
    ],
    ids=["funded between", "unfunded between", "partition gone", "partition added", "partition added too late"],
)
def test_a_stream_whose_scope_changes_between_the_blocks_holds_nobody_up(
    a_network: MakeNetwork, stores: Callable[[Block], int], partition: int, stored: bool, holders: int
) -> None:
    """What the balance at the bundle's block does not pay for at all is not stored; nobody waits for it either."""
    network = a_network(4, brokers=3)
    stream = "changing.eth/data"
    network.world.publishers.add((stream, OTHER.address))
    network.world.stores_at = lambda block: (
        Store(STREAM, FUNDED, 1),
        *(Store(stream, FUNDED, n) for n in [stores(block)] if n),
    )
    network.world.publish(100, b'{"i":1}')
    late = a_late_message(network, holders, stream_id=stream, partition=partition)
    network.run(sealed(network), limit_s=40)
    assert [m.late() for m in network.members] == [[late] if stored else []] * 4


def test_what_is_refused_now_and_permitted_later_is_read_again_at_the_horizon(a_network: MakeNetwork) -> None:
    """One window per bundle. The first late set is done when permission begins; the broker has nothing new to tell."""
    network = a_network(parameters=[some_parameters(bundle_windows=1, epoch_windows=8, horizon_ms=6_000)], brokers=3)
    publishers = network.world.publishers
    network.world.permits = lambda stream, who, block: (
        block.timestamp_s >= OWN_S + 6 if who == OTHER.address else (stream, who) in publishers
    )
    late = a_late_message(network, 1)
    member = network.members[0]
    network.run(lambda: member.states().split("|")[1].count("sealed") + member.states().count("verified") >= 2)
    assert member.rows("SELECT count(*) FROM late_candidates") == [(0,)]
    found: list[Record] = []

    def stored() -> bool:
        for number in range(8):
            if member.store.instances.load_certificate(InstanceId(InstanceKind.LATE, number)) is not None:
                found[:] = member.late(number)
                if found:
                    return True
        return False

    network.run(stored, limit_s=60)
    assert found == [late]


# --- budgets ----------------------------------------------------------------------------------------


def a_budget(network: SmallNetwork, limit: int) -> None:
    """Balance that buys about so many bytes per window."""
    parameters = network.network.sets[0]
    network.world.stores = (Store(STREAM, limit * parameters.price_max * parameters.budget_windows >> 20, 1),)


@pytest.mark.parametrize("seat", range(4))
def test_a_large_message_that_one_member_has_does_not_keep_the_others_from_accepting_that_theirs_was_cut(
    a_network: MakeNetwork, seat: int
) -> None:
    """All but one see a message that fits; the one has an earlier one that does not. Nobody is at fault."""
    network = a_network(4, brokers=3)
    a_budget(network, 400)
    network.run_until(0)
    lonely = network.leaders(network.window())[seat]
    large = network.world.publish(100, b'{"large":"%s"}' % (b"x" * 600), delays={2: 0})
    small = network.world.publish(500, b'{"small":1}')
    assert large.signed_bytes > 400 > small.signed_bytes
    for member in network.members:
        if member is not lonely:
            member.source.down.add(network.world.brokers[2])
    network.run_to_held(limit_s=20)
    network.run(sealed(network), limit_s=40)


def test_a_late_message_that_its_stream_cannot_pay_for_holds_no_late_set_up(a_network: MakeNetwork) -> None:
    network = a_network(4, brokers=3)
    a_budget(network, 400)
    first = network.world.publish(100, b'{"i":1}')
    network.world.publish(700, b'{"large":"%s"}' % (b"x" * 600), delays={2: 3_500})
    network.run(sealed(network), limit_s=40)
    for member in network.members:
        assert member.held(network.window()) == [first]
        assert member.late() == []
