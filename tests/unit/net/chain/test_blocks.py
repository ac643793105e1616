"""B(t): the highest block at or before a time, known only once a later final block exists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.fakes.rpc import FakeRpc
from validator.net.chain.blocks import Blocks
from validator.net.chain.jsonrpc import Request
from validator.protocol.errors import RemoteFault, TransientError


def blocks(times: list[int], *, final: int | None = None, finality: str = "finalized") -> tuple[Blocks, FakeRpc]:
    rpc = FakeRpc(times, len(times) - 1 if final is None else final)
    return Blocks(rpc, finality=finality), rpc  # type: ignore[arg-type]


def test_a_block_at_the_very_second_counts_and_one_after_does_not() -> None:
    chain, _ = blocks([100, 102, 104, 106])
    found = [chain.fetch_block_at(t) for t in (100, 101, 102, 103, 104, 105)]
    assert [b.number if b else None for b in found] == [0, 0, 1, 1, 2, 2]


def test_without_a_later_final_block_the_answer_is_not_yet() -> None:
    chain, rpc = blocks([100, 102, 104, 106], final=2)
    assert chain.fetch_block_at(104) is None
    assert chain.fetch_block_at(500) is None
    assert chain.fetch_block_at(103) is not None
    rpc.final = 3
    found = chain.fetch_block_at(104)
    assert found is not None
    assert found.number == 2


def test_of_blocks_with_one_timestamp_the_highest_is_taken() -> None:
    chain, _ = blocks([100, 105, 105, 105, 105, 106])
    found = chain.fetch_block_at(105)
    assert found is not None
    assert found.number == 4


def test_finality_can_be_a_number_of_blocks() -> None:
    chain, _ = blocks([100, 102, 104, 106, 108], finality="2")
    assert chain.fetch_finalised().number == 2
    assert chain.fetch_block_at(104) is None
    found = chain.fetch_block_at(103)
    assert found is not None
    assert found.number == 1


def test_a_time_before_the_chain_is_a_fault_and_not_a_wait() -> None:
    chain, _ = blocks([100, 102])
    with pytest.raises(RemoteFault, match="no block at or before 99"):
        chain.fetch_block_at(99)


def test_a_long_chain_with_an_outage_is_searched_in_few_reads() -> None:
    times = [2 * i for i in range(50_000)] + [200_000 + 2 * i for i in range(50_000)]
    chain, rpc = blocks(times)
    for t in (5, 40_001, 99_998, 99_999, 150_000, 199_999, 200_000, 299_997):
        rpc.reads = 0
        found = chain.fetch_block_at(t)
        assert found is not None
        assert times[found.number] <= t < times[found.number + 1]
        assert rpc.reads <= 40
    rpc.reads = 0
    chain.fetch_block_at(299_997)
    assert rpc.reads == 2  # what was found once is only compared again


def test_final_blocks_that_the_chain_has_replaced_are_forgotten() -> None:
    chain, rpc = blocks([100 + 2 * i for i in range(40)], finality="2")
    before = [chain.fetch_block_at(t) for t in (110, 150, 170)]
    rpc.branch.update(dict.fromkeys(range(20, 40), b"another"))
    after = [chain.fetch_block_at(t) for t in (110, 150, 170)]
    assert [b.number for b in before if b] == [b.number for b in after if b] == [5, 25, 35]
    assert [b == a for b, a in zip(before, after, strict=True)] == [True, False, False]
    assert after == [blocks_of(rpc).fetch_block_at(t) for t in (110, 150, 170)]


def blocks_of(rpc: FakeRpc) -> Blocks:
    """Of a process that begins now."""
    return Blocks(rpc, finality="2")  # type: ignore[arg-type]


def test_a_chain_that_changes_in_every_look_has_no_cut_point_yet() -> None:
    chain, rpc = blocks([100 + 2 * i for i in range(40)], finality="2")
    chain.fetch_block_at(150)
    true_agree, calls = rpc.agree, iter(range(1_000))

    def restless(requests: Sequence[Request[Any]]) -> list[Any]:
        rpc.branch.update(dict.fromkeys(range(40), b"%d" % next(calls)))
        return true_agree(requests)

    rpc.agree = restless  # type: ignore[method-assign]
    with pytest.raises(TransientError, match="changes while"):
        chain.fetch_block_at(150)


def test_a_tag_that_goes_back_takes_no_cut_point_away() -> None:
    chain, rpc = blocks([100 + 2 * i for i in range(40)], final=30)
    assert chain.fetch_block_at(155) is not None
    rpc.final = 10
    assert chain.fetch_finalised().number == 10
    assert chain.fetch_block_at(157) is not None
    assert chain.finalised_number == 30
