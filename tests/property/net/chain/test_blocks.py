"""B(t) against a plain scan, on chains of any pace."""

from __future__ import annotations

from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from tests.fakes.rpc import FakeRpc
from validator.net.chain.blocks import Blocks


@given(
    gaps=st.lists(st.one_of(st.integers(0, 3), st.integers(0, 5_000)), min_size=1, max_size=80),
    asked=st.lists(st.integers(0, 20_000), min_size=1, max_size=12),
    data=st.data(),
)
def test_the_search_finds_what_a_scan_finds(gaps: list[int], asked: list[int], data: st.DataObject) -> None:
    times = list(accumulate(gaps, initial=1_000))
    final = data.draw(st.integers(0, len(times) - 1))
    chain = Blocks(FakeRpc(times, final), finality="finalized")  # type: ignore[arg-type]
    for t in asked:
        t = max(t, 1_000)
        expected = max(n for n, time in enumerate(times) if time <= t) if times[final] > t else None
        found = chain.fetch_block_at(t)
        assert (found.number if found else None) == expected
