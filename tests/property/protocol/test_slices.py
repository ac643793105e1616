"""Any set of messages: sums do not depend on arrival, differ where sets do, and are comparable between any ranges."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from validator.protocol.codec.heartbeat import Heartbeat, parse_heartbeat, write_heartbeat
from validator.protocol.model import Root
from validator.protocol.slices import (
    BLOCK_MS,
    HOUR_MS,
    LEVELS_MS,
    SLICE_MS,
    Sum,
    cut,
    empty_total,
    sum_messages,
    sum_parts,
    sum_spans,
)

slice_numbers = st.integers(0, 3 * HOUR_MS // SLICE_MS)
roots = st.binary(min_size=32, max_size=32).map(Root)


@given(numbers=st.tuples(slice_numbers, slice_numbers))
def test_a_range_is_covered_once_by_nodes_that_lie_where_their_length_says(numbers: tuple[int, int]) -> None:
    from_ms, until_ms = (number * SLICE_MS for number in sorted(numbers))
    nodes = cut(from_ms, until_ms)
    at = from_ms
    for start, length in nodes:
        assert start == at
        assert length in LEVELS_MS
        assert start % length == 0
        at += length
    assert at == until_ms
    whole_hours = max(0, until_ms // HOUR_MS - -(-from_ms // HOUR_MS))
    assert len(nodes) <= whole_hours + 2 * 12 + 2 * 30


def total(held: dict[int, Sum], from_ms: int, until_ms: int) -> Sum:
    below = [
        held.get(start, empty_total(start, start + length))
        if length == SLICE_MS
        else total(held, start, start + length)
        for start, length in cut(from_ms, until_ms)
    ]
    return sum_spans(from_ms, until_ms - from_ms, below)


slice_sets = st.dictionaries(st.integers(0, 2 * BLOCK_MS // SLICE_MS), st.integers(1, 3), max_size=8)


@given(first=slice_sets, second=slice_sets)
@settings(max_examples=200)
def test_totals_are_equal_exactly_where_the_slices_are(first: dict[int, int], second: dict[int, int]) -> None:
    def sums(held: dict[int, int]) -> dict[int, Sum]:
        leaf = b"\x07" * 32
        return {
            n * SLICE_MS: sum_parts(n * SLICE_MS, [sum_messages(("s", 0), [leaf] * count)]) for n, count in held.items()
        }

    span = (0, 3 * BLOCK_MS)
    assert (total(sums(first), *span) == total(sums(second), *span)) == (first == second)


@given(
    sizes=st.lists(st.tuples(st.sampled_from(["a", "b", "é"]), st.integers(0, 2), st.integers(0, 5)), max_size=9),
    data=st.data(),
)
def test_the_order_of_partitions_and_empty_ones_change_nothing(
    sizes: list[tuple[str, int, int]], data: st.DataObject
) -> None:
    parts = {(stream, number): sum_messages((stream, number), [b"\1" * 32] * count) for stream, number, count in sizes}
    shuffled = data.draw(st.permutations(list(parts.values())))
    assert sum_parts(0, shuffled) == sum_parts(0, [p for p in parts.values() if p.count])


@given(
    urls=st.lists(st.from_regex(r"https?://[a-z0-9.:/\[\]-]{1,40}", fullmatch=True), max_size=4),
    bundle=st.none() | st.tuples(st.integers(0, (1 << 63) - 1), roots),
    bounds=st.tuples(st.integers(0, 1 << 40), st.integers(0, 10_000), st.integers(0, 60)),
    counts=st.tuples(st.integers(0, (1 << 63) - 1), st.integers(0, (1 << 63) - 1)),
    root=roots,
    junk=st.tuples(st.integers(0, 10_000), st.integers(0, 255)),
)
def test_a_heartbeat_comes_back_as_it_was_and_one_byte_more_or_other_is_another_or_none(
    urls: list[str],
    bundle: tuple[int, Root] | None,
    bounds: tuple[int, int, int],
    counts: tuple[int, int],
    root: Root,
    junk: tuple[int, int],
) -> None:
    start, kept, recent = (number * SLICE_MS for number in bounds)
    heartbeat = Heartbeat(
        tuple(urls), bundle, Sum(start + kept, recent, counts[0], root), Sum(start, kept, counts[1], root)
    )
    content = write_heartbeat(heartbeat)
    assert parse_heartbeat(content) == heartbeat
    at, byte = junk[0] % len(content), junk[1]
    other = content[:at] + bytes([byte]) + content[at + 1 :]
    assert (parse_heartbeat(other) == heartbeat) == (other == content)
    assert parse_heartbeat(content[:at] + bytes([byte]) + content[at:]) != heartbeat
