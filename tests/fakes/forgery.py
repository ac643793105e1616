"""Forgeries of a finished run: what is changed, and which claim of the independent check must fail in which words."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tests.builders import GENESIS_MS
from tests.fakes.finished_run import (
    FinishedRun,
    Plan,
    Published,
    a_plan,
    finish,
    late,
    replace_entries,
    window_of,
)
from tests.verifier.check import check_run
from tests.verifier.claims import Claim
from tests.verifier.findings import Findings
from validator.protocol.model import Address, InstanceId, InstanceKind, Manifest, Outcome, PartitionEntry
from validator.protocol.report import NodeLine, Report

ChangePlan = Callable[[Plan], None]
ChangeRun = Callable[[FinishedRun], None]


def nothing(_: Any) -> None:
    """As planned."""


@dataclass(frozen=True)
class Forgery:
    """``plan`` changes what happens, ``run`` what is found afterwards."""

    name: str
    claim: Claim
    words: str
    plan: ChangePlan = nothing
    run: ChangeRun = nothing
    start: Callable[[], Plan] = a_plan

    def is_caught(self, folder: Path) -> bool:
        """By the claim that is there for it, whatever other claims fail too."""
        plan = self.start()
        self.plan(plan)
        findings = findings_of(folder, plan, self.run)
        named = [failure for failure in findings.failures if failure.startswith(f"{self.claim}: ")]
        return any(self.words in failure for failure in named)


def findings_of(folder: Path, plan: Plan, change_run: ChangeRun = nothing) -> Findings:
    run = finish(folder, plan)
    change_run(run)
    return check_run(*run.parts)


def both(*changes: Callable[[Any], None]) -> Callable[[Any], None]:
    def apply(subject: Any) -> None:
        for change in changes:
            change(subject)

    return apply


# --- plans ----------------------------------------------------------------------------------------


def in_outcomes(change: Callable[[Outcome], Outcome], *instances: InstanceId) -> ChangePlan:
    """Outcomes that were agreed and certified otherwise; all windows unless named."""

    def apply(plan: Plan) -> None:
        def forge(outcome: Outcome) -> Outcome:
            named = outcome.instance in instances if instances else outcome.instance.kind is InstanceKind.WINDOW
            return change(outcome) if named else outcome

        plan.outcome = forge

    return apply


def in_entries(change: Callable[[PartitionEntry], PartitionEntry | None], *instances: InstanceId) -> ChangePlan:
    """The same for every entry; None leaves it out."""

    def forge(outcome: Outcome) -> Outcome:
        changed = [change(entry) for entry in outcome.entries]
        return replace_entries(outcome, [entry for entry in changed if entry is not None])

    return in_outcomes(forge, *instances)


def in_report(number: int, change: Callable[[Report], Report]) -> ChangePlan:
    def apply(plan: Plan) -> None:
        plan.report = lambda report: change(report) if report.number == number else report

    return apply


def in_manifest(number: int, change: Callable[[Manifest], Manifest]) -> ChangePlan:
    def apply(plan: Plan) -> None:
        plan.manifest = lambda manifest: change(manifest) if manifest.header.number == number else manifest

    return apply


def shift(report: Report, node: Address, amount: int) -> Report:
    """Let a node have more, and the treasury less: amounts still add up."""
    lines = {line.node: line for line in report.nodes}
    old = lines.get(node, NodeLine(max([*(line.index for line in report.nodes), 50]) + 1, node, 0))
    lines[node] = replace(old, amount=old.amount + amount)
    nodes = tuple(sorted(lines.values(), key=lambda line: line.index))
    return replace(report, nodes=nodes, treasury=report.treasury - amount)


def add_message(p: Published, place: InstanceId | None = None) -> ChangePlan:
    """One message more, in its window unless told otherwise."""

    def apply(plan: Plan) -> None:
        plan.published.append(p)
        plan.sets[place or window_of(p.message)].append(p.record)

    return apply


def hold_back(index: int, bundle: int, *delivered_ms: int) -> ChangePlan:
    """A message of the plan is in a late set; it was at the brokers at these times after genesis."""

    def apply(plan: Plan) -> None:
        p = plan.published[index]
        p.delivered_ms = tuple(GENESIS_MS + ms for ms in delivered_ms)
        for place, records in plan.sets.items():
            plan.sets[place] = [r for r in records if r.identity != p.record.identity]
        plan.sets[late(bundle)].append(p.record)

    return apply


# --- finished runs --------------------------------------------------------------------------------


def in_books(change: Callable[[dict[str, Any]], None]) -> ChangeRun:
    return lambda run: change(run.gateway.stats)


def in_lines(name: str, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> ChangeRun:
    """The lines of a log."""

    def apply(run: FinishedRun) -> None:
        path = run.folder / name
        lines = change([json.loads(line) for line in path.read_text().splitlines()])
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))

    return apply


def in_file(name: str, change: Callable[[dict[str, Any]], None]) -> ChangeRun:
    """A JSON file of the folder."""

    def apply(run: FinishedRun) -> None:
        path = run.folder / name
        data = json.loads(path.read_text())
        change(data)
        path.write_text(json.dumps(data))

    return apply
