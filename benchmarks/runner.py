"""Run cases in turn, compare them within each round, print one table."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Case = Callable[[int], float]
"""Handles slice number n and returns the seconds it took."""


@dataclass(frozen=True, slots=True)
class Result:
    """Seconds per slice of one case, round by round."""

    name: str
    seconds: tuple[float, ...]
    items: int

    @property
    def best_us(self) -> float:
        """Microseconds per item in the fastest round: speed without contention."""
        return min(self.seconds) / self.items * 1e6

    @property
    def median_us(self) -> float:
        return statistics.median(self.seconds) / self.items * 1e6


def run_in_turn(cases: Mapping[str, Case], *, rounds: int, items: int) -> dict[str, Result]:
    """Every case once per round, in reversed order every other round. ``items`` is the size of a slice."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds):
        names = list(cases) if number % 2 == 0 else list(reversed(list(cases)))
        for name in names:
            seconds[name].append(cases[name](number))
    return {name: Result(name, tuple(taken), items) for name, taken in seconds.items()}


def ratio(of: Result, to: Result) -> float:
    """How many times faster ``of`` is than ``to``: the median of the ratios within one round."""
    return statistics.median(there / here for here, there in zip(of.seconds, to.seconds, strict=True))


def print_table(results: Sequence[Result], against: Result) -> None:
    width = max(len(result.name) for result in results)
    print(f"{'case':{width}}  {'us best':>8}  {'median':>8}  {'per s':>9}  {against.name} = 1")
    for result in results:
        rate = 1e6 / result.best_us
        print(
            f"{result.name:{width}}  {result.best_us:8.2f}  {result.median_us:8.2f}  {rate:9,.0f}"
            f"  {ratio(result, against):.2f}"
        )
