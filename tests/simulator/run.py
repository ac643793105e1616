"""Run seeds and sum up."""

from __future__ import annotations

from dataclasses import dataclass

from tests.simulator.node import Switches
from tests.simulator.scenario import Scenario, draw
from tests.simulator.world import World


@dataclass(frozen=True, slots=True)
class Result:
    """One seed's run."""

    seed: int
    validators: int
    steps: int
    packets: int
    crashes: int
    faulty: int
    barred: int
    evidence: int
    violations: tuple[str, ...]
    trace: tuple[str, ...] = ()


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
    counts = world.monitor.counts
    return Result(
        seed,
        len(scenario.committees[0]),
        world.steps,
        world.packets,
        world.crashed,
        len(scenario.faulty),
        counts["barred"],
        counts["evidence"],
        tuple(world.monitor.violations),
        tuple(world.trace or ()),
    )
