"""What comparing two sets costs: bytes, round trips and seconds, against sending all ids.

Two sides in one process exchange the messages of a session at the network's frame limit. ``spread``: the differing
records lie anywhere in time, half of them on each side; ``run``: one side lacks a stretch of time, as after an outage.
Building and one range's fingerprint are timed at growing sizes: the first grows as sorting does, the second must not.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from validator.protocol.consensus.reconcile import FRAME_LIMIT, ID_BYTES, Records, answer, initiate, reconcile

OK = 0
SIZES = (10_000, 100_000, 1_000_000)
DIFFERENCES = (0, 100, 1_000, 10_000)
SPAN_MS = 3_600_000
Item = tuple[int, bytes]


@dataclass(frozen=True, slots=True)
class Session:
    """What one comparison moved, both ways, and took, both sides."""

    moved: int
    rounds: int
    seconds: float


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks reconcile", description=__doc__)
    parser.add_argument("--records", type=int, default=200_000, help="records of each side (default 200000)")
    parser.add_argument("--seed", type=int, default=7)
    options = parser.parse_args(arguments)
    rng = random.Random(options.seed)
    print(f"{'records':>10}  {'build s':>8}  {'us per fingerprint of half of them':>34}")
    for size in SIZES:
        items = make_items(rng, size)
        seconds, records = timed(lambda items=items: Records(items))  # type: ignore[misc]
        print(f"{size:10,}  {seconds:8.2f}  {time_fingerprint(records, rng) * 1e6:34.2f}")
    common = make_items(rng, options.records)
    all_ids = ID_BYTES * options.records
    print(f"\n{options.records:,} records; all ids: {all_ids:,} B; frames of {FRAME_LIMIT:,} B")
    print(f"{'differences':>11}  {'where':>6}  {'bytes':>10}  {'of all ids':>10}  {'round trips':>11}  {'CPU s':>6}")
    for count in DIFFERENCES:
        for where, (ours, theirs) in {
            "spread": spread(common, rng, count),
            "run": run(common, rng, count),
        }.items():
            session = compare(Records(ours), Records(theirs), set(ours) - set(theirs), set(theirs) - set(ours))
            print(
                f"{count:11,}  {where:>6}  {session.moved:10,}  {session.moved / all_ids:10.2%}"
                f"  {session.rounds:11}  {session.seconds:6.3f}"
            )
    return OK


def make_items(rng: random.Random, count: int) -> list[Item]:
    return [(rng.randrange(SPAN_MS), rng.randbytes(ID_BYTES)) for _ in range(count)]


def spread(common: Sequence[Item], rng: random.Random, count: int) -> tuple[list[Item], list[Item]]:
    """Half of the differences on each side, anywhere."""
    extra = make_items(rng, count)
    return [*common, *extra[: count // 2]], [*common, *extra[count // 2 :]]


def run(common: Sequence[Item], rng: random.Random, count: int) -> tuple[list[Item], list[Item]]:
    """The first side lacks a stretch of time."""
    ordered = sorted(common)
    start = rng.randrange(len(ordered) - count)
    return ordered[:start] + ordered[start + count :], ordered


def compare(ours: Records, theirs: Records, have: set[Item], need: set[Item]) -> Session:
    """Raises AssertionError where the session finds anything but the differences."""
    began = time.process_time()
    message: bytes | None = initiate(ours)
    moved = rounds = 0
    found_have: set[bytes] = set()
    found_need: set[bytes] = set()
    while message is not None:
        reply = answer(theirs, message)
        moved += len(message) + len(reply)
        rounds += 1
        message, only_ours, only_theirs = reconcile(ours, reply)
        found_have.update(only_ours)
        found_need.update(only_theirs)
    seconds = time.process_time() - began
    assert found_have == {item[1] for item in have}
    assert found_need == {item[1] for item in need}
    return Session(moved, rounds, seconds)


def timed(call: Callable[[], Records]) -> tuple[float, Records]:
    began = time.process_time()
    result = call()
    return time.process_time() - began, result


def time_fingerprint(records: Records, rng: random.Random, calls: int = 2000) -> float:
    """Seconds of CPU for the fingerprint of a range of half of the records."""
    half = len(records) // 2
    starts = [rng.randrange(half) for _ in range(calls)]
    began = time.process_time()
    for start in starts:
        records.compute_fingerprint(start, start + half)
    return (time.process_time() - began) / calls
