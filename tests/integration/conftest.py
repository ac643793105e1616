"""Long files first: the last ones are short, so that no worker is alone for minutes at the end of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
LONG = (
    "setup/test_first_run.py",
    "steps/test_real_gateway.py",
    "test_benchmarks.py",
    "operations/test_commands.py",
    "tasks",
    "steps",
    "net/sandbox/test_hostile_files.py",
    "net/arweave/test_every_fault.py",
    "net/chain/test_transactions.py",
    "logstore/test_sql.py",
    "logstore/test_readme.py",
    "logstore/test_status.py",
    "logstore/test_verify.py",
    "net/chain/test_limits.py",
    "operations/test_joining.py",
    "store/test_races.py",
    "store/test_rooms.py",
)
"""Files and folders by what they take, set-up first, since it waits for the network while others compute."""


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    for place, name in enumerate(LONG):
        if item.path == HERE / name or HERE / name in item.path.parents:
            return place
    return len(LONG)
