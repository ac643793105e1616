"""The table of planted mistakes cannot rot: each text is there once, each test exists."""

from __future__ import annotations

import ast
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest

from tests.mutants.planting import Mutant, Unplantable, check, locate, planted
from tests.mutants.session import ROOT
from tests.mutants.shell import MUTANTS
from validator.protocol.errors import TransientError
from validator.steps import pruned


@cache
def functions_in(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return frozenset(n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.module.removeprefix('validator.')}: {m.claim}")
def test_every_mistake_can_be_planted_and_its_test_exists(mutant: Mutant) -> None:
    check(mutant)
    path, _, name = mutant.test.partition("::")
    assert name.partition("[")[0] in functions_in(ROOT / path)


def test_no_mistake_is_listed_twice() -> None:
    assert len({(m.module, m.old, m.new) for m in MUTANTS}) == len(MUTANTS)
    assert len({m.claim for m in MUTANTS}) == len(MUTANTS)


A_MUTANT = Mutant("validator.steps.pruned", "return error.fields.get(", "return not error.fields.get(", "a claim", "t")


def test_a_planted_mistake_is_there_for_everybody_and_then_gone() -> None:
    known = pruned.is_pruned
    error = TransientError("x", reason="pruned")
    assert known(error)
    with planted(A_MUTANT):
        assert not known(error)
    assert known(error)
    assert locate(A_MUTANT) == "is_pruned"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"old": "no such text"}, "0 times"),
        ({"old": "context"}, "times"),
        ({"old": "PRUNED_MS = 30_000"}, "no function"),
        ({"new": "return )("}, "no code"),
        ({"new": "return error.fields.get("}, "changes nothing"),
    ],
)
def test_what_cannot_be_planted_is_refused(changed: dict[str, str], reason: str) -> None:
    with pytest.raises(Unplantable, match=reason):
        check(replace(A_MUTANT, **changed))
