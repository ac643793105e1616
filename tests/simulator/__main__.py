"""python -m tests.simulator: run seeds, or look for planted bugs. Exit status 1 if anything is wrong."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

from tests.simulator.caught import SEED, all_sites, load_record, save_record, waived
from tests.simulator.hunt import GROUND, catch, search
from tests.simulator.mutations import CAUGHT_BY_TEST, MUTATIONS
from tests.simulator.run import Result, Totals, find_seed, message_delays, run_seed
from tests.simulator.sites import MODULES, Site, planted


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description=__doc__)
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds (default %(default)s)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="first seed (default %(default)s)")
    parser.add_argument("--validators", type=int, metavar="N", help="committee size 1 to 13 (default: drawn by seed)")
    parser.add_argument("--plain", action="store_true", help="one window and its late set, 5 %% loss, no other fault")
    parser.add_argument(
        "--mutations",
        nargs="*",
        metavar="NAME",
        help="planted bugs instead: those of this name, those at every place of this module of the core (default: all)",
    )
    parser.add_argument(
        "--record", action="store_true", help="with --mutations: search for what notices places anew, and note it"
    )
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
        return plant(options.mutations, seeds, options.validators, options.json, record=options.record)
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
        "members_halted": totals.halted,
        "evidence_kept": totals.evidence,
        "bytes_moved": totals.moved_bytes,
        "most_bytes_held": totals.held_bytes,
        "cpu_seconds": round(spent_s, 1),
        "seeds_per_second": round(totals.seeds / max(spent_s, 0.001), 1),
    }


def plant(names: list[str], seeds: range, validators: int | None, target: Path | None, *, record: bool) -> int:
    """Each planted bug with what catches it: the first seed, or the test in which it is planted or that is recorded."""
    unknown = set(names) - {m.name for m in MUTATIONS} - set(MODULES)
    if unknown:
        print(f"unknown mutation: {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    modules = [module for module in MODULES if not names or module in names]
    found: dict[str, dict[str, Any]] = {}
    if record:
        record_places(modules, seeds)
    missed = search_seeds(names, seeds, validators, found) if not record else False
    missed = check_places(modules, found) or missed
    if target:
        target.write_text(json.dumps(found, indent=2) + "\n")
    return 1 if missed else 0


def search_seeds(names: list[str], seeds: range, validators: int | None, found: dict[str, dict[str, Any]]) -> bool:
    """Planted bugs that have names, by the first seed that catches each. Whether one was missed."""
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
    return any(entry.get("seed", 0) is None for entry in found.values())


def check_places(modules: list[str], found: dict[str, dict[str, Any]]) -> bool:
    """Every place of the core with what is recorded for it: it must fail with the mistake. Whether one did not."""
    record, reasons = load_record(), waived()
    places = all_sites(modules)
    named = {site: name for site in places if (name := record.get(site.name)) is not None}
    by_test = [(site, name) for site, name in named.items() if not name.startswith(SEED)]
    noticed = {site: fails for site, _, fails in catch(by_test)} if by_test else {}
    for site, name in named.items():
        if name.startswith(SEED):
            with planted(site):
                noticed[site] = bool(run_seed(int(name.removeprefix(SEED))).violations)
    missed = open_ = listed = 0
    for site in places:
        reason, name = reasons.get(site.name), named.get(site, "")
        found[site.name] = {"caught_by": f"nothing: {reason}" if reason else name}
        if reason:
            listed += 1
        elif site.name in record and not name:
            open_ += 1
            print(f"{'open':>6}  {site.name}")
        elif not noticed.get(site, False):
            missed += 1
            print(f"{'MISSED':>6}  {site.name}  ({name or 'nothing recorded'})", flush=True)
    print(
        f"{len(places)} places in {', '.join(modules)}: {len(named) - missed} noticed by what is recorded, "
        f"{listed} by nothing and for a reason, {open_} open, {missed} missed"
    )
    return bool(missed)


def record_places(modules: list[str], seeds: range) -> None:
    """The fastest test, else the lowest seed, for each place that has none or whose has gone blind."""
    record, reasons = load_record(), waived()
    places = [site for site in all_sites(modules) if site.name not in reasons]
    by_test = [(s, name) for s in places if (name := record.get(s.name)) and not name.startswith(SEED)]
    try:
        blind = {site for site, _, fails in catch(by_test) if not fails} if by_test else set()
    except LookupError:
        blind = {site for site, _ in by_test}  # a test that is named is no longer there
    open_ = [site for site in places if site in blind or not record.get(site.name)]

    def note(site: Site, test: str | None) -> None:
        print(f"{site.name}: {test or 'no test'}", flush=True)

    for site, test in (search(open_, GROUND, note) if open_ else {}).items():
        record[site.name] = test
        if test is None:
            with planted(site):
                seed = next((seed for seed in seeds if run_seed(seed).violations), None)
            record[site.name] = None if seed is None else f"{SEED}{seed}"
            note(site, record[site.name])
    known = {site.name for site in all_sites()} - reasons.keys()
    save_record({name: test for name, test in record.items() if name in known})


if __name__ == "__main__":
    sys.exit(main())
