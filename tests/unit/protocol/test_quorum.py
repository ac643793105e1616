from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from validator.protocol.model import Address, Node
from validator.protocol.quorum import choose_committee, faulty, one_honest, quorum


@pytest.mark.parametrize(
    ("n", "f", "enough", "honest"),
    [(1, 0, 1, 1), (2, 0, 2, 1), (3, 0, 3, 1), (4, 1, 3, 2), (6, 1, 5, 2), (7, 2, 5, 3), (13, 4, 9, 5)],
)
def test_small_committees_have_the_known_sizes(n: int, f: int, enough: int, honest: int) -> None:
    assert (faulty(n), quorum(n), one_honest(n)) == (f, enough, honest)


def test_nobody_agrees_on_nothing() -> None:
    assert (faulty(0), quorum(0)) == (0, 1)


def test_two_quorums_share_an_honest_member_in_every_committee() -> None:
    for n in range(1, 200):
        assert 2 * quorum(n) - n >= one_honest(n)


def test_the_honest_members_alone_are_a_quorum() -> None:
    for n in range(1, 200):
        assert n - faulty(n) >= quorum(n)


def test_of_f_plus_one_honest_observers_one_is_in_the_first_polka() -> None:
    """Whatever the number of actual faults: a polka holds n - 2f honest members at least."""
    for n in range(1, 101):
        for actual in range(faulty(n) + 1):
            honest = n - actual
            in_polka = quorum(n) - actual
            assert in_polka + one_honest(n) > honest


# --- the committee --------------------------------------------------------------------------------


def a_node(number: int, stake: int = 1, url: str | None = "https://v") -> Node:
    return Node(Address(number.to_bytes(20, "big")), stake, None, url)


def test_the_committee_is_those_who_offer_themselves_by_stake_then_address() -> None:
    nodes = [a_node(1, 5), a_node(2, 9), a_node(3, 7, None), a_node(4, 5), a_node(5, 4)]
    members = [int.from_bytes(member, "big") for member in choose_committee(nodes, 3)]
    assert members == [1, 2, 4], "the two with most stake, of equals the lower address, and nobody without a URL"
    assert choose_committee(nodes, 32) == tuple(node.address for node in nodes if node.validator_url)
    assert choose_committee([a_node(1, 5, None)], 3) == ()


@given(st.lists(st.integers(0, 2), max_size=40), st.integers(1, 32), st.randoms())
def test_the_order_in_which_nodes_are_read_changes_no_committee(stakes: list[int], limit: int, order: Random) -> None:
    nodes = [a_node(i + 1, stake, "https://v" if i % 3 else None) for i, stake in enumerate(stakes)]
    chosen = choose_committee(nodes, limit)
    order.shuffle(nodes)
    assert choose_committee(nodes, limit) == chosen == tuple(sorted(chosen))
    assert len(chosen) == min(limit, sum(node.validator_url is not None for node in nodes))
    left_out = [node for node in nodes if node.validator_url and node.address not in chosen]
    assert all(a.stake >= b.stake for a in nodes if a.address in chosen for b in left_out)
