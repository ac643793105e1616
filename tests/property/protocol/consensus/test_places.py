"""Every comparison, condition, effect and saved field of the core: one mistake there, and something notices."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests import paths
from tests.mutants.planting import Unplantable
from tests.simulator.caught import all_sites, load_record, waived
from tests.simulator.sites import MODULES, Site, find_sites, planted
from validator.protocol.quorum import quorum

ROOT = paths.ROOT
AGAIN = "search for it: python -m tests.simulator --mutations --record"


def test_every_place_of_the_core_has_an_entry_or_a_reason() -> None:
    places = {site.name for site in all_sites()}
    known = load_record().keys() | waived().keys()
    assert sorted(places - known) == [], AGAIN
    assert sorted(known - places) == [], AGAIN
    assert sorted(load_record().keys() & waived().keys()) == []


@pytest.mark.timeout(400)
@pytest.mark.parametrize("module", MODULES)
def test_what_is_recorded_for_a_place_notices_a_mistake_there(module: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.simulator", "--mutations", module],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-2_000:]


def test_a_mistake_is_there_while_it_is_planted_and_gone_afterwards() -> None:
    site = next(s for s in find_sites("quorum") if s.function == "quorum" and s.old == "n - faulty(n)")
    assert quorum(4) == 3
    with planted(site):
        assert quorum(4) == 5
    assert quorum(4) == 3


@pytest.mark.parametrize("old", ["no such text", "n"])
def test_a_text_that_is_not_there_exactly_once_is_refused(old: str) -> None:
    with pytest.raises(Unplantable), planted(Site("quorum", "quorum", old, "m")):
        raise AssertionError


def test_a_test_that_does_not_fail_has_noticed_nothing() -> None:
    blind = "tests/unit/protocol/consensus/test_reconcile.py::test_an_empty_set_says_so"
    program = (
        "from tests.simulator.hunt import catch; from tests.simulator.sites import find_sites;"
        f"print([fails for *_, fails in catch([(find_sites('quorum')[0], {blind!r})])])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[False]"
