"""Run seeds and sum up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tests.simulator.mutations import Mutation
from tests.simulator.node import Switches
from tests.simulator.scenario import Scenario, draw, steady
from tests.simulator.world import World


@dataclass(frozen=True, slots=True)
class Result:
    """One seed's run. ``faults``: how many of each kind were injected."""

    seed: int
    validators: int
    steps: int
    packets: int
    faults: dict[str, int]
    halted: int
    evidence: int
    violations: tuple[str, ...]
    trace: tuple[str, ...] = ()
    moved_bytes: int = 0
    held_bytes: int = 0
    """Of statements, quorums and summaries: sent by honest members; the most that one held of one instance."""
    waits_ms: tuple[int, ...] = ()
    """Per decision and member, from the value's first proposal by an honest leader."""


def run_seed(
    seed: int,
    validators: int | None = None,
    *,
    plain: bool = False,
    switches: Switches | None = None,
    trace: bool = False,
    scenario: Scenario | None = None,
) -> Result:
    """One run, the same every time."""
    scenario = scenario or draw(seed, validators, plain=plain)
    world = World(scenario, switches or Switches(), trace=trace)
    world.run()
    faults = {
        "packets_lost": world.lost,
        "packets_repeated": world.repeated,
        "members_cut_off": len(world.isolated),
        "crashes": world.crashed,
        "stale_workers": world.stale,
        "statements_of_liars": world.lies,
        "liars": len(scenario.liars),
        "members_gone": len(scenario.gone),
        "disks_lost": len(scenario.disk_lost),
        "old_copies": len(scenario.old_copy),
        "words_of_twins": world.twin_words,
        "absences": world.absences,
        "met_in_rows": world.met_in_rows,
        "observations_split": world.liars.apart,
    }
    counts = world.monitor.counts
    return Result(
        seed,
        len(scenario.committees[0]),
        world.steps,
        world.packets,
        faults,
        counts["halted"],
        counts["evidence"],
        tuple(world.monitor.violations),
        tuple(world.trace or ()),
        world.monitor.moved_bytes,
        world.monitor.most_held_bytes,
        tuple(world.monitor.waits_ms),
    )


def message_delays(validators: int, delay_ms: int = 100) -> tuple[float, ...]:
    """How many message delays after its proposal each decision of each member came, where nothing goes wrong."""
    result = run_seed(0, scenario=steady(validators, delay_ms))
    assert not result.violations, result.violations
    assert len(result.waits_ms) == 2 * validators
    return tuple(waited / delay_ms for waited in result.waits_ms)


@dataclass(slots=True)
class Totals:
    """Sums over many seeds."""

    seeds: int = 0
    steps: int = 0
    packets: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    halted: int = 0
    evidence: int = 0
    moved_bytes: int = 0
    held_bytes: int = 0
    failed: list[Result] = field(default_factory=list)

    def add(self, result: Result) -> None:
        self.seeds += 1
        self.steps += result.steps
        self.packets += result.packets
        self.halted += result.halted
        self.evidence += result.evidence
        self.moved_bytes += result.moved_bytes
        self.held_bytes = max(self.held_bytes, result.held_bytes)
        for name, count in result.faults.items():
            self.faults[name] = self.faults.get(name, 0) + count
        if result.violations:
            self.failed.append(result)


def run_seeds(seeds: Iterable[int], validators: int | None = None, *, plain: bool = False) -> Totals:
    totals = Totals()
    for seed in seeds:
        totals.add(run_seed(seed, validators, plain=plain))
    return totals


def find_seed(mutation: Mutation, seeds: Iterable[int], validators: int | None = None) -> Result | None:
    """The first seed that catches a planted bug; one that makes the core raise is caught too."""
    for seed in seeds:
        result = run_mutated(mutation, seed, validators)
        if result.violations:
            return result
    return None


def run_mutated(mutation: Mutation, seed: int, validators: int | None = None) -> Result:
    with mutation.applied():
        return run_seed(seed, validators, switches=mutation.switches())
