"""Limits of any size, found with few refusals."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from validator.net.http.pacing import STREAK, Allowance


def ask(allowance: Allowance, limit: int) -> bool:
    """One portion at a source that takes ``limit``; whether it was refused."""
    size = allowance.size
    if size <= limit:
        allowance.taken(size)
        return False
    allowance.refused(size)
    return True


@given(most=st.integers(1, 5_000), data=st.data())
def test_a_limit_is_found_whatever_it_is_and_refusals_are_few(most: int, data: st.DataObject) -> None:
    limit = data.draw(st.integers(1, 2 * most))
    allowance = Allowance(most, now=lambda: 0.0)
    refusals = [ask(allowance, limit) for _ in range(STREAK * 40)]
    assert allowance.size == min(limit, most)
    assert refusals.count(True) <= 2 * most.bit_length()
    assert not any(refusals[-STREAK * 10 :])


@given(limits=st.lists(st.integers(1, 60), min_size=1, max_size=6), most=st.integers(1, 50))
def test_a_limit_that_changes_is_followed(limits: list[int], most: int) -> None:
    at = 0.0
    allowance = Allowance(most, forget_s=100, now=lambda: at)
    for limit in limits:
        for _ in range(STREAK * 40):
            at += 1
            ask(allowance, limit)
            assert 1 <= allowance.size <= most
        for _ in range(STREAK + 1):
            at += 200
            ask(allowance, limit)
        for _ in range(STREAK * 40):
            ask(allowance, limit)
        assert allowance.size == min(limit, most)


@given(most=st.integers(1, 5_000), amount=st.integers(1, 10_000), proven=st.integers(0, 5_000))
def test_after_a_refusal_less_is_tried(most: int, amount: int, proven: int) -> None:
    allowance = Allowance(most)
    if proven:
        allowance.taken(proven)
    assert 1 <= allowance.after_refusal(amount) < max(amount, 2)
