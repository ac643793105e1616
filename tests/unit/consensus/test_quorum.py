from __future__ import annotations

import pytest

from validator.consensus.quorum import faulty, one_honest, quorum


@pytest.mark.parametrize(
    ("n", "f", "enough", "honest"), [(1, 0, 1, 1), (2, 0, 2, 1), (3, 0, 3, 1), (4, 1, 3, 2), (6, 1, 5, 2), (7, 2, 5, 3)]
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


def test_of_f_plus_one_honest_observers_one_is_in_the_first_proof() -> None:
    """Whatever the number of actual faults: a proof holds n - 2f honest members at least."""
    for n in range(1, 101):
        for actual in range(faulty(n) + 1):
            honest = n - actual
            in_proof = quorum(n) - actual
            assert in_proof + one_honest(n) > honest
