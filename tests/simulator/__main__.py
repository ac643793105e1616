"""python -m tests.simulator: run seeds, or look for planted bugs. Exit status 1 if anything is wrong."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from tests.simulator.mutations import CAUGHT_BY_TEST, MUTATIONS
from tests.simulator.run import Result, Totals, find_seed, message_delays, run_seed


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds (default %(default)s)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="first seed (default %(default)s)")
    parser.add_argument("--validators", type=int, metavar="N", help="committee size 1 to 13 (default: drawn by seed)")
    parser.add_argument("--plain", action="store_true", help="one window and its late set, 5 %% loss, no other fault")
    parser.add_argument("--mutations", nargs="*", metavar="NAME", help="search planted bugs (default: all) instead")
    parser.add_argument("--delays", action="store_true", help="message delays from proposal to decision, by size")
    parser.add_argument("--trace", action="store_true", help="print what every member says, also where all is well")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write totals to FILE")
    options = parser.parse_args(arguments)
    if options.validators is not None and not 1 <= options.validators <= 13:
        parser.error("--validators must be 1 to 13")
    if options.seeds < 1 or options.first < 0:
        parser.error("--seeds must be at least 1, --first at least 0")
    if options.delays:
        for n in [options.validators] if options.validators else range(1, 14):
            delays = message_delays(n)
            print(f"{n:2} validators: {min(delays):g} to {max(delays):g} message delays from proposal to decision")
        return 0
    seeds = range(options.first, options.first + options.seeds)
    if options.mutations is not None:
        return search(options.mutations, seeds, options.validators, options.json)
    totals, began = Totals(), time.process_time()
    for seed in seeds:
        result = run_seed(seed, options.validators, plain=options.plain, trace=options.trace)
        totals.add(result)
        if result.violations or options.trace:
            show(result, options.validators, options.plain)
    spent = time.process_time() - began
    report = summarise(totals, spent)
    for name, value in report.items():
        print(f"{name:20} {value}")
    if options.json:
        options.json.write_text(json.dumps(report, indent=2) + "\n")
    return 1 if totals.failed else 0


def show(result: Result, validators: int | None, plain: bool) -> None:
    """The run again with its trace: it is the same run."""
    if not result.trace:
        result = run_seed(result.seed, validators, plain=plain, trace=True)
    print("\n".join(result.trace))
    size = "" if validators is None else f" --validators {validators}"
    verdict = "; ".join(result.violations) or "all invariants hold"
    print(f"seed {result.seed}, {result.validators} validators: {verdict}")
    print(f"replay: python -m tests.simulator --first {result.seed} --seeds 1 --trace{size}{' --plain' * plain}\n")


def summarise(totals: Totals, spent_s: float) -> dict[str, Any]:
    return {
        "seeds": totals.seeds,
        "violations": len(totals.failed),
        "failed_seeds": [r.seed for r in totals.failed],
        "steps": totals.steps,
        "packets": totals.packets,
        **totals.faults,
        "members_barred": totals.barred,
        "evidence_kept": totals.evidence,
        "bytes_moved": totals.moved_bytes,
        "most_bytes_held": totals.held_bytes,
        "cpu_seconds": round(spent_s, 1),
        "seeds_per_second": round(totals.seeds / max(spent_s, 0.001), 1),
    }


def search(names: list[str], seeds: range, validators: int | None, target: Path | None) -> int:
    """Each planted bug with the first seed that catches it, or the test in which it is planted."""
    unknown = set(names) - {m.name for m in MUTATIONS}
    if unknown:
        print(f"unknown mutation: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    found: dict[str, dict[str, Any]] = {}
    for mutation in MUTATIONS:
        if names and mutation.name not in names:
            continue
        result = find_seed(mutation, seeds, validators)
        violation = "" if result is None else result.violations[0]
        found[mutation.name] = {"seed": None if result is None else result.seed, "violation": violation}
        print(f"{mutation.name:24} {'missed' if result is None else result.seed:>6}  {violation}", flush=True)
    if not names:
        for name, test in CAUGHT_BY_TEST.items():
            found[name] = {"test": test}
            print(f"{name:24} {'test':>6}  {test}")
    if target:
        target.write_text(json.dumps(found, indent=2) + "\n")
    return 1 if any(entry.get("seed", 0) is None for entry in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
