"""Long files first: the last ones are short, so that no worker is alone for minutes at the end of a run."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
LONG = (
    "setup/test_first_run.py",
    "steps/test_real_gateway.py",
    "tasks",
    "steps",
    "net/arweave/test_every_fault.py",
    "logstore/test_verify.py",
    "store/test_races.py",
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
